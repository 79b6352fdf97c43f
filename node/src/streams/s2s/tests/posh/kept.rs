//! What is known of a domain's fingerprints, and strangers who would have it forgotten.

use tokio::sync::Notify;

use super::web::{Answer, ok};
use super::*;

/// Longer than what is known keeps others from asking again.
const OLD: Duration = Duration::from_secs(61);

fn error(status: u16) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

impl Scene {
    /// One where the fingerprints of `b.example` are known.
    async fn known() -> Self {
        let scene = Self::new(|_| {}).await;
        scene.web.answer(FILE, ok(&scene.right()));
        assert!(scene.is_taken().await, "{}", scene.why());
        scene.web.comes().await;
        assert_eq!(scene.web.asked(), [FILE]);
        scene
    }

    /// A server with another certificate says that it is `b.example`; what is known is old, so that this makes a fetch. Whether it is taken.
    async fn stranger(&self) -> bool {
        let stranger =
            Node::start(Plan::by_dialback("c.example", Vec::new()), (Port::new(), Port::new()), |_| {});
        let stranger = stranger.await;
        self.a.federation.posh.age("b.example", OLD);
        let (mut peer, features) = Peer::opened(&self.a, &stranger, "b.example").await;
        peer.send("</stream:stream>").await;
        peer.end().await;
        features.contains("EXTERNAL")
    }
}

/// RFC 7711 section 6: fingerprints hold for as long as they say. A stranger who makes this server look again while the web server is away
/// would keep the domain out otherwise.
#[tokio::test]
async fn fingerprints_hold_while_their_web_server_is_away() {
    let scene = Scene::known().await;
    for away in [error(503), Answer::Bytes(Vec::new()), Answer::Silence] {
        scene.web.answer(FILE, away);
        assert!(!scene.stranger().await);
        assert_eq!(scene.web.asked(), [FILE]);
        assert!(scene.is_still_taken().await, "{}", scene.why());
    }
    // Nobody makes this server ask at once again.
    let stranger =
        Node::start(Plan::by_dialback("c.example", Vec::new()), (Port::new(), Port::new()), |_| {}).await;
    let (_peer, features) = Peer::opened(&scene.a, &stranger, "b.example").await;
    assert!(!features.contains("EXTERNAL") && scene.web.asked().is_empty());
    // They hold no longer than they have said.
    let holds = scene.a.federation.posh.holds("b.example").unwrap();
    assert!(holds <= HOUR, "{holds:?}");
    // What the web server says itself counts.
    for (gone, why) in [(error(404), "answers with 404"), (ok("{}"), "neither")] {
        scene.web.answer(FILE, ok(&scene.right()));
        assert!(scene.is_taken().await, "{}", scene.why());
        scene.web.answer(FILE, gone);
        assert!(!scene.stranger().await && !scene.is_still_taken().await);
        assert!(scene.why().contains(why), "{}", scene.why());
    }
}

/// A slow web server makes those wait whose certificate is not known, and nobody else.
#[tokio::test]
async fn fingerprints_count_while_newer_ones_are_fetched() {
    let scene = Scene::known().await;
    scene.web.answer(FILE, Answer::Silence);
    let others = async {
        scene.web.comes().await;
        assert!(scene.is_still_taken().await, "{}", scene.why());
        assert_eq!(scene.a.federation.posh.under_way(), 1);
    };
    let (stranger, ()) = tokio::join!(scene.stranger(), others);
    assert!(!stranger && scene.is_still_taken().await);
}

/// Strangers who name many domains take places from a fetch that another stranger has caused. That says nothing of the domain.
#[tokio::test]
async fn a_fetch_that_had_to_make_room_says_nothing() {
    let scene = Scene::new(|_| {}).await;
    let posh = &scene.a.federation.posh;
    // All places for this domain's zone, and then one for another.
    let crowd = || {
        let mut places = posh.fill_called(false);
        places.extend(posh.call("other.example"));
        places
    };
    scene.web.answer(FILE, Answer::Silence);
    let others = async {
        scene.web.comes().await;
        crowd()
    };
    let (taken, places) = tokio::join!(scene.is_still_taken(), others);
    assert_eq!((taken, scene.why().as_str()), (false, ""));
    drop(places);
    // A stream of our own that has waited for that fetch as well has a place of its own.
    let others = async {
        scene.web.comes().await;
        scene.web.answer(FILE, ok(&scene.right()));
        tokio::join!(posh.finds(&scene.a.federation, "b.example"), async { crowd() })
    };
    let (taken, (ours, places)) = tokio::join!(scene.is_still_taken(), others);
    assert_eq!((taken, ours), (false, true));
    assert!(scene.is_still_taken().await, "{}", scene.why());
    drop(places);
}

/// What was fetched by other settings is not kept.
#[tokio::test]
async fn a_reload_forgets_what_is_under_way() {
    let scene = Scene::new(|_| {}).await;
    let now = Arc::new(Notify::new());
    let Answer::Bytes(right) = ok(&scene.right()) else { return };
    scene.web.answer(FILE, Answer::Late(now.clone(), right));
    let posh = &scene.a.federation.posh;
    let reload = async {
        scene.web.comes().await;
        posh.clear();
        now.notify_one();
    };
    let (taken, ()) = tokio::join!(scene.is_still_taken(), reload);
    assert!(taken && posh.holds("b.example").is_none());
}
