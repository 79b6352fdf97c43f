//! Metrics: one list ([`METRICS`]), recorded through the `metrics` crate's macros wherever something happens, and
//! rendered as Prometheus text for the HTTP listener's `/metrics`.

mod list;
mod process;
#[cfg(test)]
mod used;

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use self::list::{Kind, METRICS, Metric};

/// How often histograms are folded together; between two scrapes they would otherwise only grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recorder is installed already, or a list of buckets is empty.
    #[error("metrics could not be set up: {0}")]
    Recorder(#[from] BuildError),
}

/// Renders what was recorded. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    prometheus: PrometheusHandle,
    started: Instant,
}

/// Makes the Prometheus recorder the process's global one and describes every metric of the list. Once per process.
///
/// # Errors
/// [`Error::Recorder`] if there is a global recorder already.
pub fn install() -> Result<Handle, Error> {
    let handle = Handle { prometheus: builder()?.install_recorder()?, started: Instant::now() };
    describe();
    Ok(handle)
}

/// A recorder that is not installed, for tests and simulations that measure on their own
/// (`metrics::with_local_recorder`).
///
/// # Errors
/// [`Error::Recorder`] if a list of buckets is empty.
pub fn recorder() -> Result<(PrometheusRecorder, Handle), Error> {
    let recorder = builder()?.build_recorder();
    let handle = Handle { prometheus: recorder.handle(), started: Instant::now() };
    metrics::with_local_recorder(&recorder, describe);
    Ok((recorder, handle))
}

impl Handle {
    /// Everything recorded so far, as Prometheus text (version 0.0.4). Samples the process first.
    pub fn render(&self) -> String {
        metrics::gauge!("rookery_uptime_seconds").set(self.started.elapsed().as_secs_f64());
        process::sample();
        self.prometheus.render()
    }

    /// Folds histograms together every few seconds, for ever. Run it as a task of its own; drop it to stop.
    pub async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.prometheus.run_upkeep();
        }
    }

    /// How long ago the metrics were set up, which is when the node started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

fn builder() -> Result<PrometheusBuilder, Error> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Histogram(bounds) => {
            Ok(builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?)
        }
        Kind::Counter | Kind::Gauge => Ok(builder),
    })
}

/// Describes every metric to the current recorder.
fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    metrics::gauge!("rookery_build_info", "version" => crate::VERSION).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_text_has_descriptions_and_our_buckets() {
        let (recorder, handle) = recorder().unwrap();
        let text = metrics::with_local_recorder(&recorder, || {
            metrics::counter!("rookery_store_conflicts_total").increment(3);
            metrics::histogram!("rookery_store_commit_seconds").record(0.0007);
            handle.render()
        });
        assert!(text.contains("# TYPE rookery_store_conflicts_total counter"), "{text}");
        assert!(text.contains("# HELP rookery_store_conflicts_total Commits refused"), "{text}");
        assert!(text.contains("rookery_store_conflicts_total 3"), "{text}");
        assert!(text.contains("rookery_store_commit_seconds_bucket{le=\"0.0005\"} 0"), "{text}");
        assert!(text.contains("rookery_store_commit_seconds_bucket{le=\"0.001\"} 1"), "{text}");
        assert!(text.contains("rookery_uptime_seconds "), "{text}");
        assert!(text.contains(&format!("rookery_build_info{{version=\"{}\"}} 1", crate::VERSION)), "{text}");
    }
}
