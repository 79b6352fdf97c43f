//! A disk that is full for a while: what it does to clients. A limit of the process stands for the disk, so that it can be given back.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::process::Command;

use rookery_tests::client::{Client, Lost, SM};
use rookery_tests::server::find_program;
use rookery_tests::server::rookery::{Config, Rookery, get};

/// Whether this is the process of the test in which writes beyond the limit fail, instead of ending the process. Otherwise it has run
/// and gone well, or cannot run here.
fn is_child(test: &str) -> bool {
    const CHILD: &str = "ROOKERY_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    if find_program("prlimit").is_none() {
        println!("skipped: prlimit is not installed");
        return false;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// The largest file that the server may write.
fn limit(server: &Rookery, bytes: &str) {
    let pid = server.pid().unwrap().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status().unwrap();
    assert!(done.success());
}

/// A session whose resumption meets a store that cannot write is not told that it is gone: it comes back when the store does.
#[tokio::test]
async fn a_session_outlives_a_full_disk() {
    if !is_child("a_session_outlives_a_full_disk") {
        return;
    }
    let mut server = Rookery::start(&Config::default()).await.unwrap_or_else(|e| panic!("{e}"));
    server.add_users([("romeo@localhost", "secret")]).unwrap_or_else(|e| panic!("{e}"));
    let mut romeo = Client::login(&server.listening.options(), "romeo", "secret", "orchard").await.unwrap();
    romeo.enable_sm(true, true).await.unwrap();
    romeo.available().await.unwrap();
    let lost = romeo.lose();
    // From here on the session is in the store only.
    server.stop().await.unwrap_or_else(|e| panic!("{e}"));
    server.restart().await.unwrap_or_else(|e| panic!("{e}"));
    let options = server.listening.options();

    limit(&server, "100");
    server.command(&["user", "add", "juliet@localhost"]).unwrap_err();
    let http = server.listening.http.unwrap();
    assert!(get(http, "/readyz").await.unwrap().contains("store unavailable"));
    let again = Lost { jid: lost.jid.clone(), sm: lost.sm.clone() };
    if let Ok((_, answer)) = Client::resume(&options, "romeo", "secret", again).await {
        panic!("the session was not to be had, and the client was told {answer}");
    }

    limit(&server, "unlimited");
    while !get(http, "/readyz").await.unwrap().starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
    let (mut romeo, answer) = Client::resume(&options, "romeo", "secret", lost).await.unwrap();
    assert!(answer.is("resumed", SM), "{answer}");
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
}
