//! Vector indexes with a service of their own.
//!
//! An index that a resource describes has pods for itself, under a name that follows from the index's; one that was made over HTTP is served by
//! those that all share. Which it is, the resolver tells: only where the name leads somewhere is the index's own service called. Any
//! vectord can serve any index, so a name that was resolved a moment ago is good enough.
//!
//! A resolver that completes a short name by whatever domains it searches may end at a stranger's host, where one of them answers to every
//! name. The caller's token would go there. So in a pod the name is made whole here, with the domain of the pod's own namespace.

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
/// Where a pod is told in which domains its resolver searches.
const RESOLVER: &str = "/etc/resolv.conf";
/// The port of a URL that names none.
const HTTP: u16 = 80;

/// The services of indexes, by a URL with `{index}` in its host.
pub(crate) struct Indexes {
    template: String,
    known: Mutex<HashMap<String, (Instant, Option<BaseUrl>)>>,
}

impl Indexes {
    pub(crate) fn new(template: &str) -> Self {
        let resolver = std::fs::read_to_string(RESOLVER).unwrap_or_default();
        Self { template: whole(template, own_domain(&resolver)), known: Mutex::default() }
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

/// The domain of the pod's namespace, `<namespace>.svc.<domain of the cluster>`; `None` outside a cluster.
fn own_domain(resolver: &str) -> Option<&str> {
    // Of several lists, the last counts.
    let search = resolver.lines().rev().find_map(|line| line.trim_start().strip_prefix("search"))?;
    let mut domains = search.split_ascii_whitespace().map(|domain| domain.trim_end_matches('.'));
    domains.find(|domain| domain.split('.').nth(1) == Some("svc"))
}

/// The URL with a host that no resolver completes. One with a dot in it stays as it was written.
fn whole(template: &str, own: Option<&str>) -> String {
    let (Some(own), Some((scheme, rest))) = (own, template.split_once("://")) else {
        return template.to_owned();
    };
    let (host, behind) = rest.split_at(rest.find([':', '/']).unwrap_or(rest.len()));
    if host.contains('.') { template.to_owned() } else { format!("{scheme}://{host}.{own}.{behind}") }
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

    #[test]
    fn in_a_pod_the_name_of_a_service_is_whole_so_that_no_stranger_can_answer_to_it() {
        let pod = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n";
        let own = own_domain(pod);
        assert_eq!(own, Some("shop.svc.cluster.local"));
        for (written, is) in [
            ("http://{index}-vectors:3215", "http://{index}-vectors.shop.svc.cluster.local.:3215"),
            ("http://{index}-vectors", "http://{index}-vectors.shop.svc.cluster.local."),
            ("http://{index}:80/base", "http://{index}.shop.svc.cluster.local.:80/base"),
            ("http://{index}.example.:80", "http://{index}.example.:80"),
        ] {
            assert_eq!(whole(written, own), is);
            assert!(BaseUrl::parse(&is.replace(INDEX, "shelf")).is_ok(), "{is}");
        }
        let laptop = "# search a.svc.b\nnameserver 1.1.1.1\nsearch corp.example\n";
        assert_eq!(own_domain(laptop), None);
        assert_eq!(whole("http://{index}:80", None), "http://{index}:80");
    }

    #[tokio::test]
    async fn only_a_name_that_resolves_is_called() {
        let indexes = Indexes::new("http://{index}:3215/base");
        let found = indexes.of("/vectors/index/localhost/search").await;
        assert_eq!(found.unwrap().to_string(), "http://localhost:3215/base");
        // `.invalid` never resolves (RFC 6761), and the answer is kept.
        let nowhere = Indexes::new("http://{index}.invalid:3215");
        assert_eq!(nowhere.of("/vectors/index/shelf").await, None);
        assert!(nowhere.known().contains_key("shelf"));
    }
}
