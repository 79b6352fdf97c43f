//! What each source has sent and must wait: behind its own change, or behind too many of its own reads.

use rookery_cluster::invariant;

use super::{Counted, Limits, Queued};

/// What holds the next item of a source back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// A change is under way.
    Change,
    /// Too many reads are.
    Reads,
}

/// Whether what a source sends now goes on at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Nothing is before it.
    Now,
    /// Something is: [`Sources::push`].
    Waits,
    /// The entity moves: the source sends it again to the next home.
    Left,
}

/// What becomes of a read.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Reading<R> {
    /// The read is to be started, and ends with [`Sources::read_done`].
    Now(R),
    /// The read waits.
    Waits,
    /// There is no room.
    Full(R),
}

/// What one source waits for.
struct Source<S, I: Queued, R: Queued> {
    name: S,
    hold: Hold,
    waiting: Counted<I>,
    reads: Counted<R>,
    /// One of them is under way.
    reading: bool,
    /// The entity moves: what comes now is sent again to the next home.
    left: bool,
}

impl<S, I: Queued, R: Queued> Source<S, I, R> {
    fn new(name: S) -> Self {
        let (waiting, reads) = (Counted::default(), Counted::default());
        Self { name, hold: Hold::Nothing, waiting, reads, reading: false, left: false }
    }

    fn bytes(&self) -> usize {
        self.waiting.bytes + self.reads.bytes
    }

    fn is_empty(&self) -> bool {
        let waits = !self.waiting.is_empty() || !self.reads.is_empty() || self.reading;
        self.hold == Hold::Nothing && !waits && !self.left
    }

    /// Its reads are left; what else it has sent is returned.
    fn leave(&mut self) -> Vec<I> {
        self.reads.take_all().into_iter().for_each(Queued::leave);
        self.waiting.take_all().into()
    }
}

impl<S, I: Queued, R: Queued> Drop for Source<S, I, R> {
    fn drop(&mut self) {
        // No actor is left to take the item. Its sender sends the item again, to the next home.
        self.leave().into_iter().for_each(Queued::leave);
    }
}

/// The sources of one entity that wait for something: `S` names one, `I` is what it has sent, `R` is a read. A source that has
/// ended stays until nothing of it waits.
pub(crate) struct Sources<S, I: Queued, R: Queued> {
    limits: &'static Limits,
    all: Vec<Source<S, I, R>>,
}

impl<S: Copy + Eq, I: Queued + From<R>, R: Queued> Sources<S, I, R> {
    pub(super) fn new(limits: &'static Limits) -> Self {
        Self { limits, all: Vec::new() }
    }

    /// Whether no source waits for anything: then it is everybody's turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a read is under way.
    pub(super) fn are_reading(&self) -> bool {
        self.all.iter().any(|source| source.reading)
    }

    pub(super) fn shrink(&mut self) {
        self.all.shrink_to_fit();
    }

    fn find(&mut self, name: S) -> Option<&mut Source<S, I, R>> {
        self.all.iter_mut().find(|source| source.name == name)
    }

    fn of(&mut self, name: S) -> Option<&mut Source<S, I, R>> {
        if self.find(name).is_none() {
            self.all.push(Source::new(name));
        }
        self.find(name)
    }

    /// Whether so many bytes more may wait for this source.
    fn have_room(&mut self, name: S, size: usize) -> bool {
        let all: usize = self.all.iter().map(Source::bytes).sum();
        let Limits { source: most, all_sources_bytes, .. } = *self.limits;
        let fits = |source: &mut Source<S, I, R>| {
            source.waiting.len() < most.items && source.bytes() + size <= most.bytes
        };
        all + size <= all_sources_bytes && self.find(name).is_none_or(fits)
    }

    /// Whether what this source sends now goes on at once.
    pub(crate) fn turn(&self, name: S) -> Turn {
        match self.all.iter().find(|source| source.name == name) {
            Some(source) if source.left => Turn::Left,
            Some(source) if source.hold != Hold::Nothing || !source.waiting.is_empty() => Turn::Waits,
            _ => Turn::Now,
        }
    }

    /// What a source has sent waits behind what it sent before.
    ///
    /// # Errors
    /// There is no room: the item comes back.
    pub(crate) fn push(&mut self, name: S, item: I) -> Result<(), I> {
        if !self.have_room(name, item.size()) {
            return Err(item);
        }
        if let Some(source) = self.of(name) {
            source.waiting.push_back(item);
        }
        Ok(())
    }

    /// The end of a source, behind what it has sent. There is always room for that: a source ends once.
    ///
    /// # Errors
    /// Nothing of it waits: the item comes back, and it is its turn.
    pub(crate) fn push_end(&mut self, name: S, item: I) -> Result<(), I> {
        match self.find(name) {
            Some(source) if !source.waiting.is_empty() => {
                source.waiting.push_back(item);
                Ok(())
            }
            _ => Err(item),
        }
    }

    /// The next item that a source has sent, if nothing holds that back. [`Turn`] is not asked again.
    pub(crate) fn next(&mut self, name: S) -> Option<I> {
        let source = self.find(name)?;
        let item = if source.hold == Hold::Nothing { source.waiting.pop_front() } else { None };
        if item.is_none() {
            self.all.retain(|source| source.name != name || !source.is_empty());
        }
        item
    }

    /// A change of this source waits or runs: what follows waits.
    pub(crate) fn hold(&mut self, name: S) {
        if let Some(source) = self.of(name) {
            source.hold = Hold::Change;
        }
    }

    /// The change is done. [`Sources::next`] follows.
    pub(crate) fn change_done(&mut self, name: S) {
        if let Some(source) = self.find(name) {
            source.hold = Hold::Nothing;
        }
    }

    /// A read of this source. If too many wait, it is the next item that the source has sent, and what follows waits behind it.
    pub(crate) fn read(&mut self, name: S, read: R) -> Reading<R> {
        let reading = self.find(name).is_some_and(|source| source.reading);
        if reading && !self.have_room(name, read.size()) {
            return Reading::Full(read);
        }
        let most = self.limits.reads;
        let Some(source) = self.of(name) else { return Reading::Full(read) };
        if !source.reading {
            source.reading = true;
            return Reading::Now(read);
        }
        if source.reads.len() < most {
            source.reads.push_back(read);
        } else {
            source.hold = Hold::Reads;
            source.waiting.push_front(I::from(read));
        }
        Reading::Waits
    }

    /// A read is done. Returns the next, to be started. [`Sources::next`] follows.
    pub(crate) fn read_done(&mut self, name: S) -> Option<R> {
        let source = self.find(name)?;
        if source.hold == Hold::Reads {
            source.hold = Hold::Nothing;
        }
        invariant!("read_done_once", source.reading);
        let read = source.reads.pop_front();
        source.reading = read.is_some();
        read
    }

    /// The entity moves: nothing more of this source is begun, or what follows would overtake it. Its reads are left; what else
    /// it has sent is returned, in order.
    pub(crate) fn leave(&mut self, name: S) -> Vec<I> {
        let Some(source) = self.of(name) else { return Vec::new() };
        source.left = true;
        source.leave()
    }

    /// The names of those that wait.
    pub(crate) fn names(&self) -> Vec<S> {
        self.all.iter().map(|source| source.name).collect()
    }

    /// The entity is no more: reads are left; what else waits is returned.
    pub(crate) fn take_all(&mut self) -> Vec<I> {
        std::mem::take(&mut self.all).iter_mut().flat_map(Source::leave).collect()
    }
}
