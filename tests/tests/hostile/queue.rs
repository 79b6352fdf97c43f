//! Many requests from a stranger do not fill the queue in which a user's own changes are made.

use rookery_tests::server::rookery::Config;

use crate::{error, login, server};

#[tokio::test]
async fn what_a_user_changes_is_made_however_much_strangers_ask() {
    let friends: Vec<String> = (0..40).map(|n| format!("friend{n}")).collect();
    let mut users = vec!["romeo", "tybalt"];
    users.extend(friends.iter().map(String::as_str));
    let server = server(Config::default(), &users).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    romeo.enable_sm(false, true).await.unwrap();
    romeo.available().await.unwrap();
    let mut tybalt = login(&options, "tybalt", "street").await;
    let card = |n| format!("<iq type='get' id='c{n}' to='romeo@localhost'><vCard xmlns='vcard-temp'/></iq>");
    let flood: String = (0..250).map(card).collect();
    let ask = async {
        for friend in &friends {
            romeo.send(&format!("<presence to='{friend}@localhost' type='subscribe'/>")).await?;
        }
        romeo.all_acked().await
    };
    let (flooded, acked) = tokio::join!(tybalt.send_raw(flood.as_bytes()), ask);
    flooded.and(acked).unwrap();
    let roster = romeo.iq_ok("get", "romeo@localhost", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    let items = roster.find("query", "jabber:iq:roster").unwrap();
    let made = items.children().filter(|item| item.attr("ask") == Some("subscribe")).count();
    assert_eq!(made, 40, "{roster}");
    // Each of the stranger's requests is answered: there is no card, or it asks too much.
    for n in 0..250 {
        let answer = tybalt.answer(&format!("c{n}")).await.unwrap();
        assert!(["service-unavailable", "resource-constraint"].contains(&error(&answer)), "{answer}");
    }
}
