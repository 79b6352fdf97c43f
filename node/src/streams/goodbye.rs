//! The last words of a stream, and the wait for the other side to have read them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long a connection without a proper end is kept for the close of TLS.
const COURTESY: Duration = Duration::from_secs(1);

/// Writes `last` and closes. With `wait`, what the other side still sends is read and dropped until that side has closed: a reset
/// must not eat the last words. Takes `patience` at most.
pub(super) async fn goodbye(
    wire: &mut (impl AsyncRead + AsyncWrite + Unpin),
    last: &[u8],
    wait: bool,
    patience: Duration,
) {
    let goodbye = async {
        wire.write_all(last).await?;
        wire.flush().await?;
        if wait {
            wire.shutdown().await?;
            let mut scrap = [0; 512];
            while wire.read(&mut scrap).await? > 0 {}
        }
        wire.shutdown().await
    };
    let _: Result<io::Result<()>, _> = timeout(patience, goodbye).await;
}

/// Ends a connection without a word. The close of TLS is a courtesy, which a socket that takes nothing does not hold up.
pub(super) async fn abandon(wire: &mut (impl AsyncWrite + Unpin), patience: Duration) {
    let _: Result<io::Result<()>, _> = timeout(patience.min(COURTESY), wire.shutdown()).await;
}
