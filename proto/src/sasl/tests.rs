//! The machines against each other, against the vectors of the RFCs, and against clients that cheat.

use super::{client::Client, keys::derive, mechanism::BindingType, *};
use crate::xmpp::{BareJid, SaslFailure};

const PASSWORD: &str = "pencil";

fn fakes() -> Fakes {
    Fakes::new([9; 32], 4096)
}

fn bindings() -> ChannelBindings {
    ChannelBindings { exporter: Some([5; 32]), server_end_point: Some(vec![6; 48]) }
}

fn context(bindings: ChannelBindings, nonce: &str) -> Context {
    Context {
        domain: BareJid::parse("example.net").unwrap(),
        offered: offered(&bindings, true),
        bindings,
        nonce: Nonce(nonce.to_owned()),
        fakes: fakes(),
        downgrade_hash: true,
    }
}

fn credentials() -> Credentials {
    Credentials::derive(PASSWORD, &[3; 32], 4096).unwrap()
}

fn scram(hash: Hash, plus: bool) -> Mechanism {
    Mechanism::Scram { hash, plus }
}

/// Runs an exchange to its end; the store knows `user@example.net` only.
fn run(mut client: Client, mechanism: Mechanism, context: Context) -> Result<BareJid, SaslFailure> {
    let known = BareJid::parse("user@example.net").unwrap();
    let look_up = |user: &BareJid| (*user == known).then(credentials);
    let (mut server, mut step) = Server::start(mechanism, Some(&client.initial()), context);
    loop {
        step = match step {
            Step::Challenge(data) => server.response(&client.challenge(&data).unwrap()),
            Step::NeedCredentials { user } => server.credentials(look_up(&user)),
            Step::NeedPlainVerify(verify) => {
                let right = verify.check(look_up(&verify.user).as_ref(), &fakes());
                server.verified(right)
            }
            Step::Success { user, additional } => {
                client.success(additional.as_deref()).unwrap();
                return Ok(user);
            }
            Step::Failure(failure) => return Err(failure),
        };
    }
}

fn client(mechanism: Mechanism, user: &str, password: &str) -> Client {
    let client = Client::new(mechanism, user, password, Nonce::from_random([1; 18]));
    if mechanism.is_plus() { client.bind(&bindings(), None).unwrap() } else { client }
}

#[test]
fn every_mechanism_lets_the_right_user_in_and_nobody_else() {
    for mechanism in Mechanism::ALL {
        let attempt = |user: &str, password: &str| {
            run(client(mechanism, user, password), mechanism, context(bindings(), "s"))
        };
        assert_eq!(attempt("user", PASSWORD).unwrap(), "user@example.net", "{mechanism}");
        assert_eq!(attempt("USER", PASSWORD).unwrap(), "user@example.net", "{mechanism}");
        assert_eq!(attempt("user", "pencils"), Err(SaslFailure::NotAuthorized), "{mechanism}");
        assert_eq!(attempt("nobody", PASSWORD), Err(SaslFailure::NotAuthorized), "{mechanism}");
        assert_eq!(attempt("no body", PASSWORD), Err(SaslFailure::NotAuthorized), "{mechanism}");
    }
}

#[test]
fn both_bindings_bind_and_no_other_data_does() {
    let mechanism = scram(Hash::Sha256, true);
    for type_ in [BindingType::Exporter, BindingType::ServerEndPoint] {
        let bound = |theirs: &ChannelBindings| {
            Client::new(mechanism, "user", PASSWORD, Nonce::from_random([1; 18]))
                .bind(theirs, Some(type_))
                .unwrap()
        };
        assert!(run(bound(&bindings()), mechanism, context(bindings(), "s")).is_ok());
        // Somebody in the middle: another TLS channel.
        let other = ChannelBindings { exporter: Some([4; 32]), server_end_point: Some(vec![6; 32]) };
        assert_eq!(run(bound(&other), mechanism, context(bindings(), "s")), Err(SaslFailure::NotAuthorized));
    }
    let only = ChannelBindings { exporter: None, ..bindings() };
    let exporter = client(mechanism, "user", PASSWORD);
    assert_eq!(run(exporter, mechanism, context(only, "s")), Err(SaslFailure::MalformedRequest));
}

#[test]
fn flags_and_mechanisms_must_fit() {
    let (plain, plus) = (scram(Hash::Sha1, false), scram(Hash::Sha1, true));
    let new = |m| Client::new(m, "user", PASSWORD, Nonce::from_random([1; 18]));
    let bound = || context(bindings(), "s");
    let unbound = || context(ChannelBindings::default(), "s");
    assert_eq!(run(new(plus), plus, bound()), Err(SaslFailure::MalformedRequest), "n with -PLUS");
    assert_eq!(
        run(new(plus).could_bind(), plus, bound()),
        Err(SaslFailure::MalformedRequest),
        "y with -PLUS"
    );
    let p = new(plain).bind(&bindings(), None).unwrap();
    assert_eq!(run(p, plain, bound()), Err(SaslFailure::MalformedRequest), "p without -PLUS");
    assert_eq!(run(new(plain).could_bind(), plain, bound()), Err(SaslFailure::NotAuthorized), "downgraded");
    assert!(run(new(plain).could_bind(), plain, unbound()).is_ok());
    assert!(run(new(plain), plain, bound()).is_ok(), "a client that cannot bind");
    assert_eq!(run(client(plus, "user", PASSWORD), plus, unbound()), Err(SaslFailure::InvalidMechanism));
    let mut no_plain = bound();
    no_plain.offered.retain(|m| *m != Mechanism::Plain);
    let (_, step) = Server::start(Mechanism::Plain, None, no_plain);
    assert!(matches!(step, Step::Failure(SaslFailure::InvalidMechanism)));
}

#[test]
fn acts_as_nobody_else() {
    for mechanism in [scram(Hash::Sha256, false), Mechanism::Plain] {
        let attempt = |authzid: &str| {
            run(client(mechanism, "user", PASSWORD).authzid(authzid), mechanism, context(bindings(), "s"))
        };
        assert!(attempt("user@example.net").is_ok(), "{mechanism}");
        for other in ["admin@example.net", "user@example.org", "user", "example.net", "user@example.net/r"] {
            assert_eq!(attempt(other), Err(SaslFailure::InvalidAuthzid), "{mechanism} {other}");
        }
    }
}

/// Vectors of RFC 5802 5 and RFC 7677 3; that of SHA-512 is computed with Python's hashlib.
#[test]
fn agrees_with_the_vectors() {
    let decode = |text| encoding::decode(text).unwrap();
    let vectors = [
        (
            Hash::Sha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "QSXCR+Q6sek8bf92",
            "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            Hash::Sha512,
            "rOprNGfwEbeRWgbNEkqO",
            "02431b08-2f0c-4a2a-9bd1-3e4e1a2e9b9f",
            "Yin2FuHTt/M0kJWb0t9OI32n2VmOGi3m+JfjOvuDF88=",
            "tuqcz25ZtKrMsynS5Q3uju2BwmmokOxdzvdjkwyauiKC1qcrYV2Hruh9RQ/7YuYQMYlyh9+8zDqdB7CICJZ+YA==",
            "wDJMdbSASzoYyp/Uy3azB31kD4cfUsl+oyDzDwiNAhfnxnd5WcUp36TMVRhW0J25rwafvut/OSdMTUp0g54VYw==",
        ),
    ];
    for (hash, client_nonce, server_nonce, salt, proof, verifier) in vectors {
        let mechanism = scram(hash, false);
        let mut client = Client::new(mechanism, "user", PASSWORD, Nonce(client_nonce.into()));
        assert_eq!(client.initial(), format!("n,,n=user,r={client_nonce}").into_bytes());
        let context = Context { downgrade_hash: false, ..context(bindings(), server_nonce) };
        let (mut server, _) = Server::start(mechanism, Some(&client.initial()), context);
        let keys = derive(hash, PASSWORD, &decode(salt), 4096).unwrap();
        let keys = Some(keys);
        let all = Credentials { sha1: keys.clone(), sha256: keys.clone(), sha512: keys };
        let Step::Challenge(challenge) = server.credentials(Some(all)) else { panic!("no challenge") };
        assert_eq!(challenge, format!("r={client_nonce}{server_nonce},s={salt},i=4096").into_bytes());
        let last = client.challenge(&challenge).unwrap();
        assert_eq!(last, format!("c=biws,r={client_nonce}{server_nonce},p={proof}").into_bytes());
        let Step::Success { user, additional } = server.response(&last) else { panic!("no success") };
        assert_eq!(user, "user@example.net");
        assert_eq!(additional, Some(format!("v={verifier}").into_bytes()));
    }
}

#[test]
fn unknown_users_get_an_answer_like_any_other() {
    let challenge = |user: &str, found: Option<Credentials>| {
        let first = format!("n,,n={user},r=abc");
        let (mut server, _) =
            Server::start(scram(Hash::Sha256, false), Some(first.as_bytes()), context(bindings(), "def"));
        match server.credentials(found) {
            Step::Challenge(data) => String::from_utf8(data).unwrap(),
            step => panic!("{step:?}"),
        }
    };
    let (fake, real) = (challenge("nobody", None), challenge("user", Some(credentials())));
    assert_eq!(fake, challenge("nobody", None), "the same each time");
    assert_ne!(fake, challenge("anybody", None));
    assert_eq!(fake.len(), real.len());
    assert!(fake.starts_with("r=abcdef,s=") && fake.contains(",i=4096,h="), "{fake}");
}

/// An account from another server, with keys for SCRAM-SHA-1 alone.
#[test]
fn a_mechanism_without_keys_fails_as_for_nobody() {
    let some = Credentials { sha256: None, sha512: None, ..credentials() };
    let mechanism = scram(Hash::Sha256, false);
    let exchange = |found: Option<Credentials>| {
        let mut client = Client::new(mechanism, "user", PASSWORD, Nonce("abc".into()));
        let (mut server, _) = Server::start(mechanism, Some(&client.initial()), context(bindings(), "def"));
        let Step::Challenge(challenge) = server.credentials(found) else { panic!("no challenge") };
        let end = server.response(&client.challenge(&challenge).unwrap());
        (challenge, format!("{end:?}"))
    };
    let nobody = exchange(None);
    assert!(nobody.1.contains("NotAuthorized"), "{}", nobody.1);
    assert_eq!(exchange(Some(some.clone())), nobody);
    assert!(exchange(Some(credentials())).1.contains("Success"));
    let Step::NeedPlainVerify(plain) =
        Server::start(Mechanism::Plain, Some(b"\0user\0pencil"), context(bindings(), "def")).1
    else {
        panic!("no look-up")
    };
    assert!(plain.check(Some(&some), &fakes()));
    let whole = plain.completed(&some, &[1; 32], 4096).unwrap();
    assert_eq!(plain.completed(&whole, &[1; 32], 4096), None);
    assert!(exchange(Some(whole)).1.contains("Success"));
}

#[test]
fn a_proof_from_fake_keys_is_no_proof() {
    // Even with the fake keys' secret nobody could log in.
    let mechanism = scram(Hash::Sha1, false);
    let user = BareJid::parse("nobody@example.net").unwrap();
    let keys = fakes().keys(Hash::Sha1, &user);
    let (mut server, _) = Server::start(mechanism, Some(b"n,,n=nobody,r=abc"), context(bindings(), "def"));
    let Step::Challenge(challenge) = server.credentials(None) else { panic!("no challenge") };
    let message = [b"n=nobody,r=abc,", challenge.as_slice(), b",c=biws,r=abcdef"].concat();
    let proof = encoding::encode(&Hash::Sha1.hmac(&keys.stored_key, &[&message]));
    let step = server.response(format!("c=biws,r=abcdef,p={proof}").as_bytes());
    assert!(matches!(step, Step::Failure(SaslFailure::NotAuthorized)));
}

/// What somebody on the way does to a message.
type Change<'a> = &'a dyn Fn(String) -> Vec<u8>;

#[test]
fn a_tampered_last_message_fails() {
    let mechanism = scram(Hash::Sha256, false);
    let attempt = |change: Change<'_>| {
        let mut client = client(mechanism, "user", PASSWORD);
        let (mut server, _) = Server::start(mechanism, Some(&client.initial()), context(bindings(), "def"));
        let Step::Challenge(challenge) = server.credentials(Some(credentials())) else {
            panic!("no challenge")
        };
        let last = String::from_utf8(client.challenge(&challenge).unwrap()).unwrap();
        let step = server.response(&change(last));
        assert!(
            matches!(server.response(b"again"), Step::Failure(SaslFailure::MalformedRequest)),
            "it is over"
        );
        step
    };
    assert!(matches!(attempt(&|last| last.into_bytes()), Step::Success { .. }));
    let failures: [(Change<'_>, SaslFailure); 8] = [
        (&|last| last.replace("c=biws", "c=eSws").into(), SaslFailure::NotAuthorized),
        (&|last| last.replace("def,", "deg,").into(), SaslFailure::MalformedRequest),
        (&|last| last.replace("def,", "def,x=1,").into(), SaslFailure::NotAuthorized),
        (&|last| last.replace(",p=", ",q=").into(), SaslFailure::MalformedRequest),
        (&|last| [last.split_once(",p=").unwrap().0, ",p="].concat().into(), SaslFailure::NotAuthorized),
        (&|last| [last.split_once(",p=").unwrap().0, ",p=AAAA"].concat().into(), SaslFailure::NotAuthorized),
        (&|_| vec![0xff], SaslFailure::MalformedRequest),
        (&|_| vec![b'a'; MESSAGE_BYTES + 1], SaslFailure::MalformedRequest),
    ];
    for (number, (change, expected)) in failures.into_iter().enumerate() {
        let step = attempt(change);
        assert!(matches!(step, Step::Failure(failure) if failure == expected), "{number}: {step:?}");
    }
}

#[test]
fn calls_at_the_wrong_time_end_it() {
    let start =
        || Server::start(scram(Hash::Sha1, false), Some(b"n,,n=user,r=abc"), context(bindings(), "def")).0;
    let over = |step: Step| matches!(step, Step::Failure(SaslFailure::MalformedRequest));
    assert!(over(start().response(b"c=biws,r=abcdef,p=AAAA")), "before the keys");
    assert!(over(start().verified(true)), "not PLAIN");
    let mut server = start();
    assert!(over(server.verified(true)) && over(server.credentials(Some(credentials()))));
    let (mut plain, _) = Server::start(Mechanism::Plain, Some(b"\0user\0pencil"), context(bindings(), "def"));
    assert!(over(plain.credentials(Some(credentials()))) && over(plain.verified(true)));
}

#[test]
fn asks_for_an_initial_response_that_did_not_come() {
    for mechanism in [scram(Hash::Sha512, false), Mechanism::Plain] {
        let (mut server, step) = Server::start(mechanism, None, context(bindings(), "s"));
        assert!(matches!(step, Step::Challenge(data) if data.is_empty()));
        let step = server.response(&client(mechanism, "user", PASSWORD).initial());
        assert!(matches!(step, Step::NeedCredentials { .. } | Step::NeedPlainVerify(_)));
        let (_, step) = Server::start(mechanism, Some(b""), context(bindings(), "s"));
        assert!(matches!(step, Step::Failure(SaslFailure::MalformedRequest)), "empty is not absent");
    }
}

#[test]
fn plain_is_three_texts() {
    for bad in [
        &b"user"[..],
        b"\0user",
        b"\0\0pencil",
        b"\0user\0",
        b"\0user\0pencil\0",
        b"\0\xff\0pencil",
        &[b"\0user\0".as_slice(), &[b'x'; 1025]].concat(),
    ] {
        let (_, step) = Server::start(Mechanism::Plain, Some(bad), context(bindings(), "s"));
        assert!(matches!(step, Step::Failure(SaslFailure::MalformedRequest)), "{bad:?}");
    }
    let (server, step) = Server::start(Mechanism::Plain, Some(b"\0user\0hunter2"), context(bindings(), "s"));
    assert!(!format!("{step:?} {server:?}").contains("hunter2"), "passwords are not shown");
}

#[test]
fn a_client_sees_changed_features() {
    let mechanism = scram(Hash::Sha256, false);
    let names = |context: &Context| context.offered.iter().map(|m| m.name().to_owned()).collect::<Vec<_>>();
    let types = || vec!["tls-server-end-point".to_owned(), "tls-exporter".to_owned()];
    let honest = context(bindings(), "s");
    let told = client(mechanism, "user", PASSWORD).announced(names(&honest), types());
    assert!(run(told, mechanism, honest.clone()).is_ok());
    for (mechanisms, types) in [
        (vec!["PLAIN".to_owned()], types()),
        (names(&honest), vec![]),
        (names(&honest), vec!["tls-exporter".to_owned()]),
    ] {
        let mut told = client(mechanism, "user", PASSWORD).announced(mechanisms, types);
        let (mut server, _) = Server::start(mechanism, Some(&told.initial()), honest.clone());
        let Step::Challenge(challenge) = server.credentials(Some(credentials())) else {
            panic!("no challenge")
        };
        assert_eq!(told.challenge(&challenge), Err(client::Error::Downgrade));
    }
}

#[test]
fn a_client_sees_a_false_server() {
    let mechanism = scram(Hash::Sha1, false);
    let mut c = client(mechanism, "user", PASSWORD);
    let nonce = Nonce::from_random([1; 18]).0;
    assert_eq!(c.challenge(b"r=other,s=QSXC,i=4096"), Err(client::Error::Nonce));
    assert_eq!(c.challenge(format!("r={nonce},s=QSXC,i=4096").as_bytes()), Err(client::Error::Nonce));
    assert_eq!(c.challenge(format!("r={nonce}x,s=QSXC,i=1").as_bytes()), Err(client::Error::Iterations));
    assert_eq!(c.challenge(b"e=other-error"), Err(client::Error::Malformed));
    c.challenge(format!("r={nonce}x,s=QSXC,i=4096").as_bytes()).unwrap();
    for data in [None, Some(&b"v=AAAA"[..]), Some(b"")] {
        assert_eq!(c.success(data), Err(client::Error::Unproven));
    }
}

proptest::proptest! {
    #[test]
    fn nothing_panics(first: Vec<u8>, last: Vec<u8>, plus: bool, text in "[a-z=,]{0,9}") {
        for data in [first.clone(), format!("n,,n={text},r={text}").into_bytes(), [b"n,,n=u,r=".as_slice(), &first].concat()] {
            let mechanism = scram(Hash::Sha1, plus);
            let (mut server, _) = Server::start(mechanism, Some(&data), context(bindings(), "s"));
            server.credentials(None);
            let step = server.response(&last);
            proptest::prop_assert!(matches!(step, Step::Failure(_)));
            let _ = Server::start(Mechanism::Plain, Some(&data), context(bindings(), "s"));
        }
    }
}
