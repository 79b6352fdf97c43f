//! The servers that are compared, started alike.

use crate::client::{Client, Error as ClientError, Options};
use crate::server::ejabberd::Ejabberd;
use crate::server::postgres::Postgres;
use crate::server::prosody::Prosody;
use crate::server::rookery::{Config, Rookery};
use crate::server::{Error, Listening};

/// A server under load, with its database if it has one of its own.
pub struct Peer {
    pub name: String,
    server: Server,
    postgres: Option<Postgres>,
}

enum Server {
    Rookery(Box<Rookery>),
    Prosody(Prosody),
    Ejabberd(Ejabberd),
}

/// Where clients connect, and which processes work for them.
pub struct Site<'a> {
    pub pids: Vec<u32>,
    seat: Box<dyn Fn(usize) -> Seat + 'a>,
}

/// Where one of them connects, and as which user.
#[derive(Clone)]
pub struct Seat {
    pub options: Options,
    /// Its number; see [`user`].
    pub user: usize,
}

impl<'a> Site<'a> {
    pub fn new(pids: Vec<u32>, seat: impl Fn(usize) -> Seat + 'a) -> Self {
        Self { pids, seat: Box::new(seat) }
    }

    /// The seat of the client with this number.
    pub fn seat(&self, number: usize) -> Seat {
        (self.seat)(number)
    }
}

/// The password of every account here.
pub const PASSWORD: &str = "a password like any other";

/// The user with this number.
pub fn user(number: usize) -> String {
    format!("u{number}")
}

impl Peer {
    /// Starts the server of that name with `users` accounts; the archive off, or on and durable.
    pub async fn start(name: &str, archive: bool, users: usize) -> Result<Peer, Error> {
        let jids: Vec<String> = (0..users).map(|n| format!("{}@localhost", user(n))).collect();
        let accounts = || jids.iter().map(|j| (j.as_str(), PASSWORD));
        let mut postgres = None;
        if archive && name != "rookery" {
            postgres = Some(Postgres::start().await?);
        }
        let server = match name {
            "rookery" => {
                let config = Config {
                    durability: "sync".into(),
                    archive: if archive { "always" } else { "never" }.into(),
                    ports: [(); 3].map(|()| crate::server::free_port().port()),
                    more: "[log]\nlevel = \"warn\"\n".into(),
                    ..Config::default()
                };
                let rookery = Rookery::start(&config).await?;
                rookery.add_users(accounts())?;
                Server::Rookery(Box::new(rookery))
            }
            "prosody" => {
                let prosody = Prosody::start(archive, postgres.as_ref()).await?;
                prosody.add_users(accounts())?;
                Server::Prosody(prosody)
            }
            "ejabberd" => Server::Ejabberd(Ejabberd::start(postgres.as_ref(), accounts()).await?),
            other => return Err(Error::Missing(format!("a server named {other}"))),
        };
        Ok(Peer { name: name.to_owned(), server, postgres })
    }

    /// How to connect: direct TLS 1.3, SCRAM-SHA-1, which all of them have.
    pub fn options(&self) -> Options {
        let listening: &Listening = match &self.server {
            Server::Rookery(s) => &s.listening,
            Server::Prosody(s) => &s.listening,
            Server::Ejabberd(s) => &s.listening,
        };
        Options { mechanism: Some("SCRAM-SHA-1".into()), ..listening.options() }
    }

    /// All clients at one door, client `n` as user `n`.
    pub fn site(&self) -> Site<'_> {
        Site::new(self.pids(), |user| Seat { options: self.options(), user })
    }

    /// The server's own process.
    pub fn pid(&self) -> u32 {
        let pid = match &self.server {
            Server::Rookery(s) => s.pid(),
            Server::Prosody(s) => s.process.pid(),
            Server::Ejabberd(s) => s.process.pid(),
        };
        pid.unwrap_or_default()
    }

    /// All processes whose work is this server's work: its own and its database's.
    pub fn pids(&self) -> Vec<u32> {
        let database = self.postgres.as_ref().and_then(|p| p.process.pid());
        [Some(self.pid()), database].into_iter().flatten().collect()
    }

    /// What it logged last.
    pub fn log(&self) -> String {
        match &self.server {
            Server::Rookery(s) => s.log(),
            Server::Prosody(s) => s.process.tail(),
            Server::Ejabberd(s) => s.process.tail(),
        }
    }

    /// Ends it and its database.
    pub async fn stop(self) -> Result<(), Error> {
        match self.server {
            Server::Rookery(mut s) => drop(s.stop().await?),
            Server::Prosody(mut s) => drop(s.process.stop().await?),
            Server::Ejabberd(mut s) => s.process.kill().await?,
        }
        match self.postgres {
            Some(mut postgres) => postgres.stop().await,
            None => Ok(()),
        }
    }
}

/// A session as a real client has it: roster fetched, carbons and stream management on, available.
pub async fn session(options: &Options, number: usize) -> Result<Client, ClientError> {
    let mut client = login(options, number).await?;
    client.iq_ok("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>").await?;
    client.enable_sm(true, true).await?;
    Ok(client)
}

/// TLS, SCRAM, bind, roster, presence.
pub async fn login(options: &Options, number: usize) -> Result<Client, ClientError> {
    let mut client = Client::login(options, &user(number), PASSWORD, "bench").await?;
    client.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await?;
    client.available().await?;
    Ok(client)
}
