//! Documents of XEP-0227: whole accounts out of a store, and into it.

use std::sync::Arc;

use rookery_actors::Options;
use rookery_actors::export::{self, Added, Importer, Report, Target};
use rookery_cluster::store::Store;
use rookery_ops::admin::{Chunks, Error, ImportError, ImportReport, Progress};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces of a document that wait to be taken.
const PIECES: usize = 4;

fn error(error: &export::Error) -> Error {
    match error {
        export::Error::NotFound => Error::not_found(error.to_string()),
        export::Error::Document { .. } => Error::invalid(error.to_string()),
        export::Error::Store(store) => super::store(store),
        export::Error::Gone => Error::unavailable(error.to_string()),
    }
}

/// The document of an account or a host, piece by piece. What goes wrong on the way is its last piece.
pub(super) fn export(store: &Store, target: &str) -> Result<Chunks, Error> {
    let target = Target::parse(target)
        .map_err(|_| Error::invalid(format!("{target:?} is neither name@domain nor a domain")))?;
    let (pieces, taken) = mpsc::channel(PIECES);
    let store = store.clone();
    tokio::spawn(async move {
        let mut out = pieces.clone();
        if let Err(why) = export::export(&store, &target, &mut out).await {
            // If nobody takes it any more, nobody wants to know.
            let _ = pieces.send(Err(error(&why))).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(taken)))
}

/// Takes in a document; `added` is told of each account.
pub(super) async fn import(
    store: &Store,
    options: Arc<Options>,
    added: Option<Added>,
    mut chunks: Chunks,
    progress: Progress<'_>,
) -> Result<ImportReport, Error> {
    let mut importer = Importer::start(store, options, added).await.map_err(|e| error(&e))?;
    while let Some(piece) = chunks.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(lost) => {
                importer.abort().await;
                return Err(lost);
            }
        };
        importer.push(&piece).await.map_err(|e| error(&e))?;
        progress(&report(importer.report()));
    }
    importer.finish().await.map_err(|e| error(&e))?;
    Ok(report(importer.report()))
}

fn report(report: &Report) -> ImportReport {
    let remark = |remark: &export::Remark| ImportError {
        line: remark.line,
        reason: format!("{}: {}", remark.subject, remark.reason),
    };
    ImportReport {
        added: report.added,
        skipped: report.skipped,
        failed: report.failed,
        errors: report.remarks.iter().map(remark).collect(),
        ..ImportReport::default()
    }
}
