//! The homes of users: the shard of a user by its name, and the node that holds it.

use std::collections::HashSet;

use crate::server::Error;
use crate::server::cluster::{DOMAIN, SHARDS, World};

/// The shard of a bare JID: FNV-1a, folded. Written apart from the server's.
pub fn shard(jid: &str) -> usize {
    let hash = jid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (((hash >> 32) ^ hash) % SHARDS as u64) as usize
}

/// Those of `users` who are at home on the node of that name, as node `asked` knows it.
pub async fn homes(
    world: &World,
    asked: usize,
    name: &str,
    users: &[String],
) -> Result<HashSet<String>, Error> {
    let text = world.command(asked, &["cluster", "shards", "--json"]).await?;
    let held = held(&text, name)?;
    Ok(users.iter().filter(|user| held[shard(&format!("{user}@{DOMAIN}"))]).cloned().collect())
}

/// Which shards the node of that name holds, out of lines of `{"owner":"n1","ranges":[{"first":0,"last":340}],…}`.
fn held(text: &str, name: &str) -> Result<Vec<bool>, Error> {
    let wrong = || Error::Failed(format!("not what `cluster shards --json` prints: {text}"));
    let mut held = vec![false; SHARDS];
    for line in text.lines().filter(|line| !line.is_empty()) {
        let group: serde_json::Value = serde_json::from_str(line).map_err(|_| wrong())?;
        if group["owner"] != name {
            continue;
        }
        for range in group["ranges"].as_array().ok_or_else(wrong)? {
            let at = |end: &str| range[end].as_u64().unwrap_or_default() as usize;
            held.get_mut(at("first")..=at("last")).ok_or_else(wrong)?.fill(true);
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_shards_as_the_server() {
        let names = ["", "a@b", "juliet@localhost", "romeo@localhost", "müller@example.org"];
        assert_eq!(names.map(shard), [961, 875, 952, 724, 350]);
    }

    #[test]
    fn ranges_of_one_owner() {
        let text = "{\"owner\":\"a\",\"desired\":\"a\",\"ranges\":[{\"first\":0,\"last\":1},{\"first\":9,\"last\":9}]}\n\
            {\"owner\":\"b\",\"desired\":\"a\",\"ranges\":[{\"first\":5,\"last\":6}]}\n";
        let of = |name| {
            held(text, name).unwrap().iter().enumerate().filter(|(_, h)| **h).map(|(n, _)| n).collect()
        };
        let (a, b): (Vec<usize>, Vec<usize>) = (of("a"), of("b"));
        assert_eq!((a, b), (vec![0, 1, 9], vec![5, 6]));
    }
}
