//! Accounts as documents (XEP-0227): between the streams of the admin socket and `rookery_actors::export`.

use std::sync::Arc;

use rookery_actors::export::{self, Added, Importer, Report, Target};
use rookery_actors::options::Options;
use rookery_cluster::store::Store;
use rookery_ops::admin::{Chunks, Error, ImportReport, Progress, add_failure};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::Accounts;

/// How many pieces may wait for the reader of the document.
const AHEAD: usize = 4;

impl Accounts {
    /// The document of an account or of a domain.
    pub async fn export(&self, target: &str) -> Result<Chunks, Error> {
        let invalid = |_| Error::invalid(format!("{target:?} is neither an account nor a domain"));
        let parsed = Target::parse(target).map_err(invalid)?;
        match &parsed {
            Target::User(jid) => {
                let jid = self.parse(jid.as_str())?;
                self.known(&jid).await?;
            }
            Target::Host(domain) if !self.domains.iter().any(|d| d == domain.as_str()) => {
                return Err(Error::not_found(format!("{domain} is not served here")));
            }
            Target::Host(_) => {}
        }
        let (mut pieces, taken) = mpsc::channel(AHEAD);
        let store = self.store.clone();
        tokio::spawn(async move {
            match export::export(&store, &parsed, &mut pieces).await {
                Ok(accounts) => tracing::info!(accounts, "exported"),
                Err(export::Error::Gone) => {}
                // An error instead of the end: the document is not whole.
                Err(error) => drop(pieces.send(Err(failed(&error))).await),
            }
        });
        Ok(Box::pin(ReceiverStream::new(taken)))
    }
}

/// Makes what a document holds. `added` is told of each account that was made.
pub(super) async fn import(
    store: &Store,
    options: Arc<Options>,
    added: Option<Added>,
    mut chunks: Chunks,
    progress: Progress<'_>,
) -> Result<ImportReport, Error> {
    let mut importer = Importer::start(store, options, added).await.map_err(|e| failed(&e))?;
    while let Some(chunk) = chunks.next().await {
        let pushed = match chunk {
            Ok(chunk) => importer.push(&chunk).await.map_err(|e| failed(&e)),
            Err(error) => Err(error),
        };
        if let Err(error) = pushed {
            importer.abort().await;
            return Err(error);
        }
        progress(&summary(importer.report()));
    }
    importer.finish().await.map_err(|e| failed(&e))?;
    Ok(summary(importer.report()))
}

fn summary(report: &Report) -> ImportReport {
    let mut all = ImportReport { added: report.added, skipped: report.skipped, ..ImportReport::default() };
    for remark in &report.remarks {
        let subject = if remark.subject.is_empty() { "the document" } else { &remark.subject };
        add_failure(&mut all, remark.line, format!("{subject}: {}", remark.reason));
    }
    // A remark may be about something left out of an account that was made.
    all.failed = report.failed;
    all
}

fn failed(error: &export::Error) -> Error {
    match error {
        export::Error::NotFound => Error::not_found(error.to_string()),
        export::Error::Document { .. } => Error::invalid(error.to_string()),
        export::Error::Store(_) => Error::unavailable(error.to_string()),
        export::Error::Gone => Error::internal(error.to_string()),
    }
}
