//! The conformance suite on the engines of this crate: one test per case and engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // a test

mod server;

use std::sync::Arc;

use rookery_cluster::store::conformance::{self, Subject};
use rookery_cluster::store::embedded::{Durability, Embedded};
use rookery_cluster::store::memory::Memory;

macro_rules! on_memory {
    ($($case:ident,)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let db = Arc::new(Memory::new());
                let engine = db.clone();
                conformance::$case(Subject { db, pass: Arc::new(move |time| engine.pass(time)) }).await;
            })*
        }
    };
}

macro_rules! on_embedded {
    ($($case:ident,)*) => {
        mod embedded {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let db = Arc::new(Embedded::open(folder.path(), Durability::Buffered).unwrap());
                let engine = db.clone();
                conformance::$case(Subject { db, pass: Arc::new(move |time| engine.pass(time)) }).await;
            })*
        }
    };
}

/// Through the wire, from a server in this process.
macro_rules! on_dev {
    ($($case:ident,)*) => {
        mod dev {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let engine = Arc::new(Memory::new());
                let server = server::Server::start(engine.clone(), 0);
                let db = server.client();
                let client = db.clone();
                let pass = Arc::new(move |time| {
                    engine.pass(time);
                    client.pass(time);
                });
                conformance::$case(Subject { db: Arc::new(db), pass }).await;
            })*
        }
    };
}

rookery_cluster::for_every_conformance_case!(on_memory);
rookery_cluster::for_every_conformance_case!(on_embedded);
rookery_cluster::for_every_conformance_case!(on_dev);
