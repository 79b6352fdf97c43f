use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Durability};
use rookery_ops::admin::{Admin as _, Kind, UserImportLine};
use rookery_ops::secret::Password;
use rookery_proto::sasl::Credentials;

use super::*;
use crate::config::Config;

fn password(text: &str) -> Password {
    Password::new(text).unwrap()
}

fn line(line: u64, jid: &str, password: &str) -> UserImportLine {
    UserImportLine { line, jid: jid.to_owned(), password: password.to_owned() }
}

async fn accounts() -> Accounts {
    let seams = Seams::system();
    let store = store::open("memory:", std::path::Path::new(""), Durability::Sync, seams.clone()).unwrap();
    let domains = vec!["b.example".to_owned(), "a.example".to_owned()];
    Accounts::new(store, seams, domains, 4_096)
}

async fn names(accounts: &Accounts, domain: &str, after: &str, limit: usize) -> Vec<String> {
    accounts.list(domain, after, limit).await.unwrap().into_iter().map(|u| u.jid).collect()
}

async fn stored(accounts: &Accounts, jid: &str) -> Credentials {
    let user = rookery_cluster::entity::Entity::new(jid);
    let user = &user;
    let account = accounts
        .store
        .read(|tx| Box::pin(async move { rookery_cluster::tables::accounts::get(&mut **tx, user).await }))
        .await;
    rookery_actors::auth::credentials::from_account(&account.unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn made_changed_and_listed() {
    let accounts = accounts().await;
    accounts.add("Romeo@A.example", &password("one")).await.unwrap();
    assert_eq!(accounts.add("romeo@a.example", &password("x")).await.unwrap_err().kind, Kind::Exists);
    for (jid, kind) in [
        ("romeo", Kind::Invalid),
        ("a.example", Kind::Invalid),
        ("romeo@a.example/x", Kind::Invalid),
        ("@a.example", Kind::Invalid),
        ("romeo@c.example", Kind::NotFound),
    ] {
        assert_eq!(accounts.add(jid, &password("x")).await.unwrap_err().kind, kind, "{jid}");
    }
    assert!(stored(&accounts, "romeo@a.example").await.verify_password("one"));
    accounts.passwd("romeo@a.example", &password("two")).await.unwrap();
    let now = stored(&accounts, "romeo@a.example").await;
    assert!(now.verify_password("two") && !now.verify_password("one"));
    assert_eq!(accounts.passwd("nobody@a.example", &password("x")).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn pages_go_through_all_domains_in_order() {
    let accounts = accounts().await;
    for jid in ["b@a.example", "a@a.example", "c@b.example", "a@b.example"] {
        accounts.add(jid, &password("x")).await.unwrap();
    }
    let all = ["a@a.example", "b@a.example", "a@b.example", "c@b.example"];
    assert_eq!(names(&accounts, "", "", 100).await, all);
    assert_eq!(names(&accounts, "", "a@a.example", 2).await, all[1..3]);
    assert_eq!(names(&accounts, "", "b@a.example", 100).await, all[2..]);
    assert_eq!(names(&accounts, "b.example", "", 100).await, all[2..]);
    assert!(names(&accounts, "", "c@b.example", 100).await.is_empty());
    assert_eq!(accounts.list("c.example", "", 1).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn an_import_takes_what_it_can_and_can_be_repeated() {
    let accounts = accounts().await;
    accounts.add("old@a.example", &password("old")).await.unwrap();
    let batch = || {
        let mut all: Vec<_> =
            (10..30).map(|n| line(n, &format!("user{n}@a.example"), &format!("pw {n}"))).collect();
        all.extend([
            line(1, "old@a.example", "new"),
            line(2, "not a jid", "x"),
            line(3, "x@elsewhere.example", "x"),
            line(4, "empty@a.example", ""),
            line(5, "user10@a.example", "twice"),
        ]);
        all
    };
    let (report, made) = accounts.import(batch()).await.unwrap();
    assert_eq!((report.added, report.skipped, report.failed, made.len()), (20, 2, 3, 20));
    let lines: Vec<u64> = report.errors.iter().map(|e| e.line).collect();
    assert_eq!(lines, [2, 3, 4]);
    for n in [10, 17, 18, 29] {
        let keys = stored(&accounts, &format!("user{n}@a.example")).await;
        assert!(keys.verify_password(&format!("pw {n}")) && !keys.verify_password("pw"), "{n}");
    }
    assert!(stored(&accounts, "old@a.example").await.verify_password("old"));
    let (again, made) = accounts.import(batch()).await.unwrap();
    assert_eq!((again.added, again.skipped, made.len()), (0, 22, 0));
}

#[tokio::test]
async fn a_folder_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::development();
    config.data_dir = folder.path().join("data");
    config.sasl.iterations = 4_096;
    let open = async || {
        let store = crate::start::store(&config, Seams::system()).await?;
        Ok::<_, crate::start::Error>(Folder::over(store, config.clone(), Seams::system()))
    };
    let first = open().await.unwrap();
    first.user_add("romeo@localhost", &password("x")).await.unwrap();
    assert!(open().await.err().unwrap().is_locked(), "one process at a time");
    first.close().await.unwrap();
    let second = open().await.unwrap();
    assert_eq!(second.user_list("", "", 10).await.unwrap()[0].jid, "romeo@localhost");
    assert_eq!(second.status().await.unwrap_err().kind, Kind::Unavailable);
    second.user_remove("romeo@localhost").await.unwrap();
    assert_eq!(second.user_remove("romeo@localhost").await.unwrap_err().kind, Kind::NotFound);
    assert!(second.user_list("", "", 10).await.unwrap().is_empty());
    second.close().await.unwrap();
}

#[tokio::test]
async fn documents_go_out_and_come_back() {
    use tokio_stream::StreamExt as _;
    let (from, to) = (accounts().await, accounts().await);
    from.add("romeo@a.example", &password("secret")).await.unwrap();
    assert_eq!(from.export("nobody@a.example").await.err().unwrap().kind, Kind::NotFound);
    assert_eq!(from.export("c.example").await.err().unwrap().kind, Kind::NotFound);
    assert_eq!(from.export("@").await.err().unwrap().kind, Kind::Invalid);
    let mut config = Config::development();
    config.domains[0].name = "a.example".to_owned();
    let options = std::sync::Arc::new(crate::options::host(&config));
    let chunks = from.export("a.example").await.unwrap();
    let report = documents::import(&to.store, options.clone(), None, chunks, &|_| ()).await.unwrap();
    assert_eq!((report.added, report.failed), (1, 0), "{report:?}");
    assert!(stored(&to, "romeo@a.example").await.verify_password("secret"));
    let mut whole = Vec::new();
    let mut chunks = from.export("romeo@a.example").await.unwrap();
    while let Some(chunk) = chunks.next().await {
        whole.extend_from_slice(&chunk.unwrap());
    }
    let half = bytes::Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    let chunks = Box::pin(tokio_stream::once(Ok(half)));
    assert_eq!(
        documents::import(&to.store, options, None, chunks, &|_| ()).await.unwrap_err().kind,
        Kind::Invalid
    );
}
