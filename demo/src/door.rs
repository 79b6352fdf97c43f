//! One address for all nodes: every connection goes to the ready node that has the fewest. What a load balancer does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections through it.
const MOST: usize = 2_000;
/// How long to wait after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What stands behind the door.
pub struct Behind {
    /// The node's STARTTLS and direct TLS listeners.
    at: [SocketAddr; 2],
    ready: AtomicBool,
    through: AtomicUsize,
}

impl Behind {
    /// A node that is not ready yet.
    pub fn new(c2s: SocketAddr, c2s_tls: SocketAddr) -> Self {
        Self { at: [c2s, c2s_tls], ready: AtomicBool::new(false), through: AtomicUsize::new(0) }
    }

    /// From now on it gets connections, or no more of them.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Which listener of the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// STARTTLS.
    C2s,
    /// Direct TLS.
    C2sTls,
}

/// Accepts for ever.
pub async fn serve(listener: TcpListener, way: Way, nodes: Arc<[Behind]>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let nodes = Arc::clone(&nodes);
                tokio::spawn(async move {
                    let _ = carry(client, way, &nodes).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Carries bytes until either side ends.
async fn carry(mut client: TcpStream, way: Way, nodes: &[Behind]) -> io::Result<()> {
    let mut order: Vec<&Behind> = nodes.iter().filter(|node| node.ready.load(Ordering::Relaxed)).collect();
    order.sort_by_key(|node| node.through.load(Ordering::Relaxed));
    for node in order {
        let [c2s, c2s_tls] = node.at;
        let at = if way == Way::C2s { c2s } else { c2s_tls };
        #[allow(clippy::disallowed_methods, reason = "a balancer beside the nodes, not a part of one")]
        let Ok(mut server) = TcpStream::connect(at).await else { continue };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        node.through.fetch_add(1, Ordering::Relaxed);
        let carried = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        node.through.fetch_sub(1, Ordering::Relaxed);
        return carried.map(drop);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn listen() -> (TcpListener, SocketAddr) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    #[tokio::test]
    async fn goes_to_who_is_ready() {
        let (door, at) = listen();
        let ((_one, one), (two, second)) = (listen(), listen());
        let nodes: Arc<[Behind]> = [Behind::new(one, one), Behind::new(second, second)].into();
        for node in nodes.iter().skip(1) {
            node.set_ready(true);
        }
        let serving = tokio::spawn(serve(door, Way::C2s, nodes));
        #[allow(clippy::disallowed_methods, reason = "a test")]
        let mut client = TcpStream::connect(at).await.unwrap();
        let (mut node, _) = TcpListener::accept(&two).await.unwrap();
        client.write_all(b"to the node").await.unwrap();
        let mut bytes = [0; 11];
        node.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"to the node");
        // The end of the node is the end of the connection.
        drop(node);
        assert_eq!(client.read(&mut bytes).await.unwrap(), 0);
        serving.abort();
    }
}
