//! What stories on a real Kubernetes stand on.
//!
//! A story is a test with a namespace of its own. It applies YAML as a user would, waits for conditions as
//! `kubectl wait` does, and asks SQL through the namespace's Service. A story that fails prints its resources, their
//! Events and the last lines of its pods before the namespace goes.
//!
//! ```text
//! run ─► namespace + Secrets ─► Story ─► apply, until, sql, … ─► namespace deleted
//!                                 └─ failed ─► tell ─► namespace deleted
//! ```
//!
//! `e2e/run.sh` makes what a story needs: the CRDs, the operator, a MinIO, and a way to Service addresses.

mod cluster;
mod load;
mod ollama;
mod source;
mod story;
mod tell;

pub use cluster::{Helm, image, image_tag, store_credentials};
pub use load::Load;
pub use ollama::Ollama;
pub use source::{Door, Source};
pub use story::{Story, Told, condition, message, reason};
