//! Objects by key over HTTP.
//!
//! Receives a [`Store`]; hands on the routes of storaged. Bodies are streamed both ways: memory does not grow with objects.
//!
//! ```text
//! GET    /storage/get/{key}        the object, or the range of it that `Range` asks for
//! PUT    /storage/put/{key}        writes it whole, or not at all
//! GET    /storage/list?prefix=&continuation=
//! DELETE /storage/delete/{key}     also succeeds when there is none
//! ```

mod download;
mod error;
mod list;
mod range;
mod upload;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get, put},
};
use lakehouse_contract::Key;
use lakehouse_http::BodyLimit;
use lakehouse_store::Store;
use tokio::sync::Semaphore;

use error::Error;

/// How much one caller may ask of storaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest object that is taken, in bytes.
    pub max_put_bytes: u64,
    /// How many objects are taken at the same time; the next is refused at once.
    pub max_puts_in_flight: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_put_bytes: 256 << 20, max_puts_in_flight: 4 }
    }
}

#[derive(Debug)]
struct Storage {
    store: Store,
    /// How many uploads there may be, and the places that are free.
    max_puts: usize,
    puts: Semaphore,
}

/// The routes of storaged.
pub fn router(store: Store, settings: &Settings) -> Router {
    let Settings { max_put_bytes, max_puts_in_flight } = *settings;
    let storage =
        Arc::new(Storage { store, max_puts: max_puts_in_flight, puts: Semaphore::new(max_puts_in_flight) });
    Router::new()
        .route("/storage/get/{*key}", get(download::get).head(download::head))
        .route("/storage/get/", get(without_key))
        .route("/storage/put/{*key}", put(upload::put).layer(BodyLimit(max_put_bytes)))
        .route("/storage/put/", put(without_key))
        .route("/storage/list", get(list::list))
        .route("/storage/delete/{*key}", delete(remove))
        .route("/storage/delete/", delete(without_key))
        .with_state(storage)
}

async fn remove(State(storage): State<Arc<Storage>>, Path(key): Path<String>) -> Result<StatusCode, Error> {
    storage.store.delete(&Key::parse(key)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A path that ends where the key should begin.
async fn without_key() -> Result<(), Error> {
    Key::parse("")?;
    Ok(())
}
