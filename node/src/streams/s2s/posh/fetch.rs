//! From a domain to the fingerprints in its POSH file (RFC 7711 section 3): one reference, and a few redirects, all by HTTPS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{ACCEPT, HeaderValue, LOCATION};
use hyper::{Request, Response, StatusCode, Uri};
use rustls::ClientConfig;

use super::super::{Federation, Settings};
use crate::dns::{Finder, NotFound, names};
use crate::https::Server;
use crate::tls::remote::posh::{Document, Fingerprints, Malformed, PATH, Says};

/// The largest document that is read, bytes.
const DOCUMENT: usize = 64 * 1024;
/// How many URLs are asked for one domain, the first among them.
const URLS: usize = 4;

/// Why a domain's fingerprints are not known. The texts of others are printed escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Missing {
    /// The web server has none, or answers with an error.
    #[error("the web server answers with {0}")]
    None(u16),
    /// The domain is no name for a URL.
    #[error("the domain has no web server")]
    NotAName,
    /// Its address is not known, or is one that is not connected to.
    #[error("{0}")]
    NotFound(NotFound),
    /// A URL that is not followed.
    #[error("{0:?} is not followed: {1}")]
    Refused(String, &'static str),
    /// The document says nothing.
    #[error("{0}")]
    Malformed(Malformed),
    /// The connection, TLS or HTTP failed.
    #[error("{0}")]
    Failed(String),
    /// The time ran out.
    #[error("the web server did not answer in time")]
    Late,
    /// Too many others are asked.
    #[error("too many web servers are being asked")]
    Busy,
}

impl Missing {
    /// Whether it may be otherwise soon.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::None(status) => *status >= 500,
            Self::NotFound(error) => !error.permanent(),
            Self::Failed(_) | Self::Late | Self::Busy => true,
            Self::NotAName | Self::Refused(..) | Self::Malformed(_) => false,
        }
    }

    /// For the metric.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::None(_) => "none",
            Self::NotFound(NotFound::Refused(_)) | Self::Refused(..) => "refused",
            Self::Malformed(_) => "malformed",
            Self::NotAName | Self::NotFound(_) | Self::Failed(_) | Self::Late | Self::Busy => "failed",
        }
    }
}

/// All that one fetch needs.
pub(super) struct Fetch {
    /// The domain, as in a JID.
    pub(super) domain: String,
    finder: Arc<Finder>,
    config: Arc<ClientConfig>,
    settings: Arc<Settings>,
}

impl Fetch {
    /// Of `domain`, as in a JID.
    pub(super) fn new(federation: &Federation, domain: &str) -> Result<Self, Missing> {
        let config = federation.judge.load().https().map_err(|error| Missing::Failed(error.to_string()))?;
        Ok(Self {
            domain: domain.to_owned(),
            finder: federation.finder.clone(),
            config: Arc::new(config),
            settings: federation.settings.load_full(),
        })
    }

    /// The fingerprints, and how long they hold: the least of what the documents on the way say (section 6). The caller limits the time.
    pub(super) async fn run(&self) -> Result<(Fingerprints, Duration), Missing> {
        let mut url = self.first()?;
        let mut reference: Option<Duration> = None;
        for _ in 0..URLS {
            let answer = self.get(&url).await?;
            if answer.status().is_redirection() {
                url = redirected(&url, &answer)?;
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(Missing::None(answer.status().as_u16()));
            }
            let document = Document::parse(answer.body()).map_err(Missing::Malformed)?;
            let holds = reference.map_or(document.expires, |holds| holds.min(document.expires));
            match document.says {
                Says::Fingerprints(fingerprints) => return Ok((fingerprints, holds)),
                // Section 3.2: no chains, so no circles.
                Says::Reference(to) if reference.is_some() => {
                    return Err(Missing::Refused(to, "a reference that another one has led to"));
                }
                Says::Reference(to) => {
                    url = to.parse().map_err(|_| Missing::Refused(to, "not a URL"))?;
                    reference = Some(holds);
                }
            }
        }
        Err(Missing::Refused(url.to_string(), "too many redirects"))
    }

    /// The well-known URL of the domain.
    fn first(&self) -> Result<Uri, Missing> {
        let host = match names::address(&self.domain) {
            Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => names::ascii(&self.domain).ok_or(Missing::NotAName)?,
        };
        format!("https://{host}{PATH}").parse().map_err(|_| Missing::NotAName)
    }

    /// One request.
    async fn get(&self, url: &Uri) -> Result<Response<Bytes>, Missing> {
        let server = Server::of(url)
            .map_err(|_| Missing::Refused(url.to_string(), "it must be https://, a host and a path"))?;
        // A dot at the end makes no other name of it.
        let host = server.host.strip_suffix('.').unwrap_or(&server.host);
        let (unicode, _) = idna::domain_to_unicode(host);
        let refused = [host.to_ascii_lowercase(), unicode];
        if refused.iter().any(|host| self.settings.federation.refuses(host)) {
            return Err(Missing::Refused(url.to_string(), "federation.refuse has its host"));
        }
        let target = self.finder.web(&server.host, server.port).await.map_err(Missing::NotFound)?;
        let failed = |error: &dyn std::fmt::Display| Missing::Failed(error.to_string());
        let connected = self.finder.connect(&[target]).await.map_err(|error| failed(&error))?;
        let request = Request::get(url.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let answer = server.exchange(self.config.clone(), connected.stream, request, DOCUMENT).await;
        answer.map_err(|error| failed(&error))
    }
}

/// Where a redirect leads: another URL, or a path of the same server.
fn redirected(from: &Uri, answer: &Response<Bytes>) -> Result<Uri, Missing> {
    let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
    let refused = |why| Missing::Refused(location.to_owned(), why);
    let to: Uri = location.parse().map_err(|_| refused("not a URL"))?;
    if to.scheme().is_some() || !location.starts_with('/') || location.starts_with("//") {
        return Ok(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    Uri::from_parts(parts).map_err(|_| refused("not a URL"))
}
