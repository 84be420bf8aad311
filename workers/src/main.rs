//! `lakehouse`: every worker in one binary.
//!
//! `up` runs resources on this machine; `serve` runs one role as a pod does; the other commands talk to a running one.

mod client;
mod commands;
mod sample;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Datasets from YAML: CSV in, typed Parquet in a bucket, SQL answers out.
#[derive(Debug, Parser)]
#[command(name = "lakehouse", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sample(sample::Sample),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Command::Sample(sample) => sample.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lakehouse: {error:#}");
            ExitCode::FAILURE
        }
    }
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
