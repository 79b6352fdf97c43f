//! XEP-0478 Stream Limits Advertisement, version 0.2.0: what a stream takes, so that clients need not try.

use rookery_proto::xml::write;
use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Xep};

/// XEP-0478. Advertised among the stream features, which the connection writes, not in disco.
pub const STREAM_LIMITS: Feature = Feature {
    xep: Xep { number: 478, version: "0.2.0", name: "Stream Limits Advertisement", note: "" },
    ..Feature::NONE
};

/// The stream feature (section 3.1): the largest element in bytes that the stream takes from now on, and after how many
/// seconds of silence the server looks whether the client is alive, if it does.
pub fn stream_feature(max_bytes: usize, idle_seconds: Option<u64>) -> Vec<u8> {
    write::bytes(|w| {
        w.start("limits", ns::STREAM_LIMITS).leaf("max-bytes", ns::STREAM_LIMITS, &max_bytes.to_string());
        w.leaf_opt("idle-seconds", ns::STREAM_LIMITS, idle_seconds.map(|n| n.to_string()).as_deref());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_section_3_1_shows() {
        assert_eq!(
            String::from_utf8(stream_feature(10_000, Some(1_800))).unwrap(),
            "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>1800</idle-seconds></limits>"
        );
        assert!(!String::from_utf8(stream_feature(1, None)).unwrap().contains("idle"));
    }
}
