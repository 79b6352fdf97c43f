//! Dialogue scripts: what each client sends, and what each must receive, in XML, over real sockets.
//!
//! ```text
//! # A comment.
//! account nurse                     an account that exists without being connected
//! name paris                        a name that has no account
//! romeo connects as romeo@localhost/orchard [with roster] [with carbons] [with sm | with manual sm]
//!   [without presence] [over starttls]
//! romeo sends: <message …/>         one or more elements, or any bytes at all
//! juliet receives: <message …/>     one or more patterns, in this order
//! juliet receives in any order:     the same in any order
//!   <presence …/>
//!   <iq …/>
//! juliet receives acks up to 2      `<a/>`s until the `h` is 2; it may be less at first, and never falls
//! juliet receives nothing           nothing but the answer to a ping that the runner sends now
//! juliet ignores presence           from here on (or: message, iq, r, a)
//! juliet receives the end of the stream
//! juliet loses the connection       without a word
//! juliet resumes                    on a new connection; must succeed
//! juliet disconnects                closes the stream and waits for the server to do so too
//! nobody opens a stream [over starttls | in the clear]
//! nobody logs in as romeo@localhost
//! nobody fails to log in as romeo@localhost      on a stream of its own; <not-authorized/>
//! nobody binds orchard
//! nobody tries to resume what juliet lost
//! ```
//! Lines that begin with white space continue the line before. In patterns, attributes may come in any order,
//! children too; all attributes and children must be listed. `{any}` stands for any value that is not empty,
//! `{id:name}` for one that is remembered, `{=name}` for one remembered before (in `sends` too), `{date}` for
//! a time of XEP-0082, `{int}` for digits; they may be a part of a value. `{...}` among children or
//! inside a tag allows more of them. Only `xml:lang` may
//! always be there: a server may say what the stream's default was (RFC 6120, 4.7.4). `{romeo}` is romeo's user name, since every script has users of its own.

mod matcher;
mod parse;
mod run;

pub use self::matcher::{Captures, matches};
pub use self::parse::{Script, Step, Verb, password};
pub use self::run::{Failure, run};
