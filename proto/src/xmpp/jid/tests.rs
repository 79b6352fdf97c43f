use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn parts(text: &str) -> (Option<String>, String, Option<String>) {
    let jid = Jid::parse(text).unwrap();
    (jid.local().map(Into::into), jid.domain().into(), jid.resource().map(Into::into))
}

#[test]
fn takes_every_shape_apart() {
    let some = |t: &str| Some(t.to_owned());
    assert_eq!(parts("localhost"), (None, "localhost".into(), None));
    assert_eq!(parts("localhost/r"), (None, "localhost".into(), some("r")));
    assert_eq!(parts("romeo@example.net"), (some("romeo"), "example.net".into(), None));
    assert_eq!(
        parts("romeo@example.net/orchard/a@b"),
        (some("romeo"), "example.net".into(), some("orchard/a@b"))
    );
    assert_eq!(parts("192.0.2.1"), (None, "192.0.2.1".into(), None));
    assert_eq!(parts("a@[2001:DB8::0:1]/x"), (some("a"), "[2001:db8::1]".into(), some("x")));
}

#[test]
fn folds_homographs_to_one_address() {
    for (given, canonical) in [
        ("ROMEO@Example.NET/Orchard", "romeo@example.net/Orchard"),
        ("ｒｏｍｅｏ@ｅｘａｍｐｌｅ。ｎｅｔ", "romeo@example.net"),
        ("Ｒomeo@example.net", "romeo@example.net"),
        ("e\u{301}mile@example.net", "émile@example.net"),
        ("ÉMILE@example.net", "émile@example.net"),
        ("fußball@example.com", "fußball@example.com"),
        ("juliet@example.net.", "juliet@example.net"),
        ("juliet@xn--fa-hia.de", "juliet@faß.de"),
        ("juliet@faß.de", "juliet@faß.de"),
        ("juliet@FAẞ.de", "juliet@faß.de"),
        ("juliet@xn--bcher-kva.example", "juliet@bücher.example"),
        ("juliet@BÜCHER.example", "juliet@bücher.example"),
        ("juliet@bu\u{308}cher.example", "juliet@bücher.example"),
        ("a@b/non\u{a0}breaking", "a@b/non breaking"),
        ("a@b/e\u{301}", "a@b/é"),
    ] {
        let jid = Jid::parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
        assert_eq!(jid, canonical, "{given}");
        assert_eq!(Jid::parse(canonical).unwrap(), jid, "{canonical} is a fixed point");
    }
    // A Cyrillic `о` is another letter: another address, for people to tell apart.
    assert_ne!(Jid::parse("rоmeo@example.net").unwrap(), Jid::parse("romeo@example.net").unwrap());
}

#[test]
fn refuses_every_illegal_kind() {
    use Error::{Empty, Illegal, TooLong};
    use Part::{Domain, Local, Resource};
    let long = "a".repeat(1024);
    let label = "a".repeat(64);
    let name = format!("{}com", "abcdefg.".repeat(32));
    let umlauts = "ü".repeat(60);
    for (text, error) in [
        ("", Empty(Domain)),
        ("/", Empty(Domain)),
        ("@", Empty(Local)),
        ("@example.net", Empty(Local)),
        ("romeo@", Empty(Domain)),
        ("romeo@/r", Empty(Domain)),
        ("romeo@example.net/", Empty(Resource)),
        ("/resource", Empty(Domain)),
        (".", Empty(Domain)),
        ("a@b@c", Illegal(Domain)),
        ("ro meo@example.net", Illegal(Local)),
        ("ro\u{a0}meo@example.net", Illegal(Local)),
        ("ro\tmeo@example.net", Illegal(Local)),
        ("ro\u{0}meo@example.net", Illegal(Local)),
        ("a\"b@c", Illegal(Local)),
        ("a&b@c", Illegal(Local)),
        ("a'b@c", Illegal(Local)),
        ("a:b@c", Illegal(Local)),
        ("a<b@c", Illegal(Local)),
        ("a>b@c", Illegal(Local)),
        ("a\u{ff20}b@c", Illegal(Local)),
        ("a\u{ff0f}b@c", Illegal(Local)),
        ("a\u{ff1c}b@c", Illegal(Local)),
        ("ﬁsh@c", Illegal(Local)),
        ("\u{212a}elvin@c", Illegal(Local)),
        ("henry\u{2163}@c", Illegal(Local)),
        ("♚@c", Illegal(Local)),
        ("a\u{200d}b@c", Illegal(Local)),
        ("a\u{200b}b@c", Illegal(Local)),
        ("a\u{ad}b@c", Illegal(Local)),
        ("\u{202e}evil@c", Illegal(Local)),
        ("\u{feff}a@c", Illegal(Local)),
        ("\u{e000}@c", Illegal(Local)),
        ("aא@c", Illegal(Local)),
        ("a@b c", Illegal(Domain)),
        ("a@b_c", Illegal(Domain)),
        ("a@-b", Illegal(Domain)),
        ("a@b-", Illegal(Domain)),
        ("a@b..c", Illegal(Domain)),
        ("a@.b", Illegal(Domain)),
        ("a@b..", Illegal(Domain)),
        ("a@b%c", Illegal(Domain)),
        ("a@b:5222", Illegal(Domain)),
        ("a@[::1", Illegal(Domain)),
        ("a@[::g]", Illegal(Domain)),
        ("a@[fe80::1%eth0]", Illegal(Domain)),
        ("a@[127.0.0.1]", Illegal(Domain)),
        ("a@xn--99999999", Illegal(Domain)),
        ("a@xn--", Illegal(Domain)),
        ("a@xn--example-.com", Illegal(Domain)),
        ("a@\u{202e}b", Illegal(Domain)),
        ("a@b\u{0}", Illegal(Domain)),
        ("a@b/\u{0}", Illegal(Resource)),
        ("a@b/\n", Illegal(Resource)),
        ("a@b/\u{7f}", Illegal(Resource)),
        ("a@b/\u{85}", Illegal(Resource)),
        ("a@b/\u{200b}", Illegal(Resource)),
        ("a@b/\u{e000}", Illegal(Resource)),
        ("a@b/\u{fffe}", Illegal(Resource)),
        (&format!("{long}@b"), TooLong(Local)),
        (&format!("a@{long}"), TooLong(Domain)),
        (&format!("a@b/{long}"), TooLong(Resource)),
        (&format!("a@{label}"), Illegal(Domain)),
        (&format!("a@{name}"), TooLong(Domain)),
        (&format!("a@{umlauts}.de"), Illegal(Domain)),
    ] {
        assert_eq!(Jid::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn holds_the_longest_parts() {
    let part = "a".repeat(1023);
    let name = format!("{}com", "abcdefg.".repeat(31));
    let jid = Jid::parse(&format!("{part}@{name}/{part}")).unwrap();
    assert_eq!(jid.local().unwrap().len(), 1023);
    assert_eq!(jid.domain(), name);
    assert_eq!(jid.resource().unwrap().len(), 1023);
    // 3-byte characters: 341 of them are 1,023 bytes.
    assert!(Jid::parse(&format!("a@b/{}", "★".repeat(341))).is_ok());
    assert_eq!(Jid::parse(&format!("a@b/{}", "★".repeat(342))), Err(Error::TooLong(Part::Resource)));
}

#[test]
fn resources_take_spaces_markup_and_emoji() {
    for resource in
        [" ", "<b>&'\"</b>", "@/@/", "Gajim.😀", "🥰 phone 🫠", "👩🏽", "☃", "ﬁ", "Ｗｉｄｅ", "דירה", "ⅳ"]
    {
        let jid = FullJid::parse(&format!("a@b/{resource}")).unwrap_or_else(|e| panic!("{resource}: {e}"));
        assert_eq!(jid.resource(), resource);
        assert_eq!(BareJid::parse("a@b").unwrap().with_resource(resource).unwrap(), jid);
    }
}

#[test]
fn converts_between_bare_and_full() {
    let full = FullJid::parse("romeo@example.net/orchard").unwrap();
    let bare = full.to_bare();
    assert_eq!(bare, "romeo@example.net");
    assert_eq!(full.bare_str(), bare.as_str());
    assert_eq!(bare.as_jid().resource(), None);
    assert!(bare.as_jid().is_bare());
    assert_eq!(bare, BareJid::parse("romeo@example.net").unwrap());
    assert_eq!(bare.with_resource("orchard").unwrap(), full);
    assert_eq!(bare.to_domain(), "example.net");
    assert_eq!(BareJid::parse("a@b/c"), Err(Error::NotBare));
    assert_eq!(FullJid::parse("a@b"), Err(Error::NotFull));
    let any = Jid::from(&full);
    assert_eq!(any.try_full(), Some(full));
    assert_eq!(any.to_bare().as_jid().try_full(), None);
    assert_eq!(BareJid::new(Some("Romeo"), "Example.NET").unwrap(), bare);
    assert_eq!(BareJid::new(None, "example.net").unwrap(), bare.to_domain());
    assert_eq!(BareJid::new(Some("a@b"), "c"), Err(Error::Illegal(Part::Local)));
    assert_eq!(BareJid::new(Some(""), "c"), Err(Error::Empty(Part::Local)));
    assert_eq!(BareJid::new(Some("a"), "b/c"), Err(Error::Illegal(Part::Domain)));
}

#[test]
fn is_found_in_maps_by_text() {
    let full = FullJid::parse("romeo@example.net/orchard").unwrap();
    let map = HashMap::from([(full.to_bare(), 1)]);
    assert_eq!(map.get("romeo@example.net"), Some(&1));
    assert_eq!(map.get(full.bare_str()), Some(&1));
    let set: HashSet<Jid> = ["B@c", "b@C", "b@c/r"].iter().map(|t| Jid::parse(t).unwrap()).collect();
    assert_eq!(set.len(), 2);
    assert_eq!(format!("{full} {full:?}"), "romeo@example.net/orchard \"romeo@example.net/orchard\"");
    assert!(std::mem::size_of::<Jid>() <= 24);
}

proptest! {
    #[test]
    fn canonical_form_is_a_fixed_point(text in "\\PC{0,12}(@\\PC{1,12})?(/\\PC{0,12})?") {
        if let Ok(jid) = Jid::parse(&text) {
            let again = Jid::parse(jid.as_str());
            prop_assert_eq!(again.as_ref().map(Jid::as_str), Ok(jid.as_str()));
            let again = again.unwrap();
            prop_assert_eq!(
                (again.local(), again.domain(), again.resource()),
                (jid.local(), jid.domain(), jid.resource())
            );
        }
    }

    #[test]
    fn fast_and_slow_paths_agree(text in "[ -~]{1,20}") {
        let slow = OpaqueOrUser::of(&text);
        prop_assert_eq!(prep::resource(&text).ok().map(|t| t.into_owned()), slow.resource);
        prop_assert_eq!(prep::local(&text).ok().map(|t| t.into_owned()), slow.local);
    }
}

/// What PRECIS itself says of a text.
struct OpaqueOrUser {
    local: Option<String>,
    resource: Option<String>,
}

impl OpaqueOrUser {
    fn of(text: &str) -> Self {
        use precis_profiles::{OpaqueString, UsernameCaseMapped, precis_core::profile::PrecisFastInvocation};
        let local = UsernameCaseMapped::enforce(text)
            .ok()
            .map(|t| t.into_owned())
            .filter(|t| !t.contains(['"', '&', '\'', '/', ':', '<', '>', '@']));
        Self { local, resource: OpaqueString::enforce(text).ok().map(|t| t.into_owned()) }
    }
}
