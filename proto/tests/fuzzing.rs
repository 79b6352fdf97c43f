//! The fuzz targets over their corpus and over mutations of it: always the same ones, and short. `cargo fuzz` in
//! `proto/fuzz` runs the same targets without end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests, which may panic")]

use proptest::prelude::*;
use rookery_proto::fuzzing::{self, TARGETS};
use std::{fs, path::Path};

/// What mutations put in: pieces that mean something to the parsers.
const PIECES: &[&str] = &[
    "<",
    ">",
    "/>",
    "</",
    "'",
    "\"",
    "&",
    ";",
    "=",
    " ",
    "]]>",
    "<![CDATA[",
    "<!--",
    "<?xml version='1.0'?>",
    "&amp;",
    "&#10;",
    "&#x41;",
    "&#0;",
    "xmlns='",
    "xmlns:a='",
    " xmlns='jabber:client'",
    " xmlns='jabber:server'",
    " xmlns=''",
    "a:b",
    " a:b='c'",
    "xml:lang='",
    "<a:b xmlns:a='u'>",
    "</a:b>",
    "<body>",
    "</body>",
    "<message>",
    "</message>",
    "<iq id='1' type='set'>",
    "</iq>",
    "<stream:x/>",
    "<stream:stream>",
    "</stream:stream>",
    "\r\n",
    "\0",
    "\u{fffe}",
    "ü",
    "🙂",
    "\u{200d}",
    "@",
    "/",
    ".",
    "xn--",
    "n,,",
    "p=",
    ",r=",
    "c=biws",
    "\n",
];

/// A xorshift generator: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }

    fn mutate(&mut self, data: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.roll(data.len() + 1);
        let end = (at + self.roll(12)).min(data.len());
        match self.roll(6) {
            0 => drop(data.drain(at..end)),
            1 => drop(data.splice(at..end, PIECES[self.roll(PIECES.len())].bytes())),
            2 => drop(data.splice(at..at, PIECES[self.roll(PIECES.len())].bytes())),
            3 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << self.roll(8);
                }
            }
            4 => {
                let copy = data[at..end].to_vec();
                let to = self.roll(data.len() + 1);
                data.splice(to..to, copy);
            }
            _ => {
                let other = &corpus[self.roll(corpus.len())];
                let from = self.roll(other.len());
                let piece = &other[from..(from + self.roll(40)).min(other.len())];
                data.splice(at..end, piece.iter().copied());
            }
        }
        data.truncate(4096);
    }
}

#[test]
fn corpus_and_mutations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let mut files: Vec<_> = fs::read_dir(root.join(name)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
        assert!(corpus.len() >= 5, "corpus of {name}");
        corpus.iter().for_each(|data| target(data));
        let mut dice = Dice(0x5eed);
        for round in 0..3000 {
            let mut data = corpus[round % corpus.len()].clone();
            for _ in 0..=dice.roll(6) {
                dice.mutate(&mut data, &corpus);
            }
            target(&data);
        }
    }
}

/// An element made of random parts, usually well-formed.
fn xml() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("&amp;".to_owned()),
        Just("<![CDATA[<]]>".to_owned()),
        Just("]] >\r\n".to_owned()),
        "[a-z ü🙂]{0,8}",
    ];
    let name = prop_oneof![Just("a"), Just("p:b"), Just("q:c"), Just("body"), Just("stream:d"), Just("é")];
    let attribute = prop_oneof![
        Just(""),
        Just(" xmlns='u'"),
        Just(" xmlns=''"),
        Just(" xmlns='jabber:client'"),
        Just(" xmlns='u&#58;&lt;'"),
        Just(" xmlns:p='v'"),
        Just(" xmlns:q='jabber:client'"),
        Just(" p:x='1'"),
        Just(" y=\"'>&#9;\n\""),
        Just(" xml:lang='de'"),
    ];
    let tag = (name, attribute.clone(), attribute);
    text.prop_recursive(4, 24, 4, move |inner| {
        (tag.clone(), prop::collection::vec(inner, 0..4)).prop_map(|((name, a, b), inner)| {
            let b = if a == b { "" } else { b };
            match inner.concat() {
                empty if empty.is_empty() => format!("<{name}{a}{b}/>"),
                inner => format!("<{name}{a}{b}>{inner}</{name}>"),
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn stanzas_keep_their_meaning(
        inner in prop::collection::vec(xml(), 0..4),
        outer in prop_oneof![Just(""), Just(" xmlns:p='v'"), Just(" xmlns:q='w'"), Just(" xmlns='jabber:client'")],
    ) {
        let inner = inner.concat();
        fuzzing::stanza(format!("<message{outer}>{inner}</message>").as_bytes());
        fuzzing::stanza(format!("<c:message xmlns:c='jabber:client' xmlns='u'{outer}>{inner}</c:message>")
            .replace("xmlns='u' xmlns='jabber:client'", "xmlns='u'").as_bytes());
        fuzzing::element(format!("<message{outer}>{inner}</message>").as_bytes());
    }

    #[test]
    fn streams_are_cut_the_same(inner in prop::collection::vec(xml(), 0..5), pieces: [u8; 4]) {
        let stream = format!("<stream:stream xmlns:p='v'><x>{}</x></stream:stream>", inner.join("</x> <x>"));
        fuzzing::framer(&[&pieces[..], stream.as_bytes()].concat());
    }

    #[test]
    fn nothing_panics(data: Vec<u8>) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }
}
