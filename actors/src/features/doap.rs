//! The list of supported XEPs for people (README.md) and for programs (DOAP). Both are made from [`super::ALL`].

use std::fmt::Write as _;

use rookery_proto::xml::escape;

use crate::features::contract::Xep;

/// The specifications, each once, by number.
pub fn supported() -> Vec<Xep> {
    let mut xeps: Vec<Xep> =
        super::ALL.iter().map(|feature| feature.xep).filter(|xep| xep.number != 0).collect();
    xeps.sort_by_key(|xep| xep.number);
    xeps.dedup_by_key(|xep| xep.number);
    xeps
}

/// A Markdown table: number and name, version, note. README.md has it; `node/tests/documents.rs` sees to that, as to
/// `doap.xml`.
pub fn table() -> String {
    let mut out = String::from("| XEP | name | version | note |\n| --- | --- | --- | --- |\n");
    for Xep { number, version, name, note } in supported() {
        // Markdown would take an element's name for HTML.
        let note = note.replace('<', "&lt;");
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| [{number:04}](https://xmpp.org/extensions/xep-{number:04}.html) | {name} | {version} | {note} |"
        );
    }
    out
}

const DOAP: &str = "http://usefulinc.com/ns/doap#";
const XMPP: &str = "https://linkmauve.fr/ns/xmpp-doap#";
const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";

/// The same as a DOAP file with the XSF's extension (XEP-0453).
pub fn doap() -> String {
    let mut out = format!(
        "<?xml version='1.0' encoding='UTF-8'?>\n<rdf:RDF xmlns:rdf='{RDF}' xmlns='{DOAP}' xmlns:xmpp='{XMPP}'>\n\
         <Project>\n<name>{}</name>\n<shortdesc xml:lang='en'>XMPP server that keeps what it has acknowledged</shortdesc>\n\
         <programming-language>Rust</programming-language>\n<os>Linux</os>\n\
         <license rdf:resource='https://spdx.org/licenses/Apache-2.0'/>\n\
         <category rdf:resource='https://linkmauve.fr/ns/xmpp-doap#category-server'/>\n",
        super::xep_0092_version::NAME
    );
    for rfc in ["6120", "6121", "7590", "7622"] {
        let _ = writeln!(out, "<implements rdf:resource='https://xmpp.org/rfcs/rfc{rfc}.html'/>");
    }
    for Xep { number, version, note, .. } in supported() {
        let mut escaped = Vec::new();
        if !note.is_empty() {
            escaped.extend_from_slice(b"<xmpp:note>");
            escape::text(&mut escaped, note);
            escaped.extend_from_slice(b"</xmpp:note>");
        }
        let note = String::from_utf8_lossy(&escaped);
        let _ = writeln!(
            out,
            "<implements><xmpp:SupportedXep><xmpp:xep rdf:resource='https://xmpp.org/extensions/xep-{number:04}.html'/>\
             <xmpp:status>complete</xmpp:status><xmpp:version>{version}</xmpp:version>{note}\
             </xmpp:SupportedXep></implements>"
        );
    }
    out.push_str("</Project>\n</rdf:RDF>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::element::Element;
    use std::path::Path;

    #[test]
    fn the_doap_file_is_xml_and_names_every_xep() {
        let doap = doap();
        let (_, rdf) = doap.split_once('\n').unwrap();
        let rdf = Element::parse(rdf.trim_end().as_bytes()).unwrap();
        let project = rdf.child("Project", DOAP).unwrap();
        let xeps = project.children().filter(|c| c.is("implements", DOAP) && c.has("SupportedXep", XMPP));
        assert_eq!(xeps.count(), supported().len());
    }

    #[test]
    fn every_file_of_a_xep_is_in_the_list() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/features");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(number) = name.strip_prefix("xep_").and_then(|rest| rest.get(..4)) else { continue };
            let number: u16 = number.parse().unwrap();
            assert!(supported().iter().any(|xep| xep.number == number), "{name} is not in features::ALL");
            files += 1;
        }
        assert!(files >= 20);
    }

    #[test]
    fn every_entry_says_what_it_is() {
        for xep in supported() {
            assert!(!xep.name.is_empty() && !xep.version.is_empty(), "{}", xep.number);
            assert!(!xep.note.contains('|'), "{}: the note would break the table", xep.number);
        }
        let numbers: Vec<u16> = super::super::ALL.iter().map(|feature| feature.xep.number).collect();
        for number in &numbers {
            assert_eq!(numbers.iter().filter(|n| *n == number).count(), 1, "{number} is there twice");
        }
    }
}
