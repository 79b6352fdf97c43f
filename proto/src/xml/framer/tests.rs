use super::*;
use crate::xmpp::StreamCondition as C;

const LIMITS: Limits = Limits::LOGIN.with_stanza_bytes(100);
const OPEN: &str = "<stream:stream to='>' x=\"'/>\" >";

/// Feeds all bytes, `chunk` more at a time; the frames found and the error that ended it.
fn feed(data: &[u8], chunk: usize) -> (Vec<(char, String)>, Option<Error>) {
    let mut framer = Framer::new(LIMITS);
    let (mut from, mut to, mut found) = (0, 0, Vec::new());
    loop {
        let (kind, len) = match framer.next(&data[from..to]) {
            Err(error) => return (found, Some(error)),
            Ok(Step::Need) if to == data.len() => return (found, None),
            Ok(Step::Need) => {
                to = data.len().min(to + chunk);
                continue;
            }
            Ok(Step::Whitespace { len }) => ('w', len),
            Ok(Step::Declaration { len }) => ('d', len),
            Ok(Step::Open { len }) => ('o', len),
            Ok(Step::Element { len }) => ('e', len),
            Ok(Step::Close { len }) => ('c', len),
        };
        found.push((kind, String::from_utf8_lossy(&data[from..from + len]).into_owned()));
        from += len;
    }
}

#[test]
fn a_whole_stream_in_pieces_of_any_size() {
    let items = [
        ('d', "<?xml version='1.0'?>"),
        ('w', "\n"),
        ('o', OPEN),
        ('e', "<a/>"),
        ('e', "<a b='/>' c=\"</a>\"><b/><c d='e'>&lt;</c >]]></a>"),
        ('w', " "),
        ('e', "<ü><![CDATA[</ü>]] ]>]><]]]></ü>"),
        ('e', "<x:a>></x:a>"),
        ('c', "</stream:stream >"),
        ('w', "\n"),
    ];
    let text: String = items.iter().map(|(_, item)| *item).collect();
    for chunk in 1..=text.len() {
        let (found, error) = feed(text.as_bytes(), chunk);
        assert_eq!(error, None, "pieces of {chunk}");
        let wanted: Vec<_> = items.iter().map(|(kind, item)| (*kind, (*item).to_owned())).collect();
        assert_eq!(found, wanted, "pieces of {chunk}");
    }
}

#[test]
fn refused_as_early_as_can_be() {
    for (stream, condition) in [
        ("x", C::NotWellFormed),
        ("\u{feff}", C::NotWellFormed),
        ("</", C::NotWellFormed),
        ("<!D", C::RestrictedXml),
        ("<?php ?>", C::RestrictedXml),
        ("<?xml version='1.0' encoding='latin1'?>", C::UnsupportedEncoding),
        (" <?", C::RestrictedXml),
        ("<?xml version='1.0'?><?", C::RestrictedXml),
        ("< ", C::NotWellFormed),
        ("<>", C::NotWellFormed),
        ("<stream:stream/>", C::BadFormat),
        ("<![CDATA[", C::NotWellFormed),
        ("OPENtext", C::BadFormat),
        ("OPEN<?", C::RestrictedXml),
        ("OPEN<!-", C::RestrictedXml),
        ("OPEN<![CDATA[", C::NotWellFormed),
        ("OPEN<a><!D", C::RestrictedXml),
        ("OPEN<a><?", C::RestrictedXml),
        ("OPEN<a><1", C::NotWellFormed),
        ("OPEN</stream>", C::NotWellFormed),
        ("OPEN</stream:stream x='y'>", C::NotWellFormed),
        ("OPEN</stream:stream/>", C::NotWellFormed),
        ("OPEN</stream:stream><a", C::NotWellFormed),
        ("OPEN</stream:stream>x", C::NotWellFormed),
        ("OPEN</stream:stream></", C::NotWellFormed),
    ] {
        let stream = stream.replace("OPEN", OPEN);
        for chunk in [1, stream.len()] {
            let error = feed(stream.as_bytes(), chunk).1;
            assert_eq!(error.map(|e| e.condition()), Some(condition), "{stream}");
        }
    }
}

#[test]
fn one_byte_too_long() {
    for (start, end) in [("<a>", "</a>"), ("<a b='", "'/>"), ("<a><![CDATA[", "]]></a>"), ("<a ", "/>")] {
        let exact = format!("{OPEN}{start}{}{end}", " ".repeat(100 - start.len() - end.len()));
        assert_eq!(feed(exact.as_bytes(), 1).1, None);
        assert_eq!(feed(exact.as_bytes(), 1000).0.len(), 2);
        let long = format!("{OPEN}{start}{}{end}", " ".repeat(101 - start.len() - end.len()));
        assert_eq!(feed(long.as_bytes(), 1000).1, Some(Error::TooLarge(100)));
        // Without an end it fails as soon as the limit is there, not when the end comes.
        let endless = &long.as_bytes()[..OPEN.len() + 100];
        assert_eq!(feed(endless, 1).1, Some(Error::TooLarge(100)));
        assert_eq!(feed(&endless[..endless.len() - 1], 1).1, None);
    }
    let header = format!("<stream:stream x='{}'>", " ".repeat(100));
    assert_eq!(feed(header.as_bytes(), 7).1, Some(Error::TooLarge(100)));
    assert_eq!(feed(" ".repeat(1000).as_bytes(), 1000).1, None);
}

#[test]
fn depth_is_counted_while_scanning() {
    let mut framer = Framer::new(Limits { depth: 3, ..Limits::CLIENT });
    assert_eq!(framer.next(b"<s>"), Ok(Step::Open { len: 3 }));
    assert_eq!(framer.next(b"<a><b><c/></b></a>"), Ok(Step::Element { len: 18 }));
    assert_eq!(framer.next(b"<a><b><c><d"), Ok(Step::Need));
    assert_eq!(framer.next(b"<a><b><c><d>"), Err(Error::TooDeep(3)));
    let mut framer = Framer::new(Limits { depth: 3, ..Limits::CLIENT });
    assert_eq!(framer.next(b"<s>"), Ok(Step::Open { len: 3 }));
    assert_eq!(framer.next("<a>".repeat(10_000).as_bytes()), Err(Error::TooDeep(3)));
}

#[test]
fn restart_and_limits() {
    let mut framer = Framer::new(Limits::LOGIN);
    assert_eq!(framer.next(b"<stream>"), Ok(Step::Open { len: 8 }));
    assert_eq!(framer.next(b"</stream>"), Ok(Step::Close { len: 9 }));
    framer.restart();
    framer.set_limits(LIMITS);
    assert_eq!(framer.limits().stanza_bytes, 100);
    // A line end behind the last stanza of the old stream does no harm.
    assert_eq!(framer.next(b"\n<?xml"), Ok(Step::Whitespace { len: 1 }));
    assert_eq!(framer.next(b"<?xml version='1.0'?><"), Ok(Step::Declaration { len: 21 }));
    assert_eq!(framer.next(b"<s:s>"), Ok(Step::Open { len: 5 }));
    assert_eq!(framer.next(b"</s:s>"), Ok(Step::Close { len: 6 }));
}

#[test]
fn bytes_are_looked_at_once() {
    // A megabyte, one byte at a time: were it scanned again each time, this would take hours.
    let mut framer = Framer::new(Limits::TRUSTED);
    let text = format!("<a b='{0}'>{0}<![CDATA[{0}]]></a>", "x".repeat(350_000));
    assert_eq!(framer.next(b"<s>"), Ok(Step::Open { len: 3 }));
    for n in 0..text.len() {
        assert_eq!(framer.next(&text.as_bytes()[..n]), Ok(Step::Need));
    }
    assert_eq!(framer.next(text.as_bytes()), Ok(Step::Element { len: text.len() }));
}
