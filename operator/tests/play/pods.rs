//! The pods of a namespace, behind one address: a catalogue, the views of query pods, vectors, models, and the progress of Jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use jiff::Timestamp;
use lakehouse_contract::{
    DatasetManifest, DatasetName,
    catalog::RollbackRequest,
    chat::ProviderList,
    embed::IdentityRequest,
    ingest::{Phase, Progress},
    problem::ErrorBody,
    sql::{ViewInfo, Views},
    vectors::{self, CreateRequest},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{chats::Chats, shelves::Shelves};

/// What all pods of a namespace know.
#[derive(Clone)]
pub(crate) struct Pods {
    pub(crate) port: u16,
    state: Arc<Mutex<Known>>,
    _server: Arc<Server>,
}

struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Known {
    /// The indexes and the models.
    shelves: Shelves,
    /// The providers.
    chats: Chats,
    /// Every version of each dataset, the current one's number, and the one that query pods see.
    datasets: BTreeMap<String, Dataset>,
    /// Ingests that run, and how many rows they have read.
    running: BTreeMap<String, u64>,
    tokens: BTreeSet<String>,
    /// What was told of each Dataset, and whether more is refused.
    declared: BTreeMap<String, Value>,
    refuses_declarations: bool,
    hides_manifests: bool,
    requests: usize,
}

#[derive(Default)]
struct Dataset {
    rows: BTreeMap<u64, u64>,
    current: u64,
    served: Option<u64>,
}

type Shared = State<Arc<Mutex<Known>>>;

impl Pods {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(Known::default()));
        let router = Router::new()
            .route("/v1/catalog/manifest/{name}", get(manifest))
            .route("/v1/catalog/rollback/{name}", post(rollback))
            .route("/v1/catalog/declared/{name}", put(declare).delete(undeclare))
            .route("/sql/views", get(views))
            .route("/sql/refresh", post(refresh))
            .route("/ingest/progress", get(progress))
            .route("/vectors/index", post(create))
            .route("/vectors/index/{name}", get(index))
            .route("/vectors/index/{name}/rollback", post(roll_index_back))
            .route("/embed/identity", post(identity))
            .route("/build/progress", get(build_progress))
            .route("/chat/providers", get(providers))
            .layer(from_fn_with_state(state.clone(), note))
            .with_state(state.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, state, _server: Arc::new(Server(server)) }
    }

    /// Publishes a new version, as an ingest or an upload does.
    pub(crate) fn publish(&self, name: &str, rows: u64) -> u64 {
        let mut known = self.state.lock().unwrap();
        let dataset = known.datasets.entry(name.to_owned()).or_default();
        let version = dataset.rows.keys().max().unwrap_or(&0) + 1;
        dataset.rows.insert(version, rows);
        dataset.current = version;
        version
    }

    /// What the gateway does after an upload: the query pods know at once.
    pub(crate) fn notify(&self) {
        self.state.lock().unwrap().refresh();
    }

    pub(crate) fn current(&self, name: &str) -> u64 {
        self.state.lock().unwrap().datasets[name].current
    }

    /// Somebody removes everything from the bucket.
    pub(crate) fn empty(&self) {
        self.state.lock().unwrap().datasets.clear();
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.state.lock().unwrap().datasets.contains_key(name)
    }

    /// The newest version, be it the current one or not.
    pub(crate) fn newest(&self, name: &str) -> u64 {
        *self.state.lock().unwrap().datasets[name].rows.keys().max().unwrap()
    }

    pub(crate) fn runs(&self, name: &str, rows: Option<u64>) {
        let mut known = self.state.lock().unwrap();
        match rows {
            Some(rows) => known.running.insert(name.to_owned(), rows),
            None => known.running.remove(name),
        };
    }

    /// What the pods of indexes and models know.
    pub(crate) fn shelves<T>(&self, use_it: impl FnOnce(&mut Shelves) -> T) -> T {
        use_it(&mut self.state.lock().unwrap().shelves)
    }

    /// What chatd's pods know.
    pub(crate) fn chats<T>(&self, use_it: impl FnOnce(&mut Chats) -> T) -> T {
        use_it(&mut self.state.lock().unwrap().chats)
    }

    /// What the gateway was told of a Dataset.
    pub(crate) fn declared(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().declared.get(name).cloned()
    }

    /// Whether the bucket takes no declarations.
    pub(crate) fn refuse_declarations(&self, refuses: bool) {
        self.state.lock().unwrap().refuses_declarations = refuses;
    }

    /// Whether the catalogue cannot be read.
    pub(crate) fn hide_manifests(&self, hides: bool) {
        self.state.lock().unwrap().hides_manifests = hides;
    }

    /// The tokens that were ever shown.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state.lock().unwrap().tokens.iter().cloned().collect()
    }
}

impl Known {
    fn refresh(&mut self) {
        for dataset in self.datasets.values_mut() {
            dataset.served = Some(dataset.current);
        }
    }

    fn views(&self) -> Views {
        let views = self.datasets.iter().filter_map(|(name, dataset)| {
            let version = dataset.served?;
            Some(ViewInfo { name: name.clone(), version, row_count: dataset.rows[&version] })
        });
        Views { views: views.collect(), damaged: Vec::new() }
    }

    fn manifest(&self, name: &str) -> Option<DatasetManifest> {
        let Dataset { rows, current, .. } = self.datasets.get(name)?;
        let name = DatasetName::parse(name).unwrap();
        Some(DatasetManifest {
            dataset_id: name.id(),
            name,
            schema_fingerprint: "f".repeat(64),
            schema: serde_json::from_value(json!([{"name": "id", "type": "int64", "field_id": 1}])).unwrap(),
            objects: Vec::new(),
            row_count: rows[current],
            version: *current,
            latest_version: *rows.keys().max().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            origin: None,
        })
    }
}

async fn note(State(state): Shared, request: Request, next: Next) -> Response {
    if let Some(token) = request.headers().get(header::AUTHORIZATION) {
        state.lock().unwrap().tokens.insert(token.to_str().unwrap().to_owned());
    }
    next.run(request).await
}

async fn manifest(State(state): Shared, Path(name): Path<String>) -> Response {
    let known = state.lock().unwrap();
    if known.hides_manifests {
        let body = ErrorBody::new("bad_gateway", "the bucket is away");
        return (StatusCode::BAD_GATEWAY, Json(body)).into_response();
    }
    answer(known.manifest(&name))
}

async fn rollback(
    State(state): Shared,
    Path(name): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> Response {
    let mut known = state.lock().unwrap();
    let version = request.version.unwrap();
    match known.datasets.get_mut(&name).filter(|dataset| dataset.rows.contains_key(&version)) {
        Some(dataset) => dataset.current = version,
        None => return answer(None),
    }
    answer(known.manifest(&name))
}

async fn declare(State(state): Shared, Path(name): Path<String>, Json(told): Json<Value>) -> Response {
    let mut known = state.lock().unwrap();
    if known.refuses_declarations {
        let body = ErrorBody::new("bad_gateway", "the bucket is away");
        return (StatusCode::BAD_GATEWAY, Json(body)).into_response();
    }
    known.declared.insert(name, told);
    StatusCode::NO_CONTENT.into_response()
}

async fn undeclare(State(state): Shared, Path(name): Path<String>) -> StatusCode {
    state.lock().unwrap().declared.remove(&name);
    StatusCode::NO_CONTENT
}

async fn views(State(state): Shared) -> Json<Views> {
    Json(state.lock().unwrap().views())
}

async fn refresh(State(state): Shared) -> Json<Views> {
    let mut known = state.lock().unwrap();
    known.refresh();
    Json(known.views())
}

async fn progress(
    State(state): Shared,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Vec<Progress>> {
    let mut known = state.lock().unwrap();
    let name = query["name"].clone();
    let told = known.running.get_mut(&name).map(|rows| {
        *rows += 1000;
        Progress {
            name,
            phase: Phase::Converting,
            bytes: *rows * 10,
            total_bytes: Some(1 << 30),
            rows: *rows,
            rejected_rows: 0,
            elapsed_ms: 1000,
            bytes_per_second: 1,
            remaining_ms: None,
            message: None,
        }
    });
    Json(told.into_iter().collect())
}

async fn create(State(state): Shared, Json(request): Json<CreateRequest>) -> Response {
    told(state.lock().unwrap().shelves.create(&request))
}

async fn index(State(state): Shared, Path(name): Path<String>) -> Response {
    told(state.lock().unwrap().shelves.get(&name))
}

async fn roll_index_back(
    State(state): Shared,
    Path(name): Path<String>,
    Json(request): Json<vectors::RollbackRequest>,
) -> Response {
    told(state.lock().unwrap().shelves.roll_back(&name, request.version.unwrap()))
}

async fn identity(State(state): Shared, Json(request): Json<IdentityRequest>) -> Response {
    told(state.lock().unwrap().shelves.identity(&request.model.unwrap()))
}

async fn build_progress(State(state): Shared) -> Json<Vec<lakehouse_contract::build::Progress>> {
    Json(state.lock().unwrap().shelves.progress())
}

async fn providers(State(state): Shared) -> Json<ProviderList> {
    Json(state.lock().unwrap().chats.list())
}

/// A pod's answer, or its error.
fn told(answer: Result<impl serde::Serialize, (StatusCode, ErrorBody)>) -> Response {
    match answer {
        Ok(body) => Json(body).into_response(),
        Err((status, body)) => (status, Json(body)).into_response(),
    }
}

fn answer(manifest: Option<DatasetManifest>) -> Response {
    manifest.map_or_else(
        || {
            let body = ErrorBody::new("not_found", "there is no such version");
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        },
        |manifest| Json(manifest).into_response(),
    )
}
