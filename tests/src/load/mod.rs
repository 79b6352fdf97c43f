//! `cargo xtask bench`: the same load on Rookery, Prosody and ejabberd, and what each of them spends on it.
//!
//! The generator is one thread in this process, the same for all; what is reported is the *server's*
//! processor time, its database included, from the kernel's books. Both ends share the machine, so
//! throughput says less than processor time does.

pub mod chat;
pub mod nodes;
pub mod peer;
pub mod report;
pub mod scenes;
pub mod usage;

use std::path::PathBuf;

use self::chat::{Pace, chat};
use self::peer::Peer;
use self::report::{Figure, Report};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A tenth of the load.
    pub quick: bool,
    /// Only scenarios whose name contains this.
    pub only: Option<String>,
    /// `rookery`, `prosody`, `ejabberd`; or `nodes`, which compares one node with three ([`nodes`]).
    pub servers: Vec<String>,
    /// Where the report goes beside standard output.
    pub output: Option<PathBuf>,
}

/// Why a benchmark did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Server(#[from] crate::server::Error),
    #[error("{0}")]
    Client(#[from] crate::client::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Wrong(String),
}

const PAIRS: usize = 50;

/// Runs the plan and reports. A server that fails a scenario gets no figure there; the others go on.
pub async fn bench(plan: &Plan) -> Result<(), Error> {
    if plan.servers.iter().any(|s| s == "rookery") {
        crate::server::rookery::binary()?;
    }
    if plan.nodes() {
        return written(plan, nodes::bench(plan).await?);
    }
    let mut report = Report::default();
    for name in &plan.servers {
        for archive in [false, true] {
            let wanted = report::FIGURES.iter().any(|f| f.archive == archive && plan.wants(f.group));
            if wanted && let Err(e) = scenes_of(plan, name, archive, &mut report).await {
                report.note(format!("{name}, archive {archive}: {e}"));
            }
            // After each part: a run that is broken off leaves what it has found.
            if let Some(output) = &plan.output {
                std::fs::write(output, report.text(plan))?;
            }
        }
    }
    written(plan, report.text(plan))
}

fn written(plan: &Plan, text: String) -> Result<(), Error> {
    println!("{text}");
    if let Some(output) = &plan.output {
        std::fs::write(output, text)?;
        println!("written to {}", output.display());
    }
    Ok(())
}

impl Plan {
    /// Whether one node is compared with several.
    pub fn nodes(&self) -> bool {
        self.servers.iter().any(|server| server == "nodes")
    }

    fn wants(&self, group: &str) -> bool {
        self.only.as_ref().is_none_or(|only| group.contains(only.as_str()))
    }

    fn size(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }
}

async fn scenes_of(plan: &Plan, name: &str, archive: bool, report: &mut Report) -> Result<(), Error> {
    eprintln!("{name}, archive {}", if archive { "on" } else { "off" });
    let group = |short: &str| format!("{short}{}", if archive { "-archive" } else { "" });
    // The peers' databases are slow: with the archive on half as many messages tell as much.
    let size = |full: usize| plan.size(if archive { full / 2 } else { full });
    let chats = [
        ("chat16", Pace::InFlight(16), size(20_000)),
        ("chat1", Pace::InFlight(1), size(10_000)),
        ("rate1000", Pace::PerSecond(1000), size(10_000)),
    ];
    let peer = Peer::start(name, archive, 500).await?;
    for (short, pace, messages) in chats {
        let group = group(short);
        if !plan.wants(&group) {
            continue;
        }
        match chat(&peer.site(), PAIRS, messages, pace).await {
            Ok(out) => {
                report.put(name, &group, Figure::Cpu, out.cpu * 10_000.0 / out.messages as f64);
                report.put(name, &group, Figure::PerSecond, out.messages as f64 / out.seconds);
                report.put(name, &group, Figure::P50, out.p50.as_secs_f64() * 1000.0);
                report.put(name, &group, Figure::P99, out.p99.as_secs_f64() * 1000.0);
            }
            Err(e) => report.note(format!("{name}, {group}: {e}\n{}", peer.log())),
        }
    }
    if archive && plan.wants("pages-archive") {
        match scenes::pages(&peer, plan.size(2_000)).await {
            Ok(out) => {
                report.put(name, "pages-archive", Figure::Cpu, out.cpu * 10_000.0 / out.messages as f64);
                report.put(name, "pages-archive", Figure::PerSecond, out.messages as f64 / out.seconds);
            }
            Err(e) => report.note(format!("{name}, pages: {e}\n{}", peer.log())),
        }
    }
    if !archive && plan.wants("offline") {
        match scenes::offline(&peer, plan.size(4_000)).await {
            Ok((stored, drained)) => {
                report.put(
                    name,
                    "offline-store",
                    Figure::Cpu,
                    stored.cpu * 10_000.0 / stored.messages as f64,
                );
                report.put(
                    name,
                    "offline-drain",
                    Figure::Cpu,
                    drained.cpu * 10_000.0 / drained.messages as f64,
                );
            }
            Err(e) => report.note(format!("{name}, offline: {e}\n{}", peer.log())),
        }
    }
    if !archive && plan.wants("logins") {
        match scenes::logins(&peer.site(), plan.size(2_000)).await {
            Ok(out) => {
                report.put(name, "logins", Figure::Cpu, out.cpu * 10_000.0 / out.messages as f64);
                report.put(name, "logins", Figure::PerSecond, out.messages as f64 / out.seconds);
            }
            Err(e) => report.note(format!("{name}, logins: {e}\n{}", peer.log())),
        }
    }
    peer.stop().await?;
    if !archive && plan.wants("idle") {
        idle(plan, name, report).await?;
    }
    Ok(())
}

async fn idle(plan: &Plan, name: &str, report: &mut Report) -> Result<(), Error> {
    // This process and the server may each hold so many sockets; the server keeps some descriptors back for the store.
    let most = usage::file_limit().saturating_sub(2_500).min(19_500);
    let sizes: &[usize] = if plan.quick { &[500, 2_000] } else { &[5_000, most] };
    let peer = Peer::start(name, false, sizes[1]).await?;
    match scenes::idle(&peer.site(), sizes).await {
        Ok(found) => {
            for ((_, bytes), group) in found.iter().zip(["idle-small", "idle-large"]) {
                report.put(name, group, Figure::Kilobytes, bytes / 1000.0);
            }
            report.sizes = (sizes[0], sizes[1]);
        }
        Err(e) => report.note(format!("{name}, idle: {e}\n{}", peer.log())),
    }
    Ok(peer.stop().await?)
}
