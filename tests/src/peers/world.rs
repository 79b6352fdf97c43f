//! Two servers that can reach each other, and what is around them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::authority::{Authority, Files, Kind};
use super::dns::{Dns, Record};
use super::server::{Plan, Ports, Proof, Server, Software};
use crate::client::{Client, Error as ClientError};
pub use crate::load::peer::{PASSWORD, user};
use crate::server::{Error, free_port};

/// Accounts of each domain.
const USERS: usize = 48;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    /// The name of its machine.
    fn host(self) -> String {
        format!("{}.host.example", self.letter())
    }

    fn letter(self) -> char {
        match self {
            Side::A => 'a',
            Side::B => 'b',
        }
    }
}

/// How the two are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Setting {
    /// TLS, certificates, no dialback.
    Certificates,
    /// The same, and domains whose certificates are no proof.
    Untrusted,
    /// TLS with certificates by nobody, and dialback.
    Dialback,
    /// TLS, certificates for servers only, and dialback for servers that do not take such a certificate from a client.
    ServerOnly,
    /// B's certificates are by nobody, and their keys are in signed DNS; no dialback.
    Dane,
    /// As before, and DNS is not signed.
    DaneUnsigned,
    /// A wants TLS and certificates, B has no TLS and offers dialback.
    Clear,
    /// For measurements: B has so many domains, of which each is a link of its own.
    Many(usize),
}

/// A domain of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// Nothing is wrong with it.
    Main,
    /// Its certificate is for servers only.
    ServerOnly,
    /// Its certificate has ended.
    Expired,
    /// Its certificate is for another domain.
    WrongName,
    /// Its certificate is by nobody.
    SelfSigned,
    /// The first target in DNS is dead.
    DeadFirst,
    /// In DNS is only the port with TLS from the first byte (XEP-0368).
    DirectOnly,
    /// The first record says that there is TLS from the first byte where there is not, as many domains have it.
    DirectWrong,
    /// Its name is not ASCII.
    Idna,
}

impl Host {
    /// Its domain on that server.
    pub fn domain(self, side: Side) -> String {
        let letter = side.letter();
        match self {
            Host::Main => format!("{letter}.example"),
            Host::ServerOnly => format!("server-only.{letter}.example"),
            Host::Expired => format!("expired.{letter}.example"),
            Host::WrongName => format!("wrong-name.{letter}.example"),
            Host::SelfSigned => format!("self-signed.{letter}.example"),
            Host::DeadFirst => format!("dead-first.{letter}.example"),
            Host::DirectOnly => format!("direct-only.{letter}.example"),
            Host::DirectWrong => format!("direct-wrong.{letter}.example"),
            Host::Idna => format!("b\u{fc}cher.{letter}.example"),
        }
    }

    /// The same as DNS and certificates have it.
    fn ascii(self, side: Side) -> String {
        match self {
            Host::Idna => format!("xn--bcher-kva.{}.example", side.letter()),
            _ => self.domain(side),
        }
    }

    fn kind(self, setting: Setting, side: Side) -> Kind {
        match (self, setting) {
            (_, Setting::Dialback) => Kind::SelfSigned,
            (_, Setting::ServerOnly) => Kind::ServerOnly,
            (_, Setting::Dane | Setting::DaneUnsigned) if side == Side::B => Kind::SelfSigned,
            (Host::ServerOnly, _) => Kind::ServerOnly,
            (Host::Expired, _) => Kind::Expired,
            (Host::WrongName, _) => Kind::WrongName,
            (Host::SelfSigned, _) => Kind::SelfSigned,
            (Host::Main | Host::DeadFirst | Host::DirectOnly | Host::DirectWrong | Host::Idna, _) => {
                Kind::Valid
            }
        }
    }
}

impl Setting {
    fn hosts(self) -> &'static [Host] {
        match self {
            Setting::Certificates => &[
                Host::Main,
                Host::ServerOnly,
                Host::DeadFirst,
                Host::DirectOnly,
                Host::DirectWrong,
                Host::Idna,
            ],
            Setting::Untrusted => &[Host::Main, Host::Expired, Host::WrongName, Host::SelfSigned],
            _ => &[Host::Main],
        }
    }

    /// A short wait where all must come back.
    fn queue_seconds(self) -> u32 {
        match self {
            Setting::Untrusted | Setting::DaneUnsigned | Setting::Clear => 4,
            _ => 60,
        }
    }

    fn proof(self, side: Side) -> Proof {
        match (self, side) {
            (Setting::Certificates | Setting::Untrusted | Setting::Many(_), _)
            | (Setting::Clear, Side::A) => Proof::Certificate,
            (Setting::Dialback | Setting::ServerOnly, _) => Proof::Dialback,
            (Setting::Dane | Setting::DaneUnsigned, _) => Proof::Dane,
            (Setting::Clear, Side::B) => Proof::Clear,
        }
    }
}

/// A further domain of B.
pub fn one_of_many(number: usize) -> String {
    format!("d{number}.many.example")
}

/// Two servers, DNS, an authority, and the folder of all.
pub struct World {
    pub setting: Setting,
    servers: [Server; 2],
    _dns: Dns,
    dir: PathBuf,
    temp: Option<TempDir>,
}

impl World {
    /// Starts everything.
    pub async fn start(setting: Setting, software: [Software; 2]) -> Result<World, Error> {
        let temp = tempfile::Builder::new().prefix("rookery-peers-").tempdir()?;
        let dir = temp.path().to_owned();
        let authority = Authority::new(&dir.join("certificates"))?;
        let mut records = Vec::new();
        let mut places = Vec::new();
        for side in [Side::A, Side::B] {
            let ports = Ports::free();
            let target = side.host();
            records.push(Record::Here { host: target.clone() });
            let mut domains: Vec<(String, Files)> = Vec::new();
            for host in setting.hosts() {
                let domain = host.ascii(side);
                let files = authority.issue(&[&domain], host.kind(setting, side))?;
                let service = |service, priority, port| Record::Service {
                    service,
                    domain: domain.clone(),
                    priority,
                    port,
                    host: target.clone(),
                };
                match host {
                    Host::DirectOnly => {
                        records.push(service("_xmpps-server", 1, ports.s2s_tls.port()));
                    }
                    Host::DirectWrong => {
                        records.push(service("_xmpps-server", 1, ports.s2s.port()));
                        records.push(service("_xmpp-server", 2, ports.s2s.port()));
                    }
                    Host::DeadFirst => {
                        records.push(service("_xmpp-server", 1, free_port().port()));
                        records.push(service("_xmpp-server", 2, ports.s2s.port()));
                    }
                    _ => records.push(service("_xmpp-server", 1, ports.s2s.port())),
                }
                if matches!(setting, Setting::Dane | Setting::DaneUnsigned) && *host == Host::Main {
                    let hash = files.key_hash.clone();
                    records.push(Record::Key { host: target.clone(), port: ports.s2s.port(), hash });
                }
                domains.push((host.domain(side), files));
            }
            if let (Setting::Many(count), Side::B) = (setting, side) {
                let files = authority.issue(&["*.many.example"], Kind::Valid)?;
                for number in 0..count {
                    let domain = one_of_many(number);
                    records.push(Record::Service {
                        service: "_xmpp-server",
                        domain: domain.clone(),
                        priority: 1,
                        port: ports.s2s.port(),
                        host: target.clone(),
                    });
                    domains.push((domain, files.clone()));
                }
            }
            places.push((side, ports, domains));
        }
        // A name that says that it has no server.
        records.push(Record::Service {
            service: "_xmpp-server",
            domain: "none.example".into(),
            priority: 0,
            port: 0,
            host: ".".into(),
        });
        let dns = Dns::start(&dir.join("dns"), &records, setting == Setting::Dane).await?;
        let mut servers = Vec::new();
        for ((side, ports, domains), software) in places.into_iter().zip(software) {
            let plan = Plan {
                dir: dir.join(format!("{}-{software}", side.letter())),
                domains,
                users: USERS,
                proof: setting.proof(side),
                authority: authority.file(),
                dns: dns.at,
                hosts: [Side::A, Side::B].map(Side::host).to_vec(),
                anchor: dns.anchor.clone(),
                ports,
                queue_seconds: setting.queue_seconds(),
                generous: matches!(setting, Setting::Many(_)),
            };
            servers.push(Server::start(software, plan).await?);
        }
        let servers = servers.try_into().map_err(|_| Error::Failed("two servers".into()))?;
        Ok(World { setting, servers, _dns: dns, dir, temp: Some(temp) })
    }

    /// The server of that side.
    pub fn server(&self, side: Side) -> &Server {
        &self.servers[side as usize]
    }

    /// The same, to change it.
    pub fn server_mut(&mut self, side: Side) -> &mut Server {
        &mut self.servers[side as usize]
    }

    /// Logs a user in, with roster and presence.
    pub async fn person(&self, side: Side, host: Host, number: usize) -> Result<Client, ClientError> {
        let options = self.server(side).options(&host.domain(side));
        let mut client = Client::login(&options, &user(number), PASSWORD, "here").await?;
        client.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await?;
        client.available().await?;
        Ok(client)
    }

    /// The bare JID of a user.
    pub fn jid(&self, side: Side, host: Host, number: usize) -> String {
        format!("{}@{}", user(number), host.domain(side))
    }

    /// What both said last.
    pub fn logs(&self) -> String {
        self.servers.iter().map(Server::log).collect()
    }

    /// Leaves the folder where it is, for people.
    pub fn keep(&mut self) -> &Path {
        if let Some(temp) = self.temp.take() {
            let _ = temp.keep();
        }
        &self.dir
    }
}
