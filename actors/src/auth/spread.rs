//! How many rounds the passwords of real accounts have: what the answers for accounts that do not exist must look like. SCRAM
//! tells the count to every client, and accounts keep theirs when `sasl.iterations` is raised.
//!
//! A sample will do: the same accounts on every node and each time, so that an answer changes only when they do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts::{self, Hash};

use crate::host::WeakHost;

/// How often the sample is read again.
const AGAIN: Duration = Duration::from_secs(600);
/// How long a start waits for the first.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Where the sample's parts begin in the list of a domain's accounts, and how many are in each.
const PLACES: &str = "\u{1}0123456789abcdefghijklmnopqrstuvwxyz\u{80}";
const EACH: usize = 32;

/// How many accounts of `domains` have each count of rounds.
pub(crate) async fn sample(store: &Store, domains: &[String]) -> store::Result<BTreeMap<u32, u64>> {
    let mut users = BTreeSet::new();
    for domain in domains {
        for place in PLACES.chars() {
            let place = &place.to_string();
            let rows = store.read(|tx| {
                Box::pin(async move { accounts::list(&mut **tx, domain, Some(place), EACH).await })
            });
            users.extend(rows.await?.rows.into_iter().map(|listed| listed.user.as_str().to_owned()));
        }
    }
    let mut counts = BTreeMap::new();
    for user in users {
        let user = &Entity::new(user);
        let account = store.read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await })).await?;
        let keys = account.as_ref().and_then(|account| {
            [Hash::Sha256, Hash::Sha512, Hash::Sha1].into_iter().find_map(|hash| account.keys(hash))
        });
        if let Some(keys) = keys {
            *counts.entry(keys.iterations).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Reads the sample now and then, for as long as there is a server.
pub(crate) async fn run(host: WeakHost) {
    loop {
        tokio::time::sleep(AGAIN).await;
        let Some(host) = host.upgrade() else { return };
        host.look_at_counts().await;
    }
}
