//! What two servers must do with each other: each scenario has a side that begins, the near one, and may be played both ways.

mod breaks;
mod everyday;
mod proving;

use std::fmt;

pub use self::breaks::{Break, Tally, reason, traffic};
use super::{Host, Setting, Side, Software, World};
pub use crate::load::Error;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Messages there and back: many, in order; a big one; one with all of Unicode.
    Messages,
    /// A contact on the other server: request, approval, presence, probe, removal.
    Subscription,
    /// Messages to an offline user.
    Offline,
    /// Messages from a blocked user (XEP-0191).
    Blocking,
    /// The vCard of somebody there (XEP-0054).
    VCard,
    /// XEP-0199 to the server, and to a client of it.
    Ping,
    /// XEP-0030 and 0092 to the server.
    Disco,
    /// Somebody that does not exist there.
    NoSuchUser,
    /// A domain that does not exist.
    NoSuchName,
    /// A domain whose SRV record says that it has no server.
    NoService,
    /// Messages there and back with a domain that is to be trusted.
    Good(Host),
    /// No message there and none back.
    Bad(Host),
    /// The far server goes away while messages are sent to it.
    Break(Break),
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}").replace('(', "-").replace(')', "");
        f.write_str(&text.to_lowercase())
    }
}

impl Scenario {
    /// What is played in a setting.
    pub fn of(setting: Setting) -> &'static [Scenario] {
        use Scenario::*;
        match setting {
            Setting::Certificates => &[
                Messages,
                Subscription,
                Offline,
                Blocking,
                VCard,
                Ping,
                Disco,
                NoSuchUser,
                NoSuchName,
                NoService,
                Good(Host::ServerOnly),
                Good(Host::DeadFirst),
                Good(Host::DirectOnly),
                Good(Host::DirectWrong),
                Good(Host::Idna),
                Break(self::Break::Paused),
                Break(self::Break::Restarted),
                Break(self::Break::Killed),
            ],
            Setting::Untrusted => &[Bad(Host::Expired), Bad(Host::WrongName), Bad(Host::SelfSigned)],
            Setting::Dialback | Setting::ServerOnly => &[Messages, Ping, NoSuchUser],
            Setting::Dane => &[Messages, Ping],
            Setting::DaneUnsigned | Setting::Clear => &[Bad(Host::Main)],
            Setting::Many(_) => &[],
        }
    }

    /// Plays it: the near side begins.
    pub async fn play(self, world: &mut World, near: Side) -> Result<(), Error> {
        // Accounts of its own, so that no scenario sees what another has left.
        let all = Scenario::of(world.setting);
        let place = all.iter().position(|other| *other == self).unwrap_or_default();
        let number = place * 2 + near as usize;
        match self {
            Scenario::Messages => everyday::messages(world, near, number).await,
            Scenario::Subscription => everyday::subscription(world, near, number).await,
            Scenario::Offline => everyday::offline(world, near, number).await,
            Scenario::Blocking => everyday::blocking(world, near, number).await,
            Scenario::VCard => everyday::vcard(world, near, number).await,
            Scenario::Ping => everyday::ping(world, near, number).await,
            Scenario::Disco => everyday::disco(world, near, number).await,
            Scenario::NoSuchUser => everyday::no_such_user(world, near, number).await,
            Scenario::NoSuchName => proving::nowhere(world, near, number, "nowhere.example").await,
            Scenario::NoService => proving::nowhere(world, near, number, "none.example").await,
            Scenario::Good(host) => proving::good(world, near, number, host).await,
            Scenario::Bad(host) => proving::bad(world, near, number, host).await,
            Scenario::Break(how) => breaks::play(world, near, number, how).await,
        }
    }

    /// Why this can't be asked of those servers: a lack of one that is not ours.
    pub fn excused(self, setting: Setting, near: Software, far: Software) -> Option<&'static str> {
        use Software::{Ejabberd, Prosody, Rookery};
        match (setting, self, near, far) {
            // The version of OpenSSL's check is for clients, and a server that connects is one.
            (_, Scenario::Good(Host::ServerOnly), Ejabberd, Prosody | Rookery) => {
                Some("ejabberd 23.01 takes no certificate for servers only from a server that connects")
            }
            // Nor does it try the next target when the first takes the connection and TLS fails: it does so only if TCP fails.
            (_, Scenario::Good(Host::DirectWrong), Ejabberd, _) => {
                Some("ejabberd 23.01 gives a domain up when the first target has no TLS from the first byte")
            }
            (Setting::Dane, _, Prosody | Ejabberd, Prosody | Ejabberd) => {
                Some("Prosody 0.12 proves by DANE only where it connects to, and ejabberd 23.01 nowhere")
            }
            _ => None,
        }
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Wrong(text.into()))
}
