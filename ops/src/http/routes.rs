//! What a feature mounts on the service: a method and a path, or a method and everything below a path, with an async handler.
//!
//! ```
//! use axum::http::Method;
//! use rookery_ops::http::Routes;
//!
//! async fn hello() -> &'static str {
//!     "hello\n"
//! }
//! // Requests to these may have bodies of up to 1,000 bytes.
//! let routes = Routes::new(1_000).at(&Method::GET, "/hello", hello).below(&Method::GET, "/files", hello);
//! ```

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use hyper::body::Body as _;

use super::Limits;
use super::body::{Bounded, Broken, Fate};

/// Routes that are mounted together. A handler is an async function of what it wants of the request, as axum has it; it finds
/// [`Client`](super::Client) among the extensions.
#[derive(Clone)]
pub struct Routes {
    router: Router,
    bodies: usize,
}

impl Routes {
    /// No routes yet. Requests to them may have bodies of `bodies` bytes at most: 0 for those that take none.
    pub fn new(bodies: usize) -> Self {
        Self { router: Router::new(), bodies }
    }

    /// Mounts `handler` at `path`, which begins with `/`. `GET` answers `HEAD`, too.
    ///
    /// # Panics
    /// If the same method is mounted there already, or for a method that HTTP does not define: a fault of the program.
    #[must_use]
    pub fn at<H, T>(self, method: &Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, ()>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self { router: self.router.route(path, on(filter, handler)), ..self }
    }

    /// Mounts `handler` at everything below `prefix`, which begins with `/` and does not end with one.
    ///
    /// # Panics
    /// As [`at`](Self::at).
    #[must_use]
    pub fn below<H, T>(self, method: &Method, prefix: &'static str, handler: H) -> Self
    where
        H: Handler<T, ()>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let path = format!("{prefix}/{{*rest}}");
        Self { router: self.router.route(&path, on(filter, handler)), ..self }
    }

    /// These and those of `other`; each keeps its own limit of bodies.
    ///
    /// # Panics
    /// As [`at`](Self::at).
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let bodies = self.bodies.max(other.bodies);
        Self { router: self.bounded().merge(other.bounded()), bodies }
    }

    fn bounded(self) -> Router {
        let bound = middleware::from_fn_with_state(self.bodies, bound);
        self.router.layer(DefaultBodyLimit::disable()).layer(bound)
    }

    /// What the service asks.
    pub(super) fn finish(self) -> Router {
        self.bounded().layer(middleware::map_response(harden)).layer(middleware::from_fn(count))
    }
}

/// Holds the limits of a request's body.
async fn bound(State(most): State<usize>, request: Request, next: Next) -> Response {
    let announced = request.body().size_hint().lower();
    if announced > most as u64 {
        return refuse(Broken::TooLarge);
    }
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let limits = request.extensions().get::<Limits>().copied().unwrap_or_default();
    let fate = Fate::default();
    let request = request.map(|body| Body::new(Bounded::new(body, most, limits.body, fate.clone())));
    let response = next.run(request).await;
    fate.broken().map_or(response, refuse)
}

/// The connection ends: the rest of the body is not read.
fn refuse(broken: Broken) -> Response {
    ::metrics::counter!("rookery_limits_hit_total", "limit" => broken.limit()).increment(1);
    (broken.status(), [(header::CONNECTION, "close")]).into_response()
}

/// Unless the handler says otherwise, nothing here is to be kept, framed, guessed at or scripted.
async fn harden(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Labels are ours: what a client asks for that we do not have is "other".
async fn count(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let path = path.unwrap_or_else(|| "other".to_owned());
    let status = response.status().as_str().to_owned();
    ::metrics::counter!("rookery_http_requests_total", "path" => path, "status" => status).increment(1);
    response
}
