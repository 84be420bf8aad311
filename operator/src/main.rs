//! `lakehouse-operator`: brings Lakehouse resources in a cluster to what they ask for.

use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lakehouse_operator::{
    client,
    lease::{LEASE, Timing},
    metrics::Metrics,
    run::{self, Options},
    settings,
};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Brings Lakehouse resources in a cluster to what they ask for.
#[derive(Debug, Parser)]
#[command(
    name = "lakehouse-operator",
    version,
    propagate_version = true,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(flatten)]
    run: Option<Run>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator; the same as no command
    Run(Run),
    /// Prints the resource definitions, for `kubectl apply --server-side -f -`
    Crds,
    /// Asks a running operator whether it is ready; `helm test` does
    Ready {
        /// The address that it listens on
        #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
        url: String,
    },
}

/// Runs the operator.
#[derive(Debug, Args)]
struct Run {
    /// What the operator gives to all pods that it makes, in YAML
    #[arg(long, value_name = "FILE", required = true)]
    settings: PathBuf,
    /// The namespaces to look at, separated by commas [default: all]
    #[arg(long, env = "LAKEHOUSE_NAMESPACES", value_delimiter = ',', value_name = "NAMES")]
    namespaces: Vec<String>,
    /// Where the Lease lies by which one of several operators leads [default: the namespace of the kubeconfig or pod]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    leader_election_namespace: Option<String>,
    /// The name of that Lease. Operators for different namespaces need different ones where they share its namespace
    #[arg(long, default_value = LEASE, value_name = "NAME")]
    leader_election_name: String,
    /// Leads without asking: there must be no other operator for these namespaces
    #[arg(long)]
    no_leader_election: bool,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter
    #[arg(long, env = "LAKEHOUSE_LOG", default_value = "info", value_name = "FILTER", help_heading = "Log")]
    log: String,
    /// How the log is written
    #[arg(
        long,
        env = "LAKEHOUSE_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text,
        value_name = "FORMAT",
        help_heading = "Log"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// An object a line, for collectors
    Json,
}

fn main() -> ExitCode {
    let Cli { run, command } = Cli::parse();
    // Before any TLS client is made: two providers are compiled into no build, but none is chosen without this.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("lakehouse-operator: a TLS provider was installed before this program's own");
        return ExitCode::FAILURE;
    }
    let ended = match (command, run) {
        (Some(Command::Crds), _) => print_crds(),
        (Some(Command::Ready { url }), _) => ask(&url),
        (Some(Command::Run(run)), _) | (None, Some(run)) => operate(run),
        (None, None) => Err(anyhow::anyhow!("--settings FILE is missing; --help tells more")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lakehouse-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_crds() -> anyhow::Result<()> {
    for definition in lakehouse_crds::definitions::all() {
        println!("---\n{}", serde_saphyr::to_string(&definition)?.trim_end());
    }
    Ok(())
}

fn ask(url: &str) -> anyhow::Result<()> {
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("a thread cannot be started")?;
    let answer = runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        client.get(&url).send().await
    });
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    anyhow::ensure!(answer.status().is_success(), "{url} answers {}", answer.status());
    println!("The operator at {url} is ready");
    Ok(())
}

fn operate(run: Run) -> anyhow::Result<()> {
    start_log(&run.log, run.log_format)?;
    let settings = settings::read(&run.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the threads of the operator cannot be started")?;
    runtime.block_on(async {
        let config = kube::Config::infer().await.context("the cluster is not known")?;
        let lease_namespace =
            run.leader_election_namespace.unwrap_or_else(|| config.default_namespace.clone());
        let metrics = Metrics::default();
        let client =
            client::counted(config, metrics.clone()).context("the cluster's address cannot be used")?;
        let listener = TcpListener::bind(run.listen)
            .await
            .with_context(|| format!("{} cannot be listened on", run.listen))?;
        let options = Options {
            namespaces: run.namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
            lease_namespace: (!run.no_leader_election).then_some(lease_namespace),
            lease: run.leader_election_name,
            identity: identity(),
            timing: Timing::default(),
        };
        let shutdown = lakehouse_http::shutdown_signal();
        run::run(listener, client, metrics, settings, options, shutdown).await
    })
}

/// The pod's name, and something that no earlier process in it had.
fn identity() -> String {
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "lakehouse-operator".to_owned());
    format!("{pod}_{:08x}", rand::random::<u32>())
}

fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // What the library says of a watch that breaks off, the operator says in its own words.
    let filter = EnvFilter::try_new(format!("kube_runtime=error,{filter}"))
        .with_context(|| format!("--log {filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn running_is_what_is_done_without_a_command() {
        let parsed =
            Cli::try_parse_from(["lakehouse-operator", "--settings", "s.yaml", "--namespaces", "a,b"]);
        let run = parsed.unwrap().run.unwrap();
        assert_eq!(run.namespaces, ["a", "b"]);
        let parsed = Cli::try_parse_from(["lakehouse-operator", "run", "--settings", "s.yaml"]).unwrap();
        assert!(matches!(parsed.command, Some(Command::Run(_))));
        assert!(matches!(
            Cli::try_parse_from(["lakehouse-operator", "crds"]).unwrap().command,
            Some(Command::Crds)
        ));
        assert!(Cli::try_parse_from(["lakehouse-operator"]).is_err());
    }
}
