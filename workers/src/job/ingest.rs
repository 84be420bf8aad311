//! The ingest Job: one run over a source, with its progress on a port of the pod.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use jiff::Timestamp;
use lakehouse_contract::{
    DatasetManifest, Role,
    ingest::IngestSpec,
    job::{Done, IngestJob, Summary},
};
use lakehouse_http::shutdown_signal;
use lakehouse_ingest::{
    Options,
    service::{self as ingestd, Ingestd},
};
use lakehouse_plan::{Reason, human, status::Failure};
use lakehouse_source::{Reader, Reading};

use super::{Common, of_this_pod, source};
use crate::{
    access::Access,
    data_dir, failure,
    limits::Limits,
    run::{self, Runner},
};

/// Read a source once, publish its rows, and let old versions go
#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// What to do, as JSON
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// A folder with the source's Secret or ConfigMap, an entry a file
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// A folder for files on their way; everything in it can be lost
    #[arg(long, env = "LAKEHOUSE_CACHE")]
    cache: Option<PathBuf>,
    /// Where /ingest/progress and probes are answered meanwhile; nowhere without it
    #[arg(long, env = "LAKEHOUSE_LISTEN")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    limits: Limits,
}

impl Ingest {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let summary = self.common.summary.clone();
        Box::pin(super::run(summary.as_deref(), self.work(), shutdown_signal())).await
    }

    /// The run, and after it the collecting of old versions, during which the pod still answers.
    async fn work(self) -> Result<(Summary, impl Future<Output = ()>), Failure> {
        let started = Timestamp::now();
        let IngestJob { spec, source, keep_versions } = super::read_job(&self.job, "ingest Job")?;
        let source = source::resolve(&source, self.source.as_deref())?;
        let spool = data_dir::cache(self.cache.as_deref()).map_err(of_this_pod)?.join("spool");
        let reader = Reader::new(&spool).map_err(|error| failure::of_source(&error))?;
        let options = Options::new(&spool);

        let catalog = self.limits.catalog(self.common.open_store().await?);
        let ingestd = Ingestd::new(catalog.clone(), self.limits.ingest(options.clone()));
        let routes = ingestd::progress_router(ingestd.clone());
        let served = super::serve(self.listen, &self.access, Role::Ingestd.as_str(), routes).await?;
        let claim = ingestd.claim(&spec.name).expect("nobody else has this service");

        let runner = Runner { catalog, reader, options };
        let newest = runner.newest(&spec.name).await?;
        let reading = runner.read(&source, &spec, newest.as_deref(), claim.tracker()).await?;
        let done = match (reading, newest) {
            (Reading::Here(local), _) => {
                let answer = runner.ingest(&source, &local, &spec, claim.tracker()).await?;
                Done {
                    version: answer.version,
                    rows: answer.rows,
                    bytes: answer.bytes,
                    files: answer.files as u64,
                    rejected_rows: answer.rejected_rows,
                    unchanged: answer.unchanged,
                    source_digest: local.digest.clone(),
                    format: spec.format.to_string(),
                    started,
                    finished: Timestamp::now(),
                    message: run::told(&answer),
                }
            }
            (Reading::Unchanged, Some(newest)) => unchanged(&newest, &spec, started),
            (Reading::Unchanged, None) => {
                let sentence = "the source was called unchanged before it was ever read";
                return Err(Failure::new(Reason::Failed, sentence));
            }
        };
        let collecting = async move {
            run::collect(&runner.catalog, &spec.name, keep_versions).await;
            drop((claim, served));
        };
        Ok((Summary::Done(done), collecting))
    }
}

/// The version that is there, told as the result of a run that had nothing to do.
fn unchanged(newest: &Arc<DatasetManifest>, spec: &IngestSpec, started: Timestamp) -> Done {
    let origin = newest.origin.clone().unwrap_or_default();
    Done {
        version: newest.version,
        rows: newest.row_count,
        bytes: newest.objects.iter().map(|object| object.size).sum(),
        files: newest.objects.len() as u64,
        rejected_rows: origin.rejected_rows,
        unchanged: true,
        source_digest: origin.source_digest,
        format: spec.format.to_string(),
        started,
        finished: Timestamp::now(),
        message: format!(
            "The source has not changed since version {}, which has {}.",
            newest.version,
            human::rows(newest.row_count)
        ),
    }
}
