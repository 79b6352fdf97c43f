//! The loop of every stream between servers, in both directions: what the link has is written, what the other server sends is
//! framed, checked and handed on, and the only timer is looked at.
//!
//! Length: one loop; its arms share the state of the stream.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use rookery_actors::link::stream::{LinkEnd, Managed as Counts, Next, Pair, Ready};
use rookery_actors::{Ledger, Pipe};
use rookery_proto::xml::framer::Framer;
use rookery_proto::xml::{Scope, Text};
use rookery_proto::xmpp::error::StreamCondition;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::claims::Proved;
use super::conn::{Conn, End, Frame};
use super::ending::Closing;
use super::incoming::Bidi;
use super::io::{Did, Io};
use super::resume::Managed;
use super::table::{Direction, Order, Place};
use super::{Federation, Settings};
use crate::net::{Pass, Standing};
use crate::streams::acks::Acks;
use crate::streams::rate::Meter;

/// Where stream management (XEP-0198) stands.
pub(super) enum Sm {
    Off,
    On(Managed),
}

/// A stream that has not proved a domain.
pub(super) struct Unproved {
    pub(super) pass: Pass,
    pub(super) standing: Standing,
    pub(super) deadline: Instant,
}

/// What a stream begins with.
pub(super) struct Start {
    pub(super) federation: Arc<Federation>,
    pub(super) conn: Conn,
    /// The other server's.
    pub(super) address: String,
    /// The id that the receiving server gave the stream.
    pub(super) id: String,
    /// The pair that the other side may send for already.
    pub(super) proved: Option<Proved>,
    /// What was read already.
    pub(super) first: Option<Frame>,
    /// Whether both sides send.
    pub(super) bidi: Option<Bidi>,
    /// For a stream that another server has opened: its place at the gate, and by when it must have proved a domain.
    pub(super) incoming: Option<(Pass, Instant)>,
    /// For a stream that we have opened: for which link, and how the other server was proved.
    pub(super) link: Option<(Pair, LinkEnd, &'static str)>,
    /// The same: what both sides count on.
    pub(super) managed: Option<Managed>,
}

/// A stream at work.
pub(super) struct Running {
    pub(super) federation: Arc<Federation>,
    pub(super) settings: Arc<Settings>,
    pub(super) address: String,
    pub(super) id: String,
    pub(super) place: Place,
    orders: Option<mpsc::Receiver<Order>>,
    /// The pairs that the other side may send for.
    pub(super) proved: Vec<Proved>,
    /// The pairs whose keys are being verified.
    pub(super) verifying: Vec<Pair>,
    pub(super) bidi: bool,
    /// The largest stanza that the other side takes on a stream in both directions.
    pub(super) max_bytes: Option<usize>,
    pub(super) pass: Option<Pass>,
    pub(super) unproved: Option<Unproved>,
    is_incoming: bool,
    /// The pair and the link whose stanzas this stream sends.
    pub(super) link: Option<(Pair, LinkEnd)>,
    /// Whether the other side's counts are those of the link.
    pub(super) confirms: bool,
    // Stream management.
    pub(super) sm: Sm,
    pub(super) ledger: Arc<Ledger>,
    /// That of what came before stream management.
    pub(super) earlier: Option<Arc<Ledger>>,
    pub(super) acks: Acks,
    pub(super) pipe: Arc<Pipe>,
    pub(super) resuming: Option<(String, String)>,
    // Bytes.
    pub(super) io: Io,
    pub(super) framer: Framer,
    pub(super) scope: Scope,
    pub(super) lang: Option<Text>,
    pub(super) meter: Arc<Meter>,
    pub(super) paused: Option<Instant>,
    /// Whether the tail may hold complete frames that had to wait.
    pub(super) held: bool,
    /// What the stream itself has to say.
    pub(super) own: Vec<u8>,
    first: Option<Frame>,
    /// When something was last read or written.
    active: Instant,
    pub(super) peer_closed: bool,
    pub(super) closing: Option<Closing>,
}

impl Running {
    /// Begins; what was proved already holds.
    pub(super) fn new(start: Start) -> Box<Self> {
        let Start { federation, conn, address, id, proved, first, bidi, incoming, link, managed } = start;
        let Conn { wire, framer, tail, out, scope, lang, meter, settings, .. } = conn;
        let direction = if incoming.is_some() { Direction::Incoming } else { Direction::Outgoing };
        let (place, orders) = federation.table.enter(direction, address.clone(), wire.tls);
        let now = Instant::now();
        let unproved =
            incoming.map(|(pass, deadline)| Unproved { standing: pass.standing(), pass, deadline });
        let mut running = Box::new(Self {
            federation,
            settings,
            address,
            id,
            place,
            orders: Some(orders),
            proved: Vec::new(),
            verifying: Vec::new(),
            bidi: bidi.is_some(),
            max_bytes: bidi.flatten(),
            pass: None,
            is_incoming: unproved.is_some(),
            unproved,
            confirms: managed.is_some(),
            link: None,
            sm: Sm::Off,
            ledger: Ledger::new(0),
            earlier: None,
            acks: Acks::new(0),
            pipe: Pipe::new(),
            resuming: None,
            io: Io::new(wire, tail, out),
            framer,
            scope,
            lang,
            meter,
            paused: None,
            held: true,
            own: Vec::new(),
            first,
            active: now,
            peer_closed: false,
            closing: None,
        });
        if direction == Direction::Outgoing {
            running.framer.set_limits(running.settings.after);
        }
        if let Some((pair, link, by)) = link {
            running.meter = running.federation.rates.account(pair.remote());
            running.place.change(|info| info.pairs.push((pair.clone(), by)));
            running.link = Some((pair, link));
        }
        if let Some(proved) = proved {
            running.prove(proved);
        }
        if let Some(managed) = managed {
            running.manage(managed);
        }
        running
    }

    /// Whether another server has opened it.
    pub(super) fn incoming(&self) -> bool {
        self.is_incoming
    }

    /// Whether the other side may prove domains on it.
    pub(super) fn both_ways(&self) -> bool {
        self.is_incoming || self.bidi
    }

    pub(super) fn is_proved(&self, pair: &Pair) -> bool {
        self.proved.iter().any(|proved| proved.pair == *pair)
    }

    /// Whether our end of the stream is out.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.said)
    }

    /// From now on the other side may send for the pair.
    pub(super) fn prove(&mut self, proved: Proved) {
        let Proved { pair, by, .. } = &proved;
        let by = *by;
        let direction = if self.is_incoming { "in" } else { "out" };
        metrics::counter!("rookery_stream_proofs_total", "proof" => by, "direction" => direction)
            .increment(1);
        tracing::debug!(address = %self.address, %pair, by, direction, "a domain of another server is proved");
        if let Some(Unproved { mut pass, standing, .. }) = self.unproved.take() {
            standing.proved();
            pass.logged_in();
            self.pass = Some(pass);
            self.framer.set_limits(self.settings.after);
            self.meter = self.federation.rates.account(pair.remote());
        }
        self.place.change(|info| {
            if !info.pairs.iter().any(|(known, _)| known == pair) {
                info.pairs.push((pair.clone(), by));
            }
        });
        self.proved.push(proved);
        self.offer();
    }

    /// A stream that goes both ways can be lent to a link.
    pub(super) fn offer(&self) {
        self.place.change(|info| info.bidi = self.bidi);
        self.place.set_free(self.is_incoming && self.bidi && self.link.is_none() && !self.proved.is_empty());
    }

    /// A link has been lent the stream.
    fn lent(&mut self, pair: Pair, end: LinkEnd) {
        let by = self.proved.iter().find(|proved| proved.pair == pair).map(|proved| proved.by);
        let (Some(proof), None, None) = (by, &self.link, &self.closing) else {
            return; // dropped: the link tries again
        };
        end.ready(Ready {
            managed: Counts::No,
            proof,
            address: self.address.clone(),
            tls: self.io.wire.tls,
            max_bytes: self.max_bytes,
        });
        self.link = Some((pair, end));
    }

    /// Runs to the end.
    pub(super) async fn run(mut self: Box<Self>) {
        let Some(orders) = self.orders.take() else { return };
        let end = self.work(orders).await.err().unwrap_or(End::Closed);
        let (incoming, why) = (self.is_incoming, end.why());
        tracing::debug!(address = %self.address, incoming, why, "stream between servers ended");
        Box::pin(self.finish(end)).await;
    }

    async fn work(&mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), End> {
        let (pipe, mut stop) = (self.pipe.clone(), self.federation.stop.clone());
        let mut timer = pin!(sleep_until(self.deadline()));
        if let Some(first) = self.first.take() {
            self.take_frame(first, Instant::now())?;
        }
        loop {
            let now = Instant::now();
            self.paused = self.paused.filter(|until| *until > now);
            self.process(now)?;
            if let Some((id, remote)) = self.resuming.take() {
                self.take_up(id, remote).await;
                continue;
            }
            if self.io.is_idle() {
                self.io.out.append(&mut self.own);
            }
            let deadline = self.deadline();
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            let may_read = self.may_read(now);
            let wants = self.io.is_idle() && self.closing.is_none() && !self.peer_closed;
            let watch_stop = self.is_incoming && self.closing.is_none();
            let mut more = Vec::new();
            let Self { io, link, unproved, .. } = self;
            let next = async {
                match link {
                    Some((_, link)) if wants => link.next(&mut more).await,
                    _ => pending().await,
                }
            };
            let away = async {
                match unproved {
                    Some(unproved) => unproved.standing.sent_away().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                did = poll_fn(|cx| io.poll(cx, may_read)) => self.did(did?)?,
                Some(order) = orders.recv() => self.obey(order)?,
                next = next => self.send(next, more)?,
                () = pipe.ready() => {}
                () = stopped(&mut stop), if watch_stop => {
                    self.close(Some(Box::new(StreamCondition::SystemShutdown.into())));
                }
                () = away => return Err(End::Abandon),
                () = timer.as_mut() => self.time(Instant::now())?,
            }
        }
    }

    /// What the link wants. A stream that another server has opened is only lent to it.
    fn send(&mut self, next: Next, more: Vec<u8>) -> Result<(), End> {
        match next {
            Next::Write => {
                self.active = Instant::now();
                self.federation.meters.sent.increment(more.len() as u64);
                self.io.out = more;
            }
            Next::Close | Next::Abandon if self.is_incoming => {
                self.io.out = more;
                self.link = None;
                self.offer();
            }
            Next::Close => {
                self.io.out = more;
                self.close(None);
            }
            Next::Abandon => return Err(End::Abandon),
        }
        Ok(())
    }

    fn did(&mut self, did: Did) -> Result<(), End> {
        match did {
            Did::Wrote => {}
            Did::Read(bytes) => {
                let now = Instant::now();
                self.active = now;
                self.held = true;
                self.federation.meters.received.increment(bytes as u64);
                if let Some(until) = self.meter.bytes(now, bytes, &self.settings.rates) {
                    self.pause(until, "federation.bytes_per_second");
                }
            }
            Did::Ended if self.peer_closed || self.is_closing() => return Err(End::Closed),
            Did::Ended => return Err(End::Lost),
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Close => self.close(None),
            Order::Lend(pair, end) => self.lent(pair, end),
            Order::Verified(pair, verdict, by) => return self.verified(pair, verdict, by),
            Order::GiveUp => return Err(End::Lost),
            #[cfg(test)]
            Order::Forget => drop(self.ledger.enter()),
        }
        Ok(())
    }

    /// When something is due next.
    fn deadline(&self) -> Instant {
        let limits = &self.settings.federation.limits;
        let unproved = self.unproved.as_ref().map(|unproved| unproved.deadline);
        let stalled = self.io.stalled.map(|since| since + self.settings.answer);
        let closing = self.closing.as_ref().map(|closing| closing.by);
        let idle = self.active + limits.idle;
        let all = [Some(idle), unproved, stalled, self.paused, closing, self.acks.deadline()];
        all.into_iter().flatten().min().unwrap_or(idle)
    }

    /// The timer has fired: whatever is due is done.
    fn time(&mut self, now: Instant) -> Result<(), End> {
        // Limits of a reload reach running streams here.
        self.settings = self.federation.settings.load_full();
        self.framer.set_limits(match self.unproved {
            Some(_) => self.settings.before,
            None => self.settings.after,
        });
        if self.io.stalled.is_some_and(|since| now >= since + self.settings.answer) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "answer_seconds").increment(1);
            return Err(End::Lost);
        }
        if self.unproved.as_ref().is_some_and(|unproved| now >= unproved.deadline) {
            let limit = "federation.negotiation_seconds";
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            return Err(End::because(StreamCondition::ConnectionTimeout, "no domain was proved in time"));
        }
        let idle = now >= self.active + self.settings.federation.limits.idle;
        if idle {
            self.active = now;
            // Its link knows when it has no use for it.
            if self.unsettled() == 0 && self.link.is_none() {
                self.close(None);
            }
        }
        Ok(())
    }
}

/// Ends when `stop` is true, or nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
