//! Clients that no one here wrote keep chatting through HAProxy while nodes are killed, drained and added: each script in
//! `interop/cluster/` is played in the same world.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::cluster::{DOMAIN, Settings, World};
use rookery_tests::server::{Error, find_program};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// What a script may take to say the next thing.
const PATIENCE: Duration = Duration::from_secs(120);
/// What there is between two things that happen to nodes.
const PAUSE: Duration = Duration::from_secs(4);

/// A client's script at work.
struct Script {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(script: &Path, python: &Path, world: &World) -> Result<Script, Error> {
        let mut child = Command::new(python)
            .arg(script)
            .arg(world.door.c2s.ip().to_string())
            .arg(world.door.c2s.port().to_string())
            .arg(world.door.c2s_tls.port().to_string())
            .arg(DOMAIN)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Script { name, child, stdin, lines })
    }

    /// The next line that begins so; what comes before it is shown.
    async fn line(&mut self, begin: &str) -> Result<String, Error> {
        loop {
            let next = timeout(PATIENCE, self.lines.next_line()).await;
            match next.map_err(|_| Error::Failed(format!("{} says nothing", self.name)))?? {
                Some(line) if line.starts_with(begin) => return Ok(line),
                Some(line) => println!("{}: {line}", self.name),
                None => {
                    let complaint = self.complaint().await;
                    return Err(Error::Failed(format!("{} has ended:\n{complaint}", self.name)));
                }
            }
        }
    }

    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut text).await;
        }
        text
    }
}

/// The interpreter with slixmpp: made by `cargo xtask test`.
fn python_with_slixmpp() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop-venv/bin/python");
    let given = std::env::var_os("ROOKERY_INTEROP_PYTHON").map(PathBuf::from);
    given.or_else(|| made.is_file().then_some(made))
}

/// What happens to the nodes, each followed by a look at whether all chat on.
#[derive(Clone, Copy, Debug)]
enum Event {
    Kill(usize),
    Start(usize),
    Drain(usize),
}

const EVENTS: [(&str, Event); 7] = [
    ("n1 was killed", Event::Kill(0)),
    ("n1 was started again", Event::Start(0)),
    ("n2 was drained", Event::Drain(1)),
    ("n4 was added", Event::Start(3)),
    ("n3 was killed", Event::Kill(2)),
    ("n3 was started again", Event::Start(2)),
    ("n2 was started again", Event::Start(1)),
];

async fn play(scripts: Vec<(PathBuf, PathBuf)>) -> Result<(), Error> {
    let settings = Settings { nodes: 3, spare: 1, store: None, more: String::new(), binary: None };
    let mut world = World::start(&settings).await?;
    let done = within(&mut world, scripts).await;
    if done.is_err() {
        println!("the logs are in {}", world.keep().display());
    }
    done
}

/// Starts again the nodes that ended by themselves (fenced, say), as systemd would; returns these nodes.
fn raise_the_fallen(world: &mut World) -> Result<Vec<usize>, Error> {
    let mut fallen = Vec::new();
    for (at, node) in world.nodes.iter_mut().enumerate() {
        if let Some(status) = node.ended()? {
            println!("{} ended by itself with {status}", node.behind.name);
            fallen.push(at);
        }
    }
    for node in &fallen {
        world.launch(*node)?;
    }
    Ok(fallen)
}

/// Waits for a node, which may end by itself meanwhile.
async fn ready(world: &mut World, node: usize) -> Result<(), Error> {
    for _ in 0..3 {
        match world.ready(node).await {
            Err(_) if raise_the_fallen(world)?.contains(&node) => {}
            done => return done,
        }
    }
    world.ready(node).await
}

/// Waits for all nodes but those that were killed or drained.
async fn all_ready(world: &mut World) -> Result<(), Error> {
    raise_the_fallen(world)?;
    let up = world.nodes.iter().enumerate().filter(|(_, node)| node.is_up());
    let up: Vec<usize> = up.map(|(at, _)| at).collect();
    for node in up {
        ready(world, node).await?;
    }
    Ok(())
}

async fn within(world: &mut World, scripts: Vec<(PathBuf, PathBuf)>) -> Result<(), Error> {
    let mut playing = Vec::new();
    for (script, python) in scripts {
        playing.push(Script::start(&script, &python, world)?);
    }
    for script in &mut playing {
        script.line("ready").await?;
    }
    for (what, event) in EVENTS {
        all_ready(world).await?;
        match event {
            Event::Kill(node) => world.kill(node).await?,
            Event::Drain(node) => {
                let status = world.stop(node).await?;
                if !status.success() {
                    return Err(Error::Failed(format!("a drained node ended with {status}")));
                }
            }
            Event::Start(node) => {
                world.launch(node)?;
                ready(world, node).await?;
            }
        }
        println!("{what}");
        for script in playing.iter_mut().filter(|script| script.name.starts_with("profanity")) {
            if let Some(stdin) = &mut script.stdin {
                stdin.write_all(format!("{what}\n").as_bytes()).await?;
            }
            let checked = script.line("checked").await?;
            println!("{}: {checked}", script.name);
        }
        sleep(PAUSE).await; // between two faults, so that each is seen by itself
    }
    for mut script in playing {
        drop(script.stdin.take());
        let silent = |_| Error::Failed("a script does not end".into());
        while let Some(line) = timeout(PATIENCE, script.lines.next_line()).await.map_err(silent)?? {
            println!("{}: {line}", script.name);
        }
        let status = script.child.wait().await?;
        if !status.success() {
            let complaint = script.complaint().await;
            return Err(Error::Failed(format!("{}: {status}\n{complaint}", script.name)));
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/cluster");
    let slixmpp = python_with_slixmpp();
    let terminal = ["profanity", "tmux", "python3"].map(find_program);
    let (mut scripts, mut cases) = (Vec::new(), Vec::new());
    match slixmpp {
        Some(python) => scripts.push((folder.join("slixmpp_chats_on.py"), python)),
        None => cases.push(skipped("slixmpp_chats_on", "needs slixmpp: run `cargo xtask test`")),
    }
    match terminal {
        [Some(_), Some(_), Some(python)] => scripts.push((folder.join("profanity_chats_on.py"), python)),
        _ => cases.push(skipped("profanity_chats_on", "needs profanity, tmux and python3")),
    }
    if find_program("haproxy").is_none() {
        cases.push(skipped("foreign_clients_chat_on", "no haproxy (Debian: apt-get install haproxy)"));
    } else if !scripts.is_empty() {
        cases.push(Case::new("foreign_clients_chat_on", async move {
            match play(scripts).await {
                Ok(()) => Outcome::Passed,
                Err(e) => Outcome::Failed(e.to_string()),
            }
        }));
    }
    harness::run(cases, 1).await
}

fn skipped(name: &str, why: &'static str) -> Case {
    Case::new(name, async move { Outcome::Skipped(why.to_owned()) })
}
