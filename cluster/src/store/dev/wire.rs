//! Between the store's types and the messages of `store.proto`.

use bytes::Bytes;
use prost::Message as _;
use rookery_rpc::store::v1;
use tonic::{Code, ConnectError, Status};
use v1::failure::Class as Said;
use v1::mutation::Kind;

use crate::store::buffered::Commit;
use crate::store::buffered::pending::{StampedKey, Step, Write};
use crate::store::buffered::span::{Span, next_key};
use crate::store::{Class, Committed, Error, Transaction, Version};

/// What a transaction has gathered, as a message. The watches are only named; the waiters stay behind.
pub(super) fn request(version: Option<Version>, commit: &mut Commit) -> v1::CommitRequest {
    let mut pending = std::mem::take(&mut commit.pending);
    let place = |offset| u64::try_from(offset).unwrap_or(u64::MAX);
    let kind = |step| match step {
        Step::ClearRange(begin, end) => Kind::ClearRange(v1::Span { begin, end: Some(end) }),
        Step::StampedKey(StampedKey { key, offset, value, .. }) => {
            Kind::StampedKey(v1::Stamped { key, value, offset: place(offset) })
        }
        Step::Key(key, Write::Set(value)) => Kind::Set(v1::Row { key, value }),
        Step::Key(key, Write::Clear) => Kind::Clear(key),
        Step::Key(key, Write::Add(delta)) => Kind::Add(v1::Add { key, delta }),
        Step::Key(key, Write::Stamped(value, offset)) => {
            Kind::StampedValue(v1::Stamped { key, value, offset: place(offset) })
        }
    };
    let mutations = pending.take_steps().into_iter().map(|step| v1::Mutation { kind: Some(kind(step)) });
    v1::CommitRequest {
        version: version.map(|version| version.0),
        reads: std::mem::take(&mut commit.reads).into_iter().map(span).collect(),
        mutations: mutations.collect(),
        write_conflicts: pending.conflicts.into_iter().map(span).collect(),
        watches: commit.watches.iter().map(|watched| watched.key.clone()).collect(),
    }
}

fn span(span: Span) -> v1::Span {
    match span {
        Span::Key(begin) => v1::Span { begin, end: None },
        Span::Range(begin, end) => v1::Span { begin, end: Some(end) },
    }
}

/// Does in `tx` what the message says, watches and commit excepted. What is wrong with it is the error of the commit.
pub(super) fn replay(request: v1::CommitRequest, tx: &mut dyn Transaction) {
    for span in request.reads {
        let end = span.end.unwrap_or_else(|| next_key(&span.begin));
        tx.add_read_conflict(&span.begin, &end);
    }
    let place = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    for mutation in request.mutations {
        match mutation.kind {
            Some(Kind::Set(row)) => tx.set_owned(row.key, row.value),
            Some(Kind::Clear(key)) => tx.clear(&key),
            Some(Kind::ClearRange(span)) => tx.clear_range(&span.begin, &span.end.unwrap_or_default()),
            Some(Kind::Add(add)) => tx.add(&add.key, add.delta),
            Some(Kind::StampedKey(s)) => tx.set_versionstamped_key(&s.key, place(s.offset), &s.value),
            Some(Kind::StampedValue(s)) => tx.set_versionstamped_value(&s.key, &s.value, place(s.offset)),
            // From a newer client: it must not be left out of its transaction.
            None => tx.clear(b""),
        }
    }
    for span in request.write_conflicts {
        let end = span.end.unwrap_or_else(|| next_key(&span.begin));
        tx.add_write_conflict(&span.begin, &end);
    }
}

/// The answer to a commit.
pub(super) fn committed(committed: Committed) -> v1::Committed {
    let stamp = committed.versionstamp;
    let versionstamp = if stamp == [0; 10] { Bytes::new() } else { Bytes::copy_from_slice(&stamp) };
    v1::Committed { version: committed.version.0, versionstamp }
}

/// The answer to a commit, read.
pub(super) fn read_committed(committed: &v1::Committed) -> Committed {
    let versionstamp = committed.versionstamp.first_chunk().copied().unwrap_or_default();
    Committed { version: Version(committed.version), versionstamp }
}

/// An error for the wire.
pub(super) fn failure(error: &Error) -> v1::Failure {
    let class = match error.class {
        Class::Retry if error.is_too_old() => Said::TooOld,
        Class::Retry => Said::Retry,
        Class::Conflict => Said::Conflict,
        Class::MaybeCommitted => Said::MaybeCommitted,
        Class::Fenced => Said::Fenced,
        Class::TooLarge => Said::TooLarge,
        Class::Unavailable => Said::Unavailable,
        Class::Full => Said::Full,
        Class::Corrupt => Said::Corrupt,
        Class::Misuse => Said::Misuse,
    };
    let detail = error.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    v1::Failure { class: class.into(), message: format!("{}{detail}", error.message) }
}

/// The same as a status.
pub(super) fn status(error: &Error) -> Status {
    let code = match error.class {
        Class::Retry | Class::Conflict => Code::Aborted,
        Class::MaybeCommitted => Code::Unknown,
        Class::Fenced => Code::FailedPrecondition,
        Class::TooLarge | Class::Full => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::Corrupt => Code::DataLoss,
        Class::Misuse => Code::InvalidArgument,
    };
    Status::with_details(code, error.message, failure(error).encode_to_vec().into())
}

/// An error from the wire; `None` if it does not say how to treat it.
pub(super) fn read_failure(failure: &v1::Failure) -> Option<Error> {
    let error = match failure.class() {
        Said::Unspecified => return None,
        Said::TooOld => Error::too_old(),
        Said::Retry => Error::new(Class::Retry, "the store asks to begin again"),
        Said::Conflict => Error::new(Class::Conflict, "another transaction wrote what this one read"),
        Said::MaybeCommitted => Error::new(Class::MaybeCommitted, "whether the commit happened is not known"),
        Said::Fenced => Error::new(Class::Fenced, "the writer was taken over"),
        Said::TooLarge => Error::new(Class::TooLarge, "a key, a value or the transaction is too large"),
        Said::Unavailable => Error::new(Class::Unavailable, "the store is closed or cannot write"),
        Said::Full => Error::new(Class::Full, "the store has no room for more"),
        Said::Corrupt => Error::new(Class::Corrupt, "the store is damaged"),
        Said::Misuse => Error::new(Class::Misuse, "the transaction broke a rule of the store"),
    };
    Some(error.with(&failure.message))
}

/// What a call came to. `sent`: it was a commit, so what the transport says leaves its outcome open, unless there was no
/// connection to send it on.
pub(super) fn error(status: &Status, sent: bool) -> Error {
    let details = status.details();
    if !details.is_empty()
        && let Ok(failure) = v1::Failure::decode(details)
        && let Some(error) = read_failure(&failure)
    {
        return error;
    }
    let class = match status.code() {
        Code::Unimplemented => Class::Unavailable,
        Code::OutOfRange => Class::TooLarge, // our codec's word for a message over its limit
        _ if sent && !not_connected(status) => Class::MaybeCommitted,
        _ => Class::Unavailable,
    };
    let message = match class {
        Class::TooLarge => "a message to or from the store server is too large",
        Class::MaybeCommitted => "the connection to the store server broke during a commit",
        _ if status.code() == Code::Unimplemented => "the store server is of another version",
        _ => "the store server cannot be reached",
    };
    Error::new(class, message).with(cause(status))
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

fn not_connected(status: &Status) -> bool {
    causes(status).any(|error| error.is::<ConnectError>())
}

/// The innermost cause says most.
fn cause(status: &Status) -> String {
    causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_comes_back() {
        for class in [
            Class::Retry,
            Class::Conflict,
            Class::MaybeCommitted,
            Class::Fenced,
            Class::TooLarge,
            Class::Unavailable,
            Class::Full,
            Class::Corrupt,
            Class::Misuse,
        ] {
            for sent in [false, true] {
                let back = error(&status(&Error::new(class, "why").with("details")), sent);
                assert_eq!((back.class, back.detail.as_deref()), (class, Some("why (details)")));
                assert!(!back.is_too_old());
            }
        }
        assert!(error(&status(&Error::too_old()), true).is_too_old());
    }

    #[test]
    fn what_the_transport_says_of_a_commit_leaves_it_open() {
        assert_eq!(error(&Status::unavailable("broken pipe"), true).class, Class::MaybeCommitted);
        assert_eq!(error(&Status::unavailable("broken pipe"), false).class, Class::Unavailable);
        assert_eq!(error(&Status::unimplemented(""), true).class, Class::Unavailable);
        let refused = ConnectError(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        let refused = Status::from_error(Box::new(refused));
        assert_eq!(error(&refused, true).class, Class::Unavailable);
    }

    /// The bytes that version 1 writes; they must decode in every later version.
    #[test]
    fn old_bytes_decode() {
        let bytes =
            b"\x08\x05\x12\x03\x0a\x01r\x1a\x08\x0a\x06\x0a\x01k\x12\x01v\x22\x06\x0a\x01a\x12\x01b\x2a\x01w";
        let request = v1::CommitRequest::decode(&bytes[..]).unwrap();
        assert_eq!(request.version, Some(5));
        assert_eq!((&request.reads[0].begin[..], request.reads[0].end.is_none()), (&b"r"[..], true));
        assert!(
            matches!(&request.mutations[0].kind, Some(Kind::Set(row)) if row.key == "k" && row.value == "v")
        );
        assert_eq!(request.write_conflicts[0].end.as_deref(), Some(&b"b"[..]));
        assert_eq!(request.watches, ["w"]);
        let failure = v1::Failure::decode(&b"\x08\x02\x12\x01x\xa2\x1f\x01y"[..]).unwrap();
        assert_eq!(failure.class(), Said::Conflict);
    }
}
