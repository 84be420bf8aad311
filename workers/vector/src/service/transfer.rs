//! A whole index out, and vectors by the file in.

use std::{
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::vectors::AddAnswer;
use lakehouse_http::Problem;
use tokio::{io::AsyncWriteExt, sync::mpsc, task::spawn_blocking};

use super::{
    Name, checked,
    items::{bytes_of, check_fields},
};
use crate::{
    Error, Result,
    live::checked_writes,
    parquet::{self, Reader},
    record::Op,
    snapshot::Snapshot,
    vectord::Vectord,
};

const PARQUET: &str = "application/vnd.apache.parquet";
/// Pieces of a file that wait for a client who reads slowly.
const WAITING: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Bytes of items that one record of the log takes in from a file, roughly.
const STEP_BYTES: usize = 8 << 20;

/// The index as one Parquet file, as it was when the request came.
pub(super) async fn export(State(vectord): State<Vectord>, name: Name) -> Result<Response, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    let snapshot = live.whole().await?;
    if let Some(damage) = snapshot.incomplete().filter(|_| snapshot.lacks_parts) {
        return Err(Error::damaged(&name, format!("it cannot be exported in full: {damage}")).into());
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    spawn_blocking(move || {
        let mut out = Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
        let items = snapshot.items().map(|(item, _)| item);
        let written = parquet::write(&snapshot.manifest, items, &mut out).map_err(io::Error::other);
        if let Err(error) = written.and_then(|()| out.flush()) {
            // Who went away does not want to know; anybody else must not take a part for the whole.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}.parquet\""));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PARQUET));
    if let Ok(disposition) = disposition {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Hands pieces on to whoever answers, no faster than they are read.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Upserts every row of a Parquet file. All are checked before the first is written; what a failure of the store has left out is written
/// when the file is sent again.
pub(super) async fn import(
    State(vectord): State<Vectord>,
    name: Name,
    body: Body,
) -> Result<Json<AddAnswer>, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    live.pushed()?;
    let file = Arc::new(spooled(&vectord, body).await?);
    let snapshot = live.snapshot();

    let (checking, of) = (Arc::clone(&file), snapshot.clone());
    blocking(move || check(&checking, &of)).await?;
    let opening = Arc::clone(&file);
    let mut reader = blocking(move || Reader::open(&opening)).await?;
    let mut answer = AddAnswer { added: 0, replaced: 0, length: snapshot.length };
    loop {
        let shape = snapshot.manifest.shape.clone();
        let (rest, writes) = blocking(move || {
            let (mut step, mut bytes) = (Vec::new(), 0);
            while bytes < STEP_BYTES
                && let Some((_, items)) = reader.next_batch()?
            {
                bytes += items.iter().map(bytes_of).sum::<usize>();
                step.extend(items);
            }
            Ok((reader, checked_writes(&shape, step)?))
        })
        .await?;
        reader = rest;
        if writes.is_empty() {
            return Ok(Json(answer));
        }
        let done = live.write(Op::Upsert(writes)).await?;
        vectord.inner().numbers.wrote(done.written);
        answer.added += done.written;
        answer.replaced += done.replaced;
        answer.length = done.length;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Error::Local(format!("reading the file failed: {error}")))?
}

/// Finds the first row that the index cannot keep.
fn check(file: &File, snapshot: &Snapshot) -> Result<()> {
    let mut reader = Reader::open(file)?;
    while let Some((first, items)) = reader.next_batch()? {
        let checked = check_fields(snapshot, &items);
        let checked = checked.and_then(|()| checked_writes(&snapshot.manifest.shape, items).map(|_| ()));
        checked.map_err(|error| match error {
            Error::Item { index, message, .. } => Error::Item { list: "rows", index: first + index, message },
            other => other,
        })?;
    }
    Ok(())
}

/// The body as a file without a name, since Parquet is read from its end.
async fn spooled(vectord: &Vectord, body: Body) -> Result<File, Problem> {
    let folder = vectord.inner().spool.clone();
    let file = tempfile::tempfile_in(&folder).map_err(|error| Error::local(&folder, error))?;
    let mut file = tokio::fs::File::from_std(file);
    let mut pieces = body
        .into_data_stream()
        .map_err(|error| Problem::bad_request("the body broke off before its end").because(error));
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece?).await.map_err(|error| Error::local(&folder, error))?;
    }
    file.flush().await.map_err(|error| Error::local(&folder, error))?;
    Ok(file.into_std().await)
}
