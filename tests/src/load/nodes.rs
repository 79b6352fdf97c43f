//! `cargo xtask bench --servers nodes`: what it costs that there are several nodes.
//!
//! One node and three run beside each other, on two development stores whose own work is not counted, and get the same load in
//! turns, so that a machine that slows down does so for both.

use std::fmt::Write as _;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;

// The file alone: the harness is built before everything else, and without the server's crates.
#[path = "../../../cluster/src/entity.rs"]
pub mod entity;

use self::entity::{SHARDS, Shard};
use super::chat::{Pace, chat, frame_that};
use super::peer::{PASSWORD, Seat, Site, session, user};
use super::usage::{cpu_seconds, settle};
use super::{Error, Plan, report, scenes};
use crate::client::{Client, Options};
use crate::server::cluster::{DOMAIN, Settings, World};
use crate::server::rookery::get;

const PAIRS: usize = 50;
/// How often each load is put on; the least of the results counts, since a disturbance only ever adds.
const ROUNDS: usize = 3;
/// Contacts of the user whose presence is told.
const CONTACTS: usize = 1_000;
/// How often it changes.
const CHANGES: usize = 20;
/// Users in all; behind this one come the contacts, and before them whose they are.
const USERS: usize = 5_000;
const STAR: usize = USERS - 1;

/// Which node a user's client talks to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The user's home: a message goes from one node to another, once.
    Home,
    /// The one after it: from there to the sender's home, to the receiver's, and to the node of the receiver's socket.
    Other,
}

struct Cluster {
    world: World,
    /// The users that live on each node.
    homes: Vec<Vec<usize>>,
}

/// What went between nodes.
#[derive(Clone, Copy, Default)]
struct Traffic {
    envelopes: f64,
    bytes: f64,
    frames: f64,
}

impl Cluster {
    async fn start(nodes: usize, archive: bool) -> Result<Cluster, Error> {
        let default = if archive { "always" } else { "never" };
        let more = format!("[archive]\ndefault = \"{default}\"\n[log]\nlevel = \"warn\"\n");
        let world = World::start(&Settings { nodes, spare: 0, store: None, more, binary: None }).await?;
        let holds = holders(&world, nodes).await?;
        let mut homes = vec![Vec::new(); nodes];
        for number in 0.. {
            let home = &mut homes[holds[usize::from(Shard::of(&format!("{}@{DOMAIN}", user(number))).0)]];
            let most = (USERS + CONTACTS).div_ceil(nodes);
            if home.len() < most {
                home.push(number);
            } else if homes.iter().all(|home| home.len() == most) {
                break;
            }
        }
        let cluster = Cluster { world, homes };
        cluster.befriend().await?;
        let users: Vec<String> = (0..STAR).map(|number| user(cluster.user(number))).collect();
        cluster.world.add_users(&users, PASSWORD).await?;
        Ok(cluster)
    }

    /// Makes the accounts of the star and the contacts, with mutual subscriptions, by XEP-0227.
    async fn befriend(&self) -> Result<(), Error> {
        let mut file = format!("<server-data xmlns='urn:xmpp:pie:0'><host jid='{DOMAIN}'>");
        let mut person = |number: usize, friends: &mut dyn Iterator<Item = usize>| {
            let name = user(self.user(number));
            let _ =
                write!(file, "<user name='{name}' password='{PASSWORD}'><query xmlns='jabber:iq:roster'>");
            for friend in friends {
                let friend = user(self.user(friend));
                let _ = write!(file, "<item jid='{friend}@{DOMAIN}' subscription='both'/>");
            }
            file.push_str("</query></user>");
        };
        person(STAR, &mut (USERS..USERS + CONTACTS));
        for contact in USERS..USERS + CONTACTS {
            person(contact, &mut std::iter::once(STAR));
        }
        file.push_str("</host></server-data>");
        let path = self.world.dir.join("friends.xml");
        std::fs::write(&path, file)?;
        self.world.command(0, &["import", &path.to_string_lossy()]).await?;
        Ok(())
    }

    /// The user with this number among those of all nodes; neighbours live on different nodes.
    fn user(&self, number: usize) -> usize {
        self.homes[number % self.homes.len()][number / self.homes.len()]
    }

    fn site(&self, door: Door) -> Site<'_> {
        let pids = self.world.nodes.iter().filter_map(|node| node.pid()).collect();
        Site::new(pids, move |number| {
            let nodes = self.homes.len();
            let at = if door == Door::Home { number % nodes } else { (number + 1) % nodes };
            let options = Options { mechanism: Some("SCRAM-SHA-1".into()), ..self.world.options_of(at) };
            Seat { options, user: self.user(number) }
        })
    }

    async fn traffic(&self) -> Result<Traffic, Error> {
        let mut sum = Traffic::default();
        for node in &self.world.nodes {
            let text = get(node.behind.http, "/metrics").await?;
            let of = |name: &str| {
                let lines = text.lines().filter(|line| line.starts_with(name));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            };
            sum.envelopes += of("rookery_mesh_sent_envelopes_total");
            sum.bytes += of("rookery_mesh_sent_bytes_total");
            sum.frames += of("rookery_mesh_sent_messages_total");
        }
        Ok(sum)
    }

    async fn stop(mut self) -> Result<(), Error> {
        for node in 0..self.world.nodes.len() {
            self.world.kill(node).await?;
        }
        Ok(())
    }
}

/// The node that holds each shard.
async fn holders(world: &World, nodes: usize) -> Result<Vec<usize>, Error> {
    let wrong = |what: &str| Error::Wrong(format!("`rookery cluster shards` says {what}"));
    for _ in 0..100 {
        let text = world.command(0, &["cluster", "shards", "--json"]).await?;
        let mut holds = vec![usize::MAX; usize::from(SHARDS)];
        for line in text.lines() {
            let group: serde_json::Value = serde_json::from_str(line).map_err(|_| wrong(line))?;
            if group["owner"] != group["desired"] {
                continue;
            }
            let node = group["owner"].as_str().and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
            let node = node.filter(|node| (1..=nodes).contains(node)).ok_or_else(|| wrong(line))?;
            for range in group["ranges"].as_array().into_iter().flatten() {
                let [first, last] = ["first", "last"].map(|end| range[end].as_u64().unwrap_or(0) as usize);
                holds[first..=last].fill(node - 1);
            }
        }
        if !holds.contains(&usize::MAX) {
            return Ok(holds);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await; // metrics are polled
    }
    Err(Error::Wrong("the shards find no rest".into()))
}

/// The lines of the report.
struct Table(String);

impl Table {
    fn row(&mut self, title: &str, one: Option<f64>, three: f64, aim: &str) {
        let shown = |value: Option<f64>| value.map_or("–".into(), report::number);
        let ratio = one.map_or("–".into(), |one| format!("{:.2}", three / one));
        eprintln!("  {title}: {} {} {ratio}", shown(one), shown(Some(three)));
        let _ = writeln!(self.0, "| {title} | {} | {} | {ratio} | {aim} |", shown(one), shown(Some(three)));
    }
}

/// Runs everything and reports.
pub async fn bench(plan: &Plan) -> Result<String, Error> {
    crate::server::rookery::binary()?;
    let mut table = Table(format!(
        "# What several nodes cost\n\n{}\n\n\
         One node (with `[cluster]`, alone in it) is compared with three nodes. Each set uses a development store. The CPU time of the\n\
         store and of the load generator is not counted. TLS 1.3, stream management and carbons are on. The lowest of {ROUNDS} rounds counts.\n\n\
         | figure | one node | three nodes | ratio | aim |\n| --- | ---: | ---: | ---: | ---: |\n",
        report::circumstances(plan)
    ));
    for archive in [false, true] {
        let one = Cluster::start(1, archive).await?;
        let three = Cluster::start(3, archive).await?;
        chats(plan, archive, &one, &three, &mut table).await?;
        if !archive {
            logins(plan, &one, &three, &mut table).await?;
            presence(&one, &three, &mut table).await?;
        }
        one.stop().await?;
        three.stop().await?;
    }
    let one = Cluster::start(1, false).await?;
    let small = idle(plan, &one).await?;
    one.stop().await?;
    let three = Cluster::start(3, false).await?;
    let large = idle(plan, &three).await?;
    three.stop().await?;
    table.row(
        "kB resident per idle TLS session, at a node that is not the user's home; all nodes together",
        Some(small),
        large,
        "",
    );
    Ok(table.0)
}

async fn chats(
    plan: &Plan,
    archive: bool,
    one: &Cluster,
    three: &Cluster,
    table: &mut Table,
) -> Result<(), Error> {
    let loads = [
        ("16 in flight", Pace::InFlight(16), plan.size(20_000)),
        ("one in flight", Pace::InFlight(1), plan.size(10_000)),
        ("at 1,000/s", Pace::PerSecond(1_000), plan.size(5_000)),
    ];
    let with = if archive { "archive on: " } else { "" };
    for (name, pace, messages) in loads {
        let mut cpu = [f64::MAX; 3];
        let mut between = Traffic::default();
        let mut sent = 0.0;
        for _ in 0..ROUNDS {
            let before = three.traffic().await?;
            let sites = [one.site(Door::Home), three.site(Door::Home), three.site(Door::Other)];
            for (site, cpu) in sites.iter().zip(&mut cpu) {
                let out = chat(site, PAIRS, messages, pace).await?;
                *cpu = cpu.min(out.cpu * 10_000.0 / out.messages as f64);
                if site.pids.len() > 1 {
                    // The first is where each goes from one node to another once.
                    sent += out.messages as f64 * 1.1; // with the warm-up
                }
            }
            let after = three.traffic().await?;
            between.envelopes += after.envelopes - before.envelopes;
            between.bytes += after.bytes - before.bytes;
            between.frames += after.frames - before.frames;
        }
        let [alone, home, other] = cpu;
        let title = format!("{with}CPU s per 10,000 messages, 50 pairs, {name}");
        table.row(&format!("{title}; each client at its user's home"), Some(alone), home, "1.6");
        table.row(&format!("{title}; each client at another node"), Some(alone), other, "");
        table.row(
            &format!("{with}envelopes per gRPC message, {name}, both"),
            None,
            between.envelopes / between.frames,
            "",
        );
        table.row(
            &format!("{with}bytes between nodes per message, {name}, mean of both"),
            None,
            between.bytes / sent,
            "",
        );
    }
    Ok(())
}

async fn logins(plan: &Plan, one: &Cluster, three: &Cluster, table: &mut Table) -> Result<(), Error> {
    let mut cpu = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        let sites = [one.site(Door::Home), three.site(Door::Home), three.site(Door::Other)];
        for (site, cpu) in sites.iter().zip(&mut cpu) {
            let out = scenes::logins(site, plan.size(2_000)).await?;
            *cpu = cpu.min(out.cpu * 10_000.0 / out.messages as f64);
        }
    }
    let title = "CPU s per 10,000 logins (TLS 1.3, SCRAM-SHA-1, roster, presence)";
    table.row(&format!("{title}, at the user's home"), Some(cpu[0]), cpu[1], "1");
    table.row(&format!("{title}, at another node"), Some(cpu[0]), cpu[2], "");
    Ok(())
}

/// A user with a thousand contacts, all online, comes and goes.
async fn presence(one: &Cluster, three: &Cluster, table: &mut Table) -> Result<(), Error> {
    let (alone, _) = tell(one).await?;
    let (together, told) = tell(three).await?;
    table.row(
        "CPU s per 10,000 presences delivered, one user with 1,000 contacts",
        Some(alone),
        together,
        "",
    );
    table.row("envelopes between nodes per change of presence, 1,000 contacts", None, told, "");
    Ok(())
}

/// Processor seconds per 10,000 presences, and envelopes per change.
async fn tell(cluster: &Cluster) -> Result<(f64, f64), Error> {
    let site = cluster.site(Door::Home);
    let contacts: Vec<Seat> = (USERS..USERS + CONTACTS).map(|number| site.seat(number)).collect();
    let star = site.seat(STAR);
    let (told, _) = watch::channel(0usize);
    let from = format!("{}@{DOMAIN}", user(star.user));
    let mut held = JoinSet::new();
    let counts = std::sync::Arc::new(told);
    for some in contacts.chunks(32) {
        let mut coming = JoinSet::new();
        for Seat { options, user } in some.iter().cloned() {
            coming.spawn(async move { Ok::<Client, Error>(session(&options, user).await?) });
        }
        for mut client in scenes::all(coming).await? {
            let (from, counts) = (from.clone(), counts.clone());
            held.spawn(async move {
                let wanted = |bytes: &[u8]| {
                    bytes.starts_with(b"<presence")
                        && memchr::memmem::find(bytes, from.as_bytes()).is_some()
                        && memchr::memmem::find(bytes, b"<status>").is_some()
                };
                loop {
                    match frame_that(&mut client, wanted).await {
                        Ok(true) => counts.send_modify(|count| *count += 1),
                        Ok(false) => {}
                        Err(error) => return error,
                    }
                }
            });
        }
    }
    let mut star = session(&star.options, star.user).await?;
    settle(&site.pids).await;
    let (before, traffic, start) = (cpu_seconds(&site.pids), cluster.traffic().await?, Instant::now());
    for change in 1..=CHANGES {
        star.send_raw(format!("<presence><status>change {change}</status></presence>").as_bytes()).await?;
        let all = async {
            let mut count = counts.subscribe();
            while *count.borrow_and_update() < change * CONTACTS {
                let _ = count.changed().await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(30), all).await.is_err() {
            return Err(Error::Wrong(format!("{} presences of {}", *counts.borrow(), change * CONTACTS)));
        }
    }
    eprintln!("  {} presences in {:.2} s", CHANGES * CONTACTS, start.elapsed().as_secs_f64());
    let after = cluster.traffic().await?;
    settle(&site.pids).await;
    let cpu = cpu_seconds(&site.pids) - before;
    held.shutdown().await;
    let each = (CHANGES * CONTACTS) as f64;
    Ok((cpu * 10_000.0 / each, (after.envelopes - traffic.envelopes) / CHANGES as f64))
}

async fn idle(plan: &Plan, cluster: &Cluster) -> Result<f64, Error> {
    let size = plan.size(5_000);
    let found = scenes::idle(&cluster.site(Door::Other), &[size]).await?;
    Ok(found.first().map_or(0.0, |(_, bytes)| bytes / 1000.0))
}
