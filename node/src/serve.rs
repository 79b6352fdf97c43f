//! A node from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::Host;
use rookery_cluster::seams::Seams;
use rookery_ops::admin::{Address, Socket};
use rookery_ops::health::{Health, Reason};
use rookery_ops::{admin, logging, metrics};
use tokio::sync::watch;

use crate::admin::Node;
use crate::config::Config;
use crate::listeners::Listeners;
use crate::reload::Reloader;
use crate::signals::{Ask, Signals};
use crate::start::{self, Error, Found};
use crate::tls::Tls;
use crate::{greeting, options, ports};

/// How long admin requests and HTTP answers have at the end.
const GRACE: Duration = Duration::from_secs(6);

/// Serves until a signal says to stop, then ends everything in order.
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
    let host = Host::start(options::host(&config), store.clone(), seams.clone()).await?;
    let (stop, stopping) = watch::channel(false);
    let (stop_last, last) = watch::channel(false);
    let shared = start::shared(&config, host.clone(), tls, seams, stopping);
    let listeners = Listeners::bind(&config)?;
    let socket = Socket::bind(&address).await?;

    let (c2s, c2s_tls, http) = (listeners.c2s(), listeners.c2s_tls(), listeners.http());
    let names = listeners.names();
    let reloader = Arc::new(Reloader::new(config.clone(), shared.clone(), health.clone(), logging.clone()));
    let node = Arc::new(Node { reloader: reloader.clone(), listeners: names.clone() });
    let mut tasks = listeners.serve(&shared, &health, &metrics, &last);
    let mut last = last.clone();
    tasks.push(tokio::spawn(async move {
        let stop = async move { drop(last.wait_for(|stop| *stop).await) };
        if let Err(error) = admin::serve(socket, node, stop).await {
            tracing::error!(%error, "the admin socket");
        }
    }));
    let upkeep = tokio::spawn(upkeep(metrics.clone(), reloader.clone()));
    health.clear(Reason::Starting);
    ports::write(&config.data_dir, &c2s, &c2s_tls, &http)
        .map_err(|source| Error::Io { what: "ports.json can't be written", source })?;
    tracing::info!(version = rookery_ops::VERSION, listeners = names.join(", "), "serving");
    if config.file.is_none() {
        logging.flush();
        print!("{}", greeting::text(&config, &c2s, &c2s_tls, &http));
    }

    while signals.next().await == Ask::Reload {
        if let Err(error) = reloader.reload().await {
            tracing::error!(%error, "reload");
        }
    }

    tracing::info!("stopping; a second signal ends the process at once");
    health.raise(Reason::Draining);
    let _ = stop.send(true);
    let ending = async {
        // Streams are closed with <system-shutdown/>, and what they had begun is committed.
        host.shutdown().await;
        let patience = config.limits.close + Duration::from_secs(1);
        let _ = tokio::time::timeout(patience, shared.gate.emptied()).await;
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
        () = again(&mut signals) => std::process::exit(130),
    };
    tracing::info!("stopped");
    logging.flush();
    closed.map_err(|source| Error::Store { at: start::place(&config), source })
}

/// Until the operator wants the end, for the second time or before there was anything to end.
async fn again(signals: &mut Signals) {
    while signals.next().await != Ask::Stop {}
}

/// Folds metrics together, and measures and renews certificates now and then.
async fn upkeep(metrics: metrics::Handle, reloader: Arc<Reloader>) {
    let certificates = async {
        let mut hours = tokio::time::interval(Duration::from_secs(3_600));
        loop {
            hours.tick().await;
            reloader.shared.tls.measure();
            if reloader.shared.tls.wants_renewal() {
                let (shared, config) = (reloader.shared.clone(), reloader.config());
                let renew = move || shared.tls.reload(&config);
                for note in tokio::task::spawn_blocking(renew).await.unwrap_or_default() {
                    tracing::info!("{note}");
                }
            }
        }
    };
    tokio::join!(metrics.upkeep(), certificates);
}
