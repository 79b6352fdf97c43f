//! Hand-made cases: what must be refused, with which stream error; and what must not be.

use super::*;
use crate::xmpp::StreamCondition as C;

fn judge(frame: &[u8]) -> Option<C> {
    element(frame, &Scope::CLIENT, &Limits::CLIENT).err().map(|e| e.condition())
}

#[test]
fn refused() {
    let cases: &[(&str, C)] = &[
        // Restricted XML (RFC 6120 section 11.1).
        ("<!DOCTYPE a><a/>", C::RestrictedXml),
        ("<a><!DOCTYPE a></a>", C::RestrictedXml),
        ("<a><!ENTITY b 'c'></a>", C::RestrictedXml),
        ("<a><!-- b --></a>", C::RestrictedXml),
        ("<!-- b --><a/>", C::RestrictedXml),
        ("<a/><!-- b -->", C::NotWellFormed),
        ("<a><?b c?></a>", C::RestrictedXml),
        ("<a><?xml version='1.0'?></a>", C::RestrictedXml),
        ("<?xml version='1.0'?><a/>", C::RestrictedXml),
        ("<a>&b;</a>", C::RestrictedXml),
        ("<a>&nbsp;</a>", C::RestrictedXml),
        ("<a b='&c;'/>", C::RestrictedXml),
        ("<a><![cdata[b]]></a>", C::RestrictedXml),
        // Characters.
        ("<a>\0</a>", C::NotWellFormed),
        ("<a>\u{8}</a>", C::NotWellFormed),
        ("<a b='\u{1f}'/>", C::NotWellFormed),
        ("<a>\u{fffe}</a>", C::NotWellFormed),
        ("<a>\u{ffff}</a>", C::NotWellFormed),
        ("<a>&#0;</a>", C::NotWellFormed),
        ("<a>&#x1;</a>", C::NotWellFormed),
        ("<a b='&#xFFFE;'/>", C::NotWellFormed),
        ("<a>&#xD800;</a>", C::NotWellFormed),
        ("<a>&#x110000;</a>", C::NotWellFormed),
        ("<a>&#99999999999999;</a>", C::NotWellFormed),
        ("<a>&#-1;</a>", C::NotWellFormed),
        ("<a>&#;</a>", C::NotWellFormed),
        ("<a>&</a>", C::NotWellFormed),
        ("<a>&amp</a>", C::NotWellFormed),
        ("<a>& b;</a>", C::NotWellFormed),
        ("<a>]]></a>", C::NotWellFormed),
        ("<a>x]]]>y</a>", C::NotWellFormed),
        // Tags and attributes.
        ("<a b='1'c='2'/>", C::NotWellFormed),
        ("<a b='<'/>", C::NotWellFormed),
        ("<a b='1' b='2'/>", C::NotWellFormed),
        ("<a b=1/>", C::NotWellFormed),
        ("<a b/>", C::NotWellFormed),
        ("<a b='1/>", C::NotWellFormed),
        ("<a b='1\"/>", C::NotWellFormed),
        ("<a ='1'/>", C::NotWellFormed),
        ("<a / >", C::NotWellFormed),
        ("<a/ b='1'>", C::NotWellFormed),
        ("<a><b></a></b>", C::NotWellFormed),
        ("<a><b></a>", C::NotWellFormed),
        ("<a></b>", C::NotWellFormed),
        ("<a></a b='1'>", C::NotWellFormed),
        ("<a></ a>", C::NotWellFormed),
        ("<a></a/>", C::NotWellFormed),
        ("<a>", C::NotWellFormed),
        ("<a", C::NotWellFormed),
        ("<", C::NotWellFormed),
        ("", C::NotWellFormed),
        ("</a>", C::NotWellFormed),
        ("<>", C::NotWellFormed),
        ("< a/>", C::NotWellFormed),
        ("<a><b<c/></a>", C::NotWellFormed),
        ("<1a/>", C::NotWellFormed),
        ("<-a/>", C::NotWellFormed),
        ("<a\u{d7}/>", C::NotWellFormed),
        ("<\u{300}a/>", C::NotWellFormed),
        ("<a 1b='c'/>", C::NotWellFormed),
        ("<a><![CDATA[b]]</a>", C::NotWellFormed),
        ("<![CDATA[b]]>", C::NotWellFormed),
        // One element.
        ("a<b/>", C::NotWellFormed),
        (" <a/>", C::NotWellFormed),
        ("<a/> ", C::NotWellFormed),
        ("<a/><b/>", C::NotWellFormed),
        ("<a/>b", C::NotWellFormed),
        ("\u{feff}<a/>", C::NotWellFormed),
        // Namespaces.
        ("<b:a/>", C::BadNamespacePrefix),
        ("<a b:c='d'/>", C::BadNamespacePrefix),
        ("<a><b xmlns:c='d'/><c:e/></a>", C::BadNamespacePrefix),
        ("<a xmlns:b=''/>", C::NotWellFormed),
        ("<a xmlns:b='c' xmlns:b='d'/>", C::NotWellFormed),
        ("<a xmlns='b' xmlns='c'/>", C::NotWellFormed),
        ("<a xmlns:b='u' xmlns:c='u' b:d='1' c:d='2'/>", C::NotWellFormed),
        ("<a xmlns:b='u' xmlns:c='&#117;' b:d='1' c:d='2'/>", C::NotWellFormed),
        ("<a xmlns:b='http://www.w3.org/XML/1998/namespace' b:d='1'/>", C::NotWellFormed),
        ("<a xmlns='http://www.w3.org/XML/1998/namespace'/>", C::NotWellFormed),
        ("<a xmlns='http://www.w3.org/XML/1998/namespac&#101;'/>", C::NotWellFormed),
        ("<a xmlns='http://www.w3.org/2000/xmlns/'/>", C::NotWellFormed),
        ("<a xmlns:b='http://www.w3.org/2000/xmlns/'/>", C::NotWellFormed),
        ("<a xmlns:xml='b'/>", C::NotWellFormed),
        ("<a xmlns:xmlns='b'/>", C::NotWellFormed),
        ("<a xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>", C::NotWellFormed),
        ("<xmlns:a/>", C::NotWellFormed),
        ("<a:b:c xmlns:a='u'/>", C::NotWellFormed),
        ("<:a/>", C::NotWellFormed),
        ("<a:/>", C::NotWellFormed),
        ("<a xmlns:a='u' a:='b'/>", C::NotWellFormed),
        ("<a xmlns:='u'/>", C::NotWellFormed),
        ("<a:1 xmlns:a='u'/>", C::NotWellFormed),
        ("<a:b xmlns:a='u'></b>", C::NotWellFormed),
        ("<a:b xmlns:a='u' xmlns:c='u'></c:b>", C::NotWellFormed),
    ];
    for (frame, condition) in cases {
        assert_eq!(judge(frame.as_bytes()), Some(*condition), "{frame:?}");
    }
    for broken in [
        &b"<a>\xff</a>"[..],
        b"<a>\xc0\x80</a>",
        b"<a>\xed\xa0\x80</a>",
        b"<a b='\xf0\x9f'/>",
        b"<a>\xe2\x82</a>",
    ] {
        assert_eq!(judge(broken), Some(C::UnsupportedEncoding), "{broken:?}");
    }
}

#[test]
fn accepted() {
    for frame in [
        "<a/>",
        "<a />",
        "<a\n\tb = 'c'\r\nd=\"e'f\"></a >",
        "<a>&lt;&gt;&amp;&quot;&apos;&#9;&#xA0;&#x1F642;&#0000065;</a>",
        "<a>]] ]>&#93;]&gt; ></a>",
        "<a><![CDATA[<b>&c;]]]]><![CDATA[>]]></a>",
        "<a b='>' c='\"' d=\"'\" e=''/>",
        "<stream:a/>",
        "<a xmlns=''><b xmlns='u'/></a>",
        "<a xml:lang='de' xml:space='preserve'/>",
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<xml:a/>",
        "<b:a xmlns:b='u' b:c='d' c='e'><b:d xmlns:b='v'/><b:e/></b:a>",
        "<a xmlns:b='u' xmlns:c='v' b:d='1' c:d='2' d='3'/>",
        "<a b:c='d' xmlns:b='u'/>",
        "<ünï-1.x_y>\u{7f}\u{85}\u{2028}🙂\u{fffd}</ünï-1.x_y>",
        "<xmlnsa xmlnsb='c'/>",
    ] {
        assert_eq!(judge(frame.as_bytes()), None, "{frame:?}");
        // The tree's parser, which no one here wrote, agrees.
        assert!(crate::xmpp::Element::parse(frame.as_bytes()).is_ok(), "{frame:?}");
    }
}

#[test]
fn limits() {
    let limits = Limits { stanza_bytes: 200, depth: 3, attributes: 3, namespaces: 2, children: 9 };
    let judge = |frame: &str| element(frame.as_bytes(), &Scope::CLIENT, &limits).err();
    assert_eq!(judge("<a><b><c/></b><b><c></c></b></a>"), None);
    assert_eq!(judge("<a><b><c><d/></c></b></a>"), Some(Error::TooDeep(3)));
    assert_eq!(judge("<a b='' c='' d=''/>"), None);
    assert_eq!(judge("<a b='' c='' d='' e=''/>"), Some(Error::TooManyAttributes(3)));
    assert_eq!(judge("<a xmlns='u'><b xmlns='v'/><b xmlns:c='v'/></a>"), None);
    assert_eq!(judge("<a xmlns='u'><b xmlns='v'><c xmlns='w'/></b></a>"), Some(Error::TooManyNamespaces(2)));
    let uri = "u".repeat(Limits::NAMESPACE_BYTES);
    let judge_wide = |frame: &str| element(frame.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).err();
    assert_eq!(judge_wide(&format!("<a xmlns='{uri}'/>")), None);
    assert_eq!(judge_wide(&format!("<a xmlns:b='{uri}u'/>")), Some(Error::LongNamespace));
    let text = |n| format!("<a>{}</a>", "x".repeat(n));
    assert_eq!(judge(&text(193)), None);
    assert_eq!(judge(&text(194)), Some(Error::TooLarge(200)));
    assert_eq!(Error::TooLarge(200).condition(), C::PolicyViolation);
    let deep = "<a>".repeat(10_000) + &"</a>".repeat(10_000);
    assert_eq!(element(deep.as_bytes(), &Scope::CLIENT, &Limits::CLIENT), Err(Error::TooDeep(64)));
}

#[test]
fn scopes() {
    let judge = |frame: &str, scope: &Scope| element(frame.as_bytes(), scope, &Limits::CLIENT).err();
    assert_eq!(judge("<stream:a/>", &Scope::NOTHING), Some(Error::UnboundPrefix));
    let scope = Scope::new("jabber:client", vec![("c".into(), "jabber:client".into())]);
    assert_eq!(judge("<c:a/>", &scope), None);
    assert_eq!(judge("<stream:a/>", &scope), Some(Error::UnboundPrefix));
}

#[test]
fn declarations() {
    for good in [
        "<?xml version='1.0'?>",
        "<?xml version=\"1.0\" encoding='UTF-8'?>",
        "<?xml\tversion = '1.0'\n encoding='utf-8' standalone='yes' ?>",
    ] {
        assert_eq!(declaration(good.as_bytes()), Ok(()), "{good}");
    }
    for (bad, condition) in [
        ("<?xml version='1.1'?>", C::NotWellFormed),
        ("<?xml?>", C::RestrictedXml),
        ("<?xml ?>", C::NotWellFormed),
        ("<?xml encoding='UTF-8'?>", C::NotWellFormed),
        ("<?xml version='1.0' encoding='UTF-16'?>", C::UnsupportedEncoding),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", C::UnsupportedEncoding),
        ("<?xml version='1.0'encoding='UTF-8'?>", C::NotWellFormed),
        ("<?xml version='1.0' standalone='maybe'?>", C::NotWellFormed),
        ("<?xml version='1.0' standalone='yes' encoding='UTF-8'?>", C::NotWellFormed),
        ("<?xml version='1.0' version='1.0'?>", C::NotWellFormed),
        ("<?xml version='1.0' x='y'?>", C::NotWellFormed),
        ("<?xml version=1.0?>", C::NotWellFormed),
        ("<?xml-stylesheet href='a'?>", C::RestrictedXml),
        ("<?php version='1.0'?>", C::RestrictedXml),
        ("<?xml version='1.0'>", C::NotWellFormed),
    ] {
        assert_eq!(declaration(bad.as_bytes()).map_err(|e| e.condition()), Err(condition), "{bad}");
    }
    assert_eq!(declaration(b"<?xml version='1.0\xff'?>"), Err(Error::Encoding));
}
