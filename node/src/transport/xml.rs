//! The framing of RFC 6120: the whole stream is one XML document, and a stanza is a child of its root.

use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::header::{CLOSE, Opening, StreamHeader};
use rookery_proto::xml::{Error, Limits};

use super::Frames;

impl Frames for Framer {
    fn new(limits: Limits) -> Self {
        Self::new(limits)
    }

    #[inline]
    fn next(&mut self, bytes: &[u8]) -> Result<Step, Error> {
        self.next(bytes)
    }

    fn restart(&mut self) {
        self.restart();
    }

    #[inline]
    fn limits(&self) -> &Limits {
        self.limits()
    }

    fn set_limits(&mut self, limits: Limits) {
        self.set_limits(limits);
    }

    fn header(frame: &[u8], limits: &Limits, content: &'static str) -> Result<StreamHeader, Error> {
        StreamHeader::parse(frame, limits, content)
    }

    fn open(out: &mut Vec<u8>, opening: &Opening<'_>) {
        opening.write(out);
    }

    #[inline]
    fn element(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        write(out);
    }

    fn close(out: &mut Vec<u8>) {
        out.extend_from_slice(CLOSE);
    }
}
