//! What goes wrong with the far server, by dice of its own.

use std::time::Duration;

use super::{Fate, State, people};
use crate::world::World;

/// What ends a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cure {
    /// The far server is reached again.
    Back,
    /// Its people come back.
    Restarted,
    /// The far server reads again.
    Reads,
}

impl State {
    /// The far server knows no stream of a link any more.
    fn forget_streams(&mut self) {
        for kept in self.streams.values_mut().filter(|kept| kept.fate == Fate::Open) {
            kept.fate = Fate::Forgotten;
            if kept.connection != 0 {
                kept.connection = 0;
                kept.lost.push(crate::chance::now());
            }
        }
    }
}

pub(super) fn step(world: &World, now: Duration) {
    let far = &world.far;
    let (due, quiet) = {
        let mut state = far.state.lock();
        let quiet = world.quiet();
        let all = std::mem::take(&mut state.cures);
        let (due, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at <= now || quiet);
        state.cures = rest;
        (due, quiet)
    };
    for (_, cure) in due {
        world.log.note("far", format_args!("{cure:?}"));
        far.ways.send_modify(|ways| match cure {
            Cure::Back | Cure::Restarted => ways.away = None,
            Cure::Reads => ways.pauses = false,
        });
        if cure == Cure::Restarted {
            let mut state = far.state.lock();
            let there: Vec<usize> = (0..super::PEOPLE)
                .filter(|p| state.people.get(*p).is_some_and(|person| person.status.is_some()))
                .collect();
            for p in there {
                if let Some(person) = state.people.get_mut(p) {
                    person.status = None; // and nobody was told
                }
                state.comes(p);
            }
        }
    }
    if quiet {
        let mut state = far.state.lock();
        if !std::mem::replace(&mut state.healed, true) {
            let again = !far.nature.managed;
            people::settle(&mut state, again);
        }
        return;
    }
    if !world.talking() || world.plan.faults.is_empty() {
        return;
    }
    let mut state = far.state.lock();
    if now < state.next {
        return;
    }
    let pause = state.trouble.millis(300, 2_500);
    let first = std::mem::replace(&mut state.next, now + pause) == Duration::ZERO;
    if first || state.cures.len() > 1 {
        return;
    }
    let dice = state.trouble.below(100);
    let long = now + state.trouble.millis(400, 8_000);
    let short = now + state.trouble.millis(200, 2_500);
    let cut = |ways: &mut super::Ways| ways.cuts += 1;
    let (what, cure): (_, Option<(Duration, Cure)>) = match dice {
        0..22 => {
            far.ways.send_modify(cut);
            ("cuts the links' streams", None)
        }
        22..38 => {
            state.cut_going();
            ("loses its own stream", None)
        }
        38..52 => ("cannot be reached", Some((long, Cure::Back))),
        52..56 if far.nature.vanishes => {
            far.ways.send_modify(|ways| ways.away = Some(true));
            ("has no name", Some((short, Cure::Back)))
        }
        56..72 => {
            far.ways.send_modify(|ways| ways.pauses = true);
            ("does not read", Some((long, Cure::Reads)))
        }
        72..80 => {
            state.forget_streams();
            ("forgets streams", None)
        }
        80..86 => ("restarts", Some((short, Cure::Restarted))),
        86..92 => {
            state.forget_streams();
            state.forget_going();
            ("restarts and forgets", Some((short, Cure::Restarted)))
        }
        92..96 => {
            state.close_going();
            ("closes its own stream", None)
        }
        _ => {
            far.ways.send_modify(|ways| ways.closes += 1);
            ("closes the links' streams", None)
        }
    };
    if let Some(cure) = cure {
        state.cures.push(cure);
        if what != "has no name" && cure.1 != Cure::Reads {
            state.cut_going();
            far.ways.send_modify(|ways| (ways.away, ways.cuts) = (Some(false), ways.cuts + 1));
        }
    }
    drop(state);
    world.log.note("far", what);
}
