//! Callers that are not let in.

use std::os::unix::fs::PermissionsExt as _;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::*;

/// What a says about b after it tried.
async fn trouble(a: &Node) -> String {
    let _outcome = send(&a.peers.peer(&id("b")), numbered(1));
    let waiting = async {
        loop {
            if let Some(trouble) = a.peers.standings()[0].trouble.clone() {
                return trouble;
            }
            tokio::task::yield_now().await;
        }
    };
    let trouble = tokio::time::timeout(LONG, waiting).await.expect("no trouble");
    assert!(!a.peers.standings()[0].connected);
    trouble
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let book = Book::default();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut b = Node::start(me("b", 1), options(), ours.tls("b"), &book).await;
    let a = Node::start(me("a", 1), options(), theirs.tls("a"), &book).await;
    let why = trouble(&a).await;
    assert!(why.contains("certificate"), "{why}");
    // The caller that does believe the one called is not believed by it.
    let files = authority::certificate(theirs.folder(), &id("a"), now()).unwrap();
    let mixed = tls::Files { authority: ours.folder().join(authority::AUTHORITY), ..files };
    let mixed = Security::Tls(tls::Tls::read(&mixed, &id("a")).unwrap());
    let a = Node::start(me("a", 1), options(), mixed, &book).await;
    trouble(&a).await;
    assert!(b.taken.try_recv().is_err());
}

#[tokio::test]
async fn a_name_is_only_believed_with_its_certificate() {
    let (authority, book) = (Authority::new(), Book::default());
    let mut b = Node::usual("b", 1, &authority, &book).await;
    // c says that it is a.
    let a = Node::start(me("a", 1), options(), authority.tls("c"), &book).await;
    let why = trouble(&a).await;
    assert_eq!(why, "refused: the certificate is not for a");
    // c answers at b's address.
    let c = Node::usual("c", 1, &authority, &book).await;
    book.set("b", &c.address);
    let a = Node::usual("a", 1, &authority, &book).await;
    let why = trouble(&a).await;
    assert!(why.contains("certificate") && why.contains("name"), "{why}");
    assert!(b.taken.try_recv().is_err());
}

#[tokio::test]
async fn other_clusters_versions_and_plain_text_are_refused() {
    let (authority, book) = (Authority::new(), Book::default());
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let other = Me { cluster: "other".into(), ..me("a", 1) };
    let a = Node::start(other, options(), authority.tls("a"), &book).await;
    assert_eq!(trouble(&a).await, "refused: this is cluster \"test\", not \"other\"");

    let newer = Me { versions: (Me::VERSIONS.1 + 1, Me::VERSIONS.1 + 2), ..me("a", 1) };
    let a = Node::start(newer, options(), authority.tls("a"), &book).await;
    let why = trouble(&a).await;
    assert!(why.contains("versions"), "{why}");

    let plain = Options { connect: Duration::from_millis(500), ..options() };
    let a = Node::start(me("a", 1), plain, Security::PlainText, &book).await;
    trouble(&a).await;
    assert!(b.taken.try_recv().is_err());

    // A neighbour, which speaks one more.
    let neighbour = Me { versions: (Me::VERSIONS.0, Me::VERSIONS.1 + 1), ..me("a", 1) };
    let a = Node::start(neighbour, options(), authority.tls("a"), &book).await;
    let outcome = send(&a.peers.peer(&id("b")), numbered(1));
    b.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn plain_text_works_where_both_ends_are_told_so() {
    let book = Book::default();
    let a = Node::start(me("a", 1), options(), Security::PlainText, &book).await;
    let mut b = Node::start(me("b", 1), options(), Security::PlainText, &book).await;
    let outcome = send(&a.peers.peer(&id("b")), numbered(1));
    b.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn new_certificates_are_used_from_the_next_connection_on() {
    let (old, new, book) = (Authority::new(), Authority::new(), Book::default());
    let mut b = Node::start(me("b", 1), options(), new.tls("b"), &book).await;
    let a = Node::start(me("a", 1), options(), old.tls("a"), &book).await;
    trouble(&a).await;
    a.peers.renew(new.tls("a"));
    let (_, envelope, done) = b.next().await;
    assert_eq!(number(&envelope), 1);
    done.taken();
}

#[tokio::test]
async fn a_denied_certificate_ends_what_stands_on_it_and_begins_nothing() {
    let (authority, book) = (Authority::new(), Book::default());
    let a = Node::usual("a", 1, &authority, &book).await;
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let outcome = send(&a.peers.peer(&id("b")), numbered(1));
    b.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    // Of the one called, by the caller and by itself: whichever is told first, the stream is over.
    let der = CertificateDer::from_pem_file(authority.folder().join("a.pem")).unwrap();
    b.peers.deny(Denied::new(move |shown| shown == der.as_ref()));
    let cut = async {
        while a.peers.standings()[0].connected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, cut).await.expect("the stream goes on");
    trouble(&a).await;
    assert!(b.taken.try_recv().is_err());
    // Nobody else's.
    let c = Node::usual("c", 1, &authority, &book).await;
    let outcome = send(&c.peers.peer(&id("b")), numbered(1));
    b.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    // A caller denies the one called as well.
    let der = CertificateDer::from_pem_file(authority.folder().join("b.pem")).unwrap();
    c.peers.deny(Denied::new(move |shown| shown == der.as_ref()));
    let _outcome = send(&c.peers.peer(&id("b")), numbered(2));
    let refused = async {
        while !c.peers.standings()[0].trouble.as_deref().is_some_and(|why| why.contains("denied")) {
            tokio::task::yield_now().await; // the stream that stood has to break first
        }
    };
    tokio::time::timeout(LONG, refused).await.expect("it is not denied");
}

#[test]
fn files_are_checked_and_keys_are_private() {
    let authority = Authority::new();
    assert!(!authority::make(authority.folder(), "test", now()).unwrap(), "made twice");
    let files = authority::certificate(authority.folder(), &id("a"), now()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(mode(&authority.folder().join(authority::AUTHORITY_KEY)), 0o600);
    assert_eq!(mode(&files.certificate), 0o644);

    let failed = |files: &tls::Files, node: &str| tls::Tls::read(files, &id(node)).err().unwrap().to_string();
    assert!(failed(&files, "b").contains("not for b"));
    let missing = tls::Files { key: "/nowhere/a.key".into(), ..files.clone() };
    assert!(failed(&missing, "a").starts_with("/nowhere/a.key"));
    let others = authority::certificate(authority.folder(), &id("b"), now()).unwrap();
    let mixed = tls::Files { key: others.key, ..files.clone() };
    assert!(failed(&mixed, "a").contains("cannot be used"), "{}", failed(&mixed, "a"));
    std::fs::write(&files.certificate, "nothing").unwrap();
    assert!(failed(&files, "a").contains("no certificate"));
    let security = Security::PlainText;
    assert_eq!(format!("{security:?} {:?}", authority.tls("a")), "PlainText Tls");
}
