//! The end of a stream (RFC 6120 section 4.4).

use std::time::Duration;

use rookery_proto::xml::header::CLOSE;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::End;

/// How long a connection without a proper end is kept for the close of TLS.
const COURTESY: Duration = Duration::from_secs(1);

/// Writes what is left in `out`, the error if there is one, and `</stream:stream>`; then waits, for `patience` at most,
/// until the client has closed its side, so that it reads all of this before the socket goes.
pub(super) async fn close<W>(wire: &mut W, mut out: Vec<u8>, end: End, opened: bool, patience: Duration)
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let wait = match &end {
        // The close of TLS is a courtesy, which a socket that takes nothing does not hold up.
        End::Lost | End::Abandon => return drop(timeout(patience.min(COURTESY), wire.shutdown()).await),
        End::Error { error, .. } => {
            metrics::counter!("rookery_stream_errors_total", "condition" => error.condition.name())
                .increment(1);
            error.write(&mut out);
            true
        }
        End::Clean => true,
        End::Closed => false,
    };
    if opened {
        out.extend_from_slice(CLOSE);
    }
    let goodbye = async {
        wire.write_all(&out).await?;
        wire.flush().await?;
        if wait {
            // What the client still sends is read and dropped: a reset must not eat our last words.
            wire.shutdown().await?;
            let mut scrap = [0; 512];
            while wire.read(&mut scrap).await? > 0 {}
        }
        wire.shutdown().await
    };
    let _ = timeout(patience, goodbye).await;
}
