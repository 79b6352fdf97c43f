//! SCRAM as a client speaks it (RFC 5802, RFC 7677, RFC 9266), written apart from the server's code.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    /// From a mechanism's name, with or without `-PLUS`.
    pub fn of(mechanism: &str) -> Option<Hash> {
        match mechanism.trim_end_matches("-PLUS") {
            "SCRAM-SHA-1" => Some(Hash::Sha1),
            "SCRAM-SHA-256" => Some(Hash::Sha256),
            "SCRAM-SHA-512" => Some(Hash::Sha512),
            _ => None,
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        macro_rules! mac {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(key).expect("any key length will do");
                mac.update(data);
                mac.finalize().into_bytes().to_vec()
            }};
        }
        match self {
            Hash::Sha1 => mac!(Sha1),
            Hash::Sha256 => mac!(Sha256),
            Hash::Sha512 => mac!(Sha512),
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
            Hash::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    fn salted(self, password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        match self {
            Hash::Sha1 => {
                let mut out = vec![0; 20];
                pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, rounds, &mut out);
                out
            }
            Hash::Sha256 => {
                let mut out = vec![0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, &mut out);
                out
            }
            Hash::Sha512 => {
                let mut out = vec![0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, rounds, &mut out);
                out
            }
        }
    }
}

/// The three keys an account is stored with; for making accounts in other servers' own files.
#[derive(Clone, Debug)]
pub struct Stored {
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

/// Makes the stored form of a password.
pub fn stored(hash: Hash, password: &str, salt: &[u8], rounds: u32) -> Stored {
    let salted = hash.salted(password.as_bytes(), salt, rounds);
    let client_key = hash.hmac(&salted, b"Client Key");
    Stored { stored_key: hash.digest(&client_key), server_key: hash.hmac(&salted, b"Server Key") }
}

type Derivation = (Hash, String, Vec<u8>, u32);

/// Salted passwords made before: a load generator must not stretch the same key twice.
static SALTED: Mutex<Option<HashMap<Derivation, Vec<u8>>>> = Mutex::new(None);

fn salted(hash: Hash, password: &str, salt: &[u8], rounds: u32) -> Vec<u8> {
    let key = (hash, password.to_owned(), salt.to_vec(), rounds);
    if let Some(known) = SALTED.lock().unwrap().get_or_insert_default().get(&key) {
        return known.clone();
    }
    let made = hash.salted(password.as_bytes(), salt, rounds);
    SALTED.lock().unwrap().get_or_insert_default().insert(key, made.clone());
    made
}

/// One exchange. `first` is the initial response, `reply` answers the challenge, `check` judges the server.
#[derive(Debug)]
pub struct Scram {
    hash: Hash,
    gs2: String,
    binding: Vec<u8>,
    bare: String,
    password: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Scram {
    /// `binding` is (name, data) of the channel for a -PLUS mechanism; `flag` the gs2 flag when there is none.
    pub fn new(hash: Hash, user: &str, password: &str, nonce: &str, binding: Option<(&str, &[u8])>) -> Scram {
        let gs2 = match binding {
            Some((name, _)) => format!("p={name},,"),
            None => "n,,".to_owned(),
        };
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Scram {
            hash,
            gs2,
            binding: binding.map(|(_, data)| data.to_vec()).unwrap_or_default(),
            bare: format!("n={user},r={nonce}"),
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            server_signature: Vec::new(),
        }
    }

    /// The client-first message.
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.bare)
    }

    /// The client-final message for the server-first message.
    pub fn reply(&mut self, challenge: &str) -> Result<String, String> {
        let field = |name: &str| {
            let found = challenge.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| format!("no {name}= in the challenge {challenge}"))
        };
        let (nonce, salt, rounds) = (field("r")?, field("s")?, field("i")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not continue ours".into());
        }
        let salt = B64.decode(salt).map_err(|e| format!("salt: {e}"))?;
        let rounds: u32 = rounds.parse().map_err(|e| format!("rounds: {e}"))?;
        let key = salted(self.hash, &self.password, &salt, rounds);
        let mut channel = self.gs2.clone().into_bytes();
        channel.extend_from_slice(&self.binding);
        let without_proof = format!("c={},r={nonce}", B64.encode(channel));
        let auth = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = self.hash.hmac(&key, b"Client Key");
        let signature = self.hash.hmac(&self.hash.digest(&client_key), auth.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        self.server_signature = self.hash.hmac(&self.hash.hmac(&key, b"Server Key"), auth.as_bytes());
        Ok(format!("{without_proof},p={}", B64.encode(proof)))
    }

    /// True when the server has proved that it knows the keys too.
    pub fn check(&self, last: &str) -> bool {
        let given = last.strip_prefix("v=").and_then(|v| B64.decode(v.split(',').next()?).ok());
        given.as_deref() == Some(&self.server_signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5802, section 5.
    #[test]
    fn example_of_the_rfc() {
        let mut scram = Scram::new(Hash::Sha1, "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL", None);
        assert_eq!(scram.first(), "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let challenge = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        let want = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(scram.reply(challenge).unwrap(), want);
        assert!(scram.check("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
        assert!(!scram.check("v=rmF9pqV8S7suAoZWja4dJRkFsKR="));
    }
}
