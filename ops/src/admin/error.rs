//! What can go wrong with a request, mapped once to gRPC codes and to exit codes.

use tonic::{Code, Status};

/// The kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A fault of ours.
    Internal,
    /// What was asked for does not exist.
    NotFound,
    /// What was to be made exists.
    Exists,
    /// The request or its file is wrong.
    Invalid,
    /// No node runs, or it cannot answer now.
    Unavailable,
    /// A limit was reached.
    Limit,
}

/// An error, with a sentence for the operator that names the remedy if there is one. An error holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// What went wrong: lower case, no full stop.
    pub message: String,
}

impl Kind {
    /// Each kind, its name in metrics, its gRPC code and the exit code of the command (2 is clap's, for wrong usage).
    pub const TABLE: [(Self, &'static str, Code, u8); 6] = [
        (Self::Internal, "internal", Code::Internal, 1),
        (Self::NotFound, "not_found", Code::NotFound, 3),
        (Self::Exists, "exists", Code::AlreadyExists, 4),
        (Self::Invalid, "invalid", Code::InvalidArgument, 5),
        (Self::Unavailable, "unavailable", Code::Unavailable, 6),
        (Self::Limit, "limit", Code::ResourceExhausted, 7),
    ];

    fn row(self) -> (&'static str, Code, u8) {
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.map_or(("internal", Code::Internal, 1), |&(_, name, code, exit)| (name, code, exit))
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its gRPC code.
    pub fn code(self) -> Code {
        self.row().1
    }

    /// The exit code of a command that ends with it.
    pub fn exit_code(self) -> u8 {
        self.row().2
    }
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// [`Kind::Exists`].
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(Kind::Exists, message)
    }

    /// [`Kind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// [`Kind::Limit`].
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Kind::Limit, message)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.kind.code(), error.message)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if status.code() == Code::Unimplemented {
            return Self::unavailable(
                "the node does not know this request: its version is older than this command",
            );
        }
        // What tonic itself says when the connection breaks.
        if matches!(status.code(), Code::Unknown | Code::Cancelled) {
            return Self::unavailable(format!("the node closed the connection: {}", status.message()));
        }
        let row = Kind::TABLE.iter().find(|row| row.2 == status.code());
        Self::new(row.map_or(Kind::Internal, |row| row.0), status.message())
    }
}

impl From<crate::secret::Error> for Error {
    fn from(error: crate::secret::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<crate::logging::Error> for Error {
    fn from(error: crate::logging::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, ..) in Kind::TABLE {
            let error = Error::new(kind, "what went wrong");
            assert_eq!(Error::from(Status::from(error.clone())), error);
        }
    }

    #[test]
    fn exit_codes_are_distinct_and_leave_two_to_clap() {
        let codes: std::collections::BTreeSet<u8> = Kind::TABLE.iter().map(|row| row.3).collect();
        assert_eq!(codes.len(), Kind::TABLE.len());
        assert!(!codes.contains(&0) && !codes.contains(&2));
    }
}
