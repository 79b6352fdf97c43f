//! A script played on a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::matcher::{self, Captures, matches};
use super::parse::{Script, Step, Verb, password};
use crate::client::{Client, Error, Event, Framer, Lost, Options, PING, Piece, SM};
use crate::xml::{self, Element};

/// Where a script went wrong and how.
#[derive(Debug)]
pub struct Failure {
    pub line: usize,
    pub text: String,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure { line: 0, text: e.to_string() }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure { line: 0, text }
    }
}

#[derive(Default)]
struct Actor {
    client: Option<Client>,
    lost: Option<Lost>,
    user: String,
    ignored: Vec<String>,
}

struct Stage<'a> {
    options: &'a Options,
    actors: BTreeMap<String, Actor>,
    known: Captures,
    pings: u32,
}

/// Plays a script from its first step to its last, or up to what fails.
pub async fn run(script: &Script, options: &Options) -> Result<(), Failure> {
    let mut stage = Stage { options, actors: BTreeMap::new(), known: Captures::new(), pings: 0 };
    for step in &script.steps {
        stage.step(step).await.map_err(|f| Failure { line: step.line, ..f })?;
    }
    Ok(())
}

impl Stage<'_> {
    async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let who = step.who.as_str();
        match &step.verb {
            Verb::Connect { jid, sm, manual, presence, roster, carbons, security } => {
                let (user, resource) = split(jid);
                let options = self.options.with(*security);
                let mut client = Client::login(&options, user, &password(user), resource).await?;
                if !resource.is_empty() && client.jid != *jid {
                    return Err(format!("asked for {jid}, bound {}", client.jid).into());
                }
                if *sm {
                    client.enable_sm(true, !manual).await?;
                }
                if *roster {
                    client.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await?;
                }
                if *carbons {
                    client.iq_ok("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>").await?;
                }
                if *presence {
                    client.available().await?;
                }
                let actor = Actor { client: Some(client), user: user.to_owned(), ..Actor::default() };
                self.actors.insert(who.to_owned(), actor);
            }
            Verb::Open { security } => {
                let mut client = Client::open(&self.options.with(*security)).await?;
                client.kept.extend(client.features.clone());
                let actor = Actor { client: Some(client), ..Actor::default() };
                self.actors.insert(who.to_owned(), actor);
            }
            Verb::LogIn { jid } => {
                let (user, _) = split(jid);
                let options = self.options.clone();
                let actor = self.actors.get_mut(who).ok_or_else(|| format!("{who} has no stream"))?;
                user.clone_into(&mut actor.user);
                let client = actor.client.as_mut().ok_or_else(|| format!("{who} has no stream"))?;
                client.kept.clear();
                client.authenticate(&options, user, &password(user)).await?;
                client.kept.extend(client.features.clone());
            }
            Verb::FailLogIn { jid } => {
                let (user, _) = split(jid);
                match Client::authenticated(self.options, user, &password(user)).await {
                    Err(Error::Login(why)) if why.contains("not-authorized") => {}
                    Err(e) => return Err(format!("expected <not-authorized/>, got: {e}").into()),
                    Ok(_) => return Err(format!("{jid} has logged in").into()),
                }
            }
            Verb::Bind { resource } => {
                let client = self.client(who)?;
                client.kept.clear();
                client.bind(resource).await?;
            }
            Verb::Send { xml } => {
                let xml = matcher::fill(xml, &self.known);
                send_all(self.client(who)?, &xml).await?;
            }
            Verb::Receive { pattern, any_order } => self.receive(who, pattern, *any_order).await?,
            Verb::Acks { h } => self.acks(who, *h).await?,
            Verb::Nothing => self.nothing(who).await?,
            Verb::Ignore { name } => self.actor(who)?.ignored.push(name.clone()),
            Verb::End => match self.next(who).await? {
                Event::Close | Event::End => self.actor(who)?.client = None,
                Event::Element(e) => return Err(format!("expected the end of the stream, got:\n{e}").into()),
            },
            Verb::Lose => {
                let actor = self.actor(who)?;
                let client = actor.client.take().ok_or_else(|| format!("{who} is not connected"))?;
                actor.lost = Some(client.lose());
            }
            Verb::Resume => {
                let options = self.options.clone();
                let actor = self.actor(who)?;
                let lost = actor.lost.take().ok_or_else(|| format!("{who} has lost nothing"))?;
                let (client, answer) =
                    Client::resume(&options, &actor.user, &password(&actor.user), lost).await?;
                if !answer.is("resumed", SM) {
                    return Err(format!("expected <resumed/>, got:\n{answer}").into());
                }
                actor.client = Some(client);
            }
            Verb::TryResume { whose } => {
                let lost = self.actor(whose)?.lost.clone();
                let lost = lost.ok_or_else(|| format!("{whose} has lost nothing"))?;
                let client = self.client(who)?;
                client.kept.clear();
                let answer = client.resume_here(lost).await?;
                client.kept.push_back(answer);
            }
            Verb::Disconnect => {
                let client = self.actor(who)?.client.take();
                client.ok_or_else(|| format!("{who} is not connected"))?.close().await?;
            }
        }
        Ok(())
    }

    fn actor(&mut self, who: &str) -> Result<&mut Actor, Failure> {
        Ok(self.actors.get_mut(who).ok_or_else(|| format!("{who} has not entered yet"))?)
    }

    fn client(&mut self, who: &str) -> Result<&mut Client, Failure> {
        let client = self.actor(who)?.client.as_mut();
        Ok(client.ok_or_else(|| format!("{who} is not connected"))?)
    }

    /// The next thing that `who` does not ignore.
    async fn next(&mut self, who: &str) -> Result<Event, Failure> {
        loop {
            let actor = self.actor(who)?;
            let client = actor.client.as_mut().ok_or_else(|| format!("{who} is not connected"))?;
            match client.next().await? {
                Event::Element(e) if top(&e) && actor.ignored.contains(&e.name) && !our_pong(&e) => {}
                event => return Ok(event),
            }
        }
    }

    async fn receive(&mut self, who: &str, pattern: &str, any_order: bool) -> Result<(), Failure> {
        let mut patterns = matcher::parse(pattern)?;
        while !patterns.is_empty() {
            let got = match self.next(who).await {
                Ok(Event::Element(got)) => got,
                Ok(_) => return Err(mismatch(&patterns, None, "the stream has ended")),
                Err(f) => return Err(mismatch(&patterns, None, &f.text)),
            };
            let candidates = if any_order { patterns.len() } else { 1 };
            let mut why = String::new();
            let hit = (0..candidates).find(|at| match matches(&patterns[*at], &got, &self.known) {
                Ok(known) => {
                    self.known = known;
                    true
                }
                Err(e) => {
                    let _ = writeln!(why, "{e}");
                    false
                }
            });
            match hit {
                Some(at) => drop(patterns.remove(at)),
                None => return Err(mismatch(&patterns[..candidates], Some(&got), &why)),
            }
        }
        Ok(())
    }

    /// A server that is slow to settle things may say first how far it is (XEP-0198 section 4).
    async fn acks(&mut self, who: &str, wanted: u32) -> Result<(), Failure> {
        let mut least = 0;
        loop {
            let Event::Element(got) = self.next(who).await? else {
                return Err(format!("expected acks up to {wanted}, but the stream has ended").into());
            };
            let h = got.attr("h").and_then(|h| h.parse::<u32>().ok());
            match h.filter(|_| got.is("a", SM)) {
                Some(h) if h == wanted => return Ok(()),
                Some(h) if (least..wanted).contains(&h) => least = h,
                _ => return Err(format!("expected an ack from {least} to {wanted}, got:\n{got}").into()),
            }
        }
    }

    /// No clock: what others have sent is with the server once their pings are answered, and what the
    /// server has for `who` comes before the answer to a ping of theirs.
    async fn nothing(&mut self, who: &str) -> Result<(), Failure> {
        self.pings += 1;
        let id = format!("nothing-{}", self.pings);
        let domain = &self.options.domain;
        let ping = format!("<iq type='get' id='{id}' to='{domain}'><ping xmlns='{PING}'/></iq>");
        for (name, actor) in &mut self.actors {
            if let Some(client) = &mut actor.client
                && !client.jid.is_empty()
                && name != who
            {
                client.send(&ping).await?;
                client.answer(&id).await?;
            }
        }
        self.client(who)?.send(&ping).await?;
        match self.next(who).await? {
            Event::Element(e) if e.name == "iq" && e.attr("id") == Some(&id) => Ok(()),
            Event::Element(e) => Err(format!("expected nothing, got:\n{e}").into()),
            Event::Close | Event::End => Err("expected nothing, but the stream has ended".to_owned().into()),
        }
    }
}

/// The answer to the ping of `receives nothing`.
fn our_pong(element: &Element) -> bool {
    element.attr("id").is_some_and(|id| id.starts_with("nothing-"))
}

/// What `ignores` may name: stanzas, and the `r` and `a` of stream management.
fn top(element: &Element) -> bool {
    element.ns == xml::CLIENT || element.ns == SM
}

fn split(jid: &str) -> (&str, &str) {
    let (bare, resource) = jid.split_once('/').unwrap_or((jid, ""));
    (bare.split('@').next().unwrap_or(bare), resource)
}

/// Sends whole elements one by one, so that stanzas are counted, and any rest as it is.
async fn send_all(client: &mut Client, text: &str) -> Result<(), Error> {
    let (mut framer, mut rest) = (Framer::default(), text.trim());
    while !rest.is_empty() {
        match framer.next(rest.as_bytes()) {
            Some(Piece::Element(n)) => {
                client.send(&rest[..n]).await?;
                rest = &rest[n..];
            }
            Some(Piece::Space(n)) => rest = &rest[n..],
            _ => return client.send_raw(rest.as_bytes()).await,
        }
    }
    Ok(())
}

fn mismatch(wanted: &[Element], got: Option<&Element>, why: &str) -> Failure {
    let mut text = String::from("expected:\n");
    for pattern in wanted {
        let _ = writeln!(text, "{}", pattern.to_string().replace("_more_=\"\"", "{...}"));
    }
    if let Some(got) = got {
        let _ = writeln!(text, "got:\n{got}");
    }
    let _ = write!(text, "because: {}", why.trim_end());
    text.into()
}
