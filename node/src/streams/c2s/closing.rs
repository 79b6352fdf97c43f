//! The end of a stream (RFC 6120 section 4.4).

use std::time::Duration;

use super::End;
use crate::streams::goodbye::{abandon, goodbye};
use crate::transport::{Carrier, Frames as _};

/// Writes what is left in `out`, the error if there is one, and `</stream:stream>`; then waits, for `patience` at most,
/// until the client has closed its side, so that it reads all of this before the socket goes.
pub(super) async fn close<W: Carrier>(
    wire: &mut W,
    mut out: Vec<u8>,
    end: End,
    opened: bool,
    patience: Duration,
) {
    let wait = match &end {
        End::Lost | End::Abandon => return abandon(wire, patience).await,
        End::Error { error, .. } => {
            metrics::counter!("rookery_stream_errors_total", "condition" => error.condition.name())
                .increment(1);
            W::Frames::element(&mut out, |out| error.write(out));
            true
        }
        End::Clean => true,
        End::Closed => false,
    };
    if opened {
        W::Frames::close(&mut out);
    }
    goodbye(wire, &out, wait, patience).await;
}
