//! `lakehouse`: every worker in one binary.
//!
//! `up` runs resources on this machine; `serve` runs roles as a pod does, `job` the work of a Job's pod; the other commands talk to a running one.

mod access;
mod client;
mod commands;
mod data_dir;
mod failure;
mod job;
mod limits;
mod listen;
mod models;
mod notify;
mod run;
mod sample;
mod serve;
mod services;
mod source;
mod terminal;
mod traces;
mod up;
mod uploads;
mod vectors;

use std::{future::Future, io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Datasets, vector indexes and language models from YAML: CSV in, typed Parquet in a bucket; SQL, searches and chats out.
#[derive(Debug, Parser)]
#[command(
    name = "lakehouse",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Start with a file of yours, and ask it in another terminal:
  lakehouse up sales.csv
  lakehouse sql 'SELECT * FROM sales LIMIT 5'
  lakehouse chat local_fast 'Hello'"
)]
struct Cli {
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as
    /// `info,lakehouse_store=debug` [default: warn for `up`, info for `serve` and `job`]
    #[arg(long, env = "LAKEHOUSE_LOG", global = true, value_name = "FILTER", help_heading = "Log")]
    log: Option<String>,
    /// How the log is written
    #[arg(
        long,
        env = "LAKEHOUSE_LOG_FORMAT",
        global = true,
        value_enum,
        default_value_t = LogFormat::Text,
        value_name = "FORMAT",
        help_heading = "Log"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// An object a line, for collectors
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Sql(commands::sql::Sql),
    Get(commands::get::Get),
    Search(commands::search::Search),
    Chat(commands::chat::Chat),
    Models(commands::models::Models),
    Ingest(commands::ingest::Ingest),
    Sample(sample::Sample),
    Serve(serve::Serve),
    Job(job::Job),
}

fn main() -> ExitCode {
    let Cli { log, log_format, command } = Cli::parse();
    // Before any TLS client is made: two providers are compiled into no build, but none is chosen without this.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("lakehouse: a TLS provider was installed before this program's own");
        return ExitCode::FAILURE;
    }
    let default_log = if matches!(command, Command::Serve(_) | Command::Job(_)) { "info" } else { "warn" };
    let ended = start_log(log.as_deref().unwrap_or(default_log), log_format).and_then(|()| {
        let done = match command {
            Command::Job(job) => return block_on(job.run()),
            Command::Up(up) => block_on(up.run()),
            Command::Serve(serve) => block_on(serve.run()),
            Command::Sql(sql) => sql.run(),
            Command::Get(get) => get.run(),
            Command::Search(search) => search.run(),
            Command::Chat(chat) => chat.run(),
            Command::Models(models) => models.run(),
            Command::Ingest(ingest) => ingest.run(),
            Command::Sample(sample) => sample.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lakehouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// Runs a server or a Job to its end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the threads that serve requests cannot be started")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
