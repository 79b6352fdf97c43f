//! The conformance suite on the engines of this crate: one test per case and engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // a test

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

rookery_cluster::for_every_conformance_case!(on_memory);
rookery_cluster::for_every_conformance_case!(on_embedded);
