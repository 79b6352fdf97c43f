//! The routes of every node. There is no login: they show nothing about any user.

use axum::http::{Method, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};

use super::Routes;
use crate::health::Health;
use crate::metrics;

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: metrics::Handle,
}

/// What the operator and the monitoring look at: `/metrics`, a page of links, and [`health`]. Not for the public.
pub fn operator(health: Health, metrics: metrics::Handle) -> Routes {
    let shared = Shared { health: health.clone(), metrics };
    let (at, for_page) = (shared.clone(), shared);
    Routes::new(0)
        .at(&Method::GET, "/", move || page(for_page.clone()))
        .at(&Method::GET, "/metrics", move || render(at.clone()))
        .and(self::health(health))
}

/// `/healthz` and `/readyz`, for load balancers.
pub fn health(health: Health) -> Routes {
    Routes::new(0)
        .at(&Method::GET, "/healthz", alive)
        .at(&Method::GET, "/readyz", move || ready(health.clone()))
}

/// Alive: the runtime turns. That is all that a restart could mend.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(health: Health) -> Response {
    let reasons = health.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let text: String = reasons.iter().flat_map(|reason| [reason.text(), "\n"]).collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn render(shared: Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
        .into_response()
}

async fn page(shared: Shared) -> Html<String> {
    let state = if shared.health.is_ready() { "ready" } else { "not ready" };
    let (version, minutes) = (crate::VERSION, shared.metrics.uptime().as_secs() / 60);
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Rookery</title>\
         <h1>Rookery {version}</h1><p>This node is {state}; it has been up for {minutes} minutes.</p>\
         <ul><li><a href=\"/metrics\">/metrics</a>: what it measures, for Prometheus</li>\
         <li><a href=\"/healthz\">/healthz</a>: whether it is alive</li>\
         <li><a href=\"/readyz\">/readyz</a>: whether it takes work, and if not, why</li></ul></html>\n"
    ))
}
