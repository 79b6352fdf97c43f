//! `rookery cluster status | shards | drain | undrain | evict`.

use std::time::Duration;

use super::node::json;
use super::terminal::{Terminal, shown};
use crate::admin::{Admin, ClusterNode, ClusterStatus, Error, ShardGroup};
use crate::cli::ClusterVerb;

/// How often it is looked how far a drain is.
const LOOK: Duration = Duration::from_millis(500);

/// Runs a command about the cluster against a node of it.
///
/// # Errors
/// What the node answers.
pub async fn cluster(command: &ClusterVerb, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    match command {
        ClusterVerb::Status { json } => status(*json, admin, terminal).await?,
        ClusterVerb::Shards { moving, json } => shards(*moving, *json, admin, terminal).await?,
        ClusterVerb::Drain { node, wait, timeout } => {
            let node = admin.cluster_drain(node).await?;
            if *wait {
                let patience = timeout.map_or(Duration::MAX, Duration::from_secs);
                let drained = tokio::time::timeout(patience, drained(&node, admin, terminal)).await;
                let late = || Error::unavailable(format!("{node} still holds shards; the drain continues"));
                drained.map_err(|_| late())??;
            } else {
                let how = "`rookery cluster status` shows the progress, `rookery cluster undrain` cancels the drain";
                terminal
                    .say(&format!("{} is draining, its shards move to other nodes; {how}", shown(&node)))?;
            }
        }
        ClusterVerb::Undrain { node } => {
            let node = admin.cluster_undrain(node).await?;
            terminal.say(&format!("{} takes shards again", shown(&node)))?;
        }
        ClusterVerb::Evict { node, force } => {
            let node = admin.cluster_evict(node, *force).await?;
            terminal.say(&format!(
                "{} is declared dead: other nodes take its shards now, and its process exits if it still runs",
                shown(&node)
            ))?;
        }
    }
    terminal.flush()
}

async fn status(json_wanted: bool, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let status = admin.cluster_status().await?;
    if json_wanted {
        return terminal.say(&json(&status)?);
    }
    for line in table(&status) {
        terminal.say(&line)?;
    }
    for node in status.nodes.iter().filter(|node| !node.trouble.is_empty()) {
        terminal.say(&format!(
            "{} cannot be reached from this node: {}",
            shown(&node.node),
            shown(&node.trouble)
        ))?;
    }
    terminal.say(&summary(&status))
}

const HEAD: [&str; 9] =
    ["NODE", "STATE", "SHARDS", "TARGET", "SESSIONS", "WEIGHT", "SEEN", "VERSION", "ADDRESS"];

/// The nodes, in columns; the zone only if there are any.
fn table(status: &ClusterStatus) -> Vec<String> {
    let zones = status.nodes.iter().any(|node| !node.zone.is_empty());
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text) };
    let mut rows: Vec<Vec<String>> = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(status.nodes.iter().map(|node| {
        vec![
            format!("{}{}", shown(&node.node), if node.node == status.by { "*" } else { "" }),
            text(&node.state),
            node.shards.to_string(),
            node.desired.to_string(),
            node.sessions.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            node.weight.to_string(),
            seen(node, &status.by),
            text(&node.version),
            text(&node.address),
        ]
    }));
    if zones {
        let cells =
            std::iter::once("ZONE".to_owned()).chain(status.nodes.iter().map(|node| text(&node.zone)));
        rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
    }
    let mut widths = vec![0; HEAD.len() + 1];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// When the last sign of life was seen.
fn seen(node: &ClusterNode, by: &str) -> String {
    #[allow(clippy::cast_precision_loss)] // for people
    let ago = node.silent_ms.map(|ms| format!("{:.1}s ago", ms as f64 / 1_000.0));
    if node.node == by { "here".to_owned() } else { ago.unwrap_or_else(|| "-".to_owned()) }
}

fn summary(status: &ClusterStatus) -> String {
    let all: u32 = status.nodes.iter().map(|node| node.shards).sum::<u32>() + status.free;
    let state = match (status.free, status.moving) {
        (0, 0) => format!("all {all} shards are on their target nodes"),
        (0, moving) => format!("{moving} of {all} shards are moving or will move"),
        (free, 0) => format!("{free} of {all} shards have no node: their users wait"),
        (free, moving) => {
            format!("{free} of {all} shards have no node, and {moving} are moving or will move")
        }
    };
    let old = if status.leased {
        ""
    } else {
        "; this node cannot reach the store, so all of this may be out of date"
    };
    format!("cluster {}, as {} sees it: {state}{old}", shown(&status.cluster), shown(&status.by))
}

async fn shards(
    moving: bool,
    json_wanted: bool,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let mut groups = admin.cluster_shards().await?;
    if moving {
        groups.retain(|group| group.owner != group.desired);
    }
    if json_wanted {
        return groups.iter().try_for_each(|group| terminal.say(&json(group)?));
    }
    if groups.is_empty() {
        return terminal.say("every shard is on its target node");
    }
    let name = |name: &str| if name.is_empty() { "no node".to_owned() } else { shown(name) };
    for group in &groups {
        let to = if group.owner == group.desired {
            String::new()
        } else {
            format!(" → {}", name(&group.desired))
        };
        terminal.say(&format!("{}{to}: {} shards: {}", name(&group.owner), count(group), ranges(group)))?;
    }
    Ok(())
}

fn count(group: &ShardGroup) -> u32 {
    group.ranges.iter().map(|range| range.last.saturating_sub(range.first) + 1).sum()
}

fn ranges(group: &ShardGroup) -> String {
    let range = |range: &crate::admin::ShardRange| match range {
        one if one.first == one.last => one.first.to_string(),
        range => format!("{}-{}", range.first, range.last),
    };
    group.ranges.iter().map(range).collect::<Vec<_>>().join(" ")
}

/// Waits until the node holds nothing.
async fn drained(node: &str, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let mut most = 0;
    let mut said = None;
    loop {
        let status = admin.cluster_status().await?;
        let Some(line) = status.nodes.iter().find(|line| line.node == node) else {
            return Err(Error::not_found(format!("{node} is no node of the cluster any more")));
        };
        match line.state.as_str() {
            "dead" => {
                return Err(Error::unavailable(format!("{node} ended before all its shards had moved")));
            }
            _ if line.shards == 0 => {
                return terminal.say(&format!("{} holds no shards: it can be stopped", shown(node)));
            }
            // The asked node may not have heard of it yet: told by no line so far.
            "active" if most > 0 => {
                return Err(Error::unavailable(format!(
                    "{node} was undrained before all its shards had moved"
                )));
            }
            "active" => {}
            _ => {
                most = most.max(line.shards);
                if said != Some(line.shards) {
                    said = Some(line.shards);
                    terminal.remark(&format!("{}: {} of {most} shards left", shown(node), line.shards));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    fn node(name: &str, state: &str, shards: u32) -> ClusterNode {
        ClusterNode {
            node: name.into(),
            state: state.into(),
            address: "10.0.0.1:7100".into(),
            weight: 100,
            version: "0.1.0".into(),
            shards,
            desired: 512,
            ..ClusterNode::default()
        }
    }

    fn status(nodes: Vec<ClusterNode>, free: u32, moving: u32) -> ClusterStatus {
        ClusterStatus { cluster: "rookery".into(), by: "n1".into(), leased: true, nodes, free, moving }
    }

    async fn said(fake: Fake, command: ClusterVerb) -> (Result<(), Error>, String, String) {
        let server = Node::start(fake).await;
        let captured = Captured::new("");
        let done = cluster(&command, &server.remote, &captured.terminal).await;
        server.stop().await;
        (done, captured.out(), captured.err())
    }

    #[tokio::test]
    async fn a_table_for_people_in_a_hurry() {
        let one = ClusterNode { sessions: Some(7), ..node("n1", "active", 512) };
        let two = ClusterNode {
            silent_ms: Some(340),
            trouble: "connection refused".into(),
            ..node("n2", "active", 510)
        };
        let three = ClusterNode { zone: "\x1b[2J".into(), desired: 0, ..node("n3", "dead", 0) };
        let clusters = vec![status(vec![one, two, three], 2, 0)];
        let fake = || Fake { clusters: clusters.clone().into(), ..Fake::default() };
        let (done, out, _) = said(fake(), ClusterVerb::Status { json: false }).await;
        done.unwrap();
        let expected = "\
NODE  STATE   SHARDS  TARGET  SESSIONS  WEIGHT  SEEN      VERSION  ADDRESS        ZONE
n1*   active  512     512     7         100     here      0.1.0    10.0.0.1:7100  -
n2    active  510     512     -         100     0.3s ago  0.1.0    10.0.0.1:7100  -
n3    dead    0       0       -         100     -         0.1.0    10.0.0.1:7100  \\u{1b}[2J
n2 cannot be reached from this node: connection refused
cluster rookery, as n1 sees it: 2 of 1024 shards have no node: their users wait
";
        assert_eq!(out, expected);
        let (done, out, _) = said(fake(), ClusterVerb::Status { json: true }).await;
        done.unwrap();
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((value["nodes"][1]["silent_ms"].as_u64(), value["free"].as_u64()), (Some(340), Some(2)));
        let (alone, ..) = said(Fake::default(), ClusterVerb::Status { json: false }).await;
        assert_eq!(alone.unwrap_err().kind, Kind::Unavailable);
    }

    #[tokio::test]
    async fn shards_by_node() {
        let (done, out, _) = said(Fake::default(), ClusterVerb::Shards { moving: false, json: false }).await;
        done.unwrap();
        assert_eq!(out, "n1: 4 shards: 0-2 4\nn1 → n2: 1 shards: 3\nno node → n2: 1019 shards: 5-1023\n");
        let (_, out, _) = said(Fake::default(), ClusterVerb::Shards { moving: true, json: true }).await;
        assert_eq!(out.lines().count(), 2);
        assert!(out.starts_with(r#"{"owner":"n1","desired":"n2","ranges":[{"first":3,"last":3}]}"#), "{out}");
    }

    #[tokio::test]
    async fn a_drain_is_waited_for() {
        let at =
            |state: &str, shards| status(vec![node("n1", state, shards), node("n2", "active", 0)], 0, shards);
        let drain = || ClusterVerb::Drain { node: "self".into(), wait: true, timeout: None };
        let clusters = vec![at("active", 300), at("draining", 300), at("draining", 20), at("draining", 0)];
        let (done, out, err) = said(Fake { clusters: clusters.into(), ..Fake::default() }, drain()).await;
        done.unwrap();
        assert_eq!(out, "n1 holds no shards: it can be stopped\n");
        assert_eq!(err, "n1: 300 of 300 shards left\nn1: 20 of 300 shards left\n");
        for (end, word) in [("dead", "ended"), ("active", "undrained")] {
            let clusters = vec![at("draining", 300), at(end, 20)];
            let (done, ..) = said(Fake { clusters: clusters.into(), ..Fake::default() }, drain()).await;
            let error = done.unwrap_err();
            assert!(error.kind == Kind::Unavailable && error.message.contains(word), "{error}");
        }
        let clusters = vec![at("draining", 300)].into();
        let drain = ClusterVerb::Drain { node: "self".into(), wait: true, timeout: Some(0) };
        let late = said(Fake { clusters, ..Fake::default() }, drain).await.0.unwrap_err();
        assert!(late.message.contains("n1 still holds shards"), "{late}");
        let (done, out, _) =
            said(Fake::default(), ClusterVerb::Drain { node: "n2".into(), wait: false, timeout: None }).await;
        done.unwrap();
        assert!(out.starts_with("n2 is draining, its shards move to other nodes"), "{out}");
    }

    #[tokio::test]
    async fn undrain_and_evict() {
        let (_, out, _) = said(Fake::default(), ClusterVerb::Undrain { node: "self".into() }).await;
        assert_eq!(out, "n1 takes shards again\n");
        let evict = |force| ClusterVerb::Evict { node: "n2".into(), force };
        assert_eq!(said(Fake::default(), evict(false)).await.0.unwrap_err().kind, Kind::Invalid);
        let (_, out, _) = said(Fake::default(), evict(true)).await;
        assert!(out.starts_with("n2 is declared dead"), "{out}");
    }
}
