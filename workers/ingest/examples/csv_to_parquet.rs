//! Converts a CSV file into Parquet files in a folder, as an ingest does before it meets the store. For `bench/run.sh`.

use std::{env, fs, num::NonZero, path::PathBuf, thread};

use lakehouse_contract::ingest::CsvOptions;
use lakehouse_ingest::{
    Tracker,
    convert::{Layout, Request, convert},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [source, folder] = &arguments[..] else {
        return Err("two arguments are needed: a CSV file and a folder for the Parquet files".into());
    };
    fs::create_dir_all(folder)?;
    let request = Request {
        source,
        csv: &CsvOptions::default(),
        declared: &[],
        layout: Layout::default(),
        threads: thread::available_parallelism().map_or(1, NonZero::get),
    };
    let converted = convert(&request, folder, &Tracker::new("bench"), &Ok)?;
    let bytes: u64 = converted.files.iter().map(|file| file.size).sum();
    println!("{} rows, {} columns, {bytes} bytes", converted.rows, converted.columns.len());
    Ok(())
}
