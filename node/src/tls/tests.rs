use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rookery_cluster::seams::{Clock, Seams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::Digest as _;

use super::*;
use crate::config;

struct At(i64);

impl Clock for At {
    fn now_micros(&self) -> u64 {
        u64::try_from(self.0).unwrap() * 1_000_000
    }
}

pub(super) const NOW: i64 = 1_900_000_000;

pub(super) fn seams(now: i64) -> Seams {
    Seams { clock: Arc::new(At(now)), ..Seams::system() }
}

pub(super) fn config(folder: &Path, domains: &[&str]) -> Config {
    let mut config = Config::development();
    config.data_dir = folder.to_owned();
    let one = config.domains[0].clone();
    config.domains =
        domains.iter().map(|d| config::Domain { name: (*d).to_owned(), ..one.clone() }).collect();
    config
}

/// A client that trusts the node's own authority, with the handshake's result on both sides.
async fn handshake(
    tls: &Tls,
    folder: &Path,
    sni: &str,
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (
    io::Result<Accepted<tokio::io::DuplexStream>>,
    io::Result<tokio_rustls::client::TlsStream<tokio::io::DuplexStream>>,
) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyhow::trusting(folder)))
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    tokio::join!(accept_direct(tls, ours), connector.connect(name, theirs))
}

use std::io;

/// Verifies against the roots at the tests' own time.
#[derive(Debug)]
pub(super) struct Anyhow(rustls::RootCertStore);

impl Anyhow {
    /// Trusts the authority of the node whose folder this is.
    pub(super) fn trusting(folder: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("tls/ca.pem")).unwrap()).unwrap();
        Self(roots)
    }
}

impl rustls::client::danger::ServerCertVerifier for Anyhow {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let now = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(NOW).unwrap(),
        ));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.0,
            intermediates,
            now,
            algorithms,
        )?;
        rustls::client::verify_server_name(&certificate, name)?;
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn the_certificate_is_that_of_the_name_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load(&config(folder.path(), &["localhost", "bücher.example"]), seams(NOW)).unwrap();
    let (server, client) =
        handshake(&tls, folder.path(), "xn--bcher-kva.example", &[accept::ALPN], BOTH).await;
    let (server, client) = (server.unwrap(), client.unwrap());
    assert_eq!(server.sni.as_deref(), Some("xn--bcher-kva.example"));
    assert_eq!(server.protocol, "1.3");
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(accept::ALPN));
    // Both ends derive the same bindings.
    let exported: [u8; 32] =
        client.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).unwrap();
    assert_eq!(server.bindings.exporter, Some(exported));
    let sent = client.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(server.bindings.server_end_point.as_deref(), Some(sha2::Sha256::digest(&sent).as_slice()));
}

#[tokio::test]
async fn other_protocols_and_unknown_names() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load(&config(folder.path(), &["localhost"]), seams(NOW)).unwrap();
    let (server, client) = handshake(&tls, folder.path(), "localhost", &[b"http/1.1"], BOTH).await;
    assert!(server.is_err() && client.is_err(), "a browser gets no XMPP stream");
    let (server, _) = handshake(&tls, folder.path(), "localhost", &[], &[&rustls::version::TLS12]).await;
    let server = server.unwrap();
    assert_eq!((server.protocol, server.bindings.exporter), ("1.2", None));
    assert!(server.bindings.server_end_point.is_some());
    let (_, client) = handshake(&tls, folder.path(), "elsewhere.example", &[], BOTH).await;
    assert!(
        client.unwrap_err().to_string().contains("NotValidForName")
            || tls.identity(Some("x")).unwrap().domain == "localhost"
    );
}

#[tokio::test]
async fn a_bad_new_certificate_keeps_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &["localhost"]);
    let tls = Tls::load(&config, seams(NOW)).unwrap();
    assert_eq!(tls.reload(&config), Reloaded::default());
    let broken = folder.path().join("broken.pem");
    std::fs::write(&broken, "no certificate").unwrap();
    config.domains[0].certificate =
        Some(config::CertificateFiles { certificate: broken.clone(), key: broken });
    let reloaded = tls.reload(&config);
    assert!(reloaded.taken.is_empty());
    assert!(reloaded.refused[0].contains("the old certificate stays"), "{reloaded:?}");
    let (server, client) = handshake(&tls, folder.path(), "localhost", &[], BOTH).await;
    assert!(server.is_ok() && client.is_ok());
    assert!(Tls::load(&config, seams(NOW)).is_err());
}

#[test]
fn made_once_private_and_renewed_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let files = development::certificate(folder.path(), "localhost", &["localhost"], NOW).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files.key), mode(&folder.path().join("ca-key.pem"))), (0o600, 0o600));
    let read = || std::fs::read(&files.certificate).unwrap();
    let first = read();
    development::certificate(folder.path(), "localhost", &["localhost"], NOW + 300 * 86_400).unwrap();
    assert!(read() == first);
    development::certificate(folder.path(), "localhost", &["localhost"], NOW + 370 * 86_400).unwrap();
    assert!(read() != first);
    // With a new authority its certificates are new, too.
    let second = read();
    std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
    development::certificate(folder.path(), "localhost", &["localhost"], NOW + 370 * 86_400).unwrap();
    assert!(read() != second);
    let escape = development::certificate(folder.path(), "..%2f..", &["..%2f.."], NOW).unwrap();
    assert!(escape.certificate.starts_with(folder.path()) && escape.certificate.file_name().is_some());
}

#[test]
fn a_certificate_needs_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let a = development::certificate(folder.path(), "a.example", &["a.example"], NOW).unwrap();
    let b = development::certificate(folder.path(), "b.example", &["b.example"], NOW).unwrap();
    let mut config = config(folder.path(), &["a.example"]);
    config.domains[0].certificate = Some(config::CertificateFiles { certificate: a.certificate, key: b.key });
    assert!(matches!(Tls::load(&config, seams(NOW)), Err(Error::Unusable { .. })));
}

#[test]
fn the_authority_signs_for_the_served_domains_and_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &["localhost", "a.example"]);
    let tls = Tls::load(&config, seams(NOW)).unwrap();
    let verifier = Anyhow::trusting(folder.path());
    let judge = |chain: &[CertificateDer<'_>], name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = rustls::pki_types::UnixTime::now();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &verifier,
            &chain[0],
            &chain[1..],
            &name,
            &[],
            now,
        )
    };
    for name in ["localhost", "a.example"] {
        judge(tls.identity(Some(name)).unwrap().chain(), name).unwrap();
    }
    judge(tls.identity(Some("localhost")).unwrap().chain(), "127.0.0.1").unwrap();
    // With its key nothing else can be made that is believed.
    let read = |file: &str| std::fs::read_to_string(folder.path().join("tls").join(file)).unwrap();
    let key = rcgen::KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let ca = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    for name in ["bank.example", "192.0.2.1"] {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = rookery_cluster::mesh::peer::authority::validity(NOW, 10);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let forged = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &ca).unwrap();
        let error = judge(&[forged.der().clone()], name).unwrap_err();
        assert!(format!("{error:?}").contains("NameConstraint"), "{name}: {error:?}");
    }
    // With one more domain there is a new authority, which is for that one, too.
    let more = super::tests::config(folder.path(), &["localhost", "a.example", "b.example"]);
    assert_eq!(tls.reload(&more).taken.len(), 3);
    let authority = read("ca.pem");
    assert_eq!(tls.reload(&config).taken.len(), 0);
    assert_eq!(authority, read("ca.pem"));
}

/// A certificate for these names as an authority issues it, from `from` on for 90 days.
fn issue(names: &[&str], from: i64) -> Arc<Issued> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = rookery_cluster::mesh::peer::authority::validity(from, 90);
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Arc::new(Issued { chain, key, directory: "https://ca.example/dir".to_owned() })
}

/// The same domains with an authority for all but `localhost`.
fn ordered(folder: &Path, domains: &[&str]) -> Config {
    let mut config = config(folder, domains);
    config.acme = Some(config::Acme {
        directory: "https://ca.example/dir".to_owned(),
        contacts: Vec::new(),
        challenge: config::Challenge::TlsAlpn01,
        names: Vec::new(),
        ca: None,
    });
    for domain in &mut config.domains {
        domain.self_signed = domain.name == "localhost";
    }
    config
}

#[test]
fn what_is_issued_is_served_and_the_operators_own_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let config = ordered(folder.path(), &["a.example", "localhost"]);
    let tls = Tls::load(&config, seams(NOW)).unwrap();
    // Until it is issued there is only the other domain's.
    assert_eq!(tls.identity(Some("a.example")).unwrap().domain, "localhost");
    let stored = |names: &[(&str, &Arc<Issued>)]| -> Stored {
        names.iter().map(|(name, issued)| ((*name).to_owned(), (*issued).clone())).collect()
    };
    let (a, local) = (issue(&["a.example"], NOW), issue(&["localhost"], NOW));
    let installed = tls.install(&config, stored(&[("a.example", &a), ("localhost", &local)]));
    assert_eq!(
        (installed.taken, installed.refused.len()),
        (vec!["a.example: new certificate".to_owned()], 0)
    );
    let served = |name: &str| tls.identity(Some(name)).unwrap();
    assert_eq!(served("a.example").origin, Origin::Authority("https://ca.example/dir".to_owned()));
    assert_eq!(served("localhost").origin, Origin::SelfSigned);
    assert!(tls.has_own(&config, "localhost") && !tls.has_own(&config, "a.example"));
    // The same again changes nothing, and neither does a reload; one for another name, or for another key, is refused.
    let first = served("a.example");
    assert_eq!(tls.install(&config, stored(&[("a.example", &a)])), Reloaded::default());
    assert_eq!(tls.reload(&config), Reloaded::default());
    assert!(Arc::ptr_eq(&first, &served("a.example")));
    let wrong = issue(&["b.example"], NOW);
    let (chain, key) = (a.chain.clone(), issue(&["a.example"], NOW).key.clone_key());
    let mixed =
        Arc::new(Issued { chain: issue(&["a.example"], NOW).chain.clone(), key, directory: String::new() });
    for bad in [&wrong, &mixed] {
        let refused = tls.install(&config, stored(&[("a.example", bad)])).refused;
        assert!(refused[0].contains("the old certificate stays"), "{refused:?}");
        assert_eq!(served("a.example").chain(), chain);
    }
    let next = issue(&["a.example"], NOW + 60 * 86_400);
    assert_eq!(tls.install(&config, stored(&[("a.example", &next)])).taken.len(), 1);
    assert!(served("a.example").not_after > first.not_after);
}

#[test]
fn a_domain_that_goes_over_to_an_authority_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let before = config(folder.path(), &["a.example"]);
    let tls = Tls::load(&before, seams(NOW)).unwrap();
    let after = ordered(folder.path(), &["a.example"]);
    assert_eq!(tls.reload(&after), Reloaded::default());
    assert_eq!(tls.identity(Some("a.example")).unwrap().origin, Origin::SelfSigned);
    assert!(!tls.has_own(&after, "a.example"), "it is to be ordered");
    let stored = [("a.example".to_owned(), issue(&["a.example"], NOW))].into();
    assert_eq!(tls.install(&after, stored).taken.len(), 1);
    assert!(matches!(tls.identity(None).unwrap().origin, Origin::Authority(_)));
    // And back.
    assert_eq!(tls.reload(&before).taken.len(), 1);
    assert_eq!(tls.identity(None).unwrap().origin, Origin::SelfSigned);
}

#[test]
fn without_any_certificate_there_is_nothing_to_serve() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load(&ordered(folder.path(), &["a.example"]), seams(NOW)).unwrap();
    assert!(tls.identity(Some("a.example")).is_none() && tls.list().is_empty());
    let mut none = config(folder.path(), &["a.example"]);
    none.domains.clear();
    assert!(matches!(Tls::load(&none, seams(NOW)), Err(Error::Nothing)));
}

#[test]
fn warns_weeks_before_the_end() {
    let day = 86_400;
    let folder = tempfile::tempdir().unwrap();
    let config = ordered(folder.path(), &["a.example"]);
    let tls = Tls::load(&config, seams(NOW)).unwrap();
    tls.install(&config, [("a.example".to_owned(), issue(&["a.example"], NOW))].into());
    let identity = tls.identity(None).unwrap();
    let end = identity.not_after;
    for (left, old) in [(30, false), (22, false), (20, true), (1, true)] {
        assert_eq!(identity.is_old(end - left * day), old, "{left} days before");
    }
}
