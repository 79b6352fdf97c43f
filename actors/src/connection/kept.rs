//! Where a stanza lies that is sent to a client, and how it is known should it come again.

use rookery_cluster::tables::archive::ArchiveId;

use super::recent;
use crate::runtime::origin::Origin;

/// Where a stanza lies that is sent to a client. Goes with each stanza to the connection, so it is small.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Kept {
    place: Place,
    /// Of a request, an answer, or a message of a room.
    repeat: Option<Box<Repeat>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Place {
    #[default]
    Nowhere,
    Archive {
        id: ArchiveId,
        waited: Waited,
    },
    Queue(ArchiveId),
}

/// What an archived stanza has waited for until now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Waited {
    /// The stanza comes live, or was this session's.
    #[default]
    No,
    /// For any device.
    Offline,
    /// For any device, since an ended session had left the stanza.
    LeftBehind,
}

/// How a stanza is known that may come again.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Repeat {
    origin: Option<Origin>,
    key: u64,
    again: bool,
    /// A message that is known by its origin, which says how many came before.
    numbered: bool,
}

impl Kept {
    /// In the archive, if it is there.
    pub(crate) fn archived(id: Option<ArchiveId>) -> Self {
        Self::archive(id, false)
    }

    /// The same; until now it was `offline` for all devices, or not.
    pub(crate) fn archive(id: Option<ArchiveId>, offline: bool) -> Self {
        let waited = if offline { Waited::Offline } else { Waited::No };
        let place = id.map_or(Place::Nowhere, |id| Place::Archive { id, waited });
        Self { place, repeat: None }
    }

    /// The same; an ended session had left the stanza for any device.
    pub(crate) fn left_behind(id: Option<ArchiveId>) -> Self {
        let place = id.map_or(Place::Nowhere, |id| Place::Archive { id, waited: Waited::LeftBehind });
        Self { place, repeat: None }
    }

    /// In the offline queue.
    pub(crate) fn queue(id: ArchiveId) -> Self {
        Self { place: Place::Queue(id), repeat: None }
    }

    /// The stanza is a request or an answer, and where it comes from. `again`: it was handed over before, and only
    /// its waiter has changed.
    pub(crate) fn from(self, origin: Option<Origin>, key: u64, again: bool) -> Self {
        Self { repeat: Some(Box::new(Repeat { origin, key, again, numbered: false })), ..self }
    }

    /// A message of a room, known by its origin. `again` as above.
    pub(crate) fn of_room(self, origin: Origin, again: bool) -> Self {
        let repeat = Repeat { origin: Some(origin), key: recent::key_of(origin), again, numbered: true };
        Self { repeat: Some(Box::new(repeat)), ..self }
    }

    /// The stanza may come again, and is known by this key; 0: it is not.
    pub(crate) fn keyed(self, key: u64) -> Self {
        if key == 0 { self } else { self.from(None, key, false) }
    }

    /// Its place in the user's archive.
    pub(crate) fn id(&self) -> Option<ArchiveId> {
        match self.place {
            Place::Archive { id, .. } => Some(id),
            Place::Nowhere | Place::Queue(_) => None,
        }
    }

    /// Its place in the user's offline queue.
    pub(crate) fn queued(&self) -> Option<ArchiveId> {
        match self.place {
            Place::Queue(id) => Some(id),
            Place::Nowhere | Place::Archive { .. } => None,
        }
    }

    /// Whether it was offline for all devices until now.
    pub(crate) fn offline(&self) -> bool {
        matches!(self.place, Place::Archive { waited: Waited::Offline | Waited::LeftBehind, .. })
    }

    /// Its place in the archive, if an ended session had left it for any device.
    pub(crate) fn left(&self) -> Option<ArchiveId> {
        match self.place {
            Place::Archive { id, waited: Waited::LeftBehind } => Some(id),
            _ => None,
        }
    }

    /// Whether it lies nowhere.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.place == Place::Nowhere
    }

    /// The stanza lies in the offline queue now, or no more.
    pub(crate) fn set_queued(&mut self, id: Option<ArchiveId>) {
        if self.id().is_none() {
            self.place = id.map_or(Place::Nowhere, Place::Queue);
        }
    }

    /// Of a request, an answer or a message of a room: where it comes from.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.repeat.as_ref().and_then(|repeat| repeat.origin)
    }

    /// Of a message of a room: by which it is known should it come again.
    pub(crate) fn room(&self) -> Option<Origin> {
        self.repeat.as_ref().filter(|repeat| repeat.numbered).and_then(|repeat| repeat.origin)
    }

    /// By which it is known should it come again; 0: it is not.
    pub(crate) fn key(&self) -> u64 {
        self.repeat.as_ref().map_or(0, |repeat| repeat.key)
    }

    /// Whether it was handed over before.
    pub(crate) fn again(&self) -> bool {
        self.repeat.as_ref().is_some_and(|repeat| repeat.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes through every queue of the hot path is moved by value: more than two cache lines cost a call each time.
    #[test]
    fn what_goes_to_a_client_is_small() {
        assert!(size_of::<Kept>() <= 32, "{}", size_of::<Kept>());
        assert!(
            size_of::<crate::connection::pipe::Down>() <= 128,
            "{}",
            size_of::<crate::connection::pipe::Down>()
        );
        assert!(
            size_of::<crate::connection::ledger::Receipt>() <= 40,
            "{}",
            size_of::<crate::connection::ledger::Receipt>()
        );
    }
}
