//! Rookery and the servers that others wrote, on loopback: the scenarios of `rookery_tests::peers`, each both ways.
//!
//! `cargo xtask test` installs Prosody, ejabberd and nsd; what is missing is skipped, visibly. The name of a case is
//! `near-far/setting/scenario`. By hand, with the logs of the servers in full:
//!
//! ```text
//! ROOKERY_TEST_VERBOSE=1 ROOKERY_TEST_KEEP=1 cargo test -p rookery-tests --test federation -- prosody-rookery/dialback
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::process::ExitCode;
use std::sync::Arc;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::peers::scenarios::Scenario;
use rookery_tests::peers::{Setting, Side, Software, World};
use rookery_tests::server::find_program;
use tokio::sync::Mutex;

/// Two servers, started when the first case needs them, and ended when no case needs them any more.
type Shared = Arc<Mutex<Option<Result<World, String>>>>;

async fn play(
    shared: Shared,
    setting: Setting,
    software: [Software; 2],
    near: Side,
    scenario: Scenario,
) -> Outcome {
    let mut place = shared.lock().await;
    if place.is_none() {
        *place = Some(World::start(setting, software).await.map_err(|e| e.to_string()));
    }
    let world = match place.as_mut() {
        Some(Ok(world)) => world,
        Some(Err(why)) => return Outcome::Failed(why.clone()),
        None => return Outcome::Failed("no world".into()),
    };
    let start = std::time::Instant::now();
    let outcome = match scenario.play(world, near).await {
        Ok(()) => {
            println!("{scenario} took {:.1} s", start.elapsed().as_secs_f64());
            Outcome::Passed
        }
        Err(why) => Outcome::Failed(format!("{why}\n{}", world.logs())),
    };
    if std::env::var_os("ROOKERY_TEST_KEEP").is_some() {
        println!("kept: {}", world.keep().display());
    }
    outcome
}

const SETTINGS: [Setting; 7] = [
    Setting::Certificates,
    Setting::Untrusted,
    Setting::Dialback,
    Setting::ServerOnly,
    Setting::Dane,
    Setting::DaneUnsigned,
    Setting::Clear,
];

#[tokio::main]
async fn main() -> ExitCode {
    let needed = [("prosody", Software::Prosody), ("ejabberdctl", Software::Ejabberd)];
    let missing =
        needed.iter().find(|(program, _)| find_program(program).is_none()).map(|(program, _)| *program);
    let missing =
        missing.or_else(|| ["nsd", "ldns-signzone"].into_iter().find(|p| find_program(p).is_none()));
    let mut cases = Vec::new();
    let pairs = [
        [Software::Rookery, Software::Prosody],
        [Software::Rookery, Software::Ejabberd],
        [Software::Rookery, Software::Rookery],
        [Software::Prosody, Software::Ejabberd],
    ];
    for software in pairs {
        for setting in SETTINGS {
            // Rookery is never without TLS.
            if setting == Setting::Clear && software[1] == Software::Rookery {
                continue;
            }
            let shared = Shared::default();
            for scenario in Scenario::of(setting) {
                // Of two others only this is asked: that they meet at all, so that it is not for the test if they do not meet Rookery.
                if !software.contains(&Software::Rookery) && *scenario != Scenario::Messages {
                    continue;
                }
                let ways = if software[0] == software[1] { &[Side::A][..] } else { &[Side::A, Side::B] };
                for &near in ways {
                    let [a, b] = match near {
                        Side::A => software,
                        Side::B => [software[1], software[0]],
                    };
                    let name = format!("{a}-{b}/{setting:?}/{scenario}").to_lowercase();
                    let case = match (missing, scenario.excused(setting, a, b)) {
                        (Some(program), _) => {
                            let why = format!("needs {program}: run `cargo xtask test` as root");
                            Case::new(name, async { Outcome::Skipped(why) })
                        }
                        // Nothing that Rookery lacks: it is no part of the test.
                        (None, Some(why)) => Case::new(name, async { Outcome::Skipped(why.into()) }),
                        (None, None) => {
                            Case::new(name, play(shared.clone(), setting, software, near, *scenario))
                        }
                    };
                    cases.push(case);
                }
            }
        }
    }
    harness::run(cases, 2).await
}
