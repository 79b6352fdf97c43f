//! XEP-0333 Displayed Markers, version 1.0.0: a client tells the author of a message up to where a conversation was displayed. The
//! protocol is between clients. The server's part is that the author's and the reader's other devices learn of it too, at once by
//! carbons, later from the archive. A marker does not wait for a user who is offline: the archive tells.

use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Payload, Xep};

/// XEP-0333. The server marks nothing itself, so nothing is advertised (section 3 asks for that of clients).
pub const MARKERS: Feature = Feature {
    xep: Xep {
        number: 333,
        version: "1.0.0",
        name: "Displayed Markers",
        note: "markers are archived and copied to all devices",
    },
    payloads: &[
        marker("displayed", true),
        // Versions before 0.5 had these two; clients still send them.
        marker("received", true),
        marker("acknowledged", true),
        // The request for a marker says nothing without a message.
        marker("markable", false),
    ],
    ..Feature::NONE
};

const fn marker(name: &'static str, archived: bool) -> Payload {
    Payload { name, ns: ns::MARKERS, archived, copied: true, waits: false }
}

#[cfg(test)]
mod tests {
    use crate::features::testing::Scene;
    use crate::host::options::Archive;

    const DISPLAYED: &str =
        "<message to='romeo@localhost' id='d'><displayed xmlns='urn:xmpp:chat-markers:0' id='m'/></message>";

    #[tokio::test]
    async fn other_devices_learn_what_was_displayed() {
        let scene = Scene::with(&["romeo", "juliet"], |options| options.archive = Archive::Always).await;
        let mut romeo = scene.session("romeo/orchard").await;
        romeo.available("").await;
        let (mut desk, mut phone) = (scene.session("juliet/desk").await, scene.session("juliet/phone").await);
        let enable = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
        assert!(phone.ask(enable).await.contains("type='result'"));
        desk.send(DISPLAYED);
        assert!(romeo.next().await.contains("<displayed"));
        let copy = phone.next().await;
        assert!(copy.contains("<sent ") && copy.contains("<displayed"), "{copy}");
        for session in [&mut romeo, &mut desk] {
            let archived = session.ask("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>").await;
            assert!(archived.contains("<displayed xmlns='urn:xmpp:chat-markers:0' id='m'/>"), "{archived}");
            assert!(session.next().await.contains("<fin"));
        }
    }

    #[tokio::test]
    async fn hints_go_before_and_a_request_alone_is_not_archived() {
        let scene = Scene::with(&["romeo", "juliet"], |options| options.archive = Archive::Always).await;
        let mut romeo = scene.session("romeo/orchard").await;
        romeo.available("").await;
        let mut juliet = scene.session("juliet/desk").await;
        let no_store = "<no-store xmlns='urn:xmpp:hints'/></message>";
        juliet.send(&DISPLAYED.replace("</message>", no_store));
        juliet.send(
            "<message to='romeo@localhost' type='chat'><markable xmlns='urn:xmpp:chat-markers:0'/></message>",
        );
        assert!(romeo.next().await.contains("<displayed") && romeo.next().await.contains("<markable"));
        let archived = romeo.ask("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>").await;
        assert!(archived.contains("<fin"), "{archived}");
    }
}
