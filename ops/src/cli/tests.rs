use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("rookery").chain(line.split_whitespace()))
}

#[test]
fn the_definitions_are_sound() {
    Cli::command_for_update().debug_assert();
    Cli::command().debug_assert();
}

#[test]
fn no_command_serves() {
    assert_eq!(parse("").unwrap().verb(), Command::Serve);
    let cli = parse("--config a.toml").unwrap();
    assert_eq!((cli.verb(), cli.config), (Command::Serve, Some("a.toml".into())));
    let cli = parse("serve --config a.toml").unwrap();
    assert_eq!((cli.verb(), cli.config), (Command::Serve, Some("a.toml".into())));
    assert_eq!(parse("check").unwrap().verb(), Command::Check { example: false });
    assert_eq!(parse("check --example").unwrap().verb(), Command::Check { example: true });
    assert_eq!(parse("version").unwrap().verb(), Command::Version);
}

#[test]
fn a_store_keeps_or_forgets() {
    let Command::Store(store) = parse("store --data d").unwrap().verb() else { panic!() };
    assert_eq!((store.listen.to_string().as_str(), store.data), ("127.0.0.1:7300", Some("d".into())));
    let Command::Store(store) = parse("store --memory --listen [::1]:1").unwrap().verb() else { panic!() };
    assert!(store.memory && store.data.is_none());
    for wrong in
        ["store", "store --data d --memory", "store --memory --buffered", "store --listen 7300 --memory"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_demo_has_one_to_nine_nodes() {
    assert_eq!(parse("demo").unwrap().verb(), Command::Demo(DemoArgs { nodes: 3 }));
    assert_eq!(parse("demo --nodes 5").unwrap().verb(), Command::Demo(DemoArgs { nodes: 5 }));
    assert!(parse("demo --nodes 0").is_err() && parse("demo --nodes 10").is_err());
    assert!(parse("serve --tied").unwrap().tied);
}

#[test]
fn passwords_come_from_one_place_and_never_from_an_argument() {
    let command = |line: &str| match parse(line).unwrap().verb() {
        Command::Admin(AdminCommand::User(UserCommand::Add { password, .. })) => password,
        other => panic!("{other:?}"),
    };
    assert_eq!(command("user add a@b"), PasswordSource::default());
    assert!(command("user add a@b --password-stdin").password_stdin);
    assert_eq!(command("user add a@b --password-file f").password_file, Some("f".into()));
    for wrong in [
        "user add a@b secret",
        "user add a@b --password secret",
        "user add a@b --password=secret",
        "user passwd a@b secret",
        "user add a@b --password-stdin --password-file f",
        "user add",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    // Whatever is added later: an option with a password in its name takes a file's name or nothing.
    let user = Cli::command();
    let user = user.find_subcommand("user").unwrap();
    for option in user.get_subcommands().flat_map(clap::Command::get_arguments) {
        let id = option.get_id().as_str();
        assert!(!id.contains("password") || ["password_file", "password_stdin"].contains(&id), "{id}");
    }
}

#[test]
fn admin_commands_are_understood() {
    let cli = parse("session list juliet@example.org --limit 5 --json --admin unix:/run/a").unwrap();
    assert_eq!(cli.admin, Some("unix:/run/a".parse().unwrap()));
    let filter = Some("juliet@example.org".to_owned());
    let list = SessionCommand::List { filter, limit: Some(5), json: true };
    assert_eq!(cli.verb(), Command::Admin(AdminCommand::Session(list)));
    let export = AdminCommand::Export { target: "b".into(), output: Some("f".into()) };
    assert_eq!(parse("export b -o f").unwrap().verb(), Command::Admin(export));
    let import = UserCommand::Import { file: "-".into() };
    assert_eq!(parse("user import -").unwrap().verb(), Command::Admin(AdminCommand::User(import)));
    for wrong in ["status --admin /run/a", "user list --limit 0", "session kick", "frobnicate"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_cluster_is_asked_or_given_certificates() {
    let cluster = |line: &str| match parse(line).unwrap().verb() {
        Command::Cluster(command) => command,
        other => panic!("{other:?}"),
    };
    let ask = |verb| ClusterCommand::Ask(verb);
    assert_eq!(cluster("cluster status --json"), ask(ClusterVerb::Status { json: true }));
    let drain = ClusterVerb::Drain { node: "self".into(), wait: true, timeout: Some(60) };
    assert_eq!(cluster("cluster drain self --wait --timeout 60"), ask(drain));
    let args = CertArgs { nodes: vec!["a".into(), "b".into()], dir: "d".into() };
    assert_eq!(cluster("cluster cert --node a --node b --dir d"), ClusterCommand::Cert(args));
    for wrong in [
        "cluster",
        "cluster drain",
        "cluster evict --force",
        "cluster drain a --timeout 5",
        "cluster cert n1",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_needs_a_node_says_so() {
    for (line, needs) in [
        ("status", true),
        ("reload", true),
        ("log-level debug", true),
        ("session list", true),
        ("certificate list", true),
        ("certificate order example.org --revoke", true),
        ("user list", false),
        ("import f", false),
        ("export b", false),
    ] {
        let Command::Admin(command) = parse(line).unwrap().verb() else { panic!("{line}") };
        assert_eq!(command.needs_node(), needs, "{line}");
    }
}

#[test]
fn help_has_examples() {
    let help = Cli::command().render_help().to_string();
    assert!(help.contains("Examples:") && help.contains("rookery user add juliet@example.org"), "{help}");
    assert!(help.contains("Exit codes:"), "{help}");
}
