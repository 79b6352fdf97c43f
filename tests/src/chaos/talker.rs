//! A client that talks to its partner all the time, and comes back whenever it is cut off, as people's clients do.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{Client, Error, Event, Lost, Options, SM};
use crate::server::cluster::DOMAIN;
use crate::xml::{CLIENT, Element, STREAMS};

/// The password of everybody here.
pub const PASSWORD: &str = "a password like any other";
/// Every so many messages the server is asked how far it is.
const ASK_EVERY: usize = 4;
/// Every so many messages there is an IQ: what is not archived counts as well.
const PING_EVERY: usize = 5;
/// How long a server may owe an acknowledgement before the client takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(25);
/// How long one attempt to come back may take.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What all are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Talk,
    /// Say nothing new, and wait for what is on its way.
    Quiet,
    Over,
}

/// How far a talker is, for its watchers.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicUsize,
    pub unacked: AtomicUsize,
    /// Messages that came back.
    pub refused: AtomicUsize,
    /// Different messages of the partner.
    pub received: AtomicUsize,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Got {
    pub number: usize,
    /// Its id in our archive; empty if it came without.
    pub id: String,
    pub at: Instant,
}

/// How a cut ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Return {
    Resumed,
    /// The session was gone: a new one.
    Anew(String),
    /// The test was over before.
    Never,
}

/// A connection that was lost.
#[derive(Clone, Debug)]
pub struct Cut {
    pub why: String,
    pub at: Instant,
    pub back: Instant,
    pub how: Return,
    /// What went wrong on the way back.
    pub troubles: Vec<String>,
}

/// All that happened to a talker.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// When each message was to be said, whether there was a connection or not.
    pub sent: Vec<Instant>,
    pub received: Vec<Got>,
    /// Numbers of messages that came back as errors, with the condition.
    pub bounced: Vec<(usize, String)>,
    pub cuts: Vec<Cut>,
    pub strange: Vec<String>,
}

/// How far a client talks ahead of the server: on a machine that can't keep up, messages wait for the store until it refuses them.
const AHEAD: usize = 32;

/// One client.
pub struct Talker {
    pub name: String,
    pub partner: String,
    pub log: Log,
    pub tally: Arc<Tally>,
    options: Options,
    client: Client,
    seen: HashSet<usize>,
    /// Since when the server owes an `<a/>`.
    asked: Option<Instant>,
}

impl Talker {
    /// Logs in, with a session that can be resumed.
    pub async fn login(options: &Options, name: String, partner: String) -> Result<Talker, Error> {
        let mut client = Client::login(options, &name, PASSWORD, "chaos").await?;
        client.enable_sm(true, false).await?;
        client.available().await?;
        // Before that there is no session to resume for certain.
        client.all_acked().await?;
        Ok(Talker {
            name,
            partner,
            log: Log::default(),
            tally: Arc::default(),
            options: options.clone(),
            client,
            seen: HashSet::new(),
            asked: None,
        })
    }

    /// Talks, a message each `pace` from `begin` on, until the phase says that it is over.
    pub async fn talk(mut self, begin: Instant, pace: Duration, mut phase: watch::Receiver<Phase>) -> Talker {
        loop {
            let done = self.connected(begin, pace, &mut phase).await;
            match done {
                Ok(()) => return self,
                Err(why) => self.come_back(why, &phase).await,
            }
        }
    }

    async fn connected(
        &mut self,
        begin: Instant,
        pace: Duration,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<(), String> {
        self.asked = None;
        loop {
            while let Some(element) = self.client.kept.pop_front() {
                self.take(element).await?;
            }
            self.tally.unacked.store(self.client.sm.unacked.len(), Ordering::Relaxed);
            let now = *phase.borrow_and_update();
            if now == Phase::Over {
                return Ok(());
            }
            let due = begin + pace * u32::try_from(self.log.sent.len()).unwrap_or(u32::MAX);
            let waits = !self.client.sm.unacked.is_empty();
            let ask = self.asked.map_or_else(|| Instant::now() + pace * 2, |asked| asked + SILENCE);
            tokio::select! {
                biased;
                event = self.client.fresh() => match event {
                    Ok(Event::Element(element)) => self.take(element).await?,
                    Ok(Event::Close) => return Err("the stream was closed".into()),
                    Ok(Event::End) => return Err("end of file".into()),
                    Err(e) => return Err(e.to_string()),
                },
                () = sleep_until(due), if now == Phase::Talk && self.client.sm.unacked.len() < AHEAD => self.say(due).await?,
                () = sleep_until(ask), if waits => match self.asked {
                    Some(_) => return Err(format!("no acknowledgement for {} s", SILENCE.as_secs())),
                    None => self.ask().await?,
                },
                _ = phase.changed() => {}
            }
        }
    }

    async fn say(&mut self, due: Instant) -> Result<(), String> {
        let n = self.log.sent.len();
        self.log.sent.push(due);
        self.tally.sent.store(n + 1, Ordering::Relaxed);
        let text = format!(
            "<message to='{}@{DOMAIN}' type='chat' id='m{n}'><body>{n}</body></message>",
            self.partner
        );
        self.client.send(&text).await.map_err(|e| e.to_string())?;
        if n.is_multiple_of(PING_EVERY) {
            let ping = format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>");
            self.client.send(&ping).await.map_err(|e| e.to_string())?;
        }
        match n.is_multiple_of(ASK_EVERY) && self.asked.is_none() {
            true => self.ask().await,
            false => Ok(()),
        }
    }

    async fn ask(&mut self) -> Result<(), String> {
        self.asked = Some(Instant::now());
        self.client.send_raw(format!("<r xmlns='{SM}'/>").as_bytes()).await.map_err(|e| e.to_string())
    }

    async fn take(&mut self, element: Element) -> Result<(), String> {
        match element.name.as_str() {
            "r" => {
                let answer = format!("<a xmlns='{SM}' h='{}'/>", self.client.sm.handled);
                self.client.send_raw(answer.as_bytes()).await.map_err(|e| e.to_string())
            }
            "a" => {
                self.asked = None;
                self.client.acked(&element).map_err(|e| {
                    self.log.strange.push(e.to_string());
                    e.to_string()
                })
            }
            "error" if element.ns == STREAMS => Err(format!("stream error {}", condition(&element))),
            "message" => {
                self.message(&element);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn message(&mut self, message: &Element) {
        if message.attr("type") == Some("error") {
            let number = message.attr("id").and_then(|id| id.strip_prefix('m')?.parse().ok());
            let why = message.get("error").map(condition).unwrap_or_default();
            match number {
                Some(number) => {
                    self.log.bounced.push((number, why));
                    self.tally.refused.store(self.log.bounced.len(), Ordering::Relaxed);
                }
                None => self.log.strange.push(message.to_string()),
            }
            return;
        }
        let Some(body) = message.get("body") else { return };
        let ours = message.attr("from").and_then(|from| from.split('@').next()) == Some(&self.partner);
        let Some(number) = body.text().parse().ok().filter(|_| ours) else {
            self.log.strange.push(message.to_string());
            return;
        };
        let id = message.child("stanza-id", "urn:xmpp:sid:0").and_then(|id| id.attr("id"));
        let id = id.unwrap_or_default().to_owned();
        self.log.received.push(Got { number, id, at: Instant::now() });
        if self.seen.insert(number) {
            self.tally.received.store(self.seen.len(), Ordering::Relaxed);
        }
    }

    /// Connects again and again until the session is resumed, or a new one is made because the old one is gone.
    async fn come_back(&mut self, why: String, phase: &watch::Receiver<Phase>) {
        let at = Instant::now();
        let lost = Lost { jid: self.client.jid.clone(), sm: self.client.sm.clone() };
        // As an application that is gone: nothing is said.
        self.client.wire.io = crate::client::Io::Gone;
        let mut pause = Duration::from_millis(50);
        let mut troubles = Vec::new();
        let how = loop {
            if *phase.borrow() == Phase::Over {
                break Return::Never;
            }
            match timeout(ATTEMPT, self.attempt(lost.clone())).await {
                Ok(Ok(how)) => break how,
                Ok(Err(e)) => troubles.push(e.to_string()),
                Err(_) => troubles.push(format!("an attempt took {} s", ATTEMPT.as_secs())),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.log.cuts.push(Cut { why, at, back: Instant::now(), how, troubles });
    }

    async fn attempt(&mut self, lost: Lost) -> Result<Return, Error> {
        let mut client = Client::authenticated(&self.options, &self.name, PASSWORD).await?;
        let unacked = lost.sm.unacked.clone();
        let answer = client.resume_here(lost).await?;
        if answer.is("resumed", SM) {
            self.client = client;
            return Ok(Return::Resumed);
        }
        let why = answer.children().map(|c| c.name.clone()).next().unwrap_or_default();
        // Only this says that the session is gone for good (XEP-0198 section 5).
        if !answer.is("failed", SM) || why != "item-not-found" {
            return Err(Error::Unexpected("<resumed/>".into(), answer));
        }
        client.bind("chaos").await?;
        client.enable_sm(true, false).await?;
        client.available().await?;
        for stanza in unacked.iter().filter(|stanza| stanza.starts_with("<message")) {
            client.send(stanza).await?;
        }
        self.client = client;
        Ok(Return::Anew(why))
    }
}

/// The name of the condition in an error of a stream or of a stanza.
fn condition(error: &Element) -> String {
    let known = |ns: &str| ns.starts_with("urn:ietf:params:xml:ns:xmpp-") || ns == CLIENT;
    error.children().find(|c| known(&c.ns)).map(|c| c.name.clone()).unwrap_or_default()
}
