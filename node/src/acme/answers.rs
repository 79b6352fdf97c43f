//! The answers to challenges: any node may be asked, and finds them in the store.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rookery_cluster::store;
use rookery_cluster::tables::certificates::{self, Answer, How};
use rookery_ops::http::Routes;

use super::{Acme, names, shard};
use crate::tls::{Challenges, ascii};

/// Challenges that are looked up at a time: anybody can ask. Those beyond wait, as long as their connection may.
pub(super) const AT_ONCE: usize = 16;

/// The longest token that is looked up, bytes. Authorities use about 43.
const TOKEN: usize = 256;

impl Acme {
    /// The route of `http-01` (RFC 8555 section 8.3).
    pub fn routes(self: &Arc<Self>) -> Routes {
        let acme = self.clone();
        let answer = move |Path(token): Path<String>| {
            let acme = acme.clone();
            async move { acme.by_token(&token).await }
        };
        Routes::new(0).below(&Method::GET, "/.well-known/acme-challenge", answer)
    }

    async fn by_token(&self, token: &str) -> Response {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let can_be = !token.is_empty() && token.len() <= TOKEN && token.bytes().all(plain);
        let found = if can_be { self.find(How::Http, token).await } else { None };
        let outcome = if found.is_some() { "answered" } else { "unknown" };
        metrics::counter!("rookery_acme_challenges_total", "challenge" => "http-01", "outcome" => outcome)
            .increment(1);
        match found {
            Some(authorization) => {
                ([(header::CONTENT_TYPE, "application/octet-stream")], authorization).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn find(&self, how: How, of: &str) -> Option<String> {
        self.config.load().acme.as_ref()?;
        let _asked = self.asked.acquire().await.ok()?;
        let found =
            self.store.read(|tx| Box::pin(async move { certificates::answer(&mut **tx, how, of).await }));
        match found.await {
            Ok(found) => found.map(|answer| answer.authorization),
            Err(error) => {
                tracing::debug!(%error, "an answer to a challenge could not be read");
                None
            }
        }
    }

    /// Lets all nodes answer a challenge.
    pub(super) async fn put_answer(&self, how: How, of: &str, authorization: &str) -> store::Result<()> {
        let answer = &Answer { authorization: authorization.to_owned() };
        let options = store::Options { shards: vec![shard()], ..store::Options::default() };
        self.store
            .write(options, |tx| {
                Box::pin(async move {
                    certificates::put_answer(&mut **tx as &mut dyn store::Transaction, how, of, answer);
                    Ok(())
                })
            })
            .await
    }

    /// No node answers the challenge any more.
    pub(super) async fn remove_answer(&self, how: How, of: &str) -> store::Result<()> {
        let options = store::Options { shards: vec![shard()], ..store::Options::default() };
        self.store
            .write(options, |tx| {
                Box::pin(async move {
                    certificates::remove_answer(&mut **tx as &mut dyn store::Transaction, how, of);
                    Ok(())
                })
            })
            .await
    }
}

impl Challenges for Acme {
    fn answer<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
        Box::pin(async move {
            // A request with an invented name causes no read.
            let is_ours = names::configured(&self.config.load()).contains(&ascii(name));
            if is_ours { self.find(How::Alpn, name).await } else { None }
        })
    }
}
