//! Smack's own integration tests (`smack-integration-test` of Maven Central) on a server of their own. Each of them is a test
//! here.
//!
//! `cargo xtask test` installs Java and copies the jars to `target/interop-smack` (tests/interop/smack/pom.xml); without
//! them all is skipped, visibly. By hand:
//!
//! ```text
//! java -cp 'target/interop-smack/*' -Dsinttest.service=localhost -Dsinttest.host=127.0.0.1 … \
//!     -Dsinttest.enabledTests=MamIntegrationTest -Dsinttest.debugger=console \
//!     org.igniterealtime.smack.inttest.SmackIntegrationTestFramework
//! ```
//!
//! `debugger=console` prints the streams. What else it is told here, and why, stands at [`java`] and [`Run`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::rookery::{Config, GENEROUS, Rookery};
use rookery_tests::server::{find_program, run};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// What all runs together may take. They need a good minute; most of that are waits while they remove their accounts at the
/// end: Smack does not see a `</stream:stream>` that comes with a stream error, and waits for it until `replyTimeout`.
const PATIENCE: Duration = Duration::from_secs(240);

/// `replyTimeout`: how long a test waits for what must come, in ms.
const REPLY_MS: u32 = 10_000;

/// Tests that fail, and why. One that passes fails this file.
const FAILING: &[(&str, &str)] = &[
    ("GeolocationIntegrationTest.testNotification", NO_PEP),
    ("GeolocationIntegrationTest.testNotificationAfterFilterChange", NO_PEP),
    ("MoodIntegrationTest.testNotification", NO_PEP),
    ("MoodIntegrationTest.testNotificationAfterFilterChange", NO_PEP),
    ("UserTuneIntegrationTest.testNotification", NO_PEP),
    ("UserTuneIntegrationTest.testNotificationAfterFilterChange", NO_PEP),
];

/// Other tests ask whether there is PEP; these publish at once.
const NO_PEP: &str = "needs XEP-0163, which is not there yet";

/// Classes of tests that find out themselves that the server does not offer what they test. One that runs fails this file.
const IMPOSSIBLE: &[(&str, &str)] = &[
    ("httpfileupload.HttpFileUploadIntegrationTest", "needs XEP-0363, which is not there yet"),
    ("iot.IoTDiscoveryIntegrationTest", "needs a registry of things (XEP-0347)"),
    ("muc.MultiUserChatEntityIntegrationTest", NO_ROOMS),
    ("muc.MultiUserChatIntegrationTest", NO_ROOMS),
    ("muc.MultiUserChatLowLevelIntegrationTest", NO_ROOMS),
    ("muc.MultiUserChatOccupantIntegrationTest", NO_ROOMS),
    ("muc.MultiUserChatRolesAffiliationsPrivilegesIntegrationTest", NO_ROOMS),
    ("muc.ParticipantStatusIntegrationTest", NO_ROOMS),
    ("muc.UserStatusIntegrationTest", NO_ROOMS),
    ("omemo.MessageEncryptionIntegrationTest", NO_PUBSUB),
    ("omemo.OmemoMamDecryptionTest", NO_PUBSUB),
    ("omemo.ReadOnlyDeviceIntegrationTest", NO_PUBSUB),
    ("omemo.SessionRenegotiationIntegrationTest", NO_PUBSUB),
    ("ox.OXSecretKeyBackupIntegrationTest", NO_PEP),
    ("ox_im.OXInstantMessagingIntegrationTest", NO_PEP),
    ("pubsub.PubSubIntegrationTest", NO_PUBSUB),
];

const NO_ROOMS: &str = "needs XEP-0045, which is not there yet";
const NO_PUBSUB: &str = "needs XEP-0060, which is not there yet";

/// Connections that nothing is tested with. The WebSocket ones need RFC 7395, which is not there yet. The `modular` one of
/// Smack 4.5.0-beta5 loses data: `XmppTcpTransportModule` drops the records before a `close_notify` (so it misses every
/// `</stream:stream>`) or before a record of which only a part has come, and hangs in some handshakes.
const NO_CONNECTIONS: &str = "modular,modular-nocompress,modular-websocket-okhttp,modular-websocket-java11";

/// One start of the framework: which tests it takes.
#[derive(Clone, Copy)]
enum Run {
    AllBut(&'static str),
    Only(&'static str),
}

/// They run at the same time, each with accounts of its own.
///
/// The classes that the first leaves out: one tests the `modular` connection. `fileTransferTest` of the second wants an
/// address of this machine that is not loopback, for SOCKS5 without a proxy. The tests of the third take each other's
/// stanzas for their own: each removes the roster item that the one before it made, does not wait until the contact
/// has heard of that, and takes the `unsubscribe` for the request that it sends next; or the contact's client answers it
/// by `unsubscribed`, and refuses the new request so. A test that has fresh accounts finds nothing to remove. (All but one
/// test of a class can't be asked for: to disable one leaves out the whole class.)
const RUNS: [Run; 9] = [
    Run::AllBut(
        "ModularXmppClientToServerConnectionLowLevelIntegrationTest,FileTransferIntegrationTest,RosterIntegrationTest",
    ),
    Run::Only("FileTransferIntegrationTest.ibbFileTransferTest"),
    Run::Only("RosterIntegrationTest.subscribeRequestListenerTest"),
    Run::Only("RosterIntegrationTest.testCurrentPresenceSentAfterSubscriptionApproval"),
    Run::Only("RosterIntegrationTest.testPresenceApprovalStampedAndDelivered"),
    Run::Only("RosterIntegrationTest.testPresenceApprovalYieldsRosterPush"),
    Run::Only("RosterIntegrationTest.testPresenceApprovalYieldsRosterPush2"),
    Run::Only("RosterIntegrationTest.testPresenceDeliveredToRecipient"),
    Run::Only("RosterIntegrationTest.testRosterPushAfterSubscriptionRequest"),
];

/// What the framework said.
#[derive(Default)]
struct Report {
    passed: BTreeSet<String>,
    /// With the reason.
    failed: BTreeMap<String, String>,
    /// Tests, or classes without their first packages, and why they could not run.
    impossible: BTreeMap<String, String>,
}

impl Report {
    /// Reads what is told at the end; before that line tests may still run.
    fn read(&mut self, text: &str) -> Result<(), String> {
        let passed = text.lines().filter_map(|line| line.strip_prefix("INFO ")?.strip_suffix(" Success"));
        let passed: BTreeSet<String> = passed.map(name).collect();
        let end =
            text.lines().find(|l| l.contains("SmackIntegrationTestFramework[") && l.contains("finished: "));
        let sum = format!("finished: {}/", passed.len());
        if !end.is_some_and(|line| line.contains(&sum)) {
            return Err(format!("the framework did not say that it {sum}…"));
        }
        for line in text.lines() {
            if let Some((test, why)) = line.strip_prefix("SEVERE ").and_then(|l| l.split_once(" failed: ")) {
                self.failed.insert(name(test), why.to_owned());
            } else if let Some(rest) = line.strip_prefix("INFO Could not run ")
                && let Some((what, why)) = rest.split_once(" because: ")
            {
                let class = what.strip_prefix("org.jivesoftware.smackx.");
                self.impossible.insert(class.map_or_else(|| name(what), str::to_owned), why.to_owned());
            }
        }
        self.passed.extend(passed);
        Ok(())
    }

    /// What became of each test and class, by the lists.
    fn judge(mut self) -> Vec<(String, Outcome)> {
        let mut cases = Vec::new();
        let known = |list: &[(&str, &'static str)], name: &str| {
            list.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
        };
        for (name, why) in std::mem::take(&mut self.failed) {
            let outcome = match known(FAILING, &name) {
                Some(why) => Outcome::Skipped(why.to_owned()),
                None => Outcome::Failed(why),
            };
            cases.push((name, outcome));
        }
        for (name, why) in std::mem::take(&mut self.impossible) {
            let outcome = match known(IMPOSSIBLE, &name) {
                Some(why) => Outcome::Skipped(why.to_owned()),
                None => Outcome::Failed(format!("it did not run: {why}")),
            };
            cases.push((name, outcome));
        }
        cases.extend(self.passed.into_iter().map(|name| (name, Outcome::Passed)));
        for (name, why) in FAILING.iter().chain(IMPOSSIBLE) {
            let skipped = Outcome::Skipped((*why).to_owned());
            let told = format!("is said to be skipped ({why}) and is not: take it off the list");
            match cases.iter_mut().find(|(other, _)| other == name) {
                Some((_, outcome)) if *outcome != skipped => *outcome = Outcome::Failed(told),
                Some(_) => {}
                None => cases.push(((*name).to_owned(), Outcome::Failed(told))),
            }
        }
        cases
    }
}

/// `ChatTest.testProperties (Normal)` without what stands in brackets.
fn name(test: &str) -> String {
    test.split(" (").next().unwrap_or(test).to_owned()
}

/// A command that runs the framework on that server.
///
/// The framework makes its accounts by XEP-0077, over one connection that never logs in. `securityMode` is `required`, its default: each
/// connection uses STARTTLS, and `trust` holds the authority that signed the certificate. The framework connects to port 5222 always.
fn java(server: &Rookery, trust: &Path, jars: &Path, run: Run) -> Command {
    let mut command = Command::new("java");
    // What runs for a minute need not be compiled well.
    command.args(["-XX:TieredStopAtLevel=1", "-Xmx256m", "-Djava.awt.headless=true"]);
    command.arg("-cp").arg(jars.join("*"));
    command.arg(format!("-Djavax.net.ssl.trustStore={}", trust.display()));
    command.arg(format!("-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"));
    // The level, the message and a backtrace.
    command.arg("-Djava.util.logging.SimpleFormatter.format=%4$s %5$s%6$s%n");
    // Levels in English, by which the report is read.
    command.args(["-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8"]);
    for (option, value) in [
        ("service", server.listening.domain.as_str()),
        ("host", &server.listening.c2s.ip().to_string()),
        ("replyTimeout", &REPLY_MS.to_string()),
        ("disabledConnections", NO_CONNECTIONS),
        match run {
            Run::AllBut(tests) => ("disabledTests", tests),
            Run::Only(tests) => ("enabledTests", tests),
        },
    ] {
        command.arg(format!("-Dsinttest.{option}={value}"));
    }
    command.arg("org.igniterealtime.smack.inttest.SmackIntegrationTestFramework").kill_on_drop(true);
    // The framework would read a file `properties` in the current folder.
    command.current_dir(&server.dir);
    command
}

/// Java wants one; there is no secret in the store.
const STORE_PASSWORD: &str = "changeit";

async fn play(jars: &Path) -> Result<Report, String> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let config = Config {
        // Its own, for the framework knows port 5222 only.
        address: Ipv4Addr::new(127, 64, high, low | 1),
        ports: [5222, 0, 0],
        limits: format!("{GENEROUS}\nlogin_seconds = 3600"),
        ..Config::default()
    };
    let server = Rookery::start(&config).await.map_err(|e| e.to_string())?;
    let (authority, trust) = (server.data_dir().join("tls/ca.pem"), server.dir.join("trust.p12"));
    let mut keytool = std::process::Command::new("keytool");
    keytool.args(["-importcert", "-noprompt", "-storetype", "PKCS12", "-storepass", STORE_PASSWORD]);
    keytool.arg("-file").arg(authority).arg("-keystore").arg(&trust);
    run(&mut keytool).map_err(|e| e.to_string())?;
    let mut running = JoinSet::new();
    for run in RUNS {
        running.spawn(java(&server, &trust, jars, run).output());
    }
    let mut report = Report::default();
    let end = Instant::now() + PATIENCE;
    while let Some(ended) = timeout_at(end, running.join_next()).await.map_err(|_| "it does not end")? {
        let output = ended.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        report.read(&text).map_err(|e| format!("{e}\n{text}\n{}", server.log()))?;
    }
    if report.failed.keys().any(|test| !FAILING.iter().any(|(known, _)| known == test)) {
        println!("{}", server.whole_log());
    }
    Ok(report)
}

/// Where the jars are, or what is missing.
fn jars() -> Result<PathBuf, &'static str> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop-smack");
    match made.join("pom.xml").is_file() {
        _ if find_program("java").is_none() => Err("needs Java: run `cargo xtask test` as root"),
        true => Ok(made),
        false => Err("needs Smack's jars: run `cargo xtask test`"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let whole = |outcome| vec![Case::new("smack", async { outcome })];
    let mut cases = match jars() {
        _ if std::env::args().any(|a| a == "--list") => whole(Outcome::Passed),
        Err(missing) => whole(Outcome::Skipped(missing.to_owned())),
        Ok(jars) => match play(&jars).await {
            Ok(report) => {
                let judged = report.judge().into_iter();
                judged.map(|(name, outcome)| Case::new(name, async { outcome })).collect()
            }
            Err(why) => whole(Outcome::Failed(why)),
        },
    };
    cases.push(Case::new("a_wrong_list_is_noticed", async { a_wrong_list_is_noticed() }));
    harness::run(cases, 1).await
}

/// One of the list passes, one fails as it is to, an unknown one fails and one can't run; and no class of the list is named.
fn a_wrong_list_is_noticed() -> Outcome {
    let (passes, fails) = (FAILING[0].0, FAILING[1].0);
    let text = format!(
        "INFO {passes} (Normal) Success\nINFO SmackIntegrationTestFramework[x] finished: 1/4 [2 failed]\n\
         INFO Could not run MyTest.b (Normal) because: no\n\
         SEVERE {fails} (Normal) failed: java.lang.X\nSEVERE MyTest.a (LowLevel, tcp) failed: java.lang.Y"
    );
    let mut report = Report::default();
    assert_eq!(report.read(&text), Ok(()));
    assert!(Report::default().read("INFO MyTest.a (Normal) Success").is_err(), "it did not come to its end");
    let judged: BTreeMap<String, Outcome> = report.judge().into_iter().collect();
    assert!(matches!(judged[passes], Outcome::Failed(_)), "{judged:?}");
    assert_eq!(judged[fails], Outcome::Skipped(NO_PEP.into()));
    assert_eq!(judged["MyTest.a"], Outcome::Failed("java.lang.Y".into()));
    for name in ["MyTest.b", IMPOSSIBLE[0].0, FAILING[2].0] {
        assert!(matches!(judged[name], Outcome::Failed(_)), "{name} {judged:?}");
    }
    Outcome::Passed
}
