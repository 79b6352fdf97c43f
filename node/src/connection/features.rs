//! The stream features of each stage (RFC 6120 section 4.3.2): what is offered works.

use rookery_proto::sasl::{self, ChannelBindings, Mechanism};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::ns;

use super::Settings;

/// Before TLS: STARTTLS, which is required, and nothing else.
pub(super) fn before_tls(out: &mut Vec<u8>) {
    features(out, |w| {
        w.start("starttls", ns::TLS).empty("required", ns::TLS).end();
    });
}

/// Before login: mechanisms, channel bindings (XEP-0440), registration (XEP-0077) where it is open, limits (XEP-0478).
pub(super) fn before_login(
    out: &mut Vec<u8>,
    offered: &[Mechanism],
    bindings: &ChannelBindings,
    registration: Option<&[u8]>,
    settings: &Settings,
) {
    features(out, |w| {
        w.with(|out| sasl::features::write(offered, bindings, out));
        if let Some(registration) = registration {
            w.raw(registration);
        }
        limits(w, settings.before.stanza_bytes.into(), None);
    });
}

/// Before a session is bound or resumed. `extra` is what the features of the server add (XEP-0115).
pub(super) fn before_session(out: &mut Vec<u8>, extra: &[u8], settings: &Settings) {
    features(out, |w| {
        w.empty("bind", ns::BIND);
        w.start("session", ns::SESSION).empty("optional", ns::SESSION).end();
        w.empty("sm", ns::SM)
            .empty("csi", ns::CSI)
            .empty("ver", ns::ROSTER_VER)
            .empty("sub", ns::PRE_APPROVAL);
        limits(w, settings.limits.stanza_bytes as u64, Some(settings.limits.idle.as_secs()));
        w.raw(extra);
    });
}

fn features(out: &mut Vec<u8>, build: impl FnOnce(&mut Writer<'_>)) {
    out.extend_from_slice(b"<stream:features>");
    let mut writer = Writer::new(out);
    build(&mut writer);
    drop(writer);
    out.extend_from_slice(b"</stream:features>");
}

/// XEP-0478 version 0.2.0.
fn limits(w: &mut Writer<'_>, bytes: u64, idle: Option<u64>) {
    w.start("limits", ns::STREAM_LIMITS);
    w.leaf("max-bytes", ns::STREAM_LIMITS, &bytes.to_string());
    if let Some(idle) = idle {
        w.leaf("idle-seconds", ns::STREAM_LIMITS, &idle.to_string());
    }
    w.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn text(build: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        build(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn by_stage() {
        let settings = Settings::from(&Config::development());
        assert_eq!(
            text(before_tls),
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
        );
        let login = text(|out| {
            before_login(out, &Mechanism::ALL, &ChannelBindings::default(), Some(b"<register/>"), &settings)
        });
        assert!(login.contains("<mechanism>PLAIN</mechanism>") && login.contains("<register/>"));
        assert!(
            login.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes></limits>")
        );
        let session = text(|out| before_session(out, b"<c/>", &settings));
        for part in [
            "<bind xmlns=",
            "<sm xmlns='urn:xmpp:sm:3'/>",
            "<csi xmlns=",
            "<c/></stream:features>",
            "<optional/>",
        ] {
            assert!(session.contains(part), "{part} in {session}");
        }
        assert!(session.contains("<max-bytes>262144</max-bytes><idle-seconds>300</idle-seconds>"));
    }
}
