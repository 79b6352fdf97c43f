//! Two servers find and prove each other: DNS, connection, TLS and judgement together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, unreachable_pub, dead_code, reason = "test code")]

use std::fmt::Write as _;
use std::path::Path;

use rookery_cluster::seams::Seams;
use rookery_node::config::{Anchor, Authorities, Config, Dns};
use rookery_node::dns::{Begin, Finder, Targets};
use rookery_node::tls::Tls;
use rookery_node::tls::remote::{self, Judge, NotProved, Proof};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use x509_parser::prelude::{FromDer as _, X509Certificate};

#[path = "dns/nsd.rs"]
mod nsd;

use nsd::{Nsd, Signed};

/// The certificates of a node that has made them itself.
fn tls(folder: &Path, domains: &[&str]) -> Tls {
    let mut config = Config::development();
    config.data_dir = folder.to_owned();
    let one = config.domains[0].clone();
    config.domains = domains
        .iter()
        .map(|d| rookery_node::config::Domain { name: (*d).to_owned(), ..one.clone() })
        .collect();
    Tls::load(&config, Seams::system()).unwrap()
}

fn judge(file: Option<&Path>) -> Judge {
    Judge::new(&Authorities { system: false, file: file.map(Path::to_owned) }, Seams::system()).unwrap()
}

/// The data of a TLSA record `x 1 1`.
fn key_hash(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    Sha256::digest(parsed.tbs_certificate.subject_pki.raw).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The records of a domain `d` served at `port`, by both kinds of SRV record, and a TLSA record if there is one.
fn records(ports: [u16; 2], tlsa: Option<&str>) -> String {
    let [starttls, direct] = ports;
    let mut text = format!(
        "_xmpp-server._tcp.d 300 IN SRV 1 0 {starttls} host\n_xmpps-server._tcp.d 300 IN SRV 2 0 {direct} host\n\
         host 300 IN A 127.0.0.1\n"
    );
    for (port, data) in ports.iter().zip(tlsa.iter().cycle()) {
        let _ = writeln!(text, "_{port}._tcp.host 300 IN TLSA 3 1 1 {data}");
    }
    text
}

#[tokio::test]
async fn servers_prove_each_other_by_dane_or_by_an_authority() {
    let zones = ["right", "wrong", "plain", "none"];
    let domains = zones.map(|zone| format!("d.{zone}"));
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let caller = tls(ours.path(), &["caller.right"]);
    let called = tls(theirs.path(), &domains.each_ref().map(String::as_str));
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let ports = listeners.each_ref().map(|l| l.local_addr().unwrap().port());
    let hash = |tls: &Tls, domain: &str| key_hash(&tls.identity(Some(domain)).unwrap().chain()[0]);
    let right = records(ports, Some(&hash(&called, "d.right")))
        + &format!(
            "_xmpp-server._tcp.caller 300 IN SRV 1 0 5269 there\nthere 300 IN A 127.0.0.1\n\
             _5269._tcp.there 300 IN TLSA 3 1 1 {}\n",
            hash(&caller, "caller.right")
        );
    let nsd = Nsd::start(&[
        ("right", Signed::Yes, &right),
        ("wrong", Signed::Yes, &records(ports, Some(&"00".repeat(32)))),
        ("plain", Signed::No, &records(ports, Some(&hash(&called, "d.plain")))),
        ("none", Signed::Yes, &records(ports, None)),
    ]);
    let (servers, trust_anchor) = (vec![nsd.address], Anchor::Keys(nsd.anchor.clone()));
    let dns = Dns { servers, trust_anchor, proxy: None, refused: Vec::new() };
    let finder = Finder::new(&dns, Seams::system()).unwrap();
    let (strangers, friends) = (judge(None), judge(Some(&theirs.path().join("tls/ca.pem"))));
    for (domain, stranger, friend) in [
        ("d.right", Ok(Proof::Dane), Ok(Proof::Dane)),
        ("d.wrong", Err(NotProved::WrongRecord), Err(NotProved::WrongRecord)),
        ("d.plain", Err(NotProved::UnknownAuthority), Ok(Proof::Pkix)),
        ("d.none", Err(NotProved::UnknownAuthority), Ok(Proof::Pkix)),
    ] {
        let Targets { list } = finder.find(domain).await.unwrap();
        let begins: Vec<Begin> = list.iter().map(|t| t.begin).collect();
        assert_eq!(begins, [Begin::Starttls, Begin::Direct]);
        for (n, listener) in listeners.iter().enumerate() {
            let accepting = async {
                let (stream, _) = listener.accept().await.unwrap();
                match n {
                    0 => remote::accept_starttls(&called, stream, domain).await,
                    _ => remote::accept_direct(&called, stream).await,
                }
            };
            let connecting = async {
                let connected = finder.connect(&list[n..]).await.unwrap();
                assert_eq!(connected.target, 0);
                remote::connect(&caller, connected.stream, "caller.right", domain, list[n].begin).await
            };
            let (incoming, outgoing) = tokio::join!(accepting, connecting);
            let (incoming, outgoing) = (incoming.unwrap(), outgoing.unwrap());
            let target = &list[n..=n];
            assert_eq!(strangers.judge(&outgoing.chain, domain, target), stranger, "{domain}");
            assert_eq!(friends.judge(&outgoing.chain, domain, target), friend, "{domain}");
            // The server that was called asks DNS who called.
            assert_eq!(incoming.sni.as_deref(), Some(domain));
            let home = finder.find("caller.right").await.unwrap().list;
            assert_eq!(strangers.judge(&incoming.chain, "caller.right", &home), Ok(Proof::Dane));
            let unproved = strangers.judge(&incoming.chain, "caller.right", &[]);
            assert_eq!(unproved, Err(NotProved::UnknownAuthority));
            assert!(strangers.judge(&incoming.chain, domain, &list).is_err());
        }
    }
}
