//! Does an element match a pattern?

use std::collections::BTreeMap;

use crate::xml::Element;

/// What `{id:name}` has remembered.
pub type Captures = BTreeMap<String, String>;

/// The attribute that `{...}` inside a tag is turned into.
const MORE: &str = "_more_";

/// Parses the text of one or more patterns.
pub(super) fn parse(text: &str) -> Result<Vec<Element>, String> {
    Element::parse_all(&more_attributes(text)).map_err(|e| e.to_string())
}

/// Sequence `{...}` inside of tags into an attribute, since it must be XML.
fn more_attributes(text: &str) -> String {
    let (mut out, mut in_tag, mut quote, mut rest) = (String::new(), false, None, text);
    while let Some(c) = rest.chars().next() {
        if in_tag && quote.is_none() && rest.starts_with("{...}") {
            out.push_str(MORE);
            out.push_str("=''");
            rest = &rest[5..];
            continue;
        }
        match (c, quote) {
            (q, Some(open)) if q == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) if in_tag => quote = Some(c),
            ('<', None) => in_tag = true,
            ('>', None) => in_tag = false,
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Compares; gives the captures with those of this match added, or says what differs first.
pub fn matches(pattern: &Element, actual: &Element, known: &Captures) -> Result<Captures, String> {
    let path = format!("<{}>", actual.name);
    if pattern.name != actual.name || pattern.ns != actual.ns {
        return Err(format!(
            "expected <{} xmlns='{}'>, got <{} xmlns='{}'>",
            pattern.name, pattern.ns, actual.name, actual.ns
        ));
    }
    let mut known = known.clone();
    for (key, want) in pattern.attrs.iter().filter(|(k, _)| k != MORE) {
        let got = actual.attrs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let got = got.ok_or_else(|| format!("{path} has no attribute {key}"))?;
        value(want, got, &mut known).map_err(|e| format!("{path} attribute {key}: {e}"))?;
    }
    let listed = |key: &str| pattern.attrs.iter().any(|(k, _)| k == key);
    if !listed(MORE)
        && let Some((key, v)) = actual.attrs.iter().find(|(k, _)| !listed(k) && k != "xml:lang")
    {
        return Err(format!("{path} has an attribute that was not expected: {key}=\"{v}\""));
    }
    content(pattern, actual, known).map_err(|e| if e.starts_with('<') { e } else { format!("{path}: {e}") })
}

fn content(pattern: &Element, actual: &Element, mut known: Captures) -> Result<Captures, String> {
    let text = pattern.text();
    let more = text.contains("{...}");
    let wanted: Vec<&Element> = pattern.children().collect();
    let given: Vec<&Element> = actual.children().collect();
    let text = text.replace("{...}", "");
    if wanted.is_empty() && !more {
        value(&text, &actual.text(), &mut known)?;
    } else if !text.trim().is_empty() {
        value(text.trim(), actual.text().trim(), &mut known)?;
    }
    if !more && given.len() > wanted.len() && wanted.is_empty() {
        return Err(format!("unexpected child:\n{}", given[0]));
    }
    assign(&wanted, &given, &mut vec![false; given.len()], more, known)
}

/// Finds each wanted child among those given, in any order.
fn assign(
    wanted: &[&Element],
    given: &[&Element],
    used: &mut Vec<bool>,
    more: bool,
    known: Captures,
) -> Result<Captures, String> {
    let Some((first, rest)) = wanted.split_first() else {
        let left = given.iter().zip(used).find(|(_, used)| !**used);
        return match left {
            Some((extra, _)) if !more => Err(format!("unexpected child:\n{extra}")),
            _ => Ok(known),
        };
    };
    let mut why = None;
    for at in 0..given.len() {
        if used[at] {
            continue;
        }
        match matches(first, given[at], &known) {
            Ok(captures) => {
                used[at] = true;
                match assign(rest, given, used, more, captures) {
                    Ok(all) => return Ok(all),
                    Err(e) => why = Some(e),
                }
                used[at] = false;
            }
            Err(e) if given[at].name == first.name => why = why.or(Some(e)),
            Err(_) => {}
        }
    }
    Err(why.unwrap_or_else(|| format!("no child <{} xmlns='{}'>", first.name, first.ns)))
}

/// Compares one value with its template.
fn value(template: &str, actual: &str, known: &mut Captures) -> Result<(), String> {
    let mut captures = known.clone();
    match template_matches(&pieces(template), actual, &mut captures) {
        true => {
            *known = captures;
            Ok(())
        }
        false => {
            let remembered =
                if template.contains("{=") { format!(" (known: {known:?})") } else { String::new() };
            Err(format!("expected \"{template}\", got \"{actual}\"{remembered}"))
        }
    }
}

#[derive(Debug)]
enum Piece<'a> {
    Literal(&'a str),
    Known(&'a str),
    Hole { kind: &'a str, name: Option<&'a str> },
}

fn pieces(template: &str) -> Vec<Piece<'_>> {
    let (mut out, mut rest) = (Vec::new(), template);
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((inside, after)) = tail.split_once('}') else { break };
        if !before.is_empty() {
            out.push(Piece::Literal(before));
        }
        out.push(match (inside.strip_prefix('='), inside.split_once(':')) {
            (Some(name), _) => Piece::Known(name),
            (None, Some((kind, name))) => Piece::Hole { kind, name: Some(name) },
            (None, None) => Piece::Hole { kind: inside, name: None },
        });
        rest = after;
    }
    if !rest.is_empty() {
        out.push(Piece::Literal(rest));
    }
    out
}

fn template_matches(pieces: &[Piece<'_>], actual: &str, known: &mut Captures) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return actual.is_empty() };
    match first {
        Piece::Literal(text) => {
            actual.strip_prefix(text).is_some_and(|after| template_matches(rest, after, known))
        }
        Piece::Known(name) => {
            let Some(text) = known.get(*name).cloned() else { return false };
            actual.strip_prefix(text.as_str()).is_some_and(|after| template_matches(rest, after, known))
        }
        Piece::Hole { kind, name } => {
            let ends = actual.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            for end in ends.collect::<Vec<_>>() {
                let (text, after) = actual.split_at(end);
                if !fits(kind, text) {
                    continue;
                }
                let mut tried = known.clone();
                if let Some(name) = name {
                    tried.insert((*name).to_owned(), text.to_owned());
                }
                if template_matches(rest, after, &mut tried) {
                    *known = tried;
                    return true;
                }
            }
            false
        }
    }
}

fn fits(kind: &str, text: &str) -> bool {
    match kind {
        "int" => text.bytes().all(|b| b.is_ascii_digit()),
        "date" => {
            let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
            let shape: String = text.chars().map(shape).collect();
            let fraction = shape.strip_prefix("0000-00-00T00:00:00").and_then(|s| s.strip_suffix('Z'));
            fraction.is_some_and(|f| f.is_empty() || f.trim_end_matches('0') == ".")
        }
        _ => true,
    }
}

/// Puts remembered values in place of `{=name}`.
pub(super) fn fill(text: &str, known: &Captures) -> String {
    known.iter().fold(text.to_owned(), |t, (name, value)| {
        t.replace(&format!("{{={name}}}"), &crate::xml::escape(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, actual: &str) -> Result<Captures, String> {
        matches(&parse(pattern).unwrap()[0], &Element::parse(actual).unwrap(), &Captures::new())
    }

    #[test]
    fn exact_means_exact() {
        check("<a x='1' y='2'/>", "<a y='2' x='1'/>").unwrap();
        check("<a><b/> <c/></a>", "<a><c/><b/></a>").unwrap();
        check("<a>text</a>", "<a>text</a>").unwrap();
        for (pattern, actual) in [
            ("<a x='1'/>", "<a x='1' y='2'/>"),
            ("<a x='1' y='2'/>", "<a x='1'/>"),
            ("<a/>", "<a><b/></a>"),
            ("<a/>", "<a>text</a>"),
            ("<a><b/></a>", "<a><b/><b/></a>"),
            ("<a><b/><b/></a>", "<a><b/></a>"),
            ("<a>text</a>", "<a>texts</a>"),
            ("<a xmlns='u:1'/>", "<a xmlns='u:2'/>"),
        ] {
            assert!(check(pattern, actual).is_err(), "{pattern} must not match {actual}");
        }
    }

    #[test]
    fn holes_captures_and_more() {
        let known = check("<a id='{id:i}' u='x{any}z'>{int:n}</a>", "<a u='xyz' id='7'>12</a>").unwrap();
        assert_eq!(known, Captures::from([("i".into(), "7".into()), ("n".into(), "12".into())]));
        check("<a {...}><b/>{...}</a>", "<a k='v'><c/><b/></a>").unwrap();
        check("<a>{date}</a>", "<a>2020-01-02T03:04:05.678Z</a>").unwrap();
        check("<a>{...}</a>", "<a>text</a>").unwrap();
        check("<a x='{id:q}'><b y='{=q}'/></a>", "<a x='1'><b y='1'/></a>").unwrap();
        assert!(check("<a x='{id:q}'><b y='{=q}'/></a>", "<a x='1'><b y='2'/></a>").is_err());
        assert!(check("<a>{date}</a>", "<a>2020-01-02</a>").is_err());
        assert!(check("<a x='{any}'/>", "<a x=''/>").is_err());
        assert_eq!(fill("<a h='{=q}'/>", &Captures::from([("q".into(), "<".into())])), "<a h='&lt;'/>");
    }
}
