//! The documents of POSH (RFC 7711): what they say, and whether a certificate is among their fingerprints. Fetching them is others'
//! work.

use std::fmt::Write as _;
use std::time::Duration;

use rookery_proto::sasl::encoding;
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha512};

/// The path of a domain's file about servers (RFC 7711 section 3; its name is from RFC 7712).
pub const PATH: &str = "/.well-known/posh/xmpp-server.json";
/// How many fingerprints of a document are looked at.
const FINGERPRINTS: usize = 64;

/// A POSH document (sections 3.1 and 3.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// The fingerprints, or where they are.
    pub says: Says,
    /// How long the document holds (section 6).
    pub expires: Duration,
}

/// The two kinds of documents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Says {
    /// The fingerprints of the domain's certificates.
    Fingerprints(Fingerprints),
    /// The URL of a document with them.
    Reference(String),
}

/// Why a document says nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// The bytes are no JSON.
    #[error("it is not JSON")]
    NotJson,
    /// The JSON is something else.
    #[error("it is neither a list of fingerprints nor a reference to one")]
    NoDocument,
    /// No time to live, or none that is left.
    #[error("it has expired: \"expires\" is missing, or not above 0")]
    Expired,
    /// Fingerprints of unknown kinds alone.
    #[error("it has no fingerprint by sha-256 or sha-512")]
    NoFingerprint,
}

/// The certificates of a domain, by fingerprint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fingerprints(Vec<Fingerprint>);

/// One certificate: the hashes of its DER form that the document gives. At least one.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fingerprint {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// See [`Malformed`]. A document that is both kinds is none (section 3.1); one without a time to live is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| Malformed::NotJson)?;
        let object = value.as_object().ok_or(Malformed::NoDocument)?;
        let says = match (object.get("fingerprints"), object.get("url")) {
            (Some(Value::Array(all)), None) => Says::Fingerprints(Fingerprints::read(all)),
            (None, Some(Value::String(url))) => Says::Reference(url.clone()),
            _ => return Err(Malformed::NoDocument),
        };
        let expires = object.get("expires").and_then(seconds).ok_or(Malformed::Expired)?;
        match says {
            Says::Fingerprints(Fingerprints(all)) if all.is_empty() => Err(Malformed::NoFingerprint),
            says => Ok(Self { says, expires }),
        }
    }
}

/// Whole seconds above 0. A number with a fraction is rounded down.
fn seconds(value: &Value) -> Option<Duration> {
    let whole = value.as_u64().map(Duration::from_secs);
    let rounded = || Duration::try_from_secs_f64(value.as_f64()?.floor()).ok();
    whole.or_else(rounded).filter(|time| !time.is_zero())
}

impl Fingerprints {
    /// Other hashes are left out, and values that are no hash.
    fn read(all: &[Value]) -> Self {
        let some = all.iter().take(FINGERPRINTS);
        Self(some.filter_map(Value::as_object).filter_map(Fingerprint::read).collect())
    }

    /// Whether `certificate` is one of them (section 4).
    pub(super) fn have(&self, certificate: &CertificateDer<'_>) -> bool {
        let (short, long) = (Sha256::digest(certificate), Sha512::digest(certificate));
        self.0.iter().any(|one| one.is_of(&short, &long))
    }

    /// How many certificates there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Fingerprint {
    /// `None` without a hash that is known, or with one that is not what it says.
    fn read(hashes: &Map<String, Value>) -> Option<Self> {
        let read = |name: &str, length: usize| match hashes.get(name) {
            None => Some(None),
            Some(Value::String(text)) => {
                encoding::decode(text).ok().filter(|hash| hash.len() == length).map(Some)
            }
            Some(_) => None,
        };
        let own = Self { sha256: read("sha-256", 32)?, sha512: read("sha-512", 64)? };
        (own.sha256.is_some() || own.sha512.is_some()).then_some(own)
    }

    /// Whether these are the hashes of the certificate. All that there are must be right: one that is broken some day does not decide alone.
    fn is_of(&self, short: &[u8], long: &[u8]) -> bool {
        let right = |hash: &Option<Vec<u8>>, found: &[u8]| hash.as_ref().is_none_or(|hash| hash == found);
        right(&self.sha256, short) && right(&self.sha512, long)
    }
}

/// A document with the fingerprints of `certificates`, which holds for `expires`.
pub fn document(certificates: &[&CertificateDer<'_>], expires: Duration) -> String {
    let mut out = String::from("{\"fingerprints\":[");
    for (n, certificate) in certificates.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let [short, long] =
            [encoding::encode(&Sha256::digest(certificate)), encoding::encode(&Sha512::digest(certificate))];
        // Writing to a string does not fail.
        let _ = write!(out, "{comma}{{\"sha-256\":\"{short}\",\"sha-512\":\"{long}\"}}");
    }
    let _ = write!(out, "],\"expires\":{}}}", expires.as_secs());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Document, Malformed> {
        Document::parse(text.as_bytes())
    }

    fn base64(hash: &[u8]) -> String {
        encoding::encode(hash)
    }

    #[test]
    fn what_is_published_is_read() {
        let certificates = [CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4])];
        let text = document(&[&certificates[0], &certificates[1]], Duration::from_secs(600));
        let read = parsed(&text).unwrap();
        assert_eq!(read.expires, Duration::from_secs(600));
        let Says::Fingerprints(prints) = read.says else { panic!("{text}") };
        assert_eq!((prints.len(), prints.is_empty()), (2, false));
        assert!(certificates.iter().all(|one| prints.have(one)));
        assert!(!prints.have(&CertificateDer::from(vec![1, 2])));
    }

    #[test]
    fn every_hash_that_is_given_must_be_right() {
        let certificate = CertificateDer::from(vec![7; 40]);
        let (short, long) = (Sha256::digest(&certificate), Sha512::digest(&certificate));
        let have = |one: &str| {
            let read = parsed(&format!("{{\"fingerprints\":[{{{one}}}],\"expires\":1}}"));
            let Says::Fingerprints(prints) = read?.says else { return Err(Malformed::NoDocument) };
            Ok(prints.have(&certificate))
        };
        let (short, long) = (base64(&short), base64(&long));
        assert_eq!(have(&format!("\"sha-256\":\"{short}\"")), Ok(true));
        assert_eq!(have(&format!("\"sha-512\":\"{long}\",\"sha-1\":\"odd\"")), Ok(true));
        let wrong = base64(&[0; 64]);
        assert_eq!(have(&format!("\"sha-256\":\"{short}\",\"sha-512\":\"{wrong}\"")), Ok(false));
        for none in [
            "\"sha-1\":\"AAAA\"".to_owned(),
            format!("\"sha-256\":\"{long}\""),
            format!("\"sha-256\":\" {short}\""),
            format!("\"sha-256\":[\"{short}\"]"),
            format!("\"sha-256\":\"{short}\",\"sha-512\":\"x\""),
            String::new(),
        ] {
            assert_eq!(have(&none), Err(Malformed::NoFingerprint), "{none}");
        }
    }

    #[test]
    fn what_is_no_document_says_nothing() {
        let print = format!("[{{\"sha-256\":\"{}\"}}]", base64(&[0; 32]));
        for (text, why) in [
            (String::new(), Malformed::NotJson),
            ("<html/>".to_owned(), Malformed::NotJson),
            ("[".repeat(60_000), Malformed::NotJson),
            ("[]".to_owned(), Malformed::NoDocument),
            ("{\"expires\":1}".to_owned(), Malformed::NoDocument),
            (
                format!("{{\"fingerprints\":{print},\"url\":\"https://b\",\"expires\":1}}"),
                Malformed::NoDocument,
            ),
            ("{\"fingerprints\":{},\"expires\":1}".to_owned(), Malformed::NoDocument),
            ("{\"url\":1,\"expires\":1}".to_owned(), Malformed::NoDocument),
            ("{\"fingerprints\":[],\"expires\":1}".to_owned(), Malformed::NoFingerprint),
            (format!("{{\"fingerprints\":{print}}}"), Malformed::Expired),
            (format!("{{\"fingerprints\":{print},\"expires\":0}}"), Malformed::Expired),
            (format!("{{\"fingerprints\":{print},\"expires\":0.9}}"), Malformed::Expired),
            (format!("{{\"fingerprints\":{print},\"expires\":-3600}}"), Malformed::Expired),
            (format!("{{\"fingerprints\":{print},\"expires\":\"3600\"}}"), Malformed::Expired),
            (format!("{{\"fingerprints\":{print},\"expires\":1e300}}"), Malformed::Expired),
            ("{\"url\":\"https://b\"}".to_owned(), Malformed::Expired),
        ] {
            assert_eq!(parsed(&text), Err(why), "{:.80}", text);
        }
        let reference = parsed("{\"url\":\"https://b/x.json\",\"expires\":86400.5,\"more\":null}").unwrap();
        assert_eq!(reference.says, Says::Reference("https://b/x.json".to_owned()));
        assert_eq!(reference.expires, Duration::from_secs(86_400));
    }

    #[test]
    fn a_long_list_is_cut() {
        let one = format!("{{\"sha-256\":\"{}\"}}", base64(&[0; 32]));
        let all = vec![one; 1_000].join(",");
        let read = parsed(&format!("{{\"fingerprints\":[{all}],\"expires\":1}}")).unwrap();
        let Says::Fingerprints(prints) = read.says else { panic!("no list") };
        assert_eq!(prints.len(), FINGERPRINTS);
    }

    #[test]
    fn a_certificate_that_has_expired_is_proved_by_nothing() {
        use rookery_cluster::seams::{Clock, Seams};
        use std::sync::Arc;

        use crate::config::Authorities;
        use crate::tls::remote::{Judge, NotProved, Proof};

        struct At(u64);
        impl Clock for At {
            fn now_micros(&self) -> u64 {
                self.0 * 1_000_000
            }
        }
        let mut params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 2, 1));
        let (start, end) = (params.not_before.unix_timestamp(), params.not_after.unix_timestamp());
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone();
        let file = document(&[&certificate], Duration::from_secs(1));
        let Says::Fingerprints(prints) = parsed(&file).unwrap().says else { panic!("{file}") };
        let judged = |now: i64, chain: &[CertificateDer<'_>]| {
            let seams = Seams { clock: Arc::new(At(now.unsigned_abs())), ..Seams::system() };
            let judge = Judge::new(&Authorities { system: false, file: None }, seams).unwrap();
            judge.by_fingerprint(chain, &prints)
        };
        let chain = [certificate.clone(), CertificateDer::from(vec![1])];
        assert_eq!(judged(start + 60, &chain), Ok(Proof::Posh));
        assert_eq!(judged(end + 60, &chain), Err(NotProved::Expired(60)));
        assert_eq!(judged(start - 60, &chain), Err(NotProved::NotYetValid(60)));
        assert_eq!(judged(start + 60, &[]), Err(NotProved::NoCertificate));
        // Only the first one counts: that of the server itself.
        let other = rcgen::CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
        let other = other.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone();
        let now = other_dates(&other);
        assert_eq!(judged(now, &[other, certificate]), Err(NotProved::WrongFingerprint));
    }

    /// A time at which a certificate is valid, seconds since 1970.
    fn other_dates(certificate: &CertificateDer<'_>) -> i64 {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        parsed.validity().not_before.timestamp() + 1
    }
}
