//! Vector indexes with a service of their own.
//!
//! An index that a resource describes has pods for itself, under a name that follows from the index's; one that was made over HTTP is served by
//! those that all share. Which it is, the resolver tells: only where the name leads somewhere is the index's own service called. Any
//! vectord can serve any index, so a name that was resolved a moment ago is good enough.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::uri::Authority;
use lakehouse_contract::names;
use tokio::{net::lookup_host, time::timeout};

use crate::upstream::BaseUrl;

/// Where the index's name stands in the URL.
pub(crate) const INDEX: &str = "{index}";
/// How long an answer of the resolver is taken for true, also that there is nothing.
const KEPT: Duration = Duration::from_secs(5);
/// How long the resolver may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// How many answers are kept. Names come from clients.
const MOST: usize = 10_000;
/// The port of a URL that names none.
const HTTP: u16 = 80;

/// The services of indexes, by a URL with `{index}` in its host.
pub(crate) struct Indexes {
    template: String,
    known: Mutex<HashMap<String, (Instant, Option<BaseUrl>)>>,
}

impl Indexes {
    pub(crate) fn new(template: String) -> Self {
        Self { template, known: Mutex::default() }
    }

    /// The service of the index that a path is about, where it has one.
    pub(crate) async fn of(&self, path: &str) -> Option<BaseUrl> {
        let short = names::short(index_of(path)?);
        if let Some((at, known)) = self.known().get(&short)
            && at.elapsed() < KEPT
        {
            return known.clone();
        }
        let base = BaseUrl::parse(&self.template.replace(INDEX, &short)).ok();
        let found = match base {
            Some(base) if leads_somewhere(&base.authority).await => Some(base),
            _ => None,
        };
        let mut known = self.known();
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if known.len() < MOST {
            known.insert(short, (Instant::now(), found.clone()));
        }
        found
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Option<BaseUrl>)>> {
        // Each use leaves the map whole, so a panic elsewhere cannot have hurt it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Indexes").field(&self.template).finish()
    }
}

/// The index in `/vectors/index/{name}…`.
fn index_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/vectors/index/")?.split('/').next()?;
    (!name.is_empty()).then_some(name)
}

async fn leads_somewhere(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let looked_up = lookup_host((host, authority.port_u16().unwrap_or(HTTP)));
    match timeout(DEADLINE, looked_up).await {
        Ok(Ok(mut addresses)) => addresses.next().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_stands_behind_its_prefix() {
        for (path, index) in [
            ("/vectors/index/shelf", Some("shelf")),
            ("/vectors/index/shelf/search", Some("shelf")),
            ("/vectors/index", None),
            ("/vectors/index/", None),
            ("/sql", None),
        ] {
            assert_eq!(index_of(path), index, "{path}");
        }
    }

    #[tokio::test]
    async fn only_a_name_that_resolves_is_called() {
        let indexes = Indexes::new("http://{index}:3215/base".into());
        let found = indexes.of("/vectors/index/localhost/search").await;
        assert_eq!(found.unwrap().to_string(), "http://localhost:3215/base");
        // `.invalid` never resolves (RFC 6761), and the answer is kept.
        let nowhere = Indexes::new("http://{index}.invalid:3215".into());
        assert_eq!(nowhere.of("/vectors/index/shelf").await, None);
        assert!(nowhere.known().contains_key("shelf"));
    }
}
