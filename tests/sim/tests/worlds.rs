//! Worlds from seeds. Each needs a process of its own, with its own clock and chance; see `rookery-sim`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

/// How many worlds the tests look at; `cargo xtask sim` looks at as many as one likes.
const SEEDS: &str = "50";

fn sim(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rookery-sim")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The hashes of the worlds in what was printed.
fn hashes(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once(" hash ")?.1.split(' ').next()).collect()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let world = ["--seed", "11", "--small", "--trouble", "6", "--faults", "crash,apart,refusals,leave,cuts"];
    let [(_, one), (_, two)] = [sim(&world), sim(&world)];
    assert_eq!(hashes(&one).len(), 1, "{one}");
    // Not only the trace: what was counted beside it, too.
    assert_eq!(one, two);
    let plain = [&world[..], &["--plain"]].concat();
    let [(_, one), (_, two)] = [sim(&plain), sim(&plain)];
    assert_eq!(one, two);
    let (_, other) = sim(&["--seed", "12", "--small", "--trouble", "6"]);
    assert_ne!(hashes(&other), hashes(&one));
}

/// What is known and not mended, and in which world: as in `["--open", "twice/direct@6"]`. Nothing now.
const OPEN: &[&str] = &[];

#[test]
fn fifty_worlds() {
    let (well, text) = sim(&[&["--seeds", SEEDS, "--small"][..], OPEN].concat());
    println!("{text}");
    assert!(well, "{text}");
}

/// Worlds with a far server: with XEP-0198 and without, that keeps streams or forgets them, that is away, slow, or vanishes.
#[test]
fn a_far_server() {
    let worlds = ["--seed", "20", "--seeds", "8", "--small", "--toys", "false", "--foreign", "true"];
    let (well, text) = sim(&worlds);
    println!("{text}");
    assert!(well, "{text}");
    let world = ["--seed", "21", "--small", "--trouble", "4", "--toys", "false", "--foreign", "true"];
    let [(_, one), (_, two)] = [sim(&world), sim(&world)];
    assert_eq!(one, two);
}

/// A world that once went wrong, when clients had no habits yet.
fn named(arguments: &[&str]) {
    well(&[arguments, &["--plain"]].concat());
}

/// A world that once went wrong.
fn well(arguments: &[&str]) {
    // As it was when there were no rooms.
    let (well, text) = sim(&[arguments, &["--toys", "false", "--foreign", "false"]].concat());
    assert!(well, "{text}");
}

/// The asker's node died with the answer, whose sender sent it again; its client had it already.
#[test]
fn an_answer_that_a_client_had_does_not_come_again() {
    well(&["--seed", "23", "--small"]);
}

/// A client came back to a session whose home and connection had died, and asked again what an answer had come to meanwhile.
#[test]
fn what_was_answered_while_a_client_was_away_is_not_asked_again() {
    well(&["--seed", "4", "--small"]);
}

/// A request came again while a sleeping session held it in memory alone; it was called settled, and died with its home.
#[test]
fn a_request_that_comes_again_waits_for_the_first() {
    well(&["--seed", "235", "--small"]);
}

/// Somebody whom a client heard no longer went away, and the home that was told so died.
#[test]
fn a_contact_that_is_heard_no_longer_is_no_ghost() {
    well(&["--seed", "26", "--small"]);
}

/// A session ended at its new home, since its connection did not find it in time, and came back unannounced.
#[test]
fn a_session_that_ended_and_comes_back_is_announced() {
    well(&["--seed", "80", "--small"]);
}

/// What was said to a client before it hid came when it was there again: the simulation took that for news.
#[test]
fn what_was_said_before_a_client_hid_is_old() {
    well(&["--seed", "34", "--small"]);
}

/// A session was replaced while a message to it waited for the store; it was thought to have got it, or another device a copy.
#[test]
fn what_was_being_stored_for_a_session_that_ended_is_not_lost() {
    well(&["--seed", "162", "--small"]);
}

/// A session was bound behind an id that its home could not store, by a clock ahead of the next home's, whose messages were
/// then older than the session.
#[test]
fn a_session_gets_what_its_next_home_archives() {
    well(&["--seed", "164", "--small"]);
}

/// A home resumed a session, gave it up, and its word of that came late, when the next home had resumed it, too: a client was
/// resumed twice on one stream, and its counts were wrong.
#[test]
fn a_connection_hears_the_home_that_it_has() {
    well(&["--seed", "151", "--small"]);
}

/// A session showed itself while it was served what it had missed; what was new came then, and before what was offline.
#[test]
fn what_is_offline_comes_before_what_is_new() {
    well(&["--seed", "135", "--small"]);
}

/// A payload to a home that could not be reached was overtaken by one to the next home, and was then taken for one that
/// had come before.
#[test]
fn nothing_overtakes_when_a_shard_moves() {
    named(&["--seed", "7", "--nodes", "4", "--users", "10"]);
}

/// A home that was cut off had taken a presence and not passed it on; the next one did not ask for it.
#[test]
fn presence_outlives_the_home_that_was_told_it() {
    named(&["--seed", "103", "--small"]);
}

/// A shard moved while presence of its users was on its way to a node out of reach; it came back, and nobody told it anew. And a
/// subscription whose commit had an unknown result was done again, found nothing to do, and told nobody.
#[test]
fn presence_that_came_back_is_told_by_the_next_home() {
    named(&["--seed", "40", "--small"]);
}

/// A stanza that came again was acknowledged while the first still waited for its commit, and was lost with its home.
#[test]
fn a_stanza_that_comes_again_waits_for_the_first() {
    named(&["--seed", "2", "--small"]);
}
