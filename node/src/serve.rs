//! A node from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::Host;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_ops::admin::{Address, Socket};
use rookery_ops::health::{Health, Reason};
use rookery_ops::{admin, logging, metrics};
use tokio::sync::watch;

use crate::acme::Acme;
use crate::admin::Node;
use crate::cluster::{Member, watch as standing};
use crate::config::Config;
use crate::http::Shown;
use crate::listeners::Listeners;
use crate::reload::Reloader;
use crate::signals::{Ask, Signals};
use crate::start::{self, Error, Found};
use crate::streams::c2s::Shared;
use crate::streams::s2s::Federation;
use crate::tls::Tls;
use crate::{greeting, options, ports, storage};

/// The longest time over which clients are sent away.
const SPREAD: Duration = Duration::from_secs(5);

/// How long admin requests and HTTP answers have at the end.
const GRACE: Duration = Duration::from_secs(6);

/// How long FoundationDB's client may take to stop before a sudden end.
const STOP: Duration = Duration::from_secs(1);

/// What clients are told whose node leaves the cluster.
const LEAVES: &str = "this server ends; your session goes on at another one";

/// Serves until a signal says to stop, then ends everything in order. A node that its cluster declared dead ends the
/// process at once, with exit code 1: nothing that it would still do can be kept.
///
/// # Errors
/// If the node can't start; or if, at the end, the store can't be closed.
pub async fn run(config: Config) -> Result<(), Error> {
    let seams = Seams::system();
    let format = if config.log.json { logging::Format::Json } else { logging::Format::Text };
    let logging = logging::init(&config.log.level, format)?;
    let metrics = metrics::install()?;
    let health = Health::new();
    let mut signals = Signals::new()?;
    start::raise_open_files();

    let address = Address::new(&config.listen.admin)?;
    let say = |line: &str| tracing::warn!("{line}");
    let found = tokio::select! {
        found = start::store_or_node(&config, seams.clone(), &address, &say) => found?,
        () = again(&mut signals) => return Ok(()),
    };
    let Found::Store(store) = found else { return Err(Error::Running(address)) };
    ports::clear(&config.data_dir);
    let tls = Tls::load(&config, seams.clone())?;
    // Before it joins: a second process of this node must not declare the first one dead.
    let mut listeners = Listeners::bind(&config)?;
    let socket = Socket::bind(&address).await?;
    let between = listeners.cluster();
    let member = match (&config.cluster, between) {
        (Some(section), Some(at)) => {
            health.raise(Reason::Joining);
            Some(Member::join(&config, section, at, &store).await?)
        }
        _ => None,
    };
    let host = match &member {
        Some(Member { cluster, .. }) => {
            let (options, store) = (options::host(&config), cluster.mesh().store());
            Host::start_in(options, store, seams.clone(), cluster.clone()).await?
        }
        None => Host::start(options::host(&config), store.clone(), seams.clone()).await?,
    };
    let (stop, stopping) = watch::channel(false);
    let (stop_last, last) = watch::channel(false);
    let mesh = member.as_ref().map(|member| member.mesh().clone());
    let shared = start::shared(&config, host.clone(), tls, seams.clone(), stopping, mesh.clone());
    let acme = Acme::start(host.store().clone(), seams, shared.tls.clone(), mesh, &config).await;
    let acme = acme.map_err(|source| Error::Store { at: start::place(&config), source })?;

    let federation = start::federation(&config, &shared)?;
    let places = ports::Places {
        c2s: listeners.c2s(),
        c2s_tls: listeners.c2s_tls(),
        s2s: listeners.s2s(),
        s2s_tls: listeners.s2s_tls(),
        component: listeners.component(),
        component_tls: listeners.component_tls(),
        http: listeners.http(),
        https: listeners.https(),
        cluster: between,
    };
    let names = listeners.names();
    let reloader = Arc::new(Reloader::new(
        config.clone(),
        shared.clone(),
        federation.clone(),
        acme.clone(),
        member.clone(),
        health.clone(),
        logging.clone(),
    ));
    let node = Arc::new(Node { reloader: reloader.clone(), listeners: names.clone() });
    let others = listeners.take_cluster();
    let shown = Shown {
        health: health.clone(),
        metrics: metrics.clone(),
        acme: acme.clone(),
        federation: federation.clone(),
    };
    let mut tasks = listeners.serve(&shared, federation.as_ref(), &shown, &last);
    if let (Some(member), Some(listener)) = (&member, others) {
        let mut last = last.clone();
        let stop = async move { drop(last.wait_for(|stop| *stop).await) };
        tasks.push(member.serve(listener, host.receiver(), stop));
        member.mesh().activate().await?;
    }
    let fenced = fenced(member.clone(), health.clone(), shared.clone(), federation.clone());
    let mut fenced = std::pin::pin!(fenced);
    let mut lost = std::pin::pin!(storage::follow(store.standing(), health.clone()));
    let mut last = last.clone();
    tasks.push(tokio::spawn(async move {
        let stop = async move { drop(last.wait_for(|stop| *stop).await) };
        if let Err(error) = admin::serve(socket, node, stop).await {
            tracing::error!(%error, "the admin socket failed: commands cannot reach this node until the node is restarted");
        }
    }));
    let upkeep = tokio::spawn(upkeep(metrics.clone(), reloader.clone()));
    let certificates = tokio::spawn(acme.run());
    health.clear(Reason::Starting);
    ports::write(&config.data_dir, &places)
        .map_err(|source| Error::Io { what: "ports.json can't be written", source })?;
    tracing::info!(version = rookery_ops::VERSION, listeners = names.join(", "), "serving");
    if config.file.is_none() {
        logging.flush();
        print!("{}", greeting::text(&config, &places));
    }

    loop {
        let ask = tokio::select! {
            ask = signals.next() => ask,
            () = &mut fenced => {
                dead(&config, &logging);
                stop_client(&config, &store).await;
                std::process::exit(1)
            }
            why = &mut lost => {
                without_store(&why, &config, &logging);
                std::process::exit(1)
            }
        };
        match ask {
            Ask::Stop => break,
            Ask::Reload => {
                if let Err(error) = reloader.reload().await {
                    tracing::error!(%error, "the configuration was not reloaded; the previous configuration stays active");
                }
            }
        }
    }

    tracing::info!("stopping; a second signal ends the process at once");
    health.raise(Reason::Draining);
    let _ = stop.send(true);
    // Another node, or the next start, goes on with orders under way.
    certificates.abort();
    let ending = async {
        let patience = config.limits.close + Duration::from_secs(1);
        if let Some(member) = &member
            && member.hand_over().await
        {
            // Users live elsewhere now; what still comes here is passed on. Two milliseconds for each client.
            let clients = u64::try_from(shared.gate.counts().0).unwrap_or(u64::MAX);
            let spread = Duration::from_millis(clients.saturating_mul(2)).min(SPREAD);
            shared.clients.close(spread, LEAVES).await;
            let _ = tokio::time::timeout(patience, shared.gate.emptied()).await;
        }
        if let Some(federation) = &federation {
            // What other servers have sent is settled, and they are told so, while there is somebody to settle it.
            let _ = tokio::time::timeout(patience, federation.gate.emptied()).await;
        }
        // Streams are closed with <system-shutdown/>, and what they had begun is committed.
        host.shutdown().await;
        let _ = tokio::time::timeout(patience, shared.gate.emptied()).await;
        if let Some(federation) = &federation {
            // The last presence of the users of this node is on its way.
            let _ = tokio::time::timeout(patience, federation.table.emptied()).await;
        }
        if let Some(member) = &member {
            member.leave().await;
        }
        let _ = stop_last.send(true);
        for task in tasks {
            let _ = tokio::time::timeout(GRACE, task).await;
        }
        upkeep.abort();
        ports::clear(&config.data_dir);
        store.close().await
    };
    let closed = tokio::select! {
        closed = ending => closed,
        () = again(&mut signals) => {
            stop_client(&config, &store).await;
            std::process::exit(130)
        }
        () = &mut fenced => {
            dead(&config, &logging);
            stop_client(&config, &store).await;
            std::process::exit(1)
        }
        why = &mut lost => {
            without_store(&why, &config, &logging);
            std::process::exit(1)
        }
    };
    tracing::info!("stopped");
    logging.flush();
    closed.map_err(|source| Error::Store { at: start::place(&config), source })
}

/// Ends when the cluster has declared this node dead; never, if it is alone.
async fn fenced(
    member: Option<Member>,
    health: Health,
    shared: Arc<Shared>,
    federation: Option<Arc<Federation>>,
) {
    match member {
        Some(member) => standing::follow(member.mesh().clone(), health, shared, federation).await,
        None => std::future::pending().await,
    }
}

/// The last words of a node that was declared dead. Its clients were told; nothing in it may write any more.
fn dead(config: &Config, logging: &logging::Handle) {
    tracing::error!(
        "this node was declared dead: no heartbeats of this node arrived in time (is the store slow, or was the machine \
         paused?), the node was evicted, or another process uses the same name (cluster.node). Other nodes have its shards, \
         and everything that it acknowledged is stored. The process exits now, to be restarted"
    );
    ports::clear(&config.data_dir);
    logging.flush();
}

/// The last words of a node whose store is lost. Nothing that it would still do could be kept.
fn without_store(why: &str, config: &Config, logging: &logging::Handle) {
    tracing::error!(
        why,
        "the store cannot be used any more in this process. Everything that was acknowledged is stored. The process exits now, to \
         be restarted; if the restart fails, the last log line says why"
    );
    ports::clear(&config.data_dir);
    logging.flush();
}

/// Before a sudden exit, which runs the destructors of FoundationDB's library: these may crash or never end while its thread
/// works: the thread stops before, or the process is killed.
async fn stop_client(config: &Config, store: &Store) {
    if config.store.url.starts_with("fdb:") && tokio::time::timeout(STOP, store.close()).await.is_err() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Until the operator wants the end, for the second time or before there was anything to end.
async fn again(signals: &mut Signals) {
    while signals.next().await != Ask::Stop {}
}

/// Folds metrics together, and measures and renews certificates now and then.
async fn upkeep(metrics: metrics::Handle, reloader: Arc<Reloader>) {
    let certificates = async {
        let mut hours = tokio::time::interval(Duration::from_secs(3_600));
        for hour in 0_u64.. {
            hours.tick().await;
            reloader.shared.tls.measure();
            // The first time was at the start.
            if hour > 0 && hour.is_multiple_of(24) {
                reloader.shared.tls.warn();
            }
            if reloader.shared.tls.wants_renewal() {
                let (shared, config) = (reloader.shared.clone(), reloader.config());
                let renew = move || shared.tls.reload(&config);
                // What is refused is logged where it is.
                for note in tokio::task::spawn_blocking(renew).await.unwrap_or_default().taken {
                    tracing::info!("{note}");
                }
            }
        }
    };
    tokio::join!(metrics.upkeep(), certificates);
}
