//! The share that each of many senders has of a bounded queue.
//!
//! A sender may have no more than is free. One alone gets half of the queue, two that fill it together get a third each, and however many
//! do so, something is left for the next one.

use std::collections::HashMap;

use rookery_proto::xmpp::jid::BareJid;

/// So much of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Amount {
    pub(crate) stanzas: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    /// One stanza of that size.
    pub(crate) fn one(bytes: usize) -> Self {
        Self { stanzas: 1, bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            stanzas: self.stanzas.saturating_add(other.stanzas),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            stanzas: self.stanzas.saturating_sub(other.stanzas),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn fits(self, room: Self) -> bool {
        self.stanzas <= room.stanzas && self.bytes <= room.bytes
    }
}

/// Why there is no room for a stanza.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// There is none for anybody.
    All,
    /// The sender has its share.
    Sender,
}

/// What is in a queue, and whose it is.
#[derive(Default, Debug)]
pub(crate) struct Shares {
    all: Amount,
    of: HashMap<BareJid, Amount>,
}

impl Shares {
    /// All that there is.
    pub(crate) fn all(&self) -> Amount {
        self.all
    }

    /// A stanza has come.
    pub(crate) fn came(&mut self, sender: &BareJid, bytes: usize) {
        let one = Amount::one(bytes);
        self.all = self.all.plus(one);
        match self.of.get_mut(sender) {
            Some(own) => *own = own.plus(one),
            None => drop(self.of.insert(sender.clone(), one)),
        }
    }

    /// A stanza has gone.
    pub(crate) fn went(&mut self, sender: &BareJid, bytes: usize) {
        let one = Amount::one(bytes);
        self.all = self.all.minus(one);
        let Some(own) = self.of.get_mut(sender) else { return };
        *own = own.minus(one);
        if own.stanzas == 0 {
            self.of.remove(sender);
        }
    }

    /// Whether a sender may have one more stanza of that size, where the queue takes so much and `others` is in it besides.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn fits(
        &self,
        sender: &BareJid,
        bytes: usize,
        limit: Amount,
        others: Amount,
    ) -> Result<(), Full> {
        let (one, free) = (Amount::one(bytes), limit.minus(self.all.plus(others)));
        if !one.fits(free) {
            return Err(Full::All);
        }
        let own = self.of.get(sender).copied().unwrap_or_default();
        if own.plus(one).fits(free) { Ok(()) } else { Err(Full::Sender) }
    }

    /// Keeps no more room than is needed.
    pub(crate) fn shrink(&mut self) {
        self.of.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Amount = Amount { stanzas: 1_000, bytes: 100_000 };

    fn sender(n: usize) -> BareJid {
        BareJid::parse(&format!("u{n}@a")).unwrap()
    }

    /// How many stanzas of that size a sender gets in.
    fn fill(shares: &mut Shares, n: usize, bytes: usize) -> (usize, Full) {
        let (sender, mut count) = (sender(n), 0);
        loop {
            match shares.fits(&sender, bytes, LIMIT, Amount::default()) {
                Ok(()) => shares.came(&sender, bytes),
                Err(full) => return (count, full),
            }
            count += 1;
        }
    }

    #[test]
    fn a_sender_gets_as_much_as_it_leaves() {
        let mut shares = Shares::default();
        let mut counts = Vec::new();
        for n in 0..9 {
            let (count, full) = fill(&mut shares, n, 1);
            assert_eq!(full, Full::Sender);
            counts.push(count);
        }
        assert_eq!(counts, [500, 250, 125, 63, 31, 16, 8, 4, 2]);
        let left = shares.all();
        shares.went(&sender(0), 1);
        assert_eq!((left.stanzas, shares.all().stanzas), (999, 998));
        assert_eq!(shares.fits(&sender(0), 1, LIMIT, Amount::default()), Err(Full::Sender));
        assert_eq!(shares.fits(&sender(77), 1, LIMIT, Amount::default()), Ok(()));
        assert_eq!(shares.fits(&sender(77), 1, LIMIT, Amount { stanzas: 3, bytes: 0 }), Err(Full::All));
    }

    #[test]
    fn bytes_count_like_stanzas_and_one_large_stanza_is_no_abuse() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, 0, 90_000), (1, Full::All));
        shares.went(&sender(0), 90_000);
        assert_eq!(fill(&mut shares, 0, 1_000), (50, Full::Sender));
        assert_eq!(fill(&mut shares, 1, 30_000), (1, Full::All));
        (0..50).for_each(|_| shares.went(&sender(0), 1_000));
        shares.went(&sender(1), 30_000);
        assert_eq!((shares.all(), shares.of.len()), (Amount::default(), 0));
    }
}
