//! The commands that talk to a running lakehouse, one module each.

pub(crate) mod chat;
pub(crate) mod get;
pub(crate) mod ingest;
pub(crate) mod models;
pub(crate) mod search;
pub(crate) mod sql;

use std::{future::Future, io};

use anyhow::Context;

/// Runs what a command has to wait for.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the machinery for network requests")?.block_on(work)
}

/// A reader of standard output that has seen enough (`| head`) is no error.
fn unless_reader_left(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
