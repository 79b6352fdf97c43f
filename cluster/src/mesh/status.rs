//! The cluster as one node sees it, for people.

use std::fmt;
use std::time::Duration;

use super::{Mesh, NodeId};
use crate::entity::{SHARDS, Shard};
use crate::tables::nodes::State;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its name.
    pub node: NodeId,
    /// Where it is in its life.
    pub state: State,
    /// Grows with each start.
    pub generation: u64,
    /// Where other nodes reach it.
    pub address: String,
    /// Where clients are sent that are to come to it; may be empty.
    pub public: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// How much it takes in comparison with others.
    pub weight: u32,
    /// Its software.
    pub version: String,
    /// Shards that it owns.
    pub shards: usize,
    /// Shards that it is to own.
    pub desired: usize,
    /// How long it has shown no sign of life, as the asked node sees it. None for the node itself, for the dead, and for
    /// those it has not looked at.
    pub silent: Option<Duration>,
}

/// The cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The node that says so.
    pub by: NodeId,
    /// Its lease holds: what follows is of these seconds.
    pub leased: bool,
    /// All nodes, the dead included.
    pub nodes: Vec<Line>,
    /// Shards without a living owner.
    pub free: usize,
    /// Shards that have another owner than they are to have.
    pub moving: usize,
}

impl Mesh {
    /// The cluster as this node sees it.
    pub fn status(&self) -> Table {
        let map = self.map();
        let shards: Vec<(Option<&NodeId>, Option<&NodeId>)> = (0..SHARDS)
            .map(Shard)
            .map(|shard| (map.rows.owner(shard).map(|(member, _)| &member.node), map.desired(shard)))
            .collect();
        let line = |member: &super::Member| {
            let (node, status) = (&member.node, &member.status);
            Line {
                node: node.clone(),
                state: status.state(),
                generation: status.generation,
                address: status.address.clone(),
                public: status.public.clone(),
                zone: status.zone.clone(),
                weight: status.weight,
                version: status.version.clone(),
                shards: shards.iter().filter(|(owner, _)| *owner == Some(node)).count(),
                desired: shards.iter().filter(|(_, desired)| *desired == Some(node)).count(),
                silent: self.core.silence(node),
            }
        };
        Table {
            by: self.core.node.clone(),
            leased: self.core.lease.holds(),
            nodes: map.members().iter().map(line).collect(),
            free: shards.iter().filter(|(owner, _)| owner.is_none()).count(),
            moving: shards.iter().filter(|(owner, desired)| owner.is_some() && owner != desired).count(),
        }
    }
}

/// In columns.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head =
            ["NODE", "STATE", "GEN", "SHARDS", "TO OWN", "WEIGHT", "ZONE", "SILENT", "VERSION", "ADDRESS"];
        let mut rows = vec![head.map(str::to_owned)];
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        rows.extend(self.nodes.iter().map(|line| {
            let silent = line.silent.map(|time| format!("{:.1} s", time.as_secs_f64()));
            [
                format!("{}{}", line.node, if line.node == self.by { "*" } else { "" }),
                line.state.name().to_owned(),
                line.generation.to_string(),
                line.shards.to_string(),
                line.desired.to_string(),
                line.weight.to_string(),
                or_dash(&line.zone),
                or_dash(&silent.unwrap_or_default()),
                or_dash(&line.version),
                or_dash(&line.address),
            ]
        }));
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        let lease = if self.leased { "" } else { "; the lease of this node is over, so all this may be old" };
        writeln!(f, "{} shards without an owner, {} on their way to another{lease}", self.free, self.moving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_people() {
        let line = |name: &str, state, shards| Line {
            node: NodeId::new(name).unwrap(),
            state,
            generation: 2,
            address: "10.0.0.1:5280".into(),
            public: String::new(),
            zone: "z1".into(),
            weight: 100,
            version: String::new(),
            shards,
            desired: 512,
            silent: (name == "b").then_some(Duration::from_millis(300)),
        };
        let nodes = vec![line("a", State::Active, 1000), line("b", State::Joining, 0)];
        let table = Table { by: NodeId::new("a").unwrap(), leased: true, nodes, free: 24, moving: 488 };
        let expected = "\
NODE  STATE    GEN  SHARDS  TO OWN  WEIGHT  ZONE  SILENT  VERSION  ADDRESS
a*    active   2    1000    512     100     z1    -       -        10.0.0.1:5280
b     joining  2    0       512     100     z1    0.3 s   -        10.0.0.1:5280
24 shards without an owner, 488 on their way to another
";
        assert_eq!(table.to_string(), expected);
    }
}
