//! Tables made on the spot, for trying things out and for measuring.
//!
//! The same table, rows and seed give the same bytes on every machine, and row *n* is the same row however many follow:
//! a longer sample only adds lines. Another table is another variant of [`Table`] and another module.

mod random;
mod staffing;

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;

/// Room for some hundred rows, so that a write to the system is worth its price.
const BUFFER_BYTES: usize = 256 << 10;

/// Make a sample table: realistic rows without anybody's real data.
#[derive(Debug, clap::Args)]
pub(crate) struct Sample {
    #[command(subcommand)]
    table: Table,
}

#[derive(Debug, clap::Subcommand)]
enum Table {
    Staffing(Staffing),
}

/// Workers of a staffing agency, as CSV
///
/// One worker a row, 19 columns, about 570 bytes a row: 500,000 rows are 273 MiB.
/// The columns are of the kinds that careless readers spoil: `worker_id` and `zip` with leading zeros, `skills` with
/// commas and quotes inside, `resume_text` over several lines, nullable `phone`, `end_date` and `rating`, rates, dates,
/// timestamps and booleans. The résumé agrees with the role, the skills and the city of its row.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse sample staffing --rows 5
  lakehouse sample staffing --rows 500000 --out workers.csv && lakehouse up workers.csv
  lakehouse sample staffing --rows 500000 | gzip > workers.csv.gz

The same rows and seed give the same bytes on every machine. A longer sample begins with the shorter one.")]
struct Staffing {
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rows: u64,

    /// Another seed gives other workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Sample {
    /// Writes the table that was asked for.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Table::Staffing(Staffing { rows, seed, out }) = self.table;
        match out {
            Some(path) => {
                let file =
                    File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
                staffing::write(rows, seed, file).with_context(|| format!("cannot write {}", path.display()))
            }
            None => unless_reader_left(staffing::write(rows, seed, io::stdout().lock()))
                .context("cannot write to standard output"),
        }
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn unless_reader_left(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A CSV writer that quotes only what needs it and ends lines with LF.
fn csv_writer(out: impl Write) -> csv::Writer<impl Write> {
    csv::WriterBuilder::new().buffer_capacity(BUFFER_BYTES).from_writer(out)
}

/// The system's own error, which tells a reader that left from a full disk.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("CSV: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_leaves_early_is_no_error() {
        assert!(unless_reader_left(staffing::write(10_000, 1, Closed(io::ErrorKind::BrokenPipe))).is_ok());
        assert!(unless_reader_left(staffing::write(10_000, 1, Closed(io::ErrorKind::StorageFull))).is_err());
    }

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
