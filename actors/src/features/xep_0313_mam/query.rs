//! What a client asks of its archive: `<query/>` with a form (section 4.1) and a page (section 4.3).

use bytes::Bytes;
use rookery_cluster::tables::archive::{ArchiveId, IdCipher, Reads, With};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::forms::{Field, Form, FormType};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::{datetime, ns, rsm};

/// How many messages a page has if the client does not say.
const PAGE: u32 = 50;
/// The longest mark of a query, bytes.
const QUERY_ID: usize = 256;

/// A query.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Query {
    /// The client's mark, to be put on every result.
    pub(super) queryid: Option<String>,
    /// Only messages with these.
    pub(super) with: With,
    /// Only messages of this time or later, microseconds since 1970.
    pub(super) start: Option<u64>,
    /// Only messages of this time or earlier.
    pub(super) end: Option<u64>,
    /// Only messages after these (`after` of the page, and `after-id`), which must exist.
    pub(super) after: Vec<ArchiveId>,
    /// Only messages before these.
    pub(super) before: Vec<ArchiveId>,
    /// Only these messages.
    pub(super) ids: Option<Vec<ArchiveId>>,
    /// The page is the last of what matches, and not the first.
    pub(super) backwards: bool,
    /// At most that many.
    pub(super) max: usize,
    /// The newest first.
    pub(super) flip: bool,
}

impl Query {
    /// Reads a query; a page has at most `most` messages.
    ///
    /// # Errors
    /// `<item-not-found/>` for an id that this server cannot have given, `<feature-not-implemented/>` for what it does
    /// not know (section 4.1.5), `<bad-request/>` and `<jid-malformed/>` for nonsense.
    pub(super) fn parse(query: &Element, ids: &IdCipher, most: usize) -> Result<Self, StanzaError> {
        if query.attr("node").is_some() {
            return Err(Condition::FeatureNotImplemented.into()); // XEP-0442
        }
        let queryid = query.attr("queryid").map(str::to_owned);
        if queryid.as_ref().is_some_and(|id| id.len() > QUERY_ID) {
            return Err(Condition::PolicyViolation.into());
        }
        let page = query.child("set", ns::RSM).map(rsm::Request::parse).transpose()?.unwrap_or_default();
        if page.index.is_some() {
            return Err(Condition::FeatureNotImplemented.into()); // XEP-0059 section 2.4
        }
        let open = |id: &str| ids.open(id).ok_or(StanzaError::new(Condition::ItemNotFound));
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        let mut parsed = Self {
            queryid,
            with: With::Any,
            start: None,
            end: None,
            after: page.after.as_deref().map(open).transpose()?.into_iter().collect(),
            before: page
                .before
                .as_deref()
                .filter(|id| !id.is_empty())
                .map(open)
                .transpose()?
                .into_iter()
                .collect(),
            ids: None,
            backwards: page.is_backwards(),
            max: usize::try_from(page.limit(PAGE, most)).unwrap_or(usize::MAX),
            flip: query.has("flip-page", ns::MAM),
        };
        if let Some(x) = query.child("x", ns::DATA_FORMS) {
            let form = Form::parse(x)?;
            if form.type_ != FormType::Submit || form.form_type() != Some(ns::MAM) {
                return Err(Condition::BadRequest.into());
            }
            for field in form.fields.iter().filter(|field| field.var != "FORM_TYPE") {
                parsed.field(field, open)?;
            }
        }
        Ok(parsed)
    }

    /// As the owner of this archive asks. Section 4.1.1: a full JID is the sender or the recipient of a message, so one of the
    /// owner's own too. (The owner's bare JID would match every message; it stands for those to oneself.)
    pub(super) fn of(self, owner: &BareJid) -> Self {
        let with = match self.with {
            With::Full(jid) if jid.split_once('/').is_some_and(|(bare, _)| bare == owner.as_str()) => {
                With::Own(jid, Reads(is_between))
            }
            with => with,
        };
        Self { with, ..self }
    }

    fn field(
        &mut self,
        field: &Field,
        open: impl Fn(&str) -> Result<ArchiveId, StanzaError>,
    ) -> Result<(), StanzaError> {
        let one = || match field.values.as_slice() {
            [one] => Ok(one.as_str()),
            _ => Err(StanzaError::new(Condition::BadRequest)),
        };
        let time = |text: &str| datetime::parse(text).map_err(|_| StanzaError::new(Condition::BadRequest));
        match field.var.as_str() {
            // A field that was left empty asks for nothing.
            "with" | "start" | "end" | "before-id" | "after-id"
                if field.first().is_none_or(str::is_empty) => {}
            "with" => {
                let jid = Jid::parse(one()?).map_err(|_| StanzaError::new(Condition::JidMalformed))?;
                let text = jid.as_str().to_owned();
                self.with = if jid.is_bare() { With::Bare(text) } else { With::Full(text) };
            }
            "start" => self.start = Some(time(one()?)?),
            "end" => self.end = Some(time(one()?)?),
            "after-id" => self.after.push(open(one()?)?),
            "before-id" => self.before.push(open(one()?)?),
            "ids" => self.ids = Some(field.values.iter().map(|id| open(id)).collect::<Result<_, _>>()?),
            "include-groupchat" => drop(field.boolean()?),
            _ => return Err(Condition::FeatureNotImplemented.into()),
        }
        Ok(())
    }
}

fn is_between(stanza: &Bytes, jid: &str) -> bool {
    crate::routing::stored::stanza(stanza)
        .is_some_and(|stanza| [stanza.to, stanza.from].into_iter().flatten().any(|end| end.as_str() == jid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> Result<Query, Condition> {
        let query = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{inner}</query>");
        let query = Element::parse(query.as_bytes()).unwrap();
        Query::parse(&query, &IdCipher::new(&[7; 16]), 250).map_err(|error| error.condition)
    }

    fn form(fields: &str) -> Result<Query, Condition> {
        parse(&format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
        ))
    }

    fn set(inner: &str) -> Result<Query, Condition> {
        parse(&format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>"))
    }

    #[test]
    fn reads_every_field() {
        let ids = [1, 2, 3].map(|n| IdCipher::new(&[7; 16]).seal(ArchiveId::first_at(n)));
        let [a, b, c] = &ids;
        let field = |var: &str, values: &[&str]| -> String {
            let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
            format!("<field var='{var}'>{values}</field>")
        };
        let query = form(
            &[
                field("with", &["A@b/c"]),
                field("start", &["1970-01-01T00:00:01Z"]),
                field("end", &["1970-01-01T00:00:02Z"]),
                field("after-id", &[a]),
                field("before-id", &[b]),
                field("ids", &[b, c]),
                field("include-groupchat", &["false"]),
            ]
            .concat(),
        );
        let query = query.unwrap();
        assert_eq!((query.start, query.end), (Some(1_000_000), Some(2_000_000)));
        assert_eq!(query.with, With::Full("a@b/c".into()));
        assert_eq!((query.after, query.before), (vec![ArchiveId::first_at(1)], vec![ArchiveId::first_at(2)]));
        assert_eq!(query.ids, Some(vec![ArchiveId::first_at(2), ArchiveId::first_at(3)]));
        assert_eq!(
            (query.max, query.backwards, query.flip, query.queryid.as_deref()),
            (50, false, false, Some("q"))
        );
        assert_eq!(form(&field("with", &["b"])).unwrap().with, With::Bare("b".into()));
        assert_eq!(form(&field("with", &[""])).unwrap().with, With::Any);
        let last = set("<before/><max>1000</max>").unwrap();
        assert_eq!((last.backwards, last.before, last.max), (true, vec![], 250));
        assert_eq!(set(&format!("<after>{a}</after><max>0</max>")).unwrap().max, 0);
        assert!(parse("<flip-page/>").unwrap().flip);
    }

    #[test]
    fn refuses_nonsense_with_the_specified_error() {
        let good = IdCipher::new(&[7; 16]).seal(ArchiveId::first_at(1));
        for (result, condition) in [
            (form("<field var='odd'><value>1</value></field>"), Condition::FeatureNotImplemented),
            (form("<field var='start'><value>yesterday</value></field>"), Condition::BadRequest),
            (form("<field var='with'><value>@</value></field>"), Condition::JidMalformed),
            (form("<field var='with'><value>a@b</value><value>c@d</value></field>"), Condition::BadRequest),
            (form("<field var='after-id'><value>never-was</value></field>"), Condition::ItemNotFound),
            (
                form(&format!("<field var='ids'><value>{good}</value><value>x</value></field>")),
                Condition::ItemNotFound,
            ),
            (form("<field var='include-groupchat'><value>maybe</value></field>"), Condition::NotAcceptable),
            (parse("<x xmlns='jabber:x:data' type='submit'/>"), Condition::BadRequest),
            (parse("<x xmlns='jabber:x:data' type='form'/>"), Condition::BadRequest),
            (set("<after>never-was</after>"), Condition::ItemNotFound),
            (set("<before>never-was</before>"), Condition::ItemNotFound),
            (set("<index>3</index>"), Condition::FeatureNotImplemented),
            (set("<max>many</max>"), Condition::BadRequest),
        ] {
            assert_eq!(result.unwrap_err(), condition);
        }
    }
}
