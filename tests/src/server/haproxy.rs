//! HAProxy as Debian ships it, before the nodes of a cluster: the one address that clients know.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Error, Process, free_port, need_program};

/// A node behind it.
#[derive(Clone, Debug)]
pub struct Behind {
    pub name: String,
    pub c2s: SocketAddr,
    pub c2s_tls: SocketAddr,
    pub http: SocketAddr,
}

/// A running HAProxy.
pub struct Haproxy {
    /// Clients that begin with STARTTLS.
    pub c2s: SocketAddr,
    /// Clients that begin with TLS.
    pub c2s_tls: SocketAddr,
    pub process: Process,
}

impl Haproxy {
    /// Starts it in `dir` before these nodes, whether they are up or not.
    pub async fn start(dir: &Path, nodes: &[Behind]) -> Result<Haproxy, Error> {
        let program = need_program("haproxy")?;
        let (c2s, c2s_tls) = (free_port(), free_port());
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config(c2s, c2s_tls, nodes))?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::start("haproxy", command, &dir.join("haproxy.log"))?;
        process.until(async || TcpStream::connect(c2s_tls).await.is_ok()).await?;
        Ok(Haproxy { c2s, c2s_tls, process })
    }
}

/// A node gets connections while `/readyz` says so. One that turns red keeps those that it has: it is draining, and closes
/// them itself when their sessions are elsewhere. One that is dead loses them at once, since its kernel resets them.
fn config(c2s: SocketAddr, c2s_tls: SocketAddr, nodes: &[Behind]) -> String {
    let mut text = format!(
        "global
  maxconn 8000
  log stdout format raw local0 notice
defaults
  mode tcp
  log global
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 500ms
  retries 3
  option redispatch 1
  balance leastconn
frontend starttls
  bind {c2s}
  default_backend starttls
frontend tls
  bind {c2s_tls}
  default_backend tls
backend tls
  option httpchk GET /readyz
  http-check expect status 200
  default-server inter 200ms fastinter 100ms fall 1 rise 1
"
    );
    for node in nodes {
        let _ = writeln!(
            text,
            "  server {} {} send-proxy-v2 check addr 127.0.0.1 port {}",
            node.name,
            node.c2s_tls,
            node.http.port()
        );
    }
    text.push_str("backend starttls\n");
    for node in nodes {
        let _ = writeln!(text, "  server {} {} send-proxy-v2 track tls/{}", node.name, node.c2s, node.name);
    }
    text
}
