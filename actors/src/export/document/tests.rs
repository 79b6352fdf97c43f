use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Root,
    Inner,
}

fn classify(within: Option<Place>, head: &Element) -> Option<Place> {
    match (within, head.name(), head.ns()) {
        (None, "root", "urn:r") => Some(Place::Root),
        (Some(_), "in", "urn:r") => Some(Place::Inner),
        _ => None,
    }
}

/// The events as text, whatever the pieces.
fn read(xml: &[u8], piece: usize) -> Result<String, Broken> {
    let mut document = Document::new(classify);
    let mut seen = String::new();
    for piece in xml.chunks(piece) {
        document.push(piece);
        while let Some(event) = document.next()? {
            match event {
                Event::Enter(place, head) => {
                    let attributes: Vec<_> =
                        head.attrs().map(|(name, value)| format!(" {name}={value}")).collect();
                    seen += &format!("+{place:?}{} ", attributes.concat());
                }
                Event::Leave(place) => seen += &format!("-{place:?} "),
                Event::Whole(_, frame) => {
                    let mut out = Vec::new();
                    frame.element()?.write(&mut out);
                    frame.check()?;
                    seen += &format!("{}:{} ", frame.line, String::from_utf8(out).unwrap());
                }
            }
        }
    }
    document.end()?;
    Ok(seen)
}

/// The same in pieces of every size, which must make no difference but for the line where an error is noticed.
fn read_any(xml: &str) -> Result<String, String> {
    let whole = read(xml.as_bytes(), xml.len().max(1)).map_err(|broken| broken.reason);
    for piece in [1, 2, 3, 7] {
        assert_eq!(
            read(xml.as_bytes(), piece).map_err(|broken| broken.reason),
            whole,
            "{xml} in pieces of {piece}"
        );
    }
    whole
}

#[test]
fn elements_are_entered_or_taken_whole() {
    let xml = "\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<r:root xmlns:r='urn:r' xmlns='urn:d' a='>'>\n <x>&lt;<y/></x>\
               <r:in r:b=''/><in xmlns='urn:r'><in b=\"'\"  >\n<x/></in ><r:y xmlns:r='urn:z'/></in>\n</r:root>\n";
    assert_eq!(
        read_any(xml).unwrap(),
        "+Root a=> 3:<x xmlns='urn:d'>&lt;<y/></x> +Inner -Inner +Inner +Inner b=' 4:<x xmlns='urn:r'/> -Inner \
         4:<y xmlns='urn:z'/> -Inner -Root "
    );
    assert_eq!(read_any("<root xmlns='urn:r'/>").unwrap(), "+Root -Root ");
    assert_eq!(
        read_any("<root xmlns='urn:r'><in xmlns:p='urn:p'><p:x/></in><x xmlns=''/></root>").unwrap(),
        "+Root +Inner 1:<x xmlns='urn:p'/> -Inner 1:<x xmlns=''/> -Root "
    );
}

#[test]
fn everything_else_is_refused() {
    const ROOT: &str = "<root xmlns='urn:r'>";
    for (xml, reason) in [
        (String::new(), "ends too early"),
        ("<?xml version='1.0'?>".into(), "ends too early"),
        (ROOT.into(), "ends too early"),
        (format!("{ROOT}<x></x>"), "ends too early"),
        (format!("{ROOT}<x></root>"), "not well-formed"),
        ("<root/>".into(), "no document of XEP-0227"),
        ("<html xmlns='urn:r'>".into(), "no document of XEP-0227"),
        ("text".into(), "text where"),
        (format!("{ROOT}text</root>"), "text where"),
        (format!("{ROOT}<![CDATA[x]]></root>"), "CDATA"),
        (format!("<!DOCTYPE x [<!ENTITY a 'b'>]>{ROOT}</root>"), "document type"),
        (format!("{ROOT}<!DOCTYPE root></root>"), "document type"),
        (format!("{ROOT}<!-- </root>"), "ends too early"),
        (format!("{ROOT}<x><?php </x></root>"), "ends too early"),
        (format!(" <?xml version='1.0'?>{ROOT}</root>"), "processing instruction"),
        (format!("<?xml version='1.1'?>{ROOT}</root>"), "version"),
        (format!("{ROOT}<x>&a;</x></root>"), "restricted"),
        (format!("{ROOT}<x><!ENTITY a></x></root>"), "comment or document type"),
        (format!("{ROOT}<p:x/></root>"), "prefix"),
        (format!("{ROOT}<in a='1' a='2'/></root>"), "not well-formed"),
        (format!("{ROOT}<x></y></root>"), "not well-formed"),
        (format!("{ROOT}<in></root>"), "does not match"),
        (format!("{ROOT}</in>"), "does not match"),
        (format!("{ROOT}</root><x/>"), "behind the end"),
        (format!("{ROOT}</root></root>"), "behind the end"),
        (format!("{ROOT}</root>x"), "text where"),
        (format!("{ROOT}{}</root>", "<x>".repeat(200)), "nested deeper"),
    ] {
        let found = read_any(&xml).unwrap_err();
        assert!(found.contains(reason), "{xml}: {found}");
    }
    for xml in
        [b"<root xmlns='urn:r'><x>\xff</x></root>".as_slice(), b"<root xmlns='urn:r'><x>\x01</x></root>"]
    {
        assert!(read(xml, 5).is_err());
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_held() {
    let mut document = Document::new(classify);
    document.push(b"<root xmlns='urn:r'><x>");
    assert!(matches!(document.next(), Ok(Some(Event::Enter(..)))));
    let piece = vec![b'x'; 64 << 10];
    let mut pushed = 0;
    let broken = loop {
        document.push(&piece);
        pushed += piece.len();
        match document.next() {
            Ok(None) => assert!(pushed < 9 << 20, "it is held"),
            Ok(Some(_)) => unreachable!(),
            Err(broken) => break broken,
        }
    };
    assert!(broken.reason.contains("larger than"), "{}", broken.reason);

    let mut document = Document::new(classify);
    document.push(b"<root xmlns='urn:r' a='");
    document.push(&piece);
    assert!(matches!(document.next(), Err(Broken { reason, .. }) if reason.contains("too long")));
}

#[test]
fn an_error_names_its_line() {
    let xml = b"<root xmlns='urn:r'>\n\n <x/>\n <y>\n&a;</y></root>";
    for piece in [1, 1_000] {
        assert_eq!(read(xml, piece).unwrap_err().line, 4);
    }
}

#[test]
fn what_means_nothing_is_dropped_wherever_it_stands() {
    let xml = "\u{feff}<?xml version='1.0'?>\n<?xml-stylesheet href='>'?><!-- a --\n-><b>don't' -->\n\
               <!DOCTYPE root PUBLIC '>' \"it's [\">\n<root xmlns='urn:r'><?php echo '<x>'?><x a='?>\"'>1<!-- 2 -->3<?4?>\
               <![CDATA[<!-- 5 --><?6?>]]></x><!---->\n<!--\n\n--><x/>\n</root>\n<!-- after --><?too?>\n";
    assert_eq!(
        read_any(xml).unwrap(),
        "+Root 5:<x xmlns='urn:r' a='?&gt;&quot;'>13&lt;!-- 5 --&gt;&lt;?6?&gt;</x> 8:<x xmlns='urn:r'/> -Root "
    );
}
