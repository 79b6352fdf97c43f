//! Pebble, an ACME authority for tests, and its DNS, as Debian ships them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Error, Process, free_port, need_program};

/// What a test may want to be different.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where `http-01` is looked for; 0: nowhere.
    pub http: u16,
    /// Where `tls-alpn-01` is looked for; 0: nowhere.
    pub tls: u16,
    /// How long certificates live, seconds; 0: 90 days.
    pub life: u64,
    /// Pebble's own variables, as in `("PEBBLE_WFE_NONCEREJECT", "20")`.
    pub environment: Vec<(&'static str, String)>,
}

/// The processes.
pub struct Pebble {
    /// The authority's own certificate is checked with this file.
    pub ca: PathBuf,
    settings: Settings,
    dir: PathBuf,
    /// HTTPS: the authority, and its management.
    api: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// HTTP: the management of its DNS.
    names: SocketAddr,
    authority: Process,
    _resolver: Process,
}

impl Pebble {
    /// Starts both in `dir`. Every name is at 127.0.0.1 until [`Pebble::put`] says otherwise.
    pub async fn start(dir: &Path, settings: Settings) -> Result<Pebble, Error> {
        need_program("pebble")?;
        let ca = certificates(dir)?;
        let [api, management, dns, names] = [(); 4].map(|()| free_port());
        let mut command = Command::new(need_program("pebble-challtestsrv")?);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        command.args(["-defaultIPv4", "127.0.0.1", "-dns01", &dns.to_string()]);
        command.args(["-management", &names.to_string()]);
        let mut resolver = Process::start("pebble-challtestsrv", command, &dir.join("names.log"))?;
        resolver.until(async || TcpStream::connect(names).await.is_ok()).await?;
        let dir = dir.to_owned();
        let authority = launch(&dir, &settings, api, management, dns).await?;
        Ok(Pebble { ca, settings, dir, api, management, dns, names, authority, _resolver: resolver })
    }

    /// The directory URL.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api)
    }

    /// Where records are set: `/set-txt`, `/clear-txt`, `/add-a`, with JSON.
    pub fn names(&self) -> SocketAddr {
        self.names
    }

    /// Ends it and starts it again: it forgets everything, and has other roots.
    pub async fn forget(&mut self) -> Result<(), Error> {
        self.authority.kill().await?;
        self.authority = launch(&self.dir, &self.settings, self.api, self.management, self.dns).await?;
        Ok(())
    }

    /// How many orders there were since the first start.
    pub fn orders(&self) -> usize {
        self.authority.output().matches("Added order ").count()
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.authority.output()
    }

    /// From now on that name is at that address, and at no other.
    pub async fn put(&self, name: &str, address: &str) -> Result<(), Error> {
        self.post("/clear-a", &format!(r#"{{"host":"{name}"}}"#)).await?;
        self.post("/add-a", &format!(r#"{{"host":"{name}","addresses":["{address}"]}}"#)).await
    }

    async fn post(&self, path: &str, body: &str) -> Result<(), Error> {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n");
        let mut socket = TcpStream::connect(self.names).await?;
        socket.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(Error::Failed(answer)),
        }
    }

    /// The root of the certificates that it issues now.
    pub async fn root(&self) -> Result<CertificateDer<'static>, Error> {
        let answer = self.get("/roots/0").await?;
        let pem = answer.find("-----BEGIN").and_then(|at| answer.get(at..)).unwrap_or_default();
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Failed(format!("{e}: {answer}")))
    }

    /// Whether the certificate is revoked.
    pub async fn is_revoked(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let answer = self.get(&format!("/cert-status-by-serial/{}", serial(certificate))).await?;
        Ok(answer.contains("\"Revoked\""))
    }

    async fn get(&self, path: &str) -> Result<String, Error> {
        let root = CertificateDer::from_pem_file(&self.ca).map_err(|e| Error::Failed(e.to_string()))?;
        let mut stream = connect(self.management, "127.0.0.1", root, b"http/1.1").await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Go closes the connection without more ado.
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

async fn launch(
    dir: &Path,
    settings: &Settings,
    api: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
) -> Result<Process, Error> {
    let Settings { http, tls, life, environment } = settings;
    let life = if *life == 0 { 90 * 86_400 } else { *life };
    let shown = dir.display();
    let config = format!(
        r#"{{"pebble": {{"listenAddress": "{api}", "managementListenAddress": "{management}",
        "certificate": "{shown}/pebble.pem", "privateKey": "{shown}/pebble.key",
        "httpPort": {http}, "tlsPort": {tls}, "certificateValidityPeriod": {life}}}}}"#
    );
    std::fs::write(dir.join("pebble.json"), config)?;
    let mut command = Command::new(need_program("pebble")?);
    command.arg("-config").arg(dir.join("pebble.json")).arg("-dnsserver").arg(dns.to_string());
    command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0").env("PEBBLE_AUTHZREUSE", "0");
    command.envs(environment.iter().map(|(name, value)| (name, value.as_str())));
    if environment.iter().any(|(name, _)| *name == "PEBBLE_VA_SLEEPTIME") {
        command.env_remove("PEBBLE_VA_NOSLEEP");
    }
    let mut process = Process::start("pebble", command, &dir.join("pebble.log"))?;
    process.until(async || TcpStream::connect(api).await.is_ok()).await?;
    process.until(async || TcpStream::connect(management).await.is_ok()).await?;
    Ok(process)
}

/// A root of our own, `pebble-ca.pem`, and a certificate for Pebble's HTTPS.
fn certificates(dir: &Path) -> Result<PathBuf, Error> {
    let fail = |e: rcgen::Error| Error::Failed(e.to_string());
    let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(fail)?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().map_err(fail)?;
    let root = params.self_signed(&key).map_err(fail)?;
    let issuer = rcgen::Issuer::new(params, key);
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(fail)?;
    let key = rcgen::KeyPair::generate().map_err(fail)?;
    let certificate = params.signed_by(&key, &issuer).map_err(fail)?;
    std::fs::write(dir.join("pebble.pem"), certificate.pem())?;
    std::fs::write(dir.join("pebble.key"), key.serialize_pem())?;
    let ca = dir.join("pebble-ca.pem");
    std::fs::write(&ca, root.pem())?;
    Ok(ca)
}

/// A TLS client that trusts that root and nothing else, and asks for `name`.
pub async fn connect(
    at: SocketAddr,
    name: &str,
    root: CertificateDer<'static>,
    alpn: &[u8],
) -> Result<TlsStream<TcpStream>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(|e| Error::Failed(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Failed(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(name.to_owned()).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await?)
}

/// The serial number of a certificate, in hexadecimal.
pub fn serial(certificate: &CertificateDer<'_>) -> String {
    // SEQUENCE { SEQUENCE { [0] version, INTEGER serial, …: the first INTEGER behind the version.
    let der = certificate.as_ref();
    let at = der.windows(5).position(|five| five == [0xa0, 3, 2, 1, 2]).map_or(0, |at| at + 5);
    let length = der.get(at + 1).copied().map_or(0, usize::from);
    let digits = der.get(at + 2..at + 2 + length).unwrap_or_default();
    digits.iter().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02x}")).collect()
}
