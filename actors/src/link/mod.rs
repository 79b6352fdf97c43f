//! Links to other servers.
//!
//! A link is the placed actor of a pair of domains. It decides what is sent to the other server, and in what order. What comes from
//! other servers needs no link.
//!
//! - [`stream`]: the seam between a link and the program, which opens streams and knows sockets, TLS and DNS.
//! - [`incoming`]: stanzas of other servers on their way in.
//! - [`dialback`]: keys of server dialback (XEP-0220, XEP-0185).

pub mod dialback;
pub mod incoming;
pub mod stream;
