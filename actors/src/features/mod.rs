//! The features, one file per XEP. [`ALL`] is the only list: IQ dispatch, disco, the table of supported XEPs and the
//! DOAP file are derived from it, and its order is the order of hooks within a phase.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::feature::{Feature, Iq, MessageHook, Method, Phase, Scope, StanzaFilter};
use crate::user;

pub mod xep_0191_blocking;
pub mod xep_0203_delay;
pub mod xep_0280_carbons;
pub mod xep_0352_csi;
pub mod xep_0359_stanza_ids;

/// Every feature of the server.
pub const ALL: &[&Feature] = &[
    &user::ROSTER,
    &xep_0352_csi::CSI,
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

/// The filters of presence and IQs, in the order of [`ALL`].
pub(crate) fn filters() -> &'static [StanzaFilter] {
    static FILTERS: OnceLock<Vec<StanzaFilter>> = OnceLock::new();
    FILTERS.get_or_init(|| ALL.iter().flat_map(|feature| feature.filters).copied().collect())
}

/// Who answers an IQ with such a child.
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
