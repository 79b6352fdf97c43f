//! Every namespace and disco feature name that the server speaks, once.
//!
//! A XEP's constant is named for its subject; the number stands in the comment.

/// `jabber:client`: stanzas between a client and its server (RFC 6120).
pub const CLIENT: &str = "jabber:client";
/// `jabber:server`: stanzas between servers (RFC 6120).
pub const SERVER: &str = "jabber:server";
/// `jabber:component:accept`: stanzas between a component and its server (XEP-0114).
pub const COMPONENT_ACCEPT: &str = "jabber:component:accept";
/// XEP-0220 server dialback, declared in the headers of streams between servers.
pub const DIALBACK: &str = "jabber:server:dialback";
/// XEP-0220: its stream feature.
pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";
/// Stream elements: `<stream:stream/>`, `<stream:features/>`, `<stream:error/>` (RFC 6120).
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// Stream error conditions (RFC 6120 4.9).
pub const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Stanza error conditions (RFC 6120 8.3).
pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// STARTTLS (RFC 6120 5).
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL (RFC 6120 6).
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Resource binding (RFC 6120 7).
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Session establishment, kept for old clients (RFC 3921 3).
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// WebSocket framing (RFC 7395).
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// The namespace bound to the prefix `xml` by definition.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// The namespace bound to the prefix `xmlns` by definition; never declared.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// The roster (RFC 6121 2).
pub const ROSTER: &str = "jabber:iq:roster";
/// Stream feature: roster versioning (RFC 6121 2.6, once XEP-0237).
pub const ROSTER_VER: &str = "urn:xmpp:features:rosterver";
/// Stream feature: pre-approved subscriptions (RFC 6121 3.4).
pub const PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";

/// XEP-0004 data forms.
pub const DATA_FORMS: &str = "jabber:x:data";
/// XEP-0012 last activity.
pub const LAST: &str = "jabber:iq:last";
/// XEP-0030 service discovery: information.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// XEP-0030 service discovery: items.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// XEP-0033 extended stanza addressing.
pub const ADDRESS: &str = "http://jabber.org/protocol/address";
/// XEP-0045 multi-user chat.
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// XEP-0045: what a user in a room sees and asks for.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// XEP-0049 private XML storage.
pub const PRIVATE: &str = "jabber:iq:private";
/// XEP-0054 vcard-temp.
pub const VCARD: &str = "vcard-temp";
/// XEP-0059 result set management.
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// XEP-0060 publish-subscribe events, which carbons and the archive look at.
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// XEP-0077 in-band registration.
pub const REGISTER: &str = "jabber:iq:register";
/// XEP-0077: its stream feature.
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// XEP-0085 chat states.
pub const CHATSTATES: &str = "http://jabber.org/protocol/chatstates";
/// XEP-0092 software version.
pub const VERSION: &str = "jabber:iq:version";
/// XEP-0106 JID escaping, a disco feature.
pub const JID_ESCAPING: &str = "jid\\20escaping";
/// XEP-0115 entity capabilities.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// XEP-0128, XEP-0157: the form type of a server's contact addresses.
pub const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";
/// XEP-0455: the form type of the URLs with the status of an outage.
pub const OUTAGE: &str = "urn:xmpp:sos:0";
/// XEP-0153: the avatar's hash in presence.
pub const VCARD_UPDATE: &str = "vcard-temp:x:update";
/// XEP-0160 offline messages, a disco feature.
pub const OFFLINE: &str = "msgoffline";
/// XEP-0184 message delivery receipts.
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// XEP-0191 blocking.
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// XEP-0191: the application condition of an error to a blocked contact.
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// XEP-0198 stream management.
pub const SM: &str = "urn:xmpp:sm:3";
/// XEP-0199 ping.
pub const PING: &str = "urn:xmpp:ping";
/// XEP-0202 entity time.
pub const TIME: &str = "urn:xmpp:time";
/// XEP-0203 delayed delivery.
pub const DELAY: &str = "urn:xmpp:delay";
/// XEP-0227 portable import and export.
pub const PIE: &str = "urn:xmpp:pie:0";
/// XEP-0227: the keys of SCRAM instead of a password.
pub const PIE_SCRAM: &str = "urn:xmpp:pie:0#scram";
/// XEP-0227: the archive.
pub const PIE_MAM: &str = "urn:xmpp:pie:0#mam";
/// XEP-0249 direct room invitations.
pub const CONFERENCE: &str = "jabber:x:conference";
/// XEP-0280 message carbons.
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// XEP-0280: the disco feature that promises the rules of its section 6.1.
pub const CARBONS_RULES: &str = "urn:xmpp:carbons:rules:0";
/// XEP-0288 bidirectional streams between servers: the request.
pub const BIDI: &str = "urn:xmpp:bidi";
/// XEP-0288: the stream feature.
pub const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
/// XEP-0297 stanza forwarding.
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// XEP-0308 last message correction.
pub const CORRECT: &str = "urn:xmpp:message-correct:0";
/// XEP-0313 message archive management.
pub const MAM: &str = "urn:xmpp:mam:2";
/// XEP-0313: extended queries (`before-id`, `after-id`, `ids`, metadata, flipped pages).
pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
/// XEP-0333 chat markers.
pub const MARKERS: &str = "urn:xmpp:chat-markers:0";
/// XEP-0334 message processing hints.
pub const HINTS: &str = "urn:xmpp:hints";
/// XEP-0352 client state indication.
pub const CSI: &str = "urn:xmpp:csi:0";
/// XEP-0353 Jingle message initiation, which the archive keeps.
pub const JINGLE_MESSAGE: &str = "urn:xmpp:jingle-message:0";
/// XEP-0355 namespace delegation.
pub const DELEGATION: &str = "urn:xmpp:delegation:2";
/// XEP-0356 privileged entity.
pub const PRIVILEGE: &str = "urn:xmpp:privilege:2";
/// XEP-0359 unique and stable stanza ids.
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// XEP-0380 explicit message encryption, which marks an encrypted message worth keeping.
pub const EME: &str = "urn:xmpp:eme:0";
/// XEP-0440 SASL channel-binding type capability.
pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// XEP-0441 archive preferences.
pub const MAM_PREFS: &str = "urn:xmpp:mam:2";
/// XEP-0444 message reactions.
pub const REACTIONS: &str = "urn:xmpp:reactions:0";
/// XEP-0478 stream limits advertisement.
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
