//! The features, one file per XEP. [`ALL`] is the only list: IQ dispatch, disco, the table of supported XEPs and the
//! DOAP file are derived from it, and its order is the order of hooks within a phase.

use std::collections::HashMap;
use std::sync::OnceLock;

use rookery_cluster::store::{self, Class};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{ChildRef, IqType, Stanza, Type};

use crate::features::contract::{Feature, Iq, MessageHook, Method, Payload, Phase, Scope, StanzaFilter};
use crate::user;

pub mod contract;
pub mod doap;
pub mod elsewhere;
pub(crate) mod host_requests;
pub(crate) mod hourly;
#[cfg(test)]
pub(crate) mod testing;
pub mod xep_0012_last;
pub mod xep_0030_disco;
pub mod xep_0049_private_xml;
pub mod xep_0054_vcard;
pub mod xep_0077_registration;
pub mod xep_0092_version;
pub mod xep_0115_caps;
pub mod xep_0157_contact;
pub mod xep_0191_blocking;
pub mod xep_0199_ping;
pub mod xep_0202_time;
pub mod xep_0203_delay;
pub mod xep_0280_carbons;
pub mod xep_0297_forwarding;
pub mod xep_0313_mam;
pub mod xep_0333_markers;
pub mod xep_0334_hints;
pub mod xep_0352_csi;
pub mod xep_0355_delegation;
pub mod xep_0356_privilege;
pub mod xep_0359_stanza_ids;
pub mod xep_0424_retraction;
pub mod xep_0441_mam_prefs;
pub mod xep_0455_outage;
pub mod xep_0478_stream_limits;

/// Every feature of the server. Hooks of one phase run in this order; blocking goes first among the filters, so that
/// nothing answers a blocked sender.
pub const ALL: &[&Feature] = &[
    &elsewhere::DATA_FORMS,
    &xep_0191_blocking::BLOCKING,
    &xep_0012_last::LAST,
    &xep_0030_disco::DISCO,
    &xep_0049_private_xml::PRIVATE_XML,
    &xep_0054_vcard::VCARD,
    &xep_0054_vcard::AVATARS,
    &elsewhere::RESULT_SETS,
    &xep_0077_registration::REGISTRATION,
    &elsewhere::DATE_TIME,
    &xep_0092_version::VERSION,
    &elsewhere::COMPONENTS,
    &xep_0115_caps::CAPS,
    &elsewhere::DISCO_EXTENSIONS,
    &xep_0157_contact::CONTACT,
    &elsewhere::OFFLINE,
    &elsewhere::EXTERNAL,
    &elsewhere::DIALBACK_KEYS,
    &elsewhere::DIALBACK,
    &elsewhere::BIDI,
    &elsewhere::STREAM_MANAGEMENT,
    &xep_0199_ping::PING,
    &xep_0202_time::TIME,
    &xep_0203_delay::DELAY,
    &user::ROSTER,
    &xep_0280_carbons::CARBONS,
    &xep_0297_forwarding::FORWARDING,
    &xep_0313_mam::MAM,
    &xep_0333_markers::MARKERS,
    &xep_0334_hints::HINTS,
    &xep_0352_csi::CSI,
    &xep_0355_delegation::DELEGATION,
    &xep_0356_privilege::PRIVILEGE,
    &xep_0359_stanza_ids::STANZA_IDS,
    &elsewhere::SRV_FOR_TLS,
    &xep_0424_retraction::RETRACTION,
    &elsewhere::SASL_BINDINGS,
    &xep_0441_mam_prefs::MAM_PREFS,
    &xep_0455_outage::OUTAGE,
    &elsewhere::SCRAM_DOWNGRADE,
    &xep_0478_stream_limits::STREAM_LIMITS,
];

/// The hooks of one phase, in the order of [`ALL`].
pub(crate) fn message_hooks(phase: Phase) -> &'static [MessageHook] {
    static HOOKS: OnceLock<[Vec<MessageHook>; 4]> = OnceLock::new();
    let hooks = HOOKS.get_or_init(|| {
        [Phase::Check, Phase::Filter, Phase::Archive, Phase::Copy].map(|phase| {
            ALL.iter().flat_map(|f| f.messages).filter(|hook| hook.phase == phase).copied().collect()
        })
    });
    let [check, filter, archive, copy] = hooks;
    match phase {
        Phase::Check => check,
        Phase::Filter => filter,
        Phase::Archive => archive,
        Phase::Copy => copy,
    }
}

/// What a feature says of messages with this child.
pub(crate) fn payload(child: &ChildRef<'_>) -> Option<&'static Payload> {
    static PAYLOADS: OnceLock<Vec<&'static Payload>> = OnceLock::new();
    let payloads = PAYLOADS.get_or_init(|| ALL.iter().flat_map(|feature| feature.payloads).collect());
    payloads.iter().find(|payload| child.is(payload.name, payload.ns)).copied()
}

/// The filters of presence and IQs, in the order of [`ALL`].
pub(crate) fn filters() -> &'static [StanzaFilter] {
    static FILTERS: OnceLock<Vec<StanzaFilter>> = OnceLock::new();
    FILTERS.get_or_init(|| ALL.iter().flat_map(|feature| feature.filters).copied().collect())
}

/// The feature that answers an IQ with such a child.
pub(crate) fn iq_handler(scope: Scope, method: Method, name: &str, ns: &str) -> Option<&'static Iq> {
    static HANDLERS: OnceLock<HashMap<(&'static str, &'static str), Vec<&'static Iq>>> = OnceLock::new();
    let handlers = HANDLERS.get_or_init(|| {
        let mut handlers: HashMap<_, Vec<&'static Iq>> = HashMap::new();
        for iq in ALL.iter().flat_map(|feature| feature.iq) {
            handlers.entry((iq.ns, iq.name)).or_default().push(iq);
        }
        handlers
    });
    // The map's keys live for ever and the query's do not; comparing as the shorter is fine.
    let found: &Vec<&'static Iq> = handlers.get(&(ns, name))?;
    found.iter().find(|iq| iq.scope == scope && iq.method == method).copied()
}

/// The one answer to a request to an account that does not exist, or that is none of the asker's business: nobody learns from
/// it which of the two holds. XEP-0030 section 8 wants no items, whatever the node; everything else is refused.
pub(crate) fn not_there(stanza: &Stanza) -> Result<Vec<u8>, StanzaError> {
    let bare = stanza.to.as_ref().is_some_and(|to| to.resource().is_none());
    match stanza.child("query", ns::DISCO_ITEMS) {
        Some(query) if bare && stanza.type_ == Type::Iq(IqType::Get) => {
            Ok(xep_0030_disco::no_items(query.attr("node").as_deref()))
        }
        _ => Err(StanzaError::new(Condition::ServiceUnavailable)),
    }
}

/// The answer when the store fails, which is logged: the client may try again if that can help.
pub(crate) fn store_failed(error: &store::Error) -> StanzaError {
    match error.class {
        Class::Retry | Class::Conflict | Class::MaybeCommitted | Class::Unavailable | Class::Fenced => {
            // The fence counts what it refuses, and that shards are lost is said once for all.
            if error.class != Class::Fenced {
                tracing::warn!(%error, detail = error.detail.as_deref(), "a request failed because the store failed");
            }
        }
        Class::TooLarge | Class::Full => {} // that the disk is full is said once for all
        Class::Corrupt | Class::Misuse => {
            tracing::error!(%error, detail = error.detail.as_deref(), "a request failed: internal error of this server");
        }
    }
    store_error(error)
}

/// The same for callers that log the error themselves.
pub(crate) fn store_error(error: &store::Error) -> StanzaError {
    match error.class {
        Class::Retry | Class::Conflict | Class::MaybeCommitted | Class::Unavailable | Class::Fenced => {
            StanzaError::new(Condition::ResourceConstraint).text("the store is busy, try again")
        }
        Class::Full => {
            StanzaError::new(Condition::ResourceConstraint).text("the store is full, try again later")
        }
        Class::TooLarge => StanzaError::new(Condition::PolicyViolation).text("too large to be stored"),
        Class::Corrupt | Class::Misuse => StanzaError::new(Condition::InternalServerError),
    }
}

/// The answer when a limit is hit, which is counted under its name.
pub(crate) fn over(limit: &'static str, condition: Condition, text: &'static str) -> StanzaError {
    metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
    StanzaError::new(condition).text(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::contract::{Run, Who};

    /// What a stranger may ask is answered beside what the owner does, in no order with it.
    #[test]
    fn others_than_the_owner_only_read() {
        for iq in ALL.iter().flat_map(|feature| feature.iq) {
            let for_others = iq.scope == Scope::Account && iq.who != Who::Owner;
            assert!(!for_others || !matches!(iq.run, Run::Change(_)), "{} {}", iq.name, iq.ns);
        }
    }
}
