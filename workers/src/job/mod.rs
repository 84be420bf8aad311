//! `lakehouse job`: the work of a Job's pod, from its file to its last words.
//!
//! ```text
//! its file, mounted Secrets ─► ingest │ build ─► store ─► manifest ─► summary ─► collect ─► exit status
//!                                    └► /ingest/progress, /build/progress
//! ```
//! The exit status says whether the same again may end better: 65 (`EX_DATAERR`) asks for an edit, 75 (`EX_TEMPFAIL`) does not.

mod build;
mod ingest;
mod purge;
mod source;

use std::{
    fs,
    future::pending,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use axum::Router;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use lakehouse_contract::job::Summary;
use lakehouse_http::Service;
use lakehouse_plan::{Reason, Retry, status::Failure};
use lakehouse_store::{Location, Store};
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use crate::{access::Access, listen::bind};

/// Of sysexits.h.
const EX_DATAERR: u8 = 65;
const EX_TEMPFAIL: u8 = 75;

/// Do the work of one Job of a cluster, and end
#[derive(Debug, Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    Ingest(Box<ingest::Ingest>),
    Build(Box<build::Build>),
    Purge(purge::Purge),
}

/// What every Job is given.
#[derive(Debug, Args)]
struct Common {
    #[arg(
        long,
        env = "LAKEHOUSE_STORE",
        help = "The store: s3://BUCKET[/PREFIX] (AWS_* variables say how to reach it) or a folder"
    )]
    store: Location,
    /// Where the last words go, as JSON: a pod's termination message
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

impl Job {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.work {
            Work::Ingest(ingest) => ingest.run().await,
            Work::Build(build) => build.run().await,
            Work::Purge(purge) => purge.run().await,
        }
    }
}

impl Common {
    async fn open_store(&self) -> Result<Store, Failure> {
        let opened = Box::pin(Store::open(&self.store)).await;
        opened.map_err(|error| Failure::new(Reason::StoreFailed, error.to_string()))
    }
}

/// Reads what a Job is asked for.
fn read_job<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<T, Failure> {
    let shown = path.display();
    let text = fs::read(path)
        .map_err(|error| Failure::new(Reason::PodFailed, format!("{shown} cannot be read: {error}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Reason::InvalidSpec, format!("{shown} is no {kind}: {error}")))
}

/// Answers for the progress, and for probes, until it is dropped.
async fn serve(
    listen: Option<SocketAddr>,
    access: &Access,
    name: &'static str,
    routes: Router,
) -> Result<Option<AbortOnDropHandle<()>>, Failure> {
    let Some(address) = listen else { return Ok(None) };
    let settings = access.settings().map_err(of_this_pod)?;
    settings.auth.check_listen(address).map_err(of_this_pod)?;
    let listener = bind(address).await.map_err(of_this_pod)?;
    let address = listener.local_addr().map_err(of_this_pod)?;
    println!("{name} listens on http://{address}");
    let service = Service::new(name, routes);
    let serve = async move {
        if let Err(error) = lakehouse_http::serve(listener, service, settings, pending()).await {
            tracing::warn!(%error, "Nobody can see the progress");
        }
    };
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(serve))))
}

/// What is wrong with the pod and not with what it was asked for.
fn of_this_pod(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Reason::PodFailed, format!("{:#}", error.into()))
}

/// Runs a Job's work until it ends or `stop` does, and tells what came of it.
///
/// The work hands on what is to be tidied up after it. Its result stands by then, so an end of the process cuts only the tidying.
async fn run<Tidying: Future<Output = ()>>(
    summary: Option<&Path>,
    work: impl Future<Output = Result<(Summary, Tidying), Failure>>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let started = Timestamp::now();
    let mut stop = pin!(stop);
    let ended = tokio::select! {
        biased;
        ended = work => ended,
        () = &mut stop => {
            let sentence = "The run was stopped before its end; nothing of it is half-published.";
            Err(Failure::new(Reason::Interrupted, sentence))
        }
    };
    let finished = Timestamp::now();
    let (words, tidying, code) = match ended {
        Ok((words, tidying)) => (words, Some(tidying), ExitCode::SUCCESS),
        Err(Failure { reason, message }) => {
            let code = match reason.retry() {
                Retry::OnEdit => EX_DATAERR,
                Retry::Backoff => EX_TEMPFAIL,
            };
            let reason = reason.as_str().to_owned();
            (Summary::Failed { reason, message, started, finished }, None, ExitCode::from(code))
        }
    };
    if let Some(file) = summary
        && let Err(error) = fs::write(file, words.to_json())
    {
        eprintln!("lakehouse: the summary could not be written to {}: {error}", file.display());
    }
    match &words {
        Summary::Done(done) => println!("{}", done.message),
        Summary::Built(built) => println!("{}", built.message),
        Summary::Purged(purged) => println!("{}", purged.message),
        Summary::Failed { reason, message, .. } => eprintln!("lakehouse: {reason}: {message}"),
    }
    if let Some(tidying) = tidying {
        tokio::select! {
            () = tidying => {}
            () = stop => {}
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lakehouse_contract::job::Purged;

    use super::*;

    #[tokio::test]
    async fn a_stop_while_it_tidies_up_does_not_unsay_what_was_done() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("termination-log");
        let (started, finished) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let purged = Purged { objects: 1, bytes: 1, started, finished, message: "It was done.".to_owned() };
        let done = Summary::Purged(purged);
        let work = async { Ok((done.clone(), pending())) };
        let stop = tokio::time::sleep(Duration::from_millis(10));
        let code = run(Some(&file), work, stop).await.unwrap();
        assert_eq!((code, fs::read_to_string(&file).unwrap()), (ExitCode::SUCCESS, done.to_json()));

        let unending = pending::<Result<(Summary, std::future::Ready<()>), Failure>>();
        let code = run(Some(&file), unending, std::future::ready(())).await.unwrap();
        assert_eq!(code, ExitCode::from(EX_TEMPFAIL));
        assert!(fs::read_to_string(&file).unwrap().contains("Interrupted"));
    }
}
