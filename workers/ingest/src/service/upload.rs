//! A body on its way to a file of this machine, hashed as it comes.

use std::path::{Path, PathBuf};

use axum::{
    body::{Body, HttpBody},
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::header,
};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use lakehouse_contract::dataset::hex;
use lakehouse_http::Problem;
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncWriteExt};

use super::request::Told;
use crate::{Error, Tracker, spool::Spool};

/// What a source is called that came without a file's name.
const NAMELESS: &str = "upload";

/// A whole body in a file. The file goes when the spool does.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) spool: Spool,
    pub(super) path: PathBuf,
    /// The file's name at the sender.
    pub(super) source: String,
    pub(super) digest: String,
}

/// An upload and what it says of itself.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) upload: Upload,
    pub(super) told: Told,
}

/// Takes the field `file` of a multipart body, or any other body as it is.
pub(super) async fn receive(
    request: Request,
    spool_dir: &Path,
    tracker: &Tracker,
) -> Result<Received, Problem> {
    tracker.reading(request.body().size_hint().exact().unwrap_or(0));
    let told = Told::by_headers(request.headers());
    let content_type = told.content_type.as_deref().unwrap_or_default();
    if content_type.to_ascii_lowercase().starts_with("multipart/form-data") {
        receive_form(request, spool_dir, tracker).await
    } else if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        Err(Problem::bad_request(format!("the body is encoded as {encoding:?}; send it as it is")))
    } else {
        receive_raw(request.into_body(), told, spool_dir, tracker).await
    }
}

async fn receive_raw(
    body: Body,
    told: Told,
    spool_dir: &Path,
    tracker: &Tracker,
) -> Result<Received, Problem> {
    let broke_off = |error| Problem::bad_request("the body broke off before its end").because(error);
    let pieces = body.into_data_stream().map_err(broke_off);
    let upload = spooled(pieces, NAMELESS.to_owned(), spool_dir, tracker).await?;
    Ok(Received { upload, told })
}

async fn receive_form(request: Request, spool_dir: &Path, tracker: &Tracker) -> Result<Received, Problem> {
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| Problem::bad_request(error.body_text()))?;
    let mut received = None;
    // The form is read to its end: one that was cut after the file may have been cut in the file.
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some("file") if received.is_none() => {
                received = Some(receive_field(field, spool_dir, tracker).await?);
            }
            Some("file") => {
                return Err(Problem::bad_request("the form has two fields `file`; send one file at a time"));
            }
            other => {
                let other = other.unwrap_or_default();
                let message = format!(
                    "the form has a field `{other}`; only `file` is expected, options go into the query"
                );
                return Err(Problem::bad_request(message));
            }
        }
    }
    received.ok_or_else(|| Problem::bad_request("the form lacks the field `file`"))
}

async fn receive_field(field: Field<'_>, spool_dir: &Path, tracker: &Tracker) -> Result<Received, Problem> {
    let told = Told {
        file_name: field.file_name().map(str::to_owned),
        content_type: field.content_type().map(str::to_owned),
    };
    let source = told.file_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(NAMELESS).to_owned();
    let upload = spooled(field.map_err(|error| broken(&error)), source, spool_dir, tracker).await?;
    Ok(Received { upload, told })
}

fn broken(error: &MultipartError) -> Problem {
    Problem::bad_request(format!("the form cannot be read: {}", error.body_text()))
}

async fn spooled(
    pieces: impl Stream<Item = Result<Bytes, Problem>>,
    source: String,
    spool_dir: &Path,
    tracker: &Tracker,
) -> Result<Upload, Problem> {
    let folder = spool_dir.to_owned();
    let made = tokio::task::spawn_blocking(move || Spool::create(&folder)).await;
    let spool = made.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let path = spool.folder().join("upload");
    let failed = |error| Problem::from(Error::spool(&path, error));
    let mut file = File::create(&path).await.map_err(failed)?;
    let mut hash = Sha256::new();
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.try_next().await? {
        hash.update(&piece);
        file.write_all(&piece).await.map_err(failed)?;
        tracker.add(piece.len() as u64, 0);
    }
    file.flush().await.map_err(failed)?;
    Ok(Upload { spool, source, digest: hex(&hash.finalize()), path })
}
