//! From a CSV file to Parquet files: the core of an ingest, without a store.
//!
//! ```text
//!            blocks of whole records          row groups, in the file's order
//! file ─► cut ──┬─► read, check, encode ─┬─► write, hash ─► files
//!               └─► read, check, encode ─┘
//! ```
//!
//! The first block gives a guess of the columns' types. In the usual case it holds, and one pass is all. When a value does not fit, the rest of
//! the pass only finds out the exact types, and a second pass converts. Either way every value of the file was looked at.
//! Nothing of the output depends on threads or timing: cuts, types, row groups and pages follow from the content alone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::atomic::AtomicBool,
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use lakehouse_contract::{
    Column,
    ingest::{CsvOptions, DeclaredColumn},
};
use parquet::schema::types::SchemaDescriptor;

pub use crate::files::ConvertedFile;
use crate::{
    Error, Tracker,
    csv::{self, Block, Blocks, Header, HeaderFault},
    error::Fault,
    files::{self, Files},
    kind::{Kinds, Reading},
    rows::{self, BlockResult, Pass, PlannedColumn, Reader},
};

/// So much of the first block is looked at for the guess.
const GUESSED_FROM: usize = 1 << 20;

/// What to convert.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A file of this machine. It may be read twice.
    pub source: &'a Path,
    /// How to read it.
    pub csv: &'a CsvOptions,
    /// Columns whose types are promised.
    pub declared: &'a [DeclaredColumn],
    /// How the output is divided.
    pub layout: Layout,
    /// How many threads encode. Memory grows with them, the output is the same.
    pub threads: usize,
}

/// How the output is divided. Part of what decides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// A row group ends with the record that brings it to so many bytes of the source.
    pub group_bytes: usize,
    /// A file ends with the row group that brings it to so many bytes.
    pub file_bytes: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { group_bytes: 16 << 20, file_bytes: 512 << 20 }
    }
}

/// What a file became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Columns in the header's order.
    pub columns: Vec<Column>,
    /// The rows, in their order. At least one file.
    pub files: Vec<ConvertedFile>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of the source.
    pub source_bytes: u64,
}

/// Converts a CSV file into Parquet files in `folder`.
///
/// `admit` is shown the columns with field ids 1, 2, … and answers with the ids to write, or with why these columns are not
/// wanted; then nothing is written, and the error is returned once the columns are certain to be these.
pub fn convert(
    request: &Request,
    folder: &Path,
    tracker: &Tracker,
    admit: &dyn Fn(Vec<Column>) -> Result<Vec<Column>, Error>,
) -> Result<Converted, Error> {
    let result = Conversion::start(request, tracker).and_then(|conversion| conversion.run(folder, admit));
    result.map_err(|error| with_line(error, request.source))
}

/// A file whose header was read.
struct Conversion<'a> {
    request: &'a Request<'a>,
    tracker: &'a Tracker,
    delimiter: u8,
    header: Header,
    plan: Vec<PlannedColumn>,
    /// For each column, the kinds of values seen so far.
    kinds: Vec<Kinds>,
    source_bytes: u64,
}

impl<'a> Conversion<'a> {
    /// Reads the header and guesses the columns' types.
    fn start(request: &'a Request<'a>, tracker: &'a Tracker) -> Result<Self, Error> {
        let delimiter = csv::delimiter(request.csv.delimiter)?;
        let mut blocks = Blocks::open(request.source, delimiter, request.layout.group_bytes)?;
        let Some(block) = blocks.next(Vec::new())? else {
            return Err(Fault::whole("the file is empty").into());
        };
        let header = Header::read(&block, delimiter, request.csv.header)
            .map_err(|fault| header_fault(&block, fault))?;
        let plan = plan(&header, request.declared)?;
        let kinds = vec![Kinds::NONE; plan.len()];
        let source_bytes = blocks.size();
        let mut conversion = Self { request, tracker, delimiter, header, plan, kinds, source_bytes };
        conversion.guess(&block)?;
        Ok(conversion)
    }

    fn guess(&mut self, block: &Block) -> Result<(), Error> {
        let schema = files::schema(&[])?;
        let quiet = Tracker::new("");
        let pass = Pass { tracker: &quiet, ..self.pass(&schema, true) };
        let seen = Reader::new(&pass).look(block, self.header.rows_start, GUESSED_FROM);
        // What is wrong with the block is said when the pass comes to it.
        if let Ok(kinds) = seen {
            self.learn(&kinds);
        }
        Ok(())
    }

    /// Widens the plan by what was seen; whether that changed a column.
    fn learn(&mut self, seen: &[Kinds]) -> bool {
        let mut changed = false;
        for ((kinds, planned), &seen) in self.kinds.iter_mut().zip(&mut self.plan).zip(seen) {
            *kinds |= seen;
            let reading = kinds.reading();
            if !planned.declared && planned.reading != reading {
                planned.reading = reading;
                changed = true;
            }
        }
        changed
    }

    fn run(
        mut self,
        folder: &Path,
        admit: &dyn Fn(Vec<Column>) -> Result<Vec<Column>, Error>,
    ) -> Result<Converted, Error> {
        // The first pass works on a guess. The second one does not: every value was looked at.
        for _ in 0..2 {
            let admitted = admit(self.columns());
            let passed = self.pass_over(folder, admitted.as_deref().ok())?;
            let changed = self.learn(&passed.kinds);
            if passed.rows == 0 && self.plan.iter().any(|column| !column.declared) {
                return Err(Fault::whole("the file has a header and no rows, so its types cannot be told; add rows, or declare the type of every column").into());
            }
            match (admitted, passed.files) {
                (Ok(columns), Some(files)) => {
                    let Passed { rows, .. } = passed;
                    return Ok(Converted { columns, files, rows, source_bytes: self.source_bytes });
                }
                (Err(refusal), _) if !changed => return Err(refusal),
                _ => {}
            }
        }
        Err(Error::Changed(self.request.source.to_owned()))
    }

    /// The columns as they are planned.
    fn columns(&self) -> Vec<Column> {
        let column = |(planned, field_id): (&PlannedColumn, i32)| Column {
            name: planned.name.clone(),
            column_type: planned.reading.column_type(),
            field_id,
        };
        self.plan.iter().zip(1..).map(column).collect()
    }

    fn pass<'p>(&'p self, schema: &'p SchemaDescriptor, only_look: bool) -> Pass<'p> {
        Pass {
            delimiter: self.delimiter,
            null_values: &self.request.csv.null_values,
            plan: &self.plan,
            schema,
            only_look: AtomicBool::new(only_look),
            tracker: self.tracker,
        }
    }

    /// Reads the file once, and writes it as `columns`; without them it only looks.
    fn pass_over(&self, folder: &Path, columns: Option<&[Column]>) -> Result<Passed, Error> {
        let Request { source, layout, threads, .. } = *self.request;
        let schema = files::schema(columns.unwrap_or_default())?;
        let pass = self.pass(&schema, columns.is_none());
        let mut blocks = Blocks::open(source, self.delimiter, layout.group_bytes)?;
        if blocks.size() != self.source_bytes {
            return Err(Error::Changed(source.to_owned()));
        }
        self.tracker.reading(self.source_bytes);
        self.tracker.add(blocks.position(), 0);
        let threads = threads.max(1);
        let (to_readers, work) = bounded(threads);
        let (to_writer, results) = unbounded();
        // Blocks in flight: one for each reader, one that is being cut, one that waits for its turn to be written.
        let (spare, buffers) = unbounded();
        (0..threads + 2).for_each(|_| spare.send(Vec::new()).unwrap_or(()));
        thread::scope(|scope| {
            for _ in 0..threads {
                let (work, to_writer, pass) = (work.clone(), to_writer.clone(), &pass);
                scope.spawn(move || read_blocks(pass, self.header.rows_start, &work, &to_writer));
            }
            // The channels end when the last one who sends is gone.
            drop((work, to_writer));
            let files = Files::new(folder, &schema, layout.file_bytes);
            let writer = scope.spawn(move || write_groups(files, &results, &spare));
            let cut = self.cut(&mut blocks, &buffers, &to_readers);
            drop(to_readers);
            let written = writer.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            // The writer goes by the file's order: what it met stands before the place where cutting ended.
            written.and_then(|passed| cut.map(|()| passed))
        })
    }

    /// Hands the file's blocks to the readers, as fast as buffers come back.
    fn cut(
        &self,
        blocks: &mut Blocks,
        buffers: &Receiver<Vec<u8>>,
        to_readers: &Sender<Work>,
    ) -> Result<(), Error> {
        let mut number = 0;
        // A closed channel means that the others have ended over a fault, which the writer knows.
        while let Ok(buffer) = buffers.recv() {
            self.tracker.check()?;
            let Some(block) = blocks.next(buffer)? else { break };
            if to_readers.send(Work { number, block }).is_err() {
                break;
            }
            number += 1;
        }
        Ok(())
    }
}

/// A block and its place among the blocks.
struct Work {
    number: usize,
    block: Block,
}

/// What became of a block, or why its reader panicked.
struct Read {
    number: usize,
    result: thread::Result<Result<BlockResult, Error>>,
    buffer: Vec<u8>,
}

/// What a pass brought.
#[derive(Default)]
struct Passed {
    /// For each column, the kinds of values that were seen. Empty without blocks.
    kinds: Vec<Kinds>,
    rows: u64,
    /// Unless the pass only looked.
    files: Option<Vec<ConvertedFile>>,
}

fn read_blocks(pass: &Pass, rows_start: usize, work: &Receiver<Work>, to_writer: &Sender<Read>) {
    let mut reader = Reader::new(pass);
    for Work { number, block } in work {
        let from = if number == 0 { rows_start } else { 0 };
        // A panic must reach the writer: it waits for this block.
        let result = panic::catch_unwind(AssertUnwindSafe(|| reader.read(&block, from)));
        if to_writer.send(Read { number, result, buffer: block.bytes }).is_err() {
            break;
        }
    }
}

/// Brings the blocks back into the file's order and writes their row groups, until one has none.
fn write_groups(files: Files, results: &Receiver<Read>, spare: &Sender<Vec<u8>>) -> Result<Passed, Error> {
    let mut files = Some(files);
    let mut passed = Passed::default();
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for Read { number, result, buffer } in results {
        waiting.insert(number, (result, buffer));
        while let Some((result, buffer)) = waiting.remove(&next) {
            let BlockResult { kinds, rows, columns } =
                result.unwrap_or_else(|panic| panic::resume_unwind(panic))?;
            passed.kinds.resize(kinds.len(), Kinds::NONE);
            passed.kinds.iter_mut().zip(kinds).for_each(|(seen, kinds)| *seen |= kinds);
            passed.rows += rows;
            match (&mut files, columns) {
                (Some(files), Some(columns)) => files.write(rows, columns)?,
                _ => files = None,
            }
            // Nobody takes it when the cutter is done.
            let _ = spare.send(buffer);
            next += 1;
        }
    }
    passed.files = files.map(Files::finish).transpose()?;
    Ok(passed)
}

/// How each column of the header is read before anything is known of its values.
fn plan(header: &Header, declared: &[DeclaredColumn]) -> Result<Vec<PlannedColumn>, Error> {
    for (i, column) in declared.iter().enumerate() {
        let name = &column.name;
        if declared[..i].iter().any(|earlier| earlier.name == *name) {
            return Err(Error::Spec(format!("columns[{i}]: `{name}` is declared twice")));
        }
        if !header.names.contains(name) {
            let names =
                header.names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::Spec(format!(
                "columns[{i}]: the file has no column `{name}`; it has {names}"
            )));
        }
    }
    let column = |name: &String| {
        let promise = declared.iter().find(|column| column.name == *name);
        PlannedColumn {
            name: name.clone(),
            declared: promise.is_some(),
            reading: promise.map_or(Reading::Empty, |column| Reading::declared(column.column_type)),
        }
    };
    Ok(header.names.iter().map(column).collect())
}

fn header_fault(block: &Block, fault: HeaderFault) -> Error {
    let fault = match fault {
        HeaderFault::Syntax(syntax) => rows::syntax_fault(block, syntax, 0),
        HeaderFault::Other(fault) => fault,
    };
    fault.into()
}

/// Adds to a fault the line that its byte stands in. Lines are counted only now: nearly every file has no fault.
fn with_line(error: Error, source: &Path) -> Error {
    let Error::Fault(mut fault) = error else { return error };
    if let (Some(byte), None) = (fault.byte, fault.line) {
        match line_at(source, byte) {
            Ok(line) => fault.line = Some(line),
            Err(error) => return Error::read(source, error),
        }
    }
    Error::Fault(fault)
}

/// The physical line of a byte, from 1. LF, CR and both together end a line.
fn line_at(source: &Path, byte: u64) -> io::Result<u64> {
    let mut before = File::open(source)?.take(byte);
    let mut buffer = vec![0; 256 << 10];
    let (mut line, mut last) = (1, 0);
    loop {
        let count = before.read(&mut buffer)?;
        if count == 0 {
            return Ok(line);
        }
        for &byte in &buffer[..count] {
            line += u64::from(byte == b'\r' || (byte == b'\n' && last != b'\r'));
            last = byte;
        }
    }
}
