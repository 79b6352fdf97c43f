//! `Debug` for messages that carry a secret: what is not secret is shown, the rest is not.

use std::fmt;

use crate::admin::v1::{ExportResponse, ImportRequest, UserAddRequest, UserImportLine, UserPasswdRequest};

impl fmt::Debug for UserAddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAddRequest").field("jid", &self.jid).finish_non_exhaustive()
    }
}

impl fmt::Debug for UserPasswdRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserPasswdRequest").field("jid", &self.jid).finish_non_exhaustive()
    }
}

impl fmt::Debug for UserImportLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserImportLine")
            .field("line", &self.line)
            .field("jid", &self.jid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ImportRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportRequest").field("bytes", &self.chunk.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ExportResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportResponse").field("bytes", &self.chunk.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::admin::v1::{StatusResponse, UserImportRequest};

    #[test]
    fn a_password_is_never_printed() {
        let line = UserImportLine { line: 7, jid: "romeo@example.org".into(), password: "hunter2".into() };
        let batch = UserImportRequest { lines: vec![line] };
        let add = UserAddRequest { jid: "romeo@example.org".into(), password: "hunter2".into() };
        let passwd = UserPasswdRequest { jid: "romeo@example.org".into(), password: "hunter2".into() };
        let chunk = ImportRequest { chunk: "password='hunter2'".into() };
        let text = format!(
            "{batch:?} {add:?} {passwd:?} {chunk:?} {:?}",
            ExportResponse { chunk: "hunter2".into() }
        );
        assert!(text.contains("romeo@example.org"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    /// The bytes that version 1 writes; they must decode in every later version.
    #[test]
    fn old_bytes_decode() {
        let add = UserAddRequest::decode(&b"\x0a\x03a@b\x12\x01p"[..]).unwrap();
        assert_eq!((add.jid.as_str(), add.password.as_str()), ("a@b", "p"));
        let status = StatusResponse::decode(&b"\x0a\x050.1.0\x10\x01\x1a\x01n\x20\x2a\x48\x02"[..]).unwrap();
        assert_eq!((status.version.as_str(), status.api_version, status.node.as_str()), ("0.1.0", 1, "n"));
        assert_eq!((status.uptime_seconds, status.sessions), (42, 2));
        // A field from the future (number 500) is ignored.
        let add = UserAddRequest::decode(&b"\x0a\x03a@b\xa2\x1f\x01x"[..]).unwrap();
        assert_eq!(add.jid, "a@b");
    }
}
