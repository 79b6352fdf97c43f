//! The ways to say no: stanza errors, stream errors, SASL failures. The one place that maps each to its element.

mod sasl;
mod stanza;
mod stream;

pub use sasl::SaslFailure;
pub use stanza::{Condition, ErrorType, StanzaError};
pub use stream::{StreamCondition, StreamError};

/// Declares a list of conditions: an enum, its names on the wire, and the way back.
macro_rules! conditions {
    (
        $(#[$meta:meta])* $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// All of them, in the order of the RFC.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name of the condition's element.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The condition with this element name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
use conditions;

/// Appends `<name xmlns='ns'/>`.
fn write_empty(out: &mut Vec<u8>, name: &str, ns: &str) {
    for part in ["<", name, " xmlns='", ns, "'/>"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends `<text xmlns='ns' xml:lang='en'>…</text>`, for people: the texts of this server are English.
fn write_text(out: &mut Vec<u8>, ns: &str, text: &str) {
    for part in ["<text xmlns='", ns, "' xml:lang='en'>"] {
        out.extend_from_slice(part.as_bytes());
    }
    crate::xml::escape::text(out, text);
    out.extend_from_slice(b"</text>");
}
