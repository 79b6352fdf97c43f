//! Registration before login (section 3.1.1).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;
use rookery_proto::xml::{Writer, write};
use rookery_proto::xmpp::error::{Condition, ErrorType, StanzaError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::{NAME, failed, fields};
use crate::auth::Created;
use crate::host::Host;

/// How many addresses are remembered; when all of them have registered lately, nobody else may.
const ADDRESSES: usize = 100_000;
/// Microseconds of an hour.
const HOUR: u64 = 3_600_000_000;

/// How often each address has registered lately. One for each node; IPv6 counts by /64.
#[derive(Default)]
pub struct Registrations(Mutex<HashMap<IpAddr, Window>>);

#[derive(Clone, Copy)]
struct Window {
    since: u64,
    count: u32,
    /// Names that were asked for, taken or not.
    asked: u32,
}

/// How many names an address may ask for, for each account that it may make.
const NAMES: u32 = 4;

impl Registrations {
    /// Counts a name that was asked for at `now` (microseconds since 1970), unless `address` has used its `per_hour`, or has asked
    /// for too many names: whether a name is taken is not for asking.
    pub fn ask(&self, address: IpAddr, now: u64, per_hour: u32) -> bool {
        self.with(address, now, |window| {
            let may = window.count < per_hour && window.asked < per_hour.saturating_mul(NAMES);
            window.asked = window.asked.saturating_add(u32::from(may));
            may
        })
    }

    /// Counts an attempt at `now`, unless `address` has used its `per_hour`.
    pub fn admit(&self, address: IpAddr, now: u64, per_hour: u32) -> bool {
        self.with(address, now, |window| {
            let may = window.count < per_hour;
            window.count = window.count.saturating_add(u32::from(may));
            may
        })
    }

    fn with(&self, address: IpAddr, now: u64, count: impl FnOnce(&mut Window) -> bool) -> bool {
        let mut windows = self.0.lock();
        if windows.len() >= ADDRESSES && !windows.contains_key(&network(address)) {
            windows.retain(|_, window| now.saturating_sub(window.since) < HOUR);
            if windows.len() >= ADDRESSES {
                return false;
            }
        }
        let new = Window { since: now, count: 0, asked: 0 };
        let window = windows.entry(network(address)).or_insert(new);
        if now.saturating_sub(window.since) >= HOUR {
            *window = new;
        }
        count(window)
    }
}

/// A customer with one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The stream feature (section 8), if strangers may register in `domain`.
pub fn stream_feature(host: &Host, domain: &str) -> Option<Vec<u8>> {
    let feature = |w: &mut Writer<'_>| {
        w.empty("register", ns::REGISTER_FEATURE);
    };
    open(host, domain).then(|| write::bytes(feature))
}

fn open(host: &Host, domain: &str) -> bool {
    host.options().domain(domain).is_some_and(|domain| domain.open_registration)
        && host.authenticator(domain).abilities().create
}

/// What to fill in: `<query xmlns='jabber:iq:register'/>`.
///
/// # Errors
/// `<not-allowed/>` where registration is closed.
pub fn register_info(host: &Host, domain: &str) -> Result<Vec<u8>, StanzaError> {
    if !open(host, domain) {
        return Err(closed());
    }
    Ok(write::bytes(|w| {
        w.start("query", ns::REGISTER);
        w.leaf("instructions", ns::REGISTER, "Choose a user name and a password for this server.");
        w.empty("username", ns::REGISTER).empty("password", ns::REGISTER);
    }))
}

fn closed() -> StanzaError {
    StanzaError::new(Condition::NotAllowed).text("this server does not take registrations here")
}

/// Makes an account for an unauthenticated client at `address`.
///
/// # Errors
/// `<not-allowed/>` where registration is closed, `<not-acceptable/>` for a name or password that can be none,
/// `<conflict/>` if the name is taken or reserved, `<resource-constraint/>` if the address has registered too often.
pub async fn register(
    host: &Host,
    domain: &str,
    address: IpAddr,
    username: &str,
    password: &str,
) -> Result<BareJid, StanzaError> {
    if !open(host, domain) {
        return Err(closed());
    }
    let unfit = || StanzaError::new(Condition::NotAcceptable).text("this can't be a user name");
    let jid = BareJid::new(Some(username), domain).map_err(|_| unfit())?;
    if jid.local().is_none_or(|local| local.len() > NAME) {
        return Err(unfit());
    }
    let (authenticator, now) = (host.authenticator(domain), host.seams().clock.now_micros());
    let conflict = || StanzaError::new(Condition::Conflict);
    let per_hour = host.options().limits.registrations_per_hour;
    let too_many = || {
        let text = "too many registrations from your address";
        crate::features::over("registrations", Condition::ResourceConstraint, text).type_(ErrorType::Wait)
    };
    if !host.state::<Registrations>().ask(address, now, per_hour) {
        return Err(too_many());
    }
    // A look before the work: a name that is taken costs no hashing.
    if authenticator.exists(&jid).await.map_err(failed)? {
        return Err(conflict());
    }
    if !host.state::<Registrations>().admit(address, now, per_hour) {
        return Err(too_many());
    }
    match authenticator.create(&jid, password.to_owned()).await.map_err(failed)? {
        Created::Yes => {}
        Created::Taken => return Err(conflict()),
    }
    // If somebody wrote to this address before, its actor remembers that there is nobody.
    host.created(&jid).await;
    tracing::info!(user = %jid, %address, "account registered");
    Ok(jid)
}

fn counted<T>(registered: Result<T, StanzaError>) -> Result<T, StanzaError> {
    let outcome = match &registered {
        Ok(_) => "ok",
        Err(error) if error.condition == Condition::InternalServerError => "failed",
        Err(_) => "refused",
    };
    metrics::counter!("rookery_registrations_total", "outcome" => outcome).increment(1);
    registered
}

/// Answers an IQ of a stream that has not authenticated: registration, or an error. `None` for what needs no answer.
pub async fn before_login(host: &Host, domain: &str, address: IpAddr, iq: &Stanza) -> Option<Stanza> {
    let result = match (iq.type_, iq.child("query", ns::REGISTER)) {
        (Type::Iq(IqType::Get), Some(_)) => register_info(host, domain),
        (Type::Iq(IqType::Set), Some(query)) => {
            let query = query.element();
            if query.has("remove", ns::REGISTER) {
                Err(Condition::UnexpectedRequest.into()) // section 3.2
            } else if let Some((username, password)) = fields(&query) {
                counted(register(host, domain, address, &username, &password).await).map(|_| Vec::new())
            } else {
                Err(Condition::NotAcceptable.into())
            }
        }
        _ => Err(Condition::NotAuthorized.into()),
    };
    match result {
        Ok(payload) if matches!(iq.type_, Type::Iq(IqType::Get | IqType::Set)) => Some(iq.result(payload)),
        Ok(_) => None,
        Err(error) => iq.error_reply(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_attempts_an_hour() {
        let limits = Registrations::default();
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(limits.admit(v4, 0, 2) && limits.admit("::ffff:192.0.2.1".parse().unwrap(), 1, 2));
        assert!(!limits.admit(v4, HOUR - 1, 2));
        assert!(limits.admit("192.0.2.2".parse().unwrap(), 1, 2));
        assert!(limits.admit(v4, HOUR, 2));
        let (one, same, other) = ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1");
        assert!(limits.admit(one.parse().unwrap(), 0, 1) && !limits.admit(same.parse().unwrap(), 0, 1));
        assert!(limits.admit(other.parse().unwrap(), 0, 1));
        assert!(!limits.admit(v4, HOUR, 0));
    }

    /// Whether a name is taken is not told to an address that has used up its attempts, nor for many names.
    #[test]
    fn names_are_not_for_asking() {
        let limits = Registrations::default();
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let asked = (0..100).filter(|n| limits.ask(from, *n, 2)).count();
        assert_eq!(asked, 8);
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        assert!(limits.ask(other, 0, 2) && limits.admit(other, 0, 2) && limits.admit(other, 0, 2));
        assert!(!limits.ask(other, 0, 2));
        assert!(limits.ask(other, HOUR, 2));
    }

    #[test]
    fn memory_is_bounded_and_old_attempts_make_room() {
        let limits = Registrations::default();
        for n in 0..u32::try_from(ADDRESSES).unwrap() {
            assert!(limits.admit(IpAddr::V4(n.into()), 0, 1));
        }
        let new: IpAddr = "203.0.113.1".parse().unwrap();
        assert!(!limits.admit(new, HOUR - 1, 1));
        assert!(limits.admit(new, HOUR, 1));
        assert_eq!(limits.0.lock().len(), 1);
    }
}
