use crate::features::testing::{Scene, Session};

/// An archive of `count` messages, from a friend and a stranger in turn.
async fn scene(count: usize) -> (Scene, Session) {
    let scene = Scene::new(&["romeo", "juliet", "nurse", "tybalt"]).await;
    let mut juliet = scene.session("juliet/balcony").await;
    let mut senders = [scene.session("romeo/orchard").await, scene.session("nurse/hall").await];
    for n in 0..count {
        let body = format!("<message to='juliet@localhost/balcony' type='chat'><body>m{n}</body></message>");
        senders[n % 2].send(&body);
        assert!(juliet.next().await.contains(&format!("m{n}")));
    }
    (scene, juliet)
}

/// The bodies and archive ids of the results, and the answer.
async fn query(session: &mut Session, inner: &str) -> (Vec<(String, String)>, String) {
    session.send(&format!(
        "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='f27'>{inner}</query></iq>"
    ));
    let mut results = Vec::new();
    loop {
        let stanza = session.next().await;
        if !stanza.contains("<result") {
            return (results, stanza);
        }
        assert!(
            stanza.contains("queryid='f27'") && stanza.contains("<delay xmlns='urn:xmpp:delay' stamp='"),
            "{stanza}"
        );
        assert!(stanza.contains("<message xmlns='jabber:client' from="), "{stanza}");
        let between =
            |from: &str, to: &str| stanza.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned();
        results.push((between("<body>", "</body>"), between("f27' id='", "'")));
    }
}

fn bodies(results: &[(String, String)]) -> Vec<&str> {
    results.iter().map(|(body, _)| body.as_str()).collect()
}

fn set(inner: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>")
}

fn form(fields: &[(&str, &[&str])]) -> String {
    let fields: String = fields
        .iter()
        .map(|(var, values)| {
            let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
            format!("<field var='{var}'>{values}</field>")
        })
        .collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
    )
}

#[tokio::test]
async fn pages_lead_through_the_archive_in_both_directions() {
    let (_scene, mut juliet) = scene(7).await;
    let (all, fin) = query(&mut juliet, "").await;
    assert_eq!(bodies(&all), ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    assert!(fin.contains("complete='true'") && fin.contains(&format!("<last>{}</last>", all[6].1)), "{fin}");
    assert!(!fin.contains("count"));

    let (first, fin) = query(&mut juliet, &set("<max>3</max>")).await;
    assert!(bodies(&first) == ["m0", "m1", "m2"] && !fin.contains("complete"), "{fin}");
    let (second, _) = query(&mut juliet, &set(&format!("<max>3</max><after>{}</after>", first[2].1))).await;
    assert_eq!(bodies(&second), ["m3", "m4", "m5"]);
    let (third, fin) = query(&mut juliet, &set(&format!("<max>3</max><after>{}</after>", second[2].1))).await;
    assert!(bodies(&third) == ["m6"] && fin.contains("complete='true'"), "{fin}");

    let (last, fin) = query(&mut juliet, &set("<max>3</max><before/>")).await;
    assert!(bodies(&last) == ["m4", "m5", "m6"] && !fin.contains("complete"), "{fin}");
    assert!(fin.contains(&format!("<first>{}</first>", last[0].1)), "{fin}");
    let (rest, fin) = query(&mut juliet, &set(&format!("<max>9</max><before>{}</before>", last[0].1))).await;
    assert!(bodies(&rest) == ["m0", "m1", "m2", "m3"] && fin.contains("complete='true'"), "{fin}");
    let (flipped, fin) = query(&mut juliet, &format!("{}<flip-page/>", set("<max>2</max><before/>"))).await;
    assert!(
        bodies(&flipped) == ["m6", "m5"] && fin.contains(&format!("<first>{}</first>", all[5].1)),
        "{fin}"
    );
    let (none, fin) = query(&mut juliet, &set("<max>0</max>")).await;
    assert!(none.is_empty() && !fin.contains("complete") && !fin.contains("<first"), "{fin}");
}

#[tokio::test]
async fn fields_narrow_a_query() {
    let (_scene, mut juliet) = scene(6).await;
    let (all, _) = query(&mut juliet, "").await;
    let id = |n: usize| all[n].1.as_str();
    for (fields, found) in [
        (form(&[("with", &["romeo@localhost"])]), vec!["m0", "m2", "m4"]),
        (form(&[("with", &["nurse@localhost/hall"])]), vec!["m1", "m3", "m5"]),
        (form(&[("with", &["nurse@localhost/other"])]), vec![]),
        (form(&[("with", &["juliet@localhost"])]), vec![]),
        (form(&[("after-id", &[id(1)]), ("before-id", &[id(4)])]), vec!["m2", "m3"]),
        (form(&[("ids", &[id(4), id(0), id(4)])]), vec!["m0", "m4"]),
        (form(&[("ids", &[id(4), id(1)]), ("with", &["nurse@localhost"])]), vec!["m1"]),
        (form(&[("start", &["2100-01-01T00:00:00Z"])]), vec![]),
        (form(&[("end", &["2100-01-01T00:00:00Z"]), ("start", &["2000-01-01T00:00:00Z"])]), bodies(&all)),
    ] {
        let (results, fin) = query(&mut juliet, &fields).await;
        assert!(bodies(&results) == found && fin.contains("complete='true'"), "{fields}: {results:?} {fin}");
    }
    let page = format!("{}{}", form(&[("with", &["romeo@localhost"])]), set("<max>1</max><before/>"));
    let (results, fin) = query(&mut juliet, &page).await;
    assert!(bodies(&results) == ["m4"] && !fin.contains("complete"), "{fin}");
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_not_one_s_own() {
    let (scene, mut juliet) = scene(2).await;
    let (all, _) = query(&mut juliet, "").await;
    let mut romeo = scene.session("romeo/street").await;
    for inner in [
        set("<after>AAAAAAAAAAAAAAAAAAAAAA</after>"),
        set("<before>nonsense</before>"),
        form(&[("ids", &["AAAAAAAAAAAAAAAAAAAAAA"])]),
    ] {
        assert!(query(&mut juliet, &inner).await.1.contains("item-not-found"), "{inner}");
    }
    // An id of another archive is none of this one.
    let foreign = set(&format!("<after>{}</after>", all[0].1));
    assert!(query(&mut romeo, &foreign).await.1.contains("item-not-found"));
    for payload in ["<query xmlns='urn:xmpp:mam:2'/>", "<prefs xmlns='urn:xmpp:mam:2' default='never'/>"] {
        let answer = romeo.ask(&format!("<iq type='set' id='1' to='juliet@localhost'>{payload}</iq>")).await;
        assert!(answer.contains("service-unavailable"), "{answer}");
    }
}

#[tokio::test]
async fn the_form_and_the_metadata() {
    let (scene, mut juliet) = scene(3).await;
    let answer = juliet.ask("<iq type='get' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>").await;
    for field in ["with", "start", "end", "before-id", "after-id", "ids", "include-groupchat"] {
        assert!(answer.contains(&format!("var='{field}'")), "{field}: {answer}");
    }
    assert!(answer.contains(
        "<validate xmlns='http://jabber.org/protocol/xdata-validate' datatype='xs:string'><open/>"
    ));
    let (all, _) = query(&mut juliet, "").await;
    let ask = "<iq type='get' id='2'><metadata xmlns='urn:xmpp:mam:2'/></iq>";
    let answer = juliet.ask(ask).await;
    assert!(answer.contains(&format!("<start id='{}' timestamp='", all[0].1)), "{answer}");
    assert!(answer.contains(&format!("<end id='{}' timestamp='", all[2].1)), "{answer}");
    let mut empty = scene.session("tybalt/street").await;
    assert!(empty.ask(ask).await.contains("<metadata xmlns='urn:xmpp:mam:2'/>"));
}

#[tokio::test]
async fn large_messages_make_short_pages() {
    let scene = Scene::new(&["romeo"]).await;
    let mut romeo = scene.session("romeo/orchard").await;
    let body = "x".repeat(200_000);
    for n in 0..7 {
        romeo.send(&format!(
            "<message to='romeo@localhost/orchard' type='chat'><body>{n}{body}</body></message>"
        ));
        assert!(romeo.next().await.contains(&body));
    }
    let (first, fin) = query(&mut romeo, "").await;
    assert!(first.len() == 5 && !fin.contains("complete"), "{}", first.len());
    let (rest, fin) = query(&mut romeo, &set(&format!("<after>{}</after>", first[4].1))).await;
    assert!(rest.len() == 2 && fin.contains("complete='true'"), "{}", rest.len());
}

/// Section 4.1.1: `with` is whom a message was sent to or from, the owner's own resources too.
#[tokio::test]
async fn a_full_jid_of_one_s_own_finds_what_that_resource_sent_and_got() {
    let (_scene, mut juliet) = scene(2).await;
    juliet.send("<message to='romeo@localhost' type='chat'><body>out</body></message>");
    juliet.send("<message to='juliet@localhost/balcony' type='chat'><body>own</body></message>");
    assert!(juliet.next().await.contains("own"));
    for (with, found) in [
        ("juliet@localhost/balcony", vec!["m0", "m1", "out", "own"]),
        ("juliet@localhost/elsewhere", vec![]),
        ("juliet@localhost", vec!["own"]),
        ("romeo@localhost", vec!["m0", "out"]),
    ] {
        let (results, _) = query(&mut juliet, &form(&[("with", &[with])])).await;
        assert_eq!(bodies(&results), found, "{with}");
        let ids: Vec<&str> = results.iter().map(|(_, id)| id.as_str()).collect();
        let named = form(&[("ids", &ids), ("with", &[with])]);
        assert_eq!(bodies(&query(&mut juliet, &named).await.0).len(), found.len(), "{with}");
    }
}
