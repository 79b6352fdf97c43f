//! The POSH files of our own domains (RFC 7711), for web servers that pass requests on or refer to a URL here.

use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use rookery_actors::options::Options;
use rookery_ops::http::Routes;

use crate::dns::names;
use crate::streams::s2s::Federation;
use crate::tls::ascii;
use crate::tls::remote::posh::{PATH, document};

/// How long others may hold what a file says. Short: after a renewal, whoever still has the file of before does not know the new certificate.
const HOLDS: Duration = Duration::from_secs(600);

/// The route, which answers while `federation.posh_publish` is on.
pub fn routes(federation: Option<&Arc<Federation>>) -> Routes {
    let federation = federation.cloned();
    let answer = move |uri: Uri, headers: HeaderMap| {
        let found = federation.as_ref().and_then(|federation| file(federation, &uri, &headers));
        async move { found.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()) }
    };
    Routes::new(0).at(&Method::GET, PATH, answer)
}

/// The file of the domain that the request is for, if it is one of ours.
fn file(federation: &Federation, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    if !federation.settings.load().federation.posh_publish {
        return None;
    }
    let host = uri.host().map(str::to_owned).or_else(|| host(headers))?;
    let domain = hosted(&federation.host.options(), &host)?;
    let identity = federation.tls.identity(Some(&domain))?;
    let file = document(&[identity.chain().first()?], HOLDS);
    // What holds is said in the file: a cache between would make it older (RFC 7711 section 6).
    let fields = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    Some((fields, file).into_response())
}

/// The name in the `Host` field, without its port.
fn host(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::HOST)?.to_str().ok()?;
    Some(text.parse::<Authority>().ok()?.host().to_owned())
}

/// The domain or component of that name, in A-labels.
fn hosted(options: &Options, host: &str) -> Option<String> {
    let name = names::ascii(host)?;
    let domains = options.domains.iter().map(|domain| &domain.name);
    let mut all = domains.chain(options.services.iter().map(|service| &service.name));
    all.any(|own| ascii(own) == name).then_some(name)
}
