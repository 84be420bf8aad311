//! The purge Job: everything of a deleted Dataset leaves the bucket.

use std::{future::ready, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use lakehouse_catalog::{Catalog, Collected};
use lakehouse_contract::{
    DatasetName,
    job::{Purged, Summary},
};
use lakehouse_http::shutdown_signal;
use lakehouse_plan::{human, status::Failure};

use super::Common;
use crate::failure;

/// Remove everything of a dataset from the store, for ever
///
/// What an interrupted run has left is removed by the next one; a dataset that is not there is no error.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// The dataset
    #[arg(long, value_name = "NAME", value_parser = |text: &str| DatasetName::parse(text))]
    dataset: DatasetName,
    #[command(flatten)]
    common: Common,
}

impl Purge {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let summary = self.common.summary.clone();
        let work = async { Ok((self.work().await?, ready(()))) };
        Box::pin(super::run(summary.as_deref(), work, shutdown_signal())).await
    }

    async fn work(self) -> Result<Summary, Failure> {
        let started = Timestamp::now();
        let catalog = Catalog::new(self.common.open_store().await?);
        let purged = Box::pin(catalog.purge(&self.dataset)).await;
        let Collected { objects, bytes, .. } = purged.map_err(|error| failure::of_catalog(&error))?;
        let message = match objects {
            0 => format!("Nothing of dataset `{}` was in the store.", self.dataset),
            1 => format!("1 object of dataset `{}` was removed, {}.", self.dataset, human::bytes(bytes)),
            _ => format!(
                "{} objects of dataset `{}` were removed, {}.",
                human::count(objects),
                self.dataset,
                human::bytes(bytes)
            ),
        };
        Ok(Summary::Purged(Purged { objects, bytes, started, finished: Timestamp::now(), message }))
    }
}
