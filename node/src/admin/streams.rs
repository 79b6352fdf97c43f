//! Streams between this node and other servers, for the operator.

use rookery_ops::admin::{Error, PAGE, S2sPair, S2sStream};
use rookery_proto::xmpp::jid::Jid;

use crate::streams::s2s::table::{Info, Which};
use crate::streams::s2s::{Direction, Federation};

fn federation(federation: Option<&Federation>) -> Result<&Federation, Error> {
    federation.ok_or_else(|| {
        Error::invalid("this server talks to no others; see [federation] in the configuration")
    })
}

/// A remote domain as an operator writes it.
fn domain(text: &str) -> Result<String, Error> {
    match Jid::parse(text) {
        Ok(jid) if jid.local().is_none() && jid.resource().is_none() => Ok(jid.domain().to_owned()),
        _ => Err(Error::invalid(format!("{text:?} is no domain"))),
    }
}

pub(super) fn list(
    all: Option<&Federation>,
    remote: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<S2sStream>, Error> {
    let federation = federation(all)?;
    let remote = if remote.is_empty() { None } else { Some(domain(remote)?) };
    let after: Option<u64> = match after {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::invalid(format!("{text:?} is no id of a stream")))?),
    };
    let streams = federation.table.list(remote.as_deref());
    let page = streams.into_iter().filter(|info| after.is_none_or(|after| info.number > after));
    Ok(page.take(limit.min(PAGE)).map(stream).collect())
}

fn stream(info: Info) -> S2sStream {
    let pair = |(pair, proof): (rookery_actors::link::stream::Pair, &str)| S2sPair {
        local: pair.local().to_string(),
        remote: pair.remote().to_string(),
        proof: proof.to_owned(),
    };
    S2sStream {
        id: info.number.to_string(),
        direction: match (info.bidi, info.direction) {
            (true, _) => "both",
            (false, Direction::Incoming) => "in",
            (false, Direction::Outgoing) => "out",
        }
        .to_owned(),
        pairs: info.pairs.into_iter().map(pair).collect(),
        address: info.address,
        tls: info.tls.to_owned(),
        managed: match info.managed {
            Some(true) => "resumable",
            Some(false) => "counted",
            None => "",
        }
        .to_owned(),
        age_seconds: info.since.elapsed().as_secs(),
    }
}

pub(super) fn close(all: Option<&Federation>, target: &str) -> Result<u64, Error> {
    let federation = federation(all)?;
    let closed = match target.parse() {
        Ok(number) => federation.table.close(Which::Number(number)),
        Err(_) => federation.table.close(Which::Remote(&domain(target)?)),
    };
    if closed == 0 {
        return Err(Error::not_found(format!("{target} has no stream on this node")));
    }
    Ok(closed as u64)
}
