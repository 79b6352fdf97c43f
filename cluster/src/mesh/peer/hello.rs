//! The greeting: which nodes may talk to each other.

use rookery_rpc::mesh::v1 as wire;
use rookery_rpc::mesh::v1::refusal::Reason;

use super::node::NodeId;
use super::options::Limit;
use super::tls::Certified;

/// What this node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The cluster's name. Nodes of different clusters do not talk.
    pub cluster: String,
    /// The node's name; its certificate must be for it.
    pub node: NodeId,
    /// Greater after each start of the node.
    pub generation: u64,
    /// The version of Rookery, for people.
    pub software: String,
    /// The versions of the channel that it speaks, from and to: [`Me::VERSIONS`], other than in tests.
    pub versions: (u32, u32),
}

impl Me {
    /// What this build speaks.
    pub const VERSIONS: (u32, u32) = (wire::VERSION_MIN, wire::VERSION);

    pub(super) fn hello(&self) -> wire::Hello {
        wire::Hello {
            cluster: self.cluster.clone(),
            node: self.node.as_str().to_owned(),
            generation: self.generation,
            version_min: self.versions.0,
            version_max: self.versions.1,
            software: self.software.clone(),
            ..wire::Hello::default()
        }
    }

    /// To `node`, on a stream of `numbering` of which everything up to `seen` has arrived.
    pub(super) fn call(&self, node: &NodeId, numbering: u64, seen: u64) -> wire::Hello {
        wire::Hello { to: node.as_str().to_owned(), numbering, seen, ..self.hello() }
    }

    /// To a caller that is welcome.
    pub(super) fn answer(&self, resumed: bool, taken_to: u64, window: Limit) -> wire::Hello {
        wire::Hello {
            resumed,
            taken_to,
            window_envelopes: u32::try_from(window.envelopes).unwrap_or(u32::MAX),
            window_bytes: window.bytes as u64,
            ..self.hello()
        }
    }
}

/// The node at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) node: NodeId,
    pub(super) generation: u64,
    pub(super) software: String,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct No(pub(super) Reason, pub(super) String);

/// Checks what both ends check.
fn check(me: &Me, hello: &wire::Hello) -> Result<Other, No> {
    if hello.cluster != me.cluster {
        let theirs: String = hello.cluster.chars().take(80).collect();
        return Err(No(Reason::Cluster, format!("this is cluster {:?}, not {theirs:?}", me.cluster)));
    }
    let node = NodeId::new(&hello.node)
        .map_err(|error| No(Reason::Malformed, format!("a node without a name: {error}")))?;
    if hello.generation == 0 || hello.version_min > hello.version_max {
        return Err(No(Reason::Malformed, "a greeting that makes no sense".into()));
    }
    let (min, max) = me.versions;
    if hello.version_max.min(max) < hello.version_min.max(min) {
        return Err(No(
            Reason::Version,
            format!(
                "{} speaks versions {min} to {max} of the channel, {node} {} to {}",
                me.node, hello.version_min, hello.version_max
            ),
        ));
    }
    let software = hello.software.chars().take(80).collect();
    Ok(Other { node, generation: hello.generation, software })
}

/// Whether a caller is welcome.
pub(super) fn from_caller(me: &Me, hello: &wire::Hello, certified: &Certified) -> Result<Other, No> {
    let other = check(me, hello)?;
    certified.is(&other.node).map_err(|error| No(Reason::Name, error))?;
    if hello.to != me.node.as_str() {
        let to: String = hello.to.chars().take(80).collect();
        return Err(No(Reason::WrongNode, format!("this is {}, not {to:?}", me.node)));
    }
    Ok(other)
}

/// Whether the node that answers is the one that was called. That its certificate is right is known already.
pub(super) fn from_called(me: &Me, called: &NodeId, hello: &wire::Hello) -> Result<Other, No> {
    let other = check(me, hello)?;
    if other.node != *called {
        return Err(No(Reason::WrongNode, format!("{} answers instead of {called}", other.node)));
    }
    Ok(other)
}

/// A refusal as it is written, its reason in the details for programs.
pub(super) fn refuse(no: No) -> tonic::Status {
    use prost::Message as _;
    let No(reason, text) = no;
    let code = match reason {
        Reason::Malformed | Reason::Unspecified => tonic::Code::InvalidArgument,
        Reason::Name => tonic::Code::PermissionDenied,
        Reason::Stopping => tonic::Code::Unavailable,
        _ => tonic::Code::FailedPrecondition,
    };
    let details = wire::Refusal { reason: reason.into(), text: text.clone() }.encode_to_vec();
    tonic::Status::with_details(code, text, details.into())
}

/// The refusal in a status, if it is one.
pub(super) fn refused(status: &tonic::Status) -> Option<No> {
    use prost::Message as _;
    if status.details().is_empty() {
        return None;
    }
    let refusal = wire::Refusal::decode(status.details()).ok()?;
    Some(No(refusal.reason(), refusal.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(node: &str, versions: (u32, u32)) -> Me {
        Me {
            cluster: "c".into(),
            node: NodeId::new(node).unwrap(),
            generation: 3,
            software: "test".into(),
            versions,
        }
    }

    fn greet(caller: &Me, called: &Me, to: &str) -> Result<Other, Reason> {
        let hello = caller.call(&NodeId::new(to).unwrap(), 1, 0);
        from_caller(called, &hello, &Certified::PlainText).map_err(|No(reason, _)| reason)
    }

    #[test]
    fn neighbouring_versions_work_together_and_others_do_not() {
        let new = me("b", (2, 3));
        for (versions, good) in
            [((1, 1), false), ((1, 2), true), ((2, 2), true), ((3, 4), true), ((4, 5), false)]
        {
            let result = greet(&me("a", versions), &new, "b");
            assert_eq!(result.err(), (!good).then_some(Reason::Version), "{versions:?}");
        }
    }

    #[test]
    fn others_are_refused() {
        let called = me("b", (1, 1));
        let other = Me { cluster: "d".into(), ..me("a", (1, 1)) };
        assert_eq!(greet(&other, &called, "b"), Err(Reason::Cluster));
        assert_eq!(greet(&me("a", (1, 1)), &called, "c"), Err(Reason::WrongNode));
        assert_eq!(greet(&me("a", (2, 1)), &called, "b"), Err(Reason::Malformed));
        assert_eq!(greet(&Me { generation: 0, ..me("a", (1, 1)) }, &called, "b"), Err(Reason::Malformed));
        let nameless = wire::Hello { node: "A B".into(), ..me("a", (1, 1)).hello() };
        let result = from_caller(&called, &nameless, &Certified::PlainText);
        assert_eq!(result.unwrap_err().0, Reason::Malformed);
        let answer = called.answer(false, 0, Limit { envelopes: 1, bytes: 1 });
        assert_eq!(from_called(&me("a", (1, 1)), &NodeId::new("b").unwrap(), &answer).unwrap().generation, 3);
        assert!(from_called(&me("a", (1, 1)), &NodeId::new("c").unwrap(), &answer).is_err());
    }

    #[test]
    fn a_refusal_survives_its_way() {
        let no = No(Reason::Generation, "a newer one".into());
        assert_eq!(refused(&refuse(no.clone())), Some(no));
        assert_eq!(refused(&tonic::Status::unavailable("x")), None);
    }
}
