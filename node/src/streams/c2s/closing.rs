//! The end of a stream (RFC 6120 section 4.4).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::End;
use crate::transport::{Carrier, Frames as _};

/// How long a connection without a proper end is kept for the close of TLS.
const COURTESY: Duration = Duration::from_secs(1);

/// Writes what is left in `out`, the error if there is one, and `</stream:stream>`; then waits, for `patience` at most,
/// until the client has closed its side, so that it reads all of this before the socket goes.
pub(super) async fn close<W: Carrier>(
    wire: &mut W,
    mut out: Vec<u8>,
    end: End,
    opened: bool,
    patience: Duration,
) {
    let wait = match &end {
        // The close of TLS is a courtesy, which a socket that takes nothing does not hold up.
        End::Lost | End::Abandon => return drop(timeout(patience.min(COURTESY), wire.shutdown()).await),
        End::Error { error, .. } => {
            metrics::counter!("rookery_stream_errors_total", "condition" => error.condition.name())
                .increment(1);
            W::Frames::element(&mut out, |out| error.write(out));
            true
        }
        End::Clean => true,
        End::Closed => false,
    };
    if opened {
        W::Frames::close(&mut out);
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
