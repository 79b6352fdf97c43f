//! The client's side, for the test client and the benches; and the other half of this module's own tests.

use super::{
    ChannelBindings, Hash, Mechanism, Nonce, STANDARD, features, keys, mechanism::BindingType, password,
};
use base64::Engine as _;
use std::fmt;
use subtle::ConstantTimeEq;

/// Why a client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A message of the server is not what RFC 5802 says.
    #[error("the server's message is malformed")]
    Malformed,
    /// The server's nonce does not begin with ours.
    #[error("the server answers another exchange")]
    Nonce,
    /// The server asks for too little or too much work.
    #[error("the server's iteration count is out of bounds")]
    Iterations,
    /// The features were changed on the way (XEP-0474).
    #[error("the features were changed on the way")]
    Downgrade,
    /// The server does not know the password's keys, or did not prove it.
    #[error("the server did not prove itself")]
    Unproven,
    /// A `-PLUS` mechanism without something to bind to.
    #[error("there is no channel to bind to")]
    Unbound,
    /// The password cannot be one.
    #[error(transparent)]
    Password(#[from] password::Error),
}

/// One attempt to authenticate.
pub struct Client {
    mechanism: Mechanism,
    user: String,
    password: String,
    authzid: String,
    nonce: Nonce,
    flag: String,
    binding: Vec<u8>,
    announced: Option<(Vec<String>, Vec<String>)>,
    proof: Option<Vec<u8>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

impl Client {
    /// `user` is the localpart. The nonce must be fresh.
    #[must_use]
    pub fn new(mechanism: Mechanism, user: &str, password: &str, nonce: Nonce) -> Self {
        Self {
            mechanism,
            user: user.to_owned(),
            password: password.to_owned(),
            authzid: String::new(),
            nonce,
            flag: "n".to_owned(),
            binding: Vec::new(),
            announced: None,
            proof: None,
        }
    }

    /// Binds to the channel: what a `-PLUS` mechanism needs. Takes `wanted`, or the best type that is there.
    ///
    /// # Errors
    /// [`Error::Unbound`] if that is not there.
    pub fn bind(mut self, bindings: &ChannelBindings, wanted: Option<BindingType>) -> Result<Self, Error> {
        let type_ = wanted.or_else(|| bindings.types().next()).ok_or(Error::Unbound)?;
        bindings.data(type_).ok_or(Error::Unbound)?.clone_into(&mut self.binding);
        self.flag = format!("p={}", type_.name());
        Ok(self)
    }

    /// Says `y`: this client could bind, and saw no `-PLUS` mechanism.
    #[must_use]
    pub fn could_bind(mut self) -> Self {
        self.flag = "y".to_owned();
        self
    }

    /// Asks to act as this JID.
    #[must_use]
    pub fn authzid(mut self, authzid: &str) -> Self {
        self.authzid = authzid.to_owned();
        self
    }

    /// What the features announced: mechanisms and channel-binding types. With this a wrong `h` of XEP-0474 is an error.
    #[must_use]
    pub fn announced(mut self, mechanisms: Vec<String>, types: Vec<String>) -> Self {
        self.announced = Some((mechanisms, types));
        self
    }

    fn header(&self) -> String {
        let a = if self.authzid.is_empty() { "" } else { "a=" };
        format!("{},{a}{},", self.flag, escaped(&self.authzid))
    }

    fn bare(&self) -> String {
        format!("n={},r={}", escaped(&self.user), self.nonce.0)
    }

    /// The data of `<auth/>`.
    #[must_use]
    pub fn initial(&self) -> Vec<u8> {
        match self.mechanism {
            Mechanism::Plain => format!("{}\0{}\0{}", self.authzid, self.user, self.password).into_bytes(),
            Mechanism::Scram { .. } => format!("{}{}", self.header(), self.bare()).into_bytes(),
        }
    }

    /// Answers a challenge. An empty one asks for the initial response.
    ///
    /// # Errors
    /// [`Error`]: send `<abort/>`.
    pub fn challenge(&mut self, data: &[u8]) -> Result<Vec<u8>, Error> {
        if data.is_empty() {
            return Ok(self.initial());
        }
        let Mechanism::Scram { hash, .. } = self.mechanism else { return Err(Error::Malformed) };
        let first = ServerFirst::parse(data)?;
        if !first.nonce.starts_with(&self.nonce.0) || first.nonce.len() == self.nonce.0.len() {
            return Err(Error::Nonce);
        }
        if !(keys::MIN_ITERATIONS..=keys::MAX_ITERATIONS).contains(&first.iterations) {
            return Err(Error::Iterations);
        }
        self.check_announced(hash, first.downgrade_hash)?;
        let prepared = password::prepare(&self.password)?;
        let salted = hash.stretch(prepared.as_bytes(), &first.salt, first.iterations);
        let client_key = hash.hmac(&salted, &[b"Client Key"]);
        let binding = [self.header().as_bytes(), &self.binding].concat();
        let last = format!("c={},r={}", STANDARD.encode(binding), first.nonce);
        let bare = self.bare();
        let message = [bare.as_bytes(), b",", data, b",", last.as_bytes()];
        let signature = hash.hmac(&hash.digest(&client_key), &message);
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(k, s)| k ^ s).collect();
        self.proof = Some(hash.hmac(&hash.hmac(&salted, &[b"Server Key"]), &message));
        Ok(format!("{last},p={}", STANDARD.encode(proof)).into_bytes())
    }

    fn check_announced(&self, hash: Hash, theirs: Option<&str>) -> Result<(), Error> {
        let (Some((mechanisms, types)), Some(theirs)) = (&self.announced, theirs) else { return Ok(()) };
        let mechanisms: Vec<_> = mechanisms.iter().map(String::as_str).collect();
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        if features::downgrade_hash(hash, &mechanisms, &types) == theirs {
            Ok(())
        } else {
            Err(Error::Downgrade)
        }
    }

    /// Judges `<success/>` by its data.
    ///
    /// # Errors
    /// [`Error::Unproven`]: this is not the server that knows the user; leave.
    pub fn success(&self, data: Option<&[u8]>) -> Result<(), Error> {
        match (self.mechanism, &self.proof) {
            (Mechanism::Plain, _) => Ok(()),
            (_, Some(proof)) => {
                let theirs = data.and_then(|d| d.strip_prefix(b"v=")).ok_or(Error::Unproven)?;
                let theirs = STANDARD.decode(theirs).map_err(|_| Error::Unproven)?;
                if bool::from(theirs.ct_eq(proof)) { Ok(()) } else { Err(Error::Unproven) }
            }
            _ => Err(Error::Unproven),
        }
    }
}

struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
    downgrade_hash: Option<&'a str>,
}

impl<'a> ServerFirst<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(data).map_err(|_| Error::Malformed)?;
        let mut fields = text.split(',');
        let mut field = |name| fields.next().and_then(|f| f.strip_prefix(name)).ok_or(Error::Malformed);
        let nonce = field("r=")?;
        let salt = STANDARD.decode(field("s=")?).map_err(|_| Error::Malformed)?;
        let iterations = field("i=")?.parse().map_err(|_| Error::Malformed)?;
        let downgrade_hash = fields.find_map(|f| f.strip_prefix("h="));
        Ok(Self { nonce, salt, iterations, downgrade_hash })
    }
}
