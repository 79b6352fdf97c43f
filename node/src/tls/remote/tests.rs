//! Handshakes with other servers, and what their certificates prove.
//!
//! Length: one case for each thing that can be wrong with a certificate.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rookery_cluster::mesh::peer::authority::validity;
use sha2::{Digest as _, Sha256, Sha512};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::config::Authorities;
use crate::dns::{Target, Tlsa};
use crate::tls::tests::{NOW, config, seams};

type Chain = Vec<CertificateDer<'static>>;

/// An authority, with a root and an intermediate certificate.
struct Authority {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    intermediate: rcgen::Certificate,
}

fn ca(name: &str, depth: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = validity(NOW - 30 * 86_400, 3_650);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Authority {
    fn new(name: &str) -> Self {
        Self::bound(name, None, None)
    }

    /// One whose root, or what is below it, may not sign every name.
    fn bound(name: &str, root: Option<NameConstraints>, below: Option<NameConstraints>) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let mut params = ca(name, 1);
        params.name_constraints = root;
        let root = params.self_signed(&root_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut lower = ca(&format!("{name} 2"), 0);
        lower.name_constraints = below;
        let below = lower;
        let intermediate = below.signed_by(&key, &Issuer::new(params, root_key)).unwrap();
        Self { root, issuer: Issuer::new(below, key), intermediate }
    }

    /// A certificate for `names`, with its chain, as `change` has it.
    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let mut params = leaf(names);
        change(&mut params);
        let signed = params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap();
        vec![signed.der().clone(), self.intermediate.der().clone()]
    }

    /// A judge that trusts it alone.
    fn judge(&self) -> Judge {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, self.root.pem()).unwrap();
        Judge::new(&Authorities { system: false, file: Some(file) }, seams(NOW)).unwrap()
    }
}

fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "common.example");
    (params.not_before, params.not_after) = validity(NOW - 86_400, 90);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn target(secure: bool, tlsa: Vec<Tlsa>) -> Target {
    Target {
        begin: Begin::Starttls,
        host: "xmpp.hoster.example".to_owned(),
        port: 5269,
        addresses: Vec::new(),
        secure,
        tlsa,
        proxied: false,
    }
}

/// A record of `certificate`.
fn tlsa(usage: u8, selector: u8, matching: u8, certificate: &CertificateDer<'_>) -> Tlsa {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let selected = match selector {
        0 => certificate.to_vec(),
        _ => parsed.tbs_certificate.subject_pki.raw.to_vec(),
    };
    let data = match matching {
        0 => selected,
        1 => Sha256::digest(selected).to_vec(),
        _ => Sha512::digest(selected).to_vec(),
    };
    Tlsa { usage, selector, matching, data }
}

/// An XmppAddr, or another name of that kind.
fn other_name(last: u64, name: &str) -> SanType {
    SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, last], name.into()))
}

#[test]
fn the_uses_that_a_server_may_have() {
    let authority = Authority::new("A");
    let judge = authority.judge();
    let with = |usages: &[ExtendedKeyUsagePurpose]| {
        let chain = authority.issue(&["a.example"], |p| p.extended_key_usages = usages.to_vec());
        judge.judge(&chain, "a.example", &[])
    };
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    // What Let's Encrypt issues, what it used to issue, and what some companies do.
    assert_eq!(with(&[ServerAuth]), Ok(Proof::Pkix));
    assert_eq!(with(&[ServerAuth, ClientAuth]), Ok(Proof::Pkix));
    assert_eq!(with(&[ClientAuth]), Ok(Proof::Pkix));
    assert_eq!(with(&[]), Ok(Proof::Pkix));
    assert_eq!(with(&[CodeSigning]), Err(NotProved::WrongUsage));
}

#[test]
fn names_of_every_kind() {
    let authority = Authority::new("A");
    let judge = authority.judge();
    let proves = |chain: &Chain, domain: &str| match judge.judge(chain, domain, &[]) {
        Ok(Proof::Pkix) => true,
        Err(NotProved::WrongName { .. }) => false,
        other => panic!("{domain}: {other:?}"),
    };
    let check = |chain: Chain, yes: &[&str], no: &[&str]| {
        yes.iter().for_each(|domain| assert!(proves(&chain, domain), "{domain}"));
        no.iter().for_each(|domain| assert!(!proves(&chain, domain), "{domain}"));
    };
    let plain = authority.issue(&["A.example", "b.example"], |_| ());
    check(plain, &["a.example", "b.example", "B.EXAMPLE"], &["c.example", "x.a.example", "common.example"]);
    let wild = authority.issue(&["*.a.example"], |_| ());
    check(wild, &["x.a.example"], &["a.example", "conference.x.a.example", "xa.example"]);
    let odd = authority.issue(&["x*.a.example", "*.*.b.example", "c.*.example"], |_| ());
    check(odd, &[], &["xy.a.example", "p.q.b.example", "c.d.example"]);
    let idna = authority.issue(&["xn--bcher-kva.example", "*.xn--bcher-kva.example"], |_| ());
    check(
        idna,
        &["bücher.example", "xn--bcher-kva.example", "BÜCHER.example", "chat.bücher.example"],
        &["bucher.example", "a.b.bücher.example"],
    );
    let xmpp = authority.issue(&[], |p| {
        p.subject_alt_names = vec![other_name(5, "Bücher.example"), other_name(5, "juliet@b.example")];
    });
    check(xmpp, &["bücher.example", "xn--bcher-kva.example"], &["b.example", "chat.bücher.example"]);
    let srv = authority.issue(&[], |p| {
        p.subject_alt_names = vec![
            other_name(7, "_xmpp-server.a.example"),
            other_name(7, "_xmpp-client.b.example"),
            other_name(7, "_xmpp-server.*.c.example"),
        ];
    });
    check(srv, &["a.example"], &["b.example", "x.c.example", "_xmpp-server.a.example"]);
    // As RFC 4985 has it: an IA5String.
    let name = b"_xmpp-server.a.example";
    let length = |n: usize| u8::try_from(n).unwrap();
    let mut value =
        vec![0x06, 8, 0x2b, 6, 1, 5, 5, 7, 8, 7, 0xa0, length(name.len() + 2), 0x16, length(name.len())];
    value.extend_from_slice(name);
    let mut names = vec![0x30, length(value.len() + 2), 0xa0, length(value.len())];
    names.extend(value);
    let ia5 = authority.issue(&[], |p| {
        p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
    });
    check(ia5, &["a.example"], &["b.example"]);
    let address = authority.issue(&["192.0.2.1", "::1"], |_| ());
    check(address, &["192.0.2.1", "[::1]"], &["192.0.2.2", "a.example"]);
    check(authority.issue(&[], |_| ()), &[], &["common.example", ""]);
}

#[test]
fn an_authority_for_some_names_signs_no_others() {
    let company = || {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("company.example".into())];
        Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() })
    };
    for (root, below) in [(company(), None), (None, company())] {
        let authority = Authority::bound("A", root, below);
        let judge = authority.judge();
        let plain = authority.issue(&["chat.company.example"], |_| ());
        assert_eq!(judge.judge(&plain, "chat.company.example", &[]), Ok(Proof::Pkix));
        let outside = authority.issue(&["bank.example"], |_| ());
        assert!(matches!(judge.judge(&outside, "bank.example", &[]), Err(NotProved::Invalid(_))));
        // Names that the rule of the authority says nothing about.
        let odd = authority.issue(&["chat.company.example"], |p| {
            p.subject_alt_names.push(other_name(5, "bank.example"));
            p.subject_alt_names.push(other_name(7, "_xmpp-server.bank.example"));
        });
        assert!(matches!(judge.judge(&odd, "bank.example", &[]), Err(NotProved::WrongName { .. })));
        assert_eq!(judge.judge(&odd, "chat.company.example", &[]), Ok(Proof::Pkix));
    }
}

#[test]
fn every_other_reason_is_named() {
    let authority = Authority::new("A");
    let judge = authority.judge();
    let says = |chain: &Chain| judge.judge(chain, "a.example", &[]).unwrap_err();
    let at = |from: i64, days: i64| {
        authority.issue(&["a.example"], |p| (p.not_before, p.not_after) = validity(NOW + from * 86_400, days))
    };
    assert!(
        says(&at(-100, 90)).to_string().starts_with("the certificate expired 10 days"),
        "{}",
        says(&at(-100, 90))
    );
    assert!(matches!(says(&at(5, 90)), NotProved::NotYetValid(_)), "{:?}", says(&at(5, 90)));
    assert_eq!(says(&Vec::new()), NotProved::NoCertificate);
    assert!(matches!(says(&vec![CertificateDer::from(vec![1, 2, 3])]), NotProved::Malformed(_)));
    let wrong = says(&authority.issue(&["b.example", "c.example"], |_| ()));
    assert_eq!(
        wrong.to_string(),
        r#"the certificate is not for a.example, but for ["b.example", "c.example"]"#
    );
    let stranger = Authority::new("A").issue(&["a.example"], |_| ());
    assert_eq!(says(&stranger), NotProved::UnknownAuthority);
    let stranger = Authority::new("B").issue(&["a.example"], |_| ());
    assert_eq!(says(&stranger), NotProved::UnknownAuthority);
    // Without its intermediate certificate.
    assert_eq!(says(&authority.issue(&["a.example"], |_| ())[..1].to_vec()), NotProved::UnknownAuthority);
    let own = leaf(&["a.example"]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(says(&vec![own.der().clone()]), NotProved::UnknownAuthority);
}

#[test]
fn records_of_each_usage() {
    let (known, unknown) = (Authority::new("A"), Authority::new("B"));
    let judge = known.judge();
    let ours = known.issue(&["a.example"], |_| ());
    let theirs = unknown.issue(&["a.example"], |_| ());
    let judged = |chain: &Chain, record: Tlsa| judge.judge(chain, "a.example", &[target(true, vec![record])]);
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            let of = |usage, certificate| tlsa(usage, selector, matching, certificate);
            let (dane, wrong) = (Ok(Proof::Dane), Err(NotProved::WrongRecord));
            // DANE-EE: the certificate alone; its signer does not matter.
            assert_eq!(judged(&theirs, of(3, &theirs[0])), dane);
            assert_eq!(judged(&ours, of(3, &theirs[0])), wrong);
            // DANE-TA: the authority, which nobody else trusts.
            assert_eq!(judged(&theirs, of(2, &theirs[1])), dane);
            assert_eq!(judged(&ours, of(2, &theirs[1])), wrong);
            // PKIX-EE and PKIX-TA: beside an authority that is trusted.
            assert_eq!(judged(&ours, of(1, &ours[0])), dane);
            assert_eq!(judged(&theirs, of(1, &theirs[0])), wrong);
            assert_eq!(judged(&ours, of(0, &ours[1])), dane);
            assert_eq!(judged(&ours, of(0, known.root.der())), dane);
            assert_eq!(judged(&theirs, of(0, &theirs[1])), wrong);
            assert_eq!(judged(&ours, of(0, unknown.root.der())), wrong);
        }
    }
    // An authority that the record holds as a whole need not be sent.
    let alone = theirs[..1].to_vec();
    assert_eq!(judged(&alone, tlsa(2, 0, 0, &theirs[1])), Ok(Proof::Dane));
    assert_eq!(judged(&alone, tlsa(2, 0, 1, &theirs[1])), Err(NotProved::WrongRecord));
}

#[test]
fn names_and_dates_count_with_an_authority_only() {
    let authority = Authority::new("B");
    let judge = Authority::new("A").judge();
    let old =
        authority.issue(&["other.example"], |p| (p.not_before, p.not_after) = validity(NOW - 864_000, 5));
    let judged = |record| judge.judge(&old, "a.example", &[target(true, vec![record])]);
    assert_eq!(judged(tlsa(3, 1, 1, &old[0])), Ok(Proof::Dane));
    assert_eq!(judged(tlsa(2, 0, 1, &old[1])), Err(NotProved::WrongRecord));
    let other = authority.issue(&["other.example"], |_| ());
    let judged = |record| judge.judge(&other, "a.example", &[target(true, vec![record])]);
    assert_eq!(judged(tlsa(2, 0, 1, &other[1])), Err(NotProved::WrongRecord));
    // The host that DNSSEC says serves the domain.
    let host = authority.issue(&["xmpp.hoster.example"], |_| ());
    let with = |secure| judge.judge(&host, "a.example", &[target(secure, vec![tlsa(2, 0, 1, &host[1])])]);
    assert_eq!(with(true), Ok(Proof::Dane));
    assert_eq!(with(false), Err(NotProved::UnknownAuthority), "without DNSSEC a record counts for nothing");
}

#[test]
fn records_decide_only_where_they_are_usable_and_everywhere() {
    let authority = Authority::new("A");
    let judge = authority.judge();
    let chain = authority.issue(&["a.example"], |_| ());
    let wrong = tlsa(3, 1, 1, authority.root.der());
    let judged = |targets: &[Target]| judge.judge(&chain, "a.example", targets);
    assert_eq!(judged(&[target(true, vec![wrong.clone()])]), Err(NotProved::WrongRecord));
    assert_eq!(judged(&[target(false, vec![wrong.clone()])]), Ok(Proof::Pkix));
    assert_eq!(judged(&[target(true, vec![wrong.clone()]), target(true, Vec::new())]), Ok(Proof::Pkix));
    let right = tlsa(3, 1, 2, &chain[0]);
    assert_eq!(judged(&[target(true, vec![wrong.clone()]), target(true, vec![right])]), Ok(Proof::Dane));
    for unusable in [
        Tlsa { usage: 4, ..wrong.clone() },
        Tlsa { selector: 2, ..wrong.clone() },
        Tlsa { matching: 3, ..wrong.clone() },
        Tlsa { data: vec![1; 31], ..wrong.clone() },
        Tlsa { matching: 0, data: Vec::new(), ..wrong.clone() },
    ] {
        assert_eq!(judged(&[target(true, vec![unusable.clone()])]), Ok(Proof::Pkix), "{unusable:?}");
    }
}

#[test]
fn files_of_authorities() {
    let missing = Authorities { system: false, file: Some(Path::new("/nowhere/ca.pem").to_owned()) };
    assert!(Judge::new(&missing, seams(NOW)).is_err());
    let none = Judge::new(&Authorities { system: false, file: None }, seams(NOW)).unwrap();
    let chain = Authority::new("A").issue(&["a.example"], |_| ());
    assert_eq!(none.judge(&chain, "a.example", &[]), Err(NotProved::UnknownAuthority));
}

/// Two servers of this kind, one after the other: what each knows of the other after the handshake.
async fn handshake(begin: Begin, remote: &str) -> (Secured<()>, Secured<()>) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let caller =
        Tls::load(&config(folders[0].path(), &["first.example", "caller.example"]), seams(NOW)).unwrap();
    let names = ["other.example", "bücher.example", "called.example"];
    let called = Tls::load(&config(folders[1].path(), &names), seams(NOW)).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let accepting = async {
        match begin {
            Begin::Starttls => accept_starttls(&called, theirs, "called.example").await,
            Begin::Direct => accept_direct(&called, theirs).await,
        }
    };
    let (out, incoming) = tokio::join!(connect(&caller, ours, "caller.example", remote, begin), accepting);
    let (out, incoming) = (out.unwrap(), incoming.unwrap());
    let expected = (begin == Begin::Direct).then_some(ALPN);
    assert_eq!(out.stream.get_ref().1.alpn_protocol(), expected);
    let bare = |chain, version, sni| Secured { stream: (), chain, version, sni };
    (bare(out.chain, out.version, out.sni), bare(incoming.chain, incoming.version, incoming.sni))
}

fn is_for(chain: &[CertificateDer<'_>], name: &str) -> bool {
    let (_, parsed) = X509Certificate::from_der(&chain[0]).unwrap();
    names_of::Names::of(&parsed).unwrap().cover(name)
}

#[tokio::test]
async fn both_sides_show_the_certificate_of_their_domain() {
    for begin in [Begin::Starttls, Begin::Direct] {
        let (out, incoming) = handshake(begin, "bücher.example").await;
        assert!(is_for(&out.chain, "xn--bcher-kva.example"));
        assert_eq!(incoming.sni.as_deref(), Some("xn--bcher-kva.example"));
        assert!(is_for(&incoming.chain, "caller.example"));
        assert_eq!((out.version, incoming.version), ("1.3", "1.3"));
    }
    // An address has no SNI: it is `to` that counts.
    let (out, incoming) = handshake(Begin::Starttls, "127.0.0.1").await;
    assert!(is_for(&out.chain, "called.example") && incoming.sni.is_none());
}

/// What other servers are: with a certificate or without, of either version, with another protocol.
#[tokio::test]
async fn servers_of_every_kind_are_let_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load(&config(folder.path(), &["localhost"]), seams(NOW)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = KeyPair::generate().unwrap();
    let expired = {
        let mut params = leaf(&["caller.example"]);
        (params.not_before, params.not_after) = validity(NOW - 864_000, 5);
        params.self_signed(&key).unwrap().der().clone()
    };
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    for (version, named) in [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")] {
        for with in [true, false] {
            let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier::AnyKey(provider.clone())));
            let client = match with {
                true => builder.with_client_auth_cert(vec![expired.clone()], key.clone_key()).unwrap(),
                false => builder.with_no_client_auth(),
            };
            let connector = TlsConnector::from(Arc::new(client));
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let name = ServerName::try_from("localhost").unwrap();
            let (client, server) =
                tokio::join!(connector.connect(name, ours), accept_starttls(&tls, theirs, "localhost"));
            client.unwrap();
            let server = server.unwrap();
            assert_eq!(server.version, named);
            assert_eq!(server.chain, if with { vec![expired.clone()] } else { Vec::new() });
        }
    }
    // A client's ALPN opens no stream of a server.
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut client = (*tls.identity(None).unwrap().remote.to_direct).clone();
    client.alpn_protocols = vec![b"xmpp-client".to_vec()];
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) = tokio::join!(connector.connect(name, ours), accept_direct(&tls, theirs));
    assert!(client.is_err() && server.is_err());
}

/// A peer that shows a certificate without having its key is refused.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load(&config(folder.path(), &["localhost"]), seams(NOW)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let victim = leaf(&["bank.example"]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let other =
        rustls::pki_types::PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(other).unwrap();
    #[derive(Debug)]
    struct Thief(Arc<rustls::sign::CertifiedKey>);
    impl rustls::client::ResolvesClientCert for Thief {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stolen = rustls::sign::CertifiedKey::new(vec![victim.der().clone()], key.clone());
        let client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier::AnyKey(provider.clone())))
            .with_client_cert_resolver(Arc::new(Thief(Arc::new(stolen))));
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (_, server) =
            tokio::join!(connector.connect(name, ours), accept_starttls(&tls, theirs, "localhost"));
        assert!(server.is_err());
    }
}
