//! What `rookery demo` writes for its nodes is what a node reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rookery_cluster::seams::Seams;
use rookery_demo::place::Plan;
use rookery_demo::{Files, Lent};
use rookery_node::config::Config;
use rookery_node::net::{Net as _, Tcp};
use rookery_node::tls::development;

#[test]
fn the_configurations_are_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(folder.path(), 3).unwrap();
    let lent = Lent {
        listen: |at| Tcp.bind(at),
        certificate: |folder, domain, now| {
            let made = development::certificate(folder, domain, &[domain], now).unwrap();
            Ok(Files { certificate: made.certificate, key: made.key })
        },
        authority: development::AUTHORITY,
    };
    plan.furnish(&Seams::system(), lent).unwrap();
    for seat in &plan.seats {
        let text = std::fs::read_to_string(seat.config_file()).unwrap();
        assert!(text.contains(&format!("node = \"{}\"", seat.name)), "{text}");
        Config::load(&seat.config_file()).unwrap();
    }
    assert!(plan.authority(lent).is_file());
}
