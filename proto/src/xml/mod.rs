//! The strict XML layer: what comes from a socket passes through here before anything else sees it.
//!
//! * [`framer`] finds where a top-level item of a stream ends, never scanning a byte twice.
//! * [`check`] judges one complete frame by XML 1.0, Namespaces in XML and RFC 6120 section 11.
//! * [`header`] reads and writes stream headers, [`scope`] remembers what they declared.
//! * [`write`](mod@write) and [`escape`] make XML that is always well-formed.
//!
//! There is no DTD, comment, processing instruction or custom entity behind this layer, no unbound prefix, no
//! character outside XML 1.0, and nothing larger than its [`Limits`].

pub mod chars;
pub mod check;
mod error;
pub mod escape;
pub mod framer;
pub mod header;
mod limits;
pub mod scope;
mod text;
pub mod write;

pub use error::Error;
pub use limits::Limits;
pub use scope::Scope;
pub use text::Text;
pub use write::Writer;
