//! When certificates are renewed, and how long a name waits after a failure. All times are seconds since 1970.

use rookery_cluster::tables::certificates::State;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// The wait after the first failure; each further failure multiplies it by [`GROWTH`]. Authorities take few failures of a name in
/// an hour: with these numbers there are four.
const FIRST: i64 = 2 * MINUTE;
const GROWTH: i64 = 4;
/// The longest wait after a failure, unless the authority wants a longer one.
const LONGEST: i64 = 12 * HOUR;
/// The longest wait that an authority can ask for.
pub(super) const PATIENCE: i64 = 7 * DAY;
/// How often an authority is asked when to renew: not more often, and not less.
const ASK: (i64, i64) = (HOUR, DAY);
/// A certificate is not renewed before it is so old, whatever the authority says.
const YOUNG: i64 = 6 * HOUR;
/// An order that began before this is given up: the authority has forgotten it, or will.
const ORDER: i64 = DAY;

/// When to renew a certificate: once a third of its life is left, or up to a thirtieth of its life before, by chance.
pub(super) fn renew(not_before: i64, not_after: i64, chance: u16) -> i64 {
    let third = (not_after - not_before) / 3;
    not_after - third - part(third / 10, chance)
}

/// When to renew a certificate within the window that the authority suggests (RFC 9773 section 4.2): not so late that it ends before,
/// and not so soon that an authority with wrong windows is asked for one certificate after the other.
pub(super) fn within(window: (i64, i64), life: (i64, i64), chance: u16) -> i64 {
    let (start, end) = window;
    let length = life.1.saturating_sub(life.0).max(0);
    let drawn = start.saturating_add(part(end.saturating_sub(start).max(0), chance));
    drawn.min(life.1 - length / 10).max(life.0 + YOUNG.min(length / 3))
}

/// When to ask the authority again; it wants to be asked `after` so many seconds.
pub(super) fn ask(now: i64, after: i64) -> i64 {
    now + after.clamp(ASK.0, ASK.1)
}

/// When to try again after so many failures in a row. `after`: what the authority asked for, seconds.
pub(super) fn again(now: i64, failures: u32, after: Option<i64>, chance: u16) -> i64 {
    let mut wait = FIRST;
    for _ in 1..failures.min(16) {
        wait = (wait * GROWTH).min(LONGEST);
    }
    wait += part(wait / 4, chance);
    now + wait.max(after.unwrap_or(0).min(PATIENCE))
}

/// What is to be done for a name, and from when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// A certificate is to be ordered.
    Order(i64),
    /// The authority is to be asked when to renew.
    Ask(i64),
    /// A certificate that was replaced is to be revoked.
    Revoke(i64),
}

impl Next {
    /// From when.
    pub(super) fn at(self) -> i64 {
        let (Self::Order(at) | Self::Ask(at) | Self::Revoke(at)) = self;
        at
    }
}

/// What comes next for a name. `current`: there is a certificate of the authority that is configured.
pub(super) fn next(state: &State, current: bool, now: i64) -> Next {
    // Longer waits than are ever given were noted by a clock that was wrong.
    let sane = |at: i64, longest: i64| if at > now.saturating_add(longest) { now } else { at };
    let not_before = sane(state.not_before, PATIENCE.max(LONGEST + LONGEST / 4));
    if state.wanted {
        Next::Order(0)
    } else if !current || !state.order.is_empty() {
        Next::Order(not_before)
    } else if !state.revoked.is_empty() {
        Next::Revoke(not_before)
    } else if state.ask > 0 && state.ask < state.renew {
        Next::Ask(sane(state.ask, ASK.1).max(not_before))
    } else {
        Next::Order(state.renew.max(not_before))
    }
}

/// What was noted about another authority does not hold for this one.
pub(super) fn as_of(mut state: State, directory: &str) -> State {
    if state.directory != directory {
        (state.not_before, state.failures) = (0, 0);
        state.order.clear();
    }
    state
}

/// Whether a certificate that nobody asks for any more can be forgotten: a month after its end.
pub(super) fn is_over(state: &State, now: i64) -> bool {
    now > state.expires.saturating_add(30 * DAY)
}

/// Whether the order under way is worth going on with.
pub(super) fn goes_on(state: &State, directory: &str, now: i64) -> bool {
    !state.order.is_empty() && state.directory == directory && now < state.begun.saturating_add(ORDER)
}

fn part(of: i64, chance: u16) -> i64 {
    i64::try_from(i128::from(of) * i128::from(chance) / i128::from(u16::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_life_is_left_at_the_renewal() {
        let (from, until) = (1_000_000, 1_000_000 + 90 * DAY);
        assert_eq!(renew(from, until, 0), until - 30 * DAY);
        assert_eq!(renew(from, until, u16::MAX), until - 33 * DAY);
        // Of six days, too; and of a minute.
        assert_eq!(renew(0, 6 * DAY, 0), 4 * DAY);
        assert_eq!((renew(0, 60, 0), renew(0, 60, u16::MAX)), (40, 38));
    }

    #[test]
    fn waits_grow_and_end() {
        let waits: Vec<i64> = (1..8).map(|failures| again(0, failures, None, 0)).collect();
        assert_eq!(waits, [120, 480, 1_920, 7_680, 30_720, LONGEST, LONGEST]);
        assert_eq!(again(0, 1, None, u16::MAX), 150);
        assert_eq!(again(0, u32::MAX, None, u16::MAX), LONGEST + LONGEST / 4);
        // Let's Encrypt counts failed validations of a name by the hour, five of them.
        let in_an_hour = waits.iter().scan(0, |at, wait| Some(std::mem::replace(at, *at + wait)));
        assert_eq!(in_an_hour.filter(|at| *at < HOUR).count(), 4);
    }

    #[test]
    fn the_authority_may_want_longer_waits_but_not_any() {
        assert_eq!(again(5, 1, Some(1_000), 0), 1_005);
        assert_eq!(again(5, 1, Some(10), 0), 125);
        assert_eq!(again(5, 1, Some(i64::MAX), 0), 5 + PATIENCE);
        assert_eq!((ask(0, 0), ask(0, 6 * HOUR), ask(0, i64::MAX)), (HOUR, 6 * HOUR, DAY));
        let life = (0, 90 * DAY);
        let window = |start: i64, end: i64, chance| within((start, end), life, chance);
        assert_eq!(window(10 * DAY, 20 * DAY, 0), 10 * DAY);
        assert_eq!(window(10 * DAY, 20 * DAY, u16::MAX), 20 * DAY);
        assert_eq!(window(20 * DAY, 10 * DAY, 9), 20 * DAY);
        // A window that has passed with each new certificate; one after the certificate's end; and nonsense.
        assert_eq!(window(-5 * DAY, -4 * DAY, 9), YOUNG);
        assert_eq!(window(100 * DAY, 200 * DAY, 9), 81 * DAY);
        assert_eq!((window(i64::MIN, i64::MAX, 9), window(i64::MAX, i64::MIN, 9)), (YOUNG, 81 * DAY));
        assert_eq!(within((0, 0), (0, 60), 0), 20);
    }

    #[test]
    fn what_comes_next() {
        let next = |state: &State, current| super::next(state, current, 0);
        let state = |change: fn(&mut State)| {
            let mut state = State { renew: 1_000, ..State::default() };
            change(&mut state);
            state
        };
        assert_eq!(next(&State::default(), false), Next::Order(0));
        assert_eq!(next(&state(|s| s.not_before = 7), false), Next::Order(7));
        assert_eq!(next(&state(|_| ()), true), Next::Order(1_000));
        assert_eq!(next(&state(|s| s.not_before = 2_000), true), Next::Order(2_000));
        assert_eq!(next(&state(|s| s.ask = 500), true), Next::Ask(500));
        assert_eq!(next(&state(|s| s.ask = 1_500), true), Next::Order(1_000));
        assert_eq!(next(&state(|s| s.order = "u".into()), true), Next::Order(0));
        assert_eq!(next(&state(|s| s.revoked = vec![1].into()), true), Next::Revoke(0));
        // An operator does not wait for the end of a pause.
        let wanted = state(|s| (s.wanted, s.not_before) = (true, 9_000));
        assert_eq!(next(&wanted, true), Next::Order(0));
    }

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_up() {
        let now = 10 * DAY;
        let state = State { renew: 60 * DAY, not_before: now + 400 * DAY, ..State::default() };
        assert_eq!(super::next(&state, false, now), Next::Order(now));
        assert_eq!(super::next(&state, true, now), Next::Order(60 * DAY));
        let state = State { renew: 600 * DAY, ask: 400 * DAY, ..State::default() };
        assert_eq!(super::next(&state, true, now), Next::Ask(now));
        // What an authority may ask for is kept.
        let state = State { not_before: now + PATIENCE, ..State::default() };
        assert_eq!(super::next(&state, false, now), Next::Order(now + PATIENCE));
    }

    #[test]
    fn another_authority_begins_anew() {
        let state = State {
            directory: "a".into(),
            not_before: 9,
            failures: 3,
            order: "u".into(),
            ..State::default()
        };
        assert_eq!(as_of(state.clone(), "a"), state);
        assert_eq!(as_of(state, "b"), State { directory: "a".into(), ..State::default() });
        let state = State { expires: 100, ..State::default() };
        assert!(!is_over(&state, 100 + 30 * DAY) && is_over(&state, 101 + 30 * DAY));
    }

    #[test]
    fn an_old_order_is_given_up() {
        let state = State { order: "u".into(), directory: "d".into(), begun: 10, ..State::default() };
        assert!(goes_on(&state, "d", 20) && !goes_on(&state, "other", 20));
        assert!(!goes_on(&state, "d", 10 + ORDER) && !goes_on(&State::default(), "", 0));
    }
}
