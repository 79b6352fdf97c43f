//! What a client was sent by rooms: groupchats, which its archive does not have. A room sends again what not all of its occupants have
//! when its home has died, or that of an occupant. It gives each message a number, so a few bytes say which a client was sent,
//! however many these are: as many as the room has open come again.
//!
//! As with requests and answers (see [`super::recent`]), the connection tells the next home of its session; where both have died, the
//! session's cursor says what was sent under which number, and the client's count whether it has that.

use std::collections::VecDeque;

use bytes::Bytes;

use super::recent::covers;
use crate::runtime::origin::{Origin, OriginName};
use crate::runtime::seen::{SEEN_BYTES, Seen};

/// How many rooms are remembered. Of one more, the one that was silent longest is forgotten.
const ROOMS: usize = 64;

/// What a client was sent by one room.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Room {
    name: OriginName,
    /// The room's numbers of what was sent.
    sent: Seen,
    /// Those that the client has not confirmed, and the number of each among the stanzas that the client was sent.
    open: VecDeque<(u32, u32)>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Heard(VecDeque<Room>);

impl Heard {
    /// Whether the client was sent this.
    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.0.iter().any(|room| room.name == origin.name && room.sent.has(origin.number))
    }

    /// The client is sent this, under that number if it confirms what it gets.
    pub(crate) fn note(&mut self, Origin { name, number: n }: Origin, number: Option<u32>) {
        let at = self.0.iter().rposition(|room| room.name == name);
        let known = at.and_then(|at| self.0.remove(at));
        let mut room = known.unwrap_or(Room { name, sent: Seen::only(n), open: VecDeque::new() });
        room.sent.take(n);
        room.open.extend(number.map(|number| (n, number)));
        if self.0.len() >= ROOMS {
            metrics::counter!("rookery_limits_hit_total", "limit" => "rooms_heard").increment(1);
            self.0.pop_front();
        }
        self.0.push_back(room);
    }

    /// The client has confirmed `h` stanzas.
    pub(crate) fn confirmed(&mut self, h: u32) {
        for room in self.0.iter_mut().filter(|room| !room.open.is_empty()) {
            room.open.retain(|(_, number)| !covers(h, *number));
        }
    }

    /// What a client has had that counts `h`.
    pub(crate) fn covered_by(&self, h: u32) -> Self {
        let had = |room: &Room| {
            let mut room = room.clone();
            for (n, number) in std::mem::take(&mut room.open) {
                if !covers(h, number) {
                    room.sent.untake(n);
                }
            }
            room
        };
        Self(self.0.iter().map(had).collect())
    }

    /// And these, which the client has had before.
    pub(crate) fn add(&mut self, more: &Self) {
        for old in &more.0 {
            if let Some(room) = self.0.iter_mut().find(|room| room.name == old.name) {
                room.sent.add(old.sent);
            } else if self.0.len() < ROOMS {
                self.0.push_front(Room { open: VecDeque::new(), ..old.clone() });
            }
        }
    }

    /// Both sides count from 0 (XEP-0198 section 3): what was sent before has no numbers.
    pub(crate) fn count_anew(&mut self) {
        self.0.iter_mut().for_each(|room| room.open.clear());
    }

    /// For a cursor, or another home: one each.
    pub(crate) fn write(&self) -> Vec<Bytes> {
        let bytes = |room: &Room| {
            let mut bytes = Vec::with_capacity(16 + SEEN_BYTES + room.open.len() * 8);
            bytes.extend_from_slice(&room.name.0);
            bytes.extend_from_slice(&room.sent.to_bytes());
            for (n, number) in &room.open {
                bytes.extend_from_slice(&n.to_le_bytes());
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.into()
        };
        self.0.iter().map(bytes).collect()
    }

    /// What [`Heard::write`] has written.
    pub(crate) fn read(rooms: &[Bytes]) -> Self {
        let room = |bytes: &Bytes| {
            let (name, rest) = bytes.split_first_chunk::<16>()?;
            let (sent, rest) = rest.split_first_chunk::<SEEN_BYTES>()?;
            let sent = Seen::of_bytes(sent);
            let open = rest.as_chunks::<8>().0.iter().map(|[a, b, c, d, e, f, g, h]| {
                (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes([*e, *f, *g, *h]))
            });
            Some(Room { name: OriginName(*name), sent, open: open.collect() })
        };
        Self(rooms.iter().take(ROOMS).filter_map(room).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(room: u8, n: u32) -> Origin {
        Origin::new(OriginName([room; 16]), n)
    }

    #[test]
    fn what_a_client_has_had_follows_from_its_count() {
        let mut heard = Heard::default();
        for n in 1..=5 {
            heard.note(of(1, n), Some(n + 10));
        }
        heard.note(of(2, 1), Some(16));
        heard.confirmed(12);
        let read = Heard::read(&heard.write());
        assert_eq!(read, heard);
        assert!((1..=5).all(|n| read.has(of(1, n))) && !read.has(of(1, 6)) && !read.has(of(3, 1)));
        let had = read.covered_by(14);
        assert!((1..=4).all(|n| had.has(of(1, n))) && !had.has(of(1, 5)) && !had.has(of(2, 1)));
        let mut next = Heard::default();
        next.note(of(1, 6), None);
        next.add(&had);
        assert!((1..=4).all(|n| next.has(of(1, n))) && !next.has(of(1, 5)) && next.has(of(1, 6)));
        heard.count_anew();
        assert!(heard.covered_by(0).has(of(1, 5)));
    }

    #[test]
    fn the_room_that_was_silent_longest_is_forgotten() {
        let mut heard = Heard::default();
        for room in 0..64 {
            heard.note(of(room, 1), None);
        }
        heard.note(of(0, 2), None);
        heard.note(of(64, 1), None);
        assert!(heard.has(of(0, 1)) && !heard.has(of(1, 1)) && heard.has(of(2, 1)));
    }
}
