//! What the commands ask for: the list of certificates, and a new one now.

use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::certificates;

use super::{Acme, names};
use crate::tls::{Identity, Origin, ascii};

/// A line of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The name that the certificate is for.
    pub name: String,
    /// The file, the directory URL of the authority, or that the node has made it.
    pub source: String,
    /// The issuer's name; empty: there is no certificate yet.
    pub issuer: String,
    /// When it expires, seconds since 1970.
    pub until: i64,
    /// When it is renewed, or ordered next, seconds since 1970; 0: by others than this server.
    pub next: i64,
    /// Why the last attempt to order it failed, or empty.
    pub error: String,
}

impl Acme {
    /// All certificates that this node serves, and those that are still to be ordered, in the order of their names.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn list(&self) -> store::Result<Vec<Line>> {
        let mut lines: Vec<Line> = self.tls.list().iter().map(|identity| line(identity)).collect();
        let config = self.config.load_full();
        for name in names::wanted(&config, &self.tls) {
            let (_, state) = self.read(&name).await?;
            let at = match lines.iter().position(|line| ascii(&line.name) == name) {
                Some(at) => at,
                None => {
                    let source = config.acme.as_ref().map_or(String::new(), |acme| acme.directory.clone());
                    lines.push(Line { name, source, ..Line::default() });
                    lines.len() - 1
                }
            };
            if let Some(line) = lines.get_mut(at) {
                line.next = if line.issuer.is_empty() {
                    state.not_before.max(self.now())
                } else {
                    state.renew.max(state.not_before)
                };
                line.error = state.error;
            }
        }
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(lines)
    }

    /// Has a certificate ordered for `name` now, whatever there is, and the present one revoked afterwards if `revoke`. Answers the
    /// name as certificates write it; `None` if no certificate is ordered for it here.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn order(&self, name: &str, revoke: bool) -> store::Result<Option<String>> {
        let name = ascii(name);
        if !names::wanted(&self.config.load(), &self.tls).contains(&name) {
            return Ok(None);
        }
        let of = name.as_str();
        self.store
            .write(store::Options::default().operation(self.store.operation()), |tx| {
                Box::pin(async move {
                    let mut state = certificates::state(&mut **tx, of).await?;
                    (state.wanted, state.revoke) = (true, state.revoke || revoke);
                    let tx = &mut **tx as &mut dyn Transaction;
                    certificates::put_state(tx, of, &state)?;
                    certificates::bump(tx);
                    Ok(())
                })
            })
            .await?;
        Ok(Some(name))
    }
}

fn line(identity: &Identity) -> Line {
    let source = match &identity.origin {
        Origin::SelfSigned => "self-signed".to_owned(),
        other => other.to_string(),
    };
    Line {
        name: identity.domain.clone(),
        source,
        issuer: identity.issuer.clone(),
        until: identity.not_after,
        ..Line::default()
    }
}
