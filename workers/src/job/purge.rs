//! The purge Job: everything of a deleted Dataset or VectorIndex leaves the bucket.

use std::{future::ready, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use lakehouse_catalog::Catalog;
use lakehouse_contract::{
    DatasetName, IndexName,
    job::{Purged, Summary},
};
use lakehouse_http::shutdown_signal;
use lakehouse_plan::{human, status::Failure};
use lakehouse_store::Store;
use lakehouse_vector::Indexes;

use super::Common;
use crate::failure;

/// Remove everything of a dataset or of an index from the store, for ever
///
/// What an interrupted run has left is removed by the next one; what is not there is no error.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// The dataset
    #[arg(long, value_name = "NAME", value_parser = |text: &str| DatasetName::parse(text))]
    dataset: Option<DatasetName>,
    /// The index; vectors that other indexes may need again stay below `_embeddings/`
    #[arg(long, value_name = "NAME", value_parser = |text: &str| IndexName::parse(text))]
    index: Option<IndexName>,
}

impl Purge {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let summary = self.common.summary.clone();
        let work = async { Ok((self.work().await?, ready(()))) };
        Box::pin(super::run(summary.as_deref(), work, shutdown_signal())).await
    }

    async fn work(self) -> Result<Summary, Failure> {
        let started = Timestamp::now();
        let store = self.common.open_store().await?;
        let (of, objects, bytes) = self.of.purge(store).await?;
        let message = match objects {
            0 => format!("Nothing of {of} was in the store."),
            1 => format!("1 object of {of} was removed, {}.", human::bytes(bytes)),
            _ => format!("{} objects of {of} were removed, {}.", human::count(objects), human::bytes(bytes)),
        };
        Ok(Summary::Purged(Purged { objects, bytes, started, finished: Timestamp::now(), message }))
    }
}

impl Of {
    /// What was purged, the objects that were removed, and their bytes.
    async fn purge(self, store: Store) -> Result<(String, u64, u64), Failure> {
        let mut purged = (String::new(), 0, 0);
        if let Some(name) = self.dataset {
            let collected = Box::pin(Catalog::new(store.clone()).purge(&name)).await;
            let collected = collected.map_err(|error| failure::of_catalog(&error))?;
            purged = (format!("dataset `{name}`"), collected.objects, collected.bytes);
        }
        if let Some(name) = self.index {
            let collected = Box::pin(Indexes::new(store).purge(&name)).await;
            let collected = collected.map_err(|error| failure::of_index(&error))?;
            purged = (format!("index `{name}`"), collected.objects, collected.bytes);
        }
        Ok(purged)
    }
}
