//! `cargo xtask federation-bench`: what a link costs, for two servers of the same software on this machine.
//!
//! The figures are the servers' own processor time and memory from the kernel's books; the generator is this process. Both
//! servers keep no archive and write no offline message; clients use TLS 1.3, carbons and stream management, as people have it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::scenarios::reason;
use super::{Host, Setting, Side, Software, World, one_of_many};
use crate::client::{Event, PING};
use crate::load::Error;
use crate::load::chat::{Pace, chat};
use crate::load::peer::{Seat, Site};
use crate::load::usage::{actor, settle};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A tenth of the load.
    pub quick: bool,
    pub servers: Vec<Software>,
    /// Where the report goes beside standard output.
    pub output: Option<PathBuf>,
}

/// What was measured of one software.
#[derive(Clone, Debug, Default)]
struct Figures {
    cpu: f64,
    per_second: f64,
    p50: Duration,
    p99: Duration,
    links: usize,
    answered: usize,
    opened: Duration,
    /// What those said that were not answered.
    reasons: std::collections::BTreeSet<String>,
    idle: [f64; 2],
}

/// How long the links may take to open all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pairs of people that share the one link.
const PAIRS: usize = 10;

/// Runs all and prints the table.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let mut columns = Vec::new();
    for software in &plan.servers {
        let figures = measure(*software, plan.quick).await?;
        println!("{software}: {figures:?}");
        columns.push((*software, figures));
    }
    let text = report(&columns, plan.quick);
    println!("{text}");
    if let Some(output) = &plan.output {
        std::fs::write(output, text)?;
    }
    Ok(())
}

async fn measure(software: Software, quick: bool) -> Result<Figures, Error> {
    let (messages, links) = if quick { (5_000, 100) } else { (50_000, 1_000) };
    let mut world = World::start(Setting::Many(links), [software; 2]).await?;
    let figures = async {
        let mut figures = Figures { links, ..Figures::default() };
        {
            let site = site(&world);
            let fast = chat(&site, PAIRS, messages, Pace::InFlight(20)).await?;
            figures.cpu = fast.cpu * 10_000.0 / fast.messages as f64;
            figures.per_second = fast.messages as f64 / fast.seconds;
            let steady = chat(&site, PAIRS, if quick { 2_500 } else { 15_000 }, Pace::PerSecond(500)).await?;
            (figures.p50, figures.p99) = (steady.p50, steady.p99);
        }
        many(&world, &mut figures).await?;
        Ok::<_, Error>(figures)
    }
    .await;
    if figures.is_err() {
        println!("{}\nkept: {}", world.logs(), world.keep().display());
    }
    figures
}

/// Senders are at A, receivers at B: all messages go over one link.
fn site(world: &World) -> Site<'_> {
    let pids = [Side::A, Side::B].map(|side| world.server(side).pid()).to_vec();
    Site::new(pids, |number| {
        let side = if number % 2 == 0 { Side::A } else { Side::B };
        Seat { options: world.server(side).options(&Host::Main.domain(side)), user: number }
    })
}

/// One user asks all domains of B at once; each question goes over a link of its own, and each answer over the one back.
async fn many(world: &World, figures: &mut Figures) -> Result<(), Error> {
    let pids = [Side::A, Side::B].map(|side| world.server(side).pid());
    let mut client = world.person(Side::A, Host::Main, 2 * PAIRS).await?;
    settle(&pids).await;
    let before = pids.map(|pid| actor(&[pid]));
    let start = Instant::now();
    for number in 0..figures.links {
        let to = one_of_many(number);
        client
            .send(&format!("<iq type='get' id='many-{number}' to='{to}'><ping xmlns='{PING}'/></iq>"))
            .await?;
    }
    let mut asked = 0;
    while asked < figures.links {
        let left = PATIENCE.saturating_sub(start.elapsed());
        match timeout(left, client.fresh()).await {
            Ok(Ok(Event::Element(e))) if e.attr("id").is_some_and(|id| id.starts_with("many-")) => {
                asked += 1;
                if e.attr("type") == Some("result") {
                    figures.answered += 1;
                    figures.opened = start.elapsed();
                } else {
                    figures.reasons.extend(e.get("error").map(reason));
                }
            }
            Ok(Ok(Event::Element(_))) => {}
            Ok(Ok(_) | Err(_)) => return Err(Error::Wrong("the client was closed".into())),
            Err(_) => break,
        }
    }
    settle(&pids).await;
    for (side, pid) in pids.into_iter().enumerate() {
        let bytes = actor(&[pid]).saturating_sub(before[side]);
        figures.idle[side] = bytes as f64 / 1024.0 / figures.links as f64;
    }
    client.close().await?;
    Ok(())
}

fn report(columns: &[(Software, Figures)], quick: bool) -> String {
    let mut text = String::from(
        "# Federation\n\nTwo servers of the same software on one machine, over one link and over many.",
    );
    text.push_str(if quick { " A quick run: the figures are coarse.\n\n" } else { "\n\n" });
    let version = |package: &str| {
        let out = std::process::Command::new("dpkg-query").args(["-W", "-f=${Version}", package]).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let _ = writeln!(
        text,
        "Prosody {}, ejabberd {}, {} cores; written by `cargo xtask federation-bench{}`.\n",
        version("prosody"),
        version("ejabberd"),
        std::thread::available_parallelism().map_or(1, usize::from),
        if quick { " --quick" } else { "" }
    );
    let mut row = |name: &str, value: &dyn Fn(&Figures) -> String| {
        let _ = write!(text, "| {name} |");
        for (_, figures) in columns {
            let _ = write!(text, " {} |", value(figures));
        }
        text.push('\n');
    };
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    let names: Vec<String> = columns.iter().map(|(software, _)| format!("{software} ↔ {software}")).collect();
    let names = std::cell::Cell::new(names);
    let next = |_: &Figures| {
        let mut list = names.take();
        let first = if list.is_empty() { String::new() } else { list.remove(0) };
        names.set(list);
        first
    };
    row("", &next);
    row("---", &|_| "---".into());
    row("CPU s of both servers per 10,000 messages over one link", &|f| format!("{:.2}", f.cpu));
    row("messages per second, 200 under way", &|f| format!("{:.0}", f.per_second));
    row("p50 at 500 messages a second, ms", &|f| ms(f.p50));
    row("p99 at 500 messages a second, ms", &|f| ms(f.p99));
    row("links opened at once: asked, answered", &|f| format!("{}, {}", f.links, f.answered));
    row("until the last was answered, ms", &|f| ms(f.opened));
    row("memory per idle link, KiB: one that asks, one that is asked", &|f| {
        format!("{:.1}, {:.1}", f.idle[0], f.idle[1])
    });
    text
}
