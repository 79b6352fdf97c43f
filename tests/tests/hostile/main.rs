//! Hostile input over real sockets: each case has its specified answer, and other sessions notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code"
)]

mod attacks;
mod before_login;
mod names;
mod queue;
mod slow;
mod stanzas;

use rookery_tests::client::{Client, Event, Options};
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::xml::{self, Element};

const ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

async fn server(config: Config, users: &[&str]) -> Rookery {
    let server = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
    let jids: Vec<String> = users.iter().map(|u| format!("{u}@localhost")).collect();
    server.add_users(jids.iter().map(|j| (j.as_str(), "secret"))).unwrap_or_else(|e| panic!("{e}"));
    server
}

/// Reads up to the stream error and the end of the stream; the condition's name.
async fn condition(client: &mut Client, case: &str) -> String {
    try_condition(client).await.unwrap_or_else(|e| panic!("{case}: {e}"))
}

async fn try_condition(client: &mut Client) -> Result<String, String> {
    let mut found = None;
    loop {
        match client.next().await {
            Ok(Event::Element(e)) if e.is("error", xml::STREAMS) => {
                found = e.children().find(|c| c.ns == ERRORS).map(|c| c.name.clone());
            }
            Ok(Event::Element(e)) if found.is_some() => return Err(format!("after the stream error:\n{e}")),
            Ok(Event::Element(_)) => {}
            Ok(Event::Close | Event::End) => {
                return found.ok_or_else(|| "the stream ended without a reason".to_owned());
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

async fn login(options: &Options, user: &str, resource: &str) -> Client {
    Client::login(options, user, "secret", resource).await.unwrap_or_else(|e| panic!("{user}: {e}"))
}

/// The name of the condition in an answer that is an error.
fn error(answer: &Element) -> &str {
    const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    let error = answer.get("error").unwrap_or_else(|| panic!("no error: {answer}"));
    error
        .children()
        .find(|c| c.ns == STANZAS && c.name != "text")
        .map(|c| c.name.as_str())
        .unwrap_or_default()
}

/// A round trip that finds the stream alive, and nothing that came unasked.
async fn notices_nothing(client: &mut Client) {
    client.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    assert!(client.kept.is_empty(), "{} got {:?}", client.jid, client.kept);
}
