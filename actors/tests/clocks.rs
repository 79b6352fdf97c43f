//! The next home of a user has a clock that is behind the last one's: what it keeps comes behind what that had kept all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;

use rookery_actors::Host;
use rookery_actors::options::Archive;
use rookery_cluster::seams::{Clock, Seams};
use support::{Client, World};

/// The system's clock, an hour ahead.
struct Ahead(Arc<dyn Clock>);

impl Clock for Ahead {
    fn now_micros(&self) -> u64 {
        self.0.now_micros() + 3_600_000_000
    }
}

async fn say(client: &mut Client, body: &str) {
    client.send(&format!(
        "<message to='romeo@localhost' type='chat' id='{body}'><body>{body}</body></message>"
    ));
    client.settled().await;
}

/// Nothing is archived. A home whose clock is ahead has put a message into the offline queue, and this is the next one.
async fn next_home() -> (World, Client) {
    let mut world = World::with(|options| options.archive = Archive::Never).await;
    let system = Seams::system();
    let seams = Seams { clock: Arc::new(Ahead(system.clock.clone())), ..system };
    world.host = Host::start(world.options.clone(), world.store.clone(), seams).await.unwrap();
    let mut juliet = world.bind("juliet", "balcony").await;
    say(&mut juliet, "first").await;
    let world = world.restart().await;
    let juliet = world.bind("juliet", "balcony").await;
    (world, juliet)
}

#[tokio::test]
async fn the_offline_queue_is_in_the_order_in_which_its_messages_came() {
    let (world, mut juliet) = next_home().await;
    for body in ["second", "third"] {
        say(&mut juliet, body).await;
    }
    let mut romeo = world.online("romeo", "orchard").await;
    for body in ["first", "second", "third"] {
        romeo.expect(&format!("<body>{body}</body>")).await;
    }
}

#[tokio::test]
async fn what_comes_while_a_session_is_served_from_the_queue_is_not_passed_over() {
    let (world, mut juliet) = next_home().await;
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.resumable().await;
    romeo.quiet = true;
    romeo.send("<presence/>");
    romeo.until("<body>first</body>").await;
    say(&mut juliet, "second").await;
    romeo.quiet = false;
    romeo.ack();
    romeo.until("<body>second</body>").await;
}
