//! What accounts do to another account, over the wire: with requests, by names that they guess, with what they were blocked
//! from, with passwords that they once had.

use rookery_tests::client::{Client, Options};
use rookery_tests::server::rookery::Config;

use crate::{condition, error, login, notices_nothing, server};

async fn stanza_is_done(client: &mut Client, xml: &str) {
    client.send(xml).await.unwrap();
    notices_nothing(client).await;
}

/// The presences of a login, up to the answer of a ping: how many of them ask for a subscription, and their bytes.
async fn requests_at_login(options: &Options, user: &str) -> (Client, usize, usize) {
    let mut client = login(options, user, "victim").await;
    client.enable_sm(true, true).await.unwrap();
    client.available().await.unwrap();
    let (mut count, mut bytes) = (0, 0);
    // Requests come in portions, each when the one before is confirmed: so many round trips find all of them.
    for _ in 0..20 {
        client.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
        client.all_acked().await.unwrap();
        for element in client.kept.drain(..) {
            count += usize::from(element.attr("type") == Some("subscribe"));
            bytes += element.to_string().len();
        }
    }
    (client, count, bytes)
}

/// 18 accounts asked with 250 kB each, and every login of the victim ended in `policy-violation`.
#[tokio::test]
async fn requests_do_not_lock_an_account_out() {
    const ATTACKERS: usize = 18;
    let names: Vec<String> = (0..ATTACKERS).map(|n| format!("attacker{n}")).collect();
    let mut users: Vec<&str> = names.iter().map(String::as_str).collect();
    users.push("victim");
    let server = server(Config::default(), &users).await;
    let options = server.listening.options();
    let status = "x".repeat(250_000);
    for name in &names {
        let mut attacker = login(&options, name, "x").await;
        let ask =
            format!("<presence to='victim@localhost' type='subscribe'><status>{status}</status></presence>");
        stanza_is_done(&mut attacker, &ask).await;
        // The subscription is committed before what is asked behind it.
        attacker.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    }
    for _ in 0..2 {
        let (mut victim, count, bytes) = requests_at_login(&options, "victim").await;
        assert_eq!(count, ATTACKERS);
        assert!(bytes < ATTACKERS * 2_000, "{bytes} bytes");
        notices_nothing(&mut victim).await;
        victim.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_is_blocked_is_not_heard_later_either() {
    let server = server(Config::default(), &["victim", "attacker"]).await;
    let options = server.listening.options();
    let mut victim = login(&options, "victim", "x").await;
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='attacker@localhost'/></block>";
    victim.iq_ok("set", "", block).await.unwrap();
    victim.close().await.unwrap();
    let mut attacker = login(&options, "attacker", "x").await;
    let ask =
        "<presence to='victim@localhost' type='subscribe'><status>I know where you live</status></presence>";
    stanza_is_done(&mut attacker, ask).await;
    attacker.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    let (mut victim, count, _) = requests_at_login(&options, "victim").await;
    assert_eq!(count, 0);
    notices_nothing(&mut victim).await;
}

#[tokio::test]
async fn names_can_not_be_told_by_their_answers() {
    let server = server(Config::default(), &["victim", "attacker"]).await;
    let mut attacker = login(&server.listening.options(), "attacker", "x").await;
    for (kind, payload) in [
        ("get", "<query xmlns='jabber:iq:last'/>"),
        ("get", "<query xmlns='jabber:iq:private'><x xmlns='u'/></query>"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>"),
        ("set", "<vCard xmlns='vcard-temp'/>"),
        ("set", "<query xmlns='jabber:iq:register'><remove/></query>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
        ("get", "<x xmlns='u'/>"),
    ] {
        let mut answers = Vec::new();
        for name in ["victim", "nobody"] {
            let answer = attacker.iq(kind, &format!("{name}@localhost"), payload).await.unwrap();
            let id = answer.attr("id").unwrap_or_default().to_owned();
            answers.push(answer.to_string().replace(name, "somebody").replace(&id, "id"));
        }
        assert_eq!(answers[0], answers[1], "{payload}");
    }
}

/// A client with the old password is out, and can't come back by what it was handed.
#[tokio::test]
async fn a_new_password_ends_the_sessions_of_the_old_one() {
    let server = server(Config::default(), &["victim"]).await;
    let options = server.listening.options();
    let mut thief = login(&options, "victim", "thief").await;
    let mut sleeper = login(&options, "victim", "sleeper").await;
    sleeper.enable_sm(true, true).await.unwrap();
    let lost = sleeper.lose();
    let mut victim = login(&options, "victim", "victim").await;
    let fields = "<username>victim</username><password>better</password>";
    let change = format!("<query xmlns='jabber:iq:register'>{fields}</query>");
    victim.iq_ok("set", "localhost", &change).await.unwrap();
    assert_eq!(condition(&mut thief, "the thief").await, "not-authorized");
    let mut again = Client::authenticated(&options, "victim", "better").await.unwrap();
    let answer = again.resume_here(lost).await.unwrap();
    assert_eq!(answer.name, "failed", "the sleeper is back: {answer}");
    notices_nothing(&mut victim).await;
    // The operator does the same, to all of them.
    let file = server.data_dir().join("password");
    std::fs::write(&file, "best\n").unwrap();
    let file = file.to_string_lossy();
    server.command(&["user", "passwd", "victim@localhost", "--password-file", &file]).unwrap();
    assert_eq!(condition(&mut victim, "the victim's old session").await, "not-authorized");
}

#[tokio::test]
async fn sessions_that_sleep_do_not_keep_their_user_out() {
    let base = Config::default();
    let config = Config { limits: format!("{}\nsessions_per_user = 2", base.limits), ..base };
    let server = server(config, &["victim"]).await;
    let options = server.listening.options();
    for n in 0..5 {
        let mut client = login(&options, "victim", &format!("r{n}")).await;
        client.enable_sm(true, true).await.unwrap();
        drop(client.lose());
    }
    let mut victim = login(&options, "victim", "x").await;
    notices_nothing(&mut victim).await;
}

#[tokio::test]
async fn no_account_writes_more_into_its_roster_than_it_may() {
    let base = Config::default();
    let config = Config { limits: format!("{}\nroster_items = 3", base.limits), ..base };
    let server = server(config, &["attacker"]).await;
    let mut attacker = login(&server.listening.options(), "attacker", "x").await;
    for n in 0..3 {
        stanza_is_done(&mut attacker, &format!("<presence to='n{n}@localhost' type='subscribed'/>")).await;
    }
    attacker.send("<presence id='full' to='n3@localhost' type='subscribed'/>").await.unwrap();
    let refused = attacker.wait("the refusal", |e| e.attr("id") == Some("full")).await.unwrap();
    assert_eq!(error(&refused), "resource-constraint");
    let groups: String = (0..50).map(|n| format!("<group>{n}{}</group>", "g".repeat(1_000))).collect();
    let set = format!("<query xmlns='jabber:iq:roster'><item jid='n0@localhost'>{groups}</item></query>");
    assert_eq!(error(&attacker.iq("set", "", &set).await.unwrap()), "not-acceptable");
}
