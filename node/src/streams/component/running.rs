//! A component's stream at work.

use rookery_actors::component::ComponentLink;
use rookery_proto::xml::framer::Step;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::error::StreamCondition;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::{End, Stream, take};
use crate::streams::c2s::Shared;
use crate::transport::{Frames, Transport};

/// How much one read takes at most.
const READ: usize = 64 << 10;

impl<T: Transport> Stream<T> {
    /// Writes what the component is sent, and takes what it sends, until one of the two ends.
    pub(super) async fn work(&mut self, link: &ComponentLink) -> End {
        let Self { shared, transport, framer, tail, out, written, scope, .. } = self;
        let (reader, writer) = tokio::io::split(&mut *transport);
        let end = tokio::select! {
            end = write(shared, writer, link, out, written) => end,
            end = read::<T::Frames>(shared, reader, link, Input { framer, tail, scope }) => end,
        };
        match end {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }
}

async fn write(
    shared: &Shared,
    mut writer: impl AsyncWrite + Unpin,
    link: &ComponentLink,
    out: &mut Vec<u8>,
    written: &mut usize,
) -> Result<std::convert::Infallible, End> {
    let sent = metrics::counter!("rookery_sent_bytes_total", "kind" => "component");
    loop {
        link.next(out).await?;
        let answer = shared.settings.load().limits.answer;
        while let Some(rest) = out.get(*written..).filter(|rest| !rest.is_empty()) {
            let wrote = timeout(answer, writer.write(rest)).await;
            let wrote = wrote.map_err(|_| {
                metrics::counter!("rookery_limits_hit_total", "limit" => "answer_seconds").increment(1);
                tracing::info!(component = %link.component(), "connection closed: the component does not read");
                End::Gone
            })??;
            if wrote == 0 {
                return Err(End::Gone);
            }
            *written += wrote;
            sent.increment(u64::try_from(wrote).unwrap_or_default());
        }
        writer.flush().await?;
        out.clear();
        out.shrink_to(READ);
        *written = 0;
    }
}

struct Input<'a, F> {
    framer: &'a mut F,
    tail: &'a mut Vec<u8>,
    scope: &'a Scope,
}

async fn read<F: Frames>(
    shared: &Shared,
    mut reader: impl AsyncRead + Unpin,
    link: &ComponentLink,
    input: Input<'_, F>,
) -> Result<std::convert::Infallible, End> {
    let Input { framer, tail, scope } = input;
    let received = metrics::counter!("rookery_received_bytes_total", "kind" => "component");
    let meter = shared.rates.account(link.component());
    loop {
        // What another connection of the component has sent counts as well.
        let rates = shared.settings.load().component_rates;
        if let Some(until) = meter.due(Instant::now(), &rates) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "component_rate").increment(1);
            sleep_until(until).await;
        }
        link.room().await;
        let limits: Limits = *framer.limits();
        match framer.next(tail).map_err(|error| End::from(error.condition()))? {
            Step::Need => {
                framer.set_limits(shared.settings.load().after);
                tail.reserve(4_096);
                let mut part = (&mut reader).take(u64::try_from(READ).unwrap_or(u64::MAX));
                let read = part.read_buf(tail).await?;
                if read == 0 {
                    return Err(End::Gone);
                }
                received.increment(u64::try_from(read).unwrap_or_default());
                meter.bytes(Instant::now(), read, &rates);
            }
            Step::Whitespace { len } | Step::Declaration { len } => drop(tail.drain(..len)),
            Step::Element { len } => {
                meter.stanza(Instant::now(), &rates);
                take(link, tail.get(..len).unwrap_or_default(), scope, &limits)?;
                tail.drain(..len);
                if tail.is_empty() {
                    tail.shrink_to(READ);
                }
            }
            Step::Close { .. } => return Err(End::Gone),
            Step::Open { .. } => return Err(StreamCondition::BadFormat.into()),
        }
    }
}
