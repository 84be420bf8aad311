//! The real servers that tests start, each a process of its own that ends with the test.
//!
//! A server lies behind a small shell that waits on a pipe from the test: whatever ends the test, `kill -9` too, closes
//! the pipe, and the shell ends the server and removes its folder.

mod api_server;
mod gguf;
mod minio;
mod ollama;

pub use api_server::{ApiServer, helm};
pub use minio::Minio;
pub use ollama::Ollama;
