//! Searches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, header},
};
use lakehouse_contract::vectors::{DEFAULT_K, Hit, MAX_K, SearchAnswer, SearchRequest};
use lakehouse_http::Problem;
use serde::Deserialize;

use super::{Name, bodies, checked};
use crate::{
    Error, Result,
    fanout::{Call, Peers},
    filter::Filter,
    live::Live,
    models,
    snapshot::{Found, Search, Snapshot, merged},
    vectord::Vectord,
};

/// The most vectors of one request.
const MAX_BATCH: usize = 1000;
/// The most candidates that a search looks at.
const MAX_EF: u32 = 10_000;
/// How often parts that change to another version are asked again.
const TRIES: u32 = 5;

/// Asks one part of a sharded index for its own vectors only.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Part {
    part: Option<u32>,
    version: Option<u64>,
}

pub(super) async fn search(
    State(vectord): State<Vectord>,
    name: Name,
    part: Query<Part>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SearchAnswer>, Problem> {
    let name = checked(name)?;
    let live = vectord.live(&name).await?;
    let request: SearchRequest = bodies::read(body).await?;
    let asked = Asked::check(request)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match Box::pin(answer(&vectord, &live, &asked, &part, &headers)).await {
            // The other parts have the new version, or will in a moment.
            Err(Error::Changing(_)) if tries < TRIES => {
                vectord.refresh(&name).await?;
                tokio::time::sleep(vectord.inner().settings.follow / 4).await;
            }
            answered => return Ok(Json(answered?)),
        }
    }
}

/// A request that was checked.
#[derive(Debug)]
struct Asked {
    near: Near,
    model: Option<String>,
    k: u32,
    ef: Option<u32>,
    filter: Option<Filter>,
    /// The filter as it came, for the other parts.
    written: Option<serde_json::Value>,
}

#[derive(Debug)]
enum Near {
    Vector(Vec<f32>),
    Vectors(Vec<Vec<f32>>),
    Text(String),
}

impl Asked {
    fn check(request: SearchRequest) -> Result<Self> {
        let SearchRequest { vector, vectors, text, model, k, ef, filter } = request;
        let near = match (vector, vectors, text) {
            (Some(vector), None, None) => Near::Vector(vector),
            (None, Some(vectors), None) if vectors.len() <= MAX_BATCH => Near::Vectors(vectors),
            (None, Some(vectors), None) => {
                return Err(Error::Invalid(format!(
                    "`vectors` has {}; at most {MAX_BATCH} are searched at once",
                    vectors.len()
                )));
            }
            (None, None, Some(text)) => Near::Text(text),
            _ => {
                let message = "a search is by exactly one of `vector`, `vectors` and `text`";
                return Err(Error::Invalid(message.into()));
            }
        };
        let k = k.unwrap_or(DEFAULT_K);
        for (field, value, most) in [("k", k, MAX_K), ("ef", ef.unwrap_or(1), MAX_EF)] {
            if !(1..=most).contains(&value) {
                return Err(Error::Invalid(format!("`{field}` is {value}; 1 to {most} is allowed")));
            }
        }
        let model = model.filter(|model| !model.is_empty());
        let parsed = filter.as_ref().map(Filter::parse).transpose()?;
        Ok(Self { near, model, k, ef, filter: parsed, written: filter })
    }
}

/// The snapshot that answers, which has the version that another part asks for.
pub(super) async fn on_part(vectord: &Vectord, live: &Arc<Live>, part: &Part) -> Result<Arc<Snapshot>> {
    let snapshot = live.snapshot();
    let Some(wanted) = part.version.filter(|wanted| *wanted != snapshot.manifest.version) else {
        return Ok(snapshot);
    };
    vectord.refresh(&live.name).await?;
    let snapshot = live.snapshot();
    match snapshot.manifest.version {
        found if found == wanted => Ok(snapshot),
        found => Err(Error::OtherVersion { name: live.name.clone(), wanted, found }),
    }
}

/// The other parts to ask; `None` where all is here, and where this is what another part asks.
pub(super) fn call<'a>(
    vectord: &'a Vectord,
    snapshot: &'a Snapshot,
    part: &Part,
    headers: &'a HeaderMap,
) -> Option<(&'a Peers, Call<'a>)> {
    let peers = vectord.inner().peers.as_ref()?;
    if part.part.is_some() || snapshot.manifest.shards == 1 {
        return None;
    }
    let token = headers.get(header::AUTHORIZATION);
    Some((peers, Call { name: &snapshot.manifest.name, version: snapshot.manifest.version, token }))
}

async fn answer(
    vectord: &Vectord,
    live: &Arc<Live>,
    asked: &Asked,
    part: &Part,
    headers: &HeaderMap,
) -> Result<SearchAnswer> {
    let snapshot = on_part(vectord, live, part).await?;
    let embedder = vectord.inner().embedder.as_deref();
    if let Some(model) = &asked.model {
        models::check(embedder, &snapshot, model).await?;
    }
    let (near, list) = match &asked.near {
        Near::Vector(one) => (vec![one.clone()], "vector"),
        Near::Vectors(many) => (many.clone(), "vectors"),
        Near::Text(text) => (vec![models::embed(embedder, &snapshot, text).await?], "text"),
    };
    let search = Search {
        queries: snapshot.queries(&near, list)?,
        k: asked.k as usize,
        ef: asked.ef,
        filter: asked.filter.clone(),
        checked: part.part.is_none(),
        given_up: Arc::default(),
    };
    let here = local(vectord, snapshot.clone(), search);
    let (found, others) = match call(vectord, &snapshot, part, headers) {
        None => (here.await?, Vec::new()),
        Some((peers, call)) => {
            let request = SearchRequest {
                vectors: Some(near),
                k: Some(asked.k),
                ef: asked.ef,
                filter: asked.written.clone(),
                ..SearchRequest::default()
            };
            futures::future::try_join(here, peers.search(&call, &request)).await?
        }
    };
    Ok(told(&snapshot, asked, found, others))
}

/// Searches what is here, on a thread where it holds up nobody. The place is held as long as the work goes on, which may be longer than
/// the caller waits.
async fn local(vectord: &Vectord, snapshot: Arc<Snapshot>, search: Search) -> Result<Found> {
    let inner = vectord.inner();
    let place = Arc::clone(&inner.searching).acquire_owned().await;
    let (name, queries) = (snapshot.manifest.name.clone(), search.queries.len() as u64);
    let began = Instant::now();
    let waits = GivesUp(Arc::clone(&search.given_up));
    let found = tokio::task::spawn_blocking(move || {
        let found = snapshot.search(&search);
        drop(place);
        found
    });
    let found = found.await;
    drop(waits);
    inner.numbers.searched(&name, queries, began.elapsed());
    found.map_err(|error| Error::Local(format!("the search failed: {error}")))?
}

/// Says, when it is dropped, that nobody waits any more.
struct GivesUp(Arc<AtomicBool>);

impl Drop for GivesUp {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The answer of all parts together.
fn told(snapshot: &Snapshot, asked: &Asked, found: Found, others: Vec<SearchAnswer>) -> SearchAnswer {
    let Found { mut batches, mut matches } = found;
    let mut incomplete = snapshot.incomplete();
    let mut lists: Vec<Vec<Vec<Hit>>> = batches.iter_mut().map(|batch| vec![std::mem::take(batch)]).collect();
    for other in others {
        for (all, batch) in lists.iter_mut().zip(other.batches.unwrap_or_default()) {
            all.push(batch);
        }
        matches = matches.map(|own| own + other.matches.unwrap_or(0));
        incomplete = incomplete.or(other.incomplete);
    }
    let mut batches: Vec<Vec<Hit>> = lists
        .into_iter()
        .map(|mut lists| match lists.as_mut_slice() {
            [one] => std::mem::take(one),
            _ => merged(lists, asked.k as usize),
        })
        .collect();
    let sql = snapshot.sql(batches.iter().flatten());
    let version = snapshot.manifest.source.is_some().then_some(snapshot.manifest.version);
    let one = !matches!(asked.near, Near::Vectors(_));
    let results = if one { batches.pop() } else { None };
    let batches = (!one).then_some(batches);
    SearchAnswer { results, batches, matches, version, sql, incomplete }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lakehouse_http::Metrics;
    use lakehouse_store::Store;
    use serde_json::json;

    use super::*;
    use crate::{Settings, live::checked_writes, record::Op};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_search_that_nobody_waits_for_keeps_its_place_until_it_has_stopped_and_stops_soon() {
        let folder = tempfile::tempdir().unwrap();
        let (store, metrics) = (Store::memory(), Metrics::default());
        let vectord = Vectord::open(store, folder.path(), None, Settings::default(), &metrics).await.unwrap();
        let name = lakehouse_contract::IndexName::parse("shelf").unwrap();
        let shape = serde_json::from_value(json!({"dimension": 64, "metric": "euclidean"})).unwrap();
        vectord.indexes().create(&name, &shape, None).await.unwrap();
        let live = vectord.live(&name).await.unwrap();
        let item = |row: u16| json!({"id": row.to_string(), "vector": vec![row; 64]});
        let items = serde_json::from_value(json!((0..3000).map(item).collect::<Vec<_>>())).unwrap();
        live.write(Op::Upsert(checked_writes(&shape, items).unwrap())).await.unwrap();

        let snapshot = live.snapshot();
        let near: Vec<Vec<f32>> = vec![vec![7.5; 64]; 100_000];
        let given_up: Arc<AtomicBool> = Arc::default();
        let search = Search {
            queries: snapshot.queries(&near, "vectors").unwrap(),
            k: 1,
            ef: None,
            filter: None,
            checked: true,
            given_up: given_up.clone(),
        };
        let places = vectord.inner().searching.available_permits();
        let asked = {
            let vectord = vectord.clone();
            tokio::spawn(async move { local(&vectord, snapshot, search).await })
        };
        while vectord.inner().searching.available_permits() == places {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // It runs: a caller who leaves before that leaves nothing behind.
        tokio::time::sleep(Duration::from_millis(20)).await;
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        let began = Instant::now();
        assert!(given_up.load(Relaxed));
        let held = places - vectord.inner().searching.available_permits();
        let still_runs = Arc::strong_count(&given_up) > 1;
        assert!(held == 1 || !still_runs, "the place was free while the search went on");
        while vectord.inner().searching.available_permits() < places {
            assert!(began.elapsed() < Duration::from_secs(5), "it goes on and on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
