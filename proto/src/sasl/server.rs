//! The server's side of an authentication.

use super::{
    ChannelBindings, Credentials, Fakes, Hash, MESSAGE_BYTES, Mechanism, Nonce, PlainVerify, STANDARD,
    ScramKeys, features,
    mechanism::BindingType,
    message::{self, Binding, ClientFinal, ClientFirst},
};
use crate::xmpp::{BareJid, SaslFailure};
use base64::Engine as _;
use std::fmt;
use subtle::ConstantTimeEq;

/// What a machine must know of its connection.
#[derive(Debug, Clone)]
pub struct Context {
    /// The domain that the stream was opened to.
    pub domain: BareJid,
    /// What the connection has to bind to: those that the features announced.
    pub bindings: ChannelBindings,
    /// What the features announced, in any order.
    pub offered: Vec<Mechanism>,
    /// Fresh for this exchange.
    pub nonce: Nonce,
    /// Answers for users that do not exist.
    pub fakes: Fakes,
    /// Whether to send XEP-0474's attribute `h`, which clients of the XEP's version 0.3 take for an attack.
    pub downgrade_hash: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Send this (empty: ask for the initial response), then call [`Server::response`].
    Challenge(Vec<u8>),
    /// Look the user up, then call [`Server::credentials`].
    NeedCredentials {
        /// The user; in the context's domain.
        user: BareJid,
    },
    /// Judge the password with [`PlainVerify::check`], then call [`Server::verified`].
    NeedPlainVerify(PlainVerify),
    /// The client is this user. The machine is done.
    Success {
        /// The user that has logged in.
        user: BareJid,
        /// Goes into `<success/>` (RFC 6120 6.4.6): the server's own proof.
        additional: Option<Vec<u8>>,
    },
    /// The login failed. The machine is done; the client may try again with a new one (RFC 6120 6.4.5).
    Failure(SaslFailure),
}

/// One attempt of a client to authenticate. A call at the wrong time is `<malformed-request/>` and ends it.
pub struct Server {
    mechanism: Mechanism,
    context: Context,
    state: State,
}

enum State {
    /// Nothing has come yet.
    Initial,
    /// The first message has come; the keys have not.
    Keys(Opening),
    /// The first answer is out; the proof has not come.
    Proof(Box<Exchange>),
    /// A password waits for its verdict.
    Verdict(BareJid),
    Done,
}

/// What is remembered of the client's first message.
struct Opening {
    hash: Hash,
    user: BareJid,
    /// What `c=` must hold in the end: the GS2 header, and the data it names.
    binding: Vec<u8>,
    bare: String,
    client_nonce: String,
}

struct Exchange {
    hash: Hash,
    user: BareJid,
    binding: Vec<u8>,
    nonce: String,
    /// The messages so far, for the signature.
    signed: String,
    keys: ScramKeys,
    exists: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Initial => "initial",
            State::Keys(_) => "keys",
            State::Proof(_) => "proof",
            State::Verdict(_) => "verdict",
            State::Done => "done",
        };
        f.debug_struct("Server")
            .field("mechanism", &self.mechanism)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Begins with `<auth/>`. `initial` is its data, decoded; `None` if there was none ([`super::encoding::decode_initial`]).
    #[must_use]
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>, context: Context) -> (Self, Step) {
        let offered = context.offered.contains(&mechanism);
        let mut server = Self { mechanism, context, state: State::Initial };
        let step = match initial {
            _ if !offered => server.fail(SaslFailure::InvalidMechanism),
            Some(data) => server.response(data),
            // RFC 4422 3: these mechanisms begin with the client, so an empty challenge asks for it.
            None => Step::Challenge(Vec::new()),
        };
        (server, step)
    }

    /// Which mechanism is in use.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The client sent this, decoded.
    pub fn response(&mut self, data: &[u8]) -> Step {
        if data.len() > MESSAGE_BYTES {
            return self.fail(SaslFailure::MalformedRequest);
        }
        let result = match (std::mem::replace(&mut self.state, State::Done), self.mechanism) {
            (State::Initial, Mechanism::Plain) => self.plain(data),
            (State::Initial, Mechanism::Scram { hash, plus }) => self.first(data, hash, plus),
            (State::Proof(exchange), _) => exchange.finish(data),
            _ => Err(SaslFailure::MalformedRequest),
        };
        result.unwrap_or_else(|failure| self.fail(failure))
    }

    /// The look-up that [`Step::NeedCredentials`] asked for is back; `None` if there is no such user. If the look-up itself
    /// failed, drop the machine and send [`SaslFailure::TemporaryAuthFailure`].
    pub fn credentials(&mut self, found: Option<Credentials>) -> Step {
        let State::Keys(opening) = std::mem::replace(&mut self.state, State::Done) else {
            return self.fail(SaslFailure::MalformedRequest);
        };
        // Made in both cases, so that both cost the same.
        let fake = self.context.fakes.keys(opening.hash, &opening.user);
        // A user without keys for this hash looks like a user that does not exist.
        let real = found.and_then(|credentials| credentials.get(opening.hash).cloned());
        let exists = real.is_some();
        let keys = real.unwrap_or(fake);
        let nonce = format!("{}{}", opening.client_nonce, self.context.nonce.0);
        let mut challenge = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        if self.context.downgrade_hash {
            challenge.push_str(",h=");
            challenge.push_str(&features::hash_of(
                opening.hash,
                &self.context.offered,
                &self.context.bindings,
            ));
        }
        let Opening { hash, user, binding, bare, .. } = opening;
        let signed = format!("{bare},{challenge}");
        self.state = State::Proof(Box::new(Exchange { hash, user, binding, nonce, signed, keys, exists }));
        Step::Challenge(challenge.into_bytes())
    }

    /// The verdict that [`Step::NeedPlainVerify`] asked for.
    pub fn verified(&mut self, right: bool) -> Step {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Verdict(user) if right => Step::Success { user, additional: None },
            State::Verdict(_) => self.fail(SaslFailure::NotAuthorized),
            _ => self.fail(SaslFailure::MalformedRequest),
        }
    }

    fn fail(&mut self, failure: SaslFailure) -> Step {
        self.state = State::Done;
        Step::Failure(failure)
    }

    fn plain(&mut self, data: &[u8]) -> Result<Step, SaslFailure> {
        let verify = PlainVerify::parse(data, &self.context.domain)?;
        self.state = State::Verdict(verify.user.clone());
        Ok(Step::NeedPlainVerify(verify))
    }

    fn first(&mut self, data: &[u8], hash: Hash, plus: bool) -> Result<Step, SaslFailure> {
        let first = ClientFirst::parse(data)?;
        let mut binding = first.header.as_bytes().to_vec();
        match (first.binding, plus) {
            (Binding::Required(name), true) => {
                let data = BindingType::from_name(name).and_then(|type_| self.context.bindings.data(type_));
                binding.extend_from_slice(data.ok_or(SaslFailure::MalformedRequest)?);
            }
            // RFC 5802 6: "I could, but you do not offer it" although we did: somebody took it out of the features.
            (Binding::NotOffered, false) if self.context.offered.iter().any(|m| m.is_plus()) => {
                return Err(SaslFailure::NotAuthorized);
            }
            (Binding::NotOffered | Binding::Unsupported, false) => {}
            // RFC 5802 6: -PLUS without a binding, or a binding without -PLUS.
            _ => return Err(SaslFailure::MalformedRequest),
        }
        let user = message::identify(&first.user, first.authzid.as_deref(), &self.context.domain)?;
        self.state = State::Keys(Opening {
            hash,
            user: user.clone(),
            binding,
            bare: first.bare.to_owned(),
            client_nonce: first.nonce.to_owned(),
        });
        Ok(Step::NeedCredentials { user })
    }
}

impl Exchange {
    /// RFC 5802 3: judges the proof, and makes ours.
    fn finish(self, data: &[u8]) -> Result<Step, SaslFailure> {
        let last = ClientFinal::parse(data)?;
        if last.nonce != self.nonce {
            return Err(SaslFailure::MalformedRequest);
        }
        let bound = bool::from(last.binding.ct_eq(&self.binding));
        let message = [self.signed.as_bytes(), b",", last.without_proof.as_bytes()];
        let signature = self.hash.hmac(&self.keys.stored_key, &message);
        let client_key: Vec<u8> = last.proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        let proven = bool::from(self.hash.digest(&client_key).ct_eq(&self.keys.stored_key));
        let whole = last.proof.len() == self.hash.size();
        // Made in both cases, so that both cost the same.
        let ours = self.hash.hmac(&self.keys.server_key, &message);
        if !(bound & proven & whole & self.exists) {
            return Err(SaslFailure::NotAuthorized);
        }
        Ok(Step::Success {
            user: self.user,
            additional: Some(format!("v={}", STANDARD.encode(ours)).into_bytes()),
        })
    }
}
