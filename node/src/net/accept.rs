//! The loop that accepts connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::{Gate, Listener, Pass, Refusal};

/// How long to wait when the process has no more file descriptors; connections that end free some.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop` turns true, counts each connection at the gate, and hands it to `serve`, which must not
/// block. What the gate refuses is dropped at once: an overloaded server spends nothing on more words.
pub async fn run<L, F>(mut listener: L, gate: Gate, mut stop: watch::Receiver<bool>, serve: F)
where
    L: Listener,
    F: Fn(L::Stream, SocketAddr, Pass) + Send,
{
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                exhausted = false;
                match gate.enter() {
                    Ok(pass) => serve(stream, peer, pass),
                    Err(Refusal::Shut) => tracing::debug!(%peer, "connection refused: the node is parked"),
                    Err(refusal) => {
                        let limit = gate.limit(refusal);
                        metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
                        tracing::debug!(%peer, limit, "connection refused");
                    }
                }
            }
            Err(error) if is_exhaustion(&error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::error!(%error, "connections cannot be accepted; raise the limit of open files");
                }
                metrics::counter!("rookery_limits_hit_total", "limit" => "open_files").increment(1);
                tokio::select! {
                    () = stopped(&mut stop) => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            // The client gave up between its SYN and our accept.
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
}

/// Ends when `stop` is true, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: accepting again at once would only burn the processor.
fn is_exhaustion(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

#[cfg(test)]
mod tests {
    use std::io;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::Config;

    /// A listener that accepts what it is sent.
    struct Scripted(mpsc::Receiver<io::Result<DuplexStream>>);

    impl Listener for Scripted {
        type Stream = DuplexStream;
        async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
            match self.0.recv().await {
                Some(next) => Ok((next?, "192.0.2.1:1".parse().unwrap())),
                None => std::future::pending().await,
            }
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok("192.0.2.9:5222".parse().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn goes_on_after_exhaustion_refuses_at_the_limit_and_stops() {
        let mut limits = Config::development().limits;
        limits.connections = 1;
        let (tx, rx) = mpsc::channel(8);
        let (stop, stopping) = watch::channel(false);
        let served: Mutex<Vec<(DuplexStream, Pass)>> = Mutex::new(Vec::new());
        let (first, _keep) = tokio::io::duplex(8);
        let (second, mut refused) = tokio::io::duplex(8);
        let gate = Gate::new(&limits);
        let test = async {
            tx.send(Err(io::Error::from_raw_os_error(24))).await.unwrap();
            tx.send(Err(io::Error::from_raw_os_error(103))).await.unwrap();
            tx.send(Ok(first)).await.unwrap();
            tx.send(Ok(second)).await.unwrap();
            assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
            stop.send(true).unwrap();
        };
        let serve = |stream, _, pass: Pass| {
            pass.standing().proved(); // else it would make room
            served.lock().push((stream, pass));
        };
        tokio::join!(run(Scripted(rx), gate.clone(), stopping, serve), test);
        assert_eq!(served.lock().len(), 1);
        assert_eq!(gate.counts().0, 1);
    }
}
