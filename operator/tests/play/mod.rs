//! What a cluster has beside its API server, played: the controllers of Jobs and Deployments, the kubelet, the garbage
//! collector, and behind one address for each namespace the pods themselves.
//!
//! The API server is a real one. A played pod has the address of this machine, and names the port of its namespace's
//! [`Pods`] as its own.

#![allow(dead_code, reason = "each test uses what it needs")]

mod chats;
mod controllers;
mod pods;
mod shelves;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use lakehouse_crds::{Dataset, conditions::Condition};
use lakehouse_operator::{
    client,
    lease::{LEASE, Timing},
    metrics::Metrics,
    report::Reported,
    run::{self, Options},
};
use lakehouse_parts::ApiServer;
use lakehouse_plan::cluster::Settings;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::OnceCell, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use pods::Pods;

/// What every Dataset of the tests reads.
pub(crate) const CSV: &str = "id,name\n1,ada\n2,grace\n";

/// The only API server of this test program. It ends with the program.
pub(crate) fn server() -> &'static ApiServer {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        // Another test may have been faster; the provider is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // RUST_LOG=lakehouse_operator=debug shows what the operators of a failing test say.
        let log = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(log).with_test_writer().try_init();
        ApiServer::start()
    })
}

/// The way to it, as a user who may do everything.
pub(crate) async fn config() -> Config {
    let kubeconfig = tokio::task::spawn_blocking(|| server().kubeconfig()).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A client of the test itself, with the resource definitions installed.
pub(crate) async fn client() -> Client {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let client = Client::try_from(config().await).unwrap();
    INSTALLED.get_or_init(|| install(&client)).await;
    client
}

async fn install(client: &Client) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in lakehouse_crds::definitions::all() {
        let name = definition.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await.unwrap();
    }
    eventually("the definitions are served", async || {
        Api::<Dataset>::all(client.clone()).list(&ListParams::default()).await.is_ok()
    })
    .await;
}

/// The settings of every operator of the tests.
pub(crate) fn settings() -> Settings {
    Settings::parse(SETTINGS).unwrap()
}

/// The same as a file.
pub(crate) const SETTINGS: &str =
    "image: lakehouse:test\nstore: {url: s3://lakehouse, endpoint: http://minio:9000}\n";

/// A namespace with everything but an operator.
pub(crate) struct Play {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) pods: Pods,
    jobs: Arc<Mutex<Jobs>>,
    /// Ends the played controllers.
    tasks: Vec<JoinHandle<()>>,
}

/// How the Jobs of the namespace go.
#[derive(Default)]
struct Jobs {
    by_resource: BTreeMap<String, Course>,
    time: Duration,
}

/// How the Jobs of a Dataset go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The rows are published.
    Done,
    /// The pod says this reason and this message; the same again cannot end better.
    Fails(&'static str, &'static str),
    /// The pod runs for ever.
    Runs,
    /// The pod cannot start: the kubelet's reason and message.
    Stuck(&'static str, &'static str),
}

impl Drop for Play {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Play {
    /// A new namespace with the store's Secret and the source `source` with the entry `people.csv`.
    pub(crate) async fn new(namespace: &str) -> Self {
        let client = client().await;
        let named = |name: &str| json!({"metadata": {"name": name}});
        let create = PostParams::default();
        let object: Namespace = serde_json::from_value(named(namespace)).unwrap();
        Api::all(client.clone()).create(&create, &object).await.unwrap();
        let mut secret: Secret = serde_json::from_value(named("lakehouse-store")).unwrap();
        secret.string_data = Some([("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned())].into());
        Api::namespaced(client.clone(), namespace).create(&create, &secret).await.unwrap();
        let mut source: ConfigMap = serde_json::from_value(named("source")).unwrap();
        source.data = Some([("people.csv".to_owned(), CSV.to_owned())].into());
        Api::namespaced(client.clone(), namespace).create(&create, &source).await.unwrap();

        let pods = Pods::start().await;
        let jobs = Arc::new(Mutex::new(Jobs { time: Duration::from_millis(200), ..Jobs::default() }));
        let tasks = controllers::start(&client, namespace, &pods, &jobs);
        Self { client, namespace: namespace.to_owned(), pods, jobs, tasks }
    }

    /// How the Jobs of a Dataset or VectorIndex go from now on.
    pub(crate) fn jobs_of(&self, name: &str, course: Course) {
        self.jobs.lock().unwrap().by_resource.insert(name.to_owned(), course);
    }

    /// How long a pod of a Job runs.
    pub(crate) fn jobs_take(&self, time: Duration) {
        self.jobs.lock().unwrap().time = time;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a Dataset with these spec fields beside its source.
    pub(crate) async fn apply(&self, name: &str, more: Value) {
        let mut spec = json!({"source": {"configMap": {"name": "source", "key": "people.csv"}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let dataset = json!({
            "apiVersion": "lakehouse.dev/v1alpha1",
            "kind": "Dataset",
            "metadata": {"name": name},
            "spec": spec,
        });
        let datasets = self.api::<Dataset>();
        datasets.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&dataset)).await.unwrap();
    }

    pub(crate) async fn dataset(&self, name: &str) -> Dataset {
        self.api::<Dataset>().get(name).await.unwrap()
    }

    /// Waits until a condition is `status` for `reason`, and gives its message.
    pub(crate) async fn becomes(&self, name: &str, condition: &str, status: &str, reason: &str) -> String {
        self.becomes_of::<Dataset>(name, condition, status, reason).await
    }

    /// The same of a resource of any kind.
    pub(crate) async fn becomes_of<K>(
        &self,
        name: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> String
    where
        K: Reported + 'static,
    {
        let what = format!("{condition} of {name} is {status} for {reason}");
        let mut message = String::new();
        eventually(&what, async || {
            let resource = self.api::<K>().get(name).await.unwrap();
            let conditions = resource.status().map(K::conditions).unwrap_or_default();
            let found = conditions.iter().find(|one| one.type_ == condition);
            let holds = found.is_some_and(|found| found.status == status && found.reason == reason);
            message = found.map(|found| found.message.clone()).unwrap_or_default();
            if !holds {
                eprintln!("{name}: {}", words(conditions));
            }
            holds && found.and_then(|found| found.observed_generation) == resource.meta().generation
        })
        .await;
        message
    }

    pub(crate) async fn becomes_ready(&self, name: &str) {
        self.becomes(name, "Ready", "True", "Serving").await;
    }

    /// The reasons of a Dataset's Events, in order.
    pub(crate) async fn events_of(&self, name: &str) -> Vec<String> {
        use k8s_openapi::api::events::v1::Event;
        let mut events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| {
            event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name))
        });
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        events
            .into_iter()
            .map(|event| format!("{} {}", event.type_.unwrap_or_default(), event.reason.unwrap_or_default()))
            .collect()
    }

    /// An operator for this namespace alone, which takes itself for the only one.
    pub(crate) async fn operator(&self) -> Operator {
        Operator::start(std::slice::from_ref(&self.namespace), None).await
    }
}

/// An operator of this process.
pub(crate) struct Operator {
    pub(crate) metrics: Metrics,
    pub(crate) address: String,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Operator {
    pub(crate) async fn start(namespaces: &[String], lease_namespace: Option<&str>) -> Self {
        Self::start_as(config().await, namespaces, lease_namespace).await
    }

    /// An operator that comes to the API server in this way.
    pub(crate) async fn start_as(
        config: Config,
        namespaces: &[String],
        lease_namespace: Option<&str>,
    ) -> Self {
        let metrics = Metrics::default();
        let client = client::counted(config, metrics.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let seconds = Duration::from_secs;
        let options = Options {
            namespaces: namespaces.to_vec(),
            lease_namespace: lease_namespace.map(str::to_owned),
            lease: LEASE.to_owned(),
            identity: format!("test-{:08x}", rand::random::<u32>()),
            timing: Timing {
                duration: seconds(3),
                deadline: seconds(2),
                renew: seconds(1),
                retry: seconds(1),
            },
        };
        let shutdown = stop.clone().cancelled_owned();
        let task = tokio::spawn(run::run(listener, client, metrics.clone(), settings(), options, shutdown));
        Self { metrics, address, stop, task }
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Ends it as SIGKILL does.
    pub(crate) fn kill(self) {
        drop(self);
    }

    pub(crate) fn leads(&self) -> bool {
        self.metrics.registry().text().contains("\nlakehouse_operator_leader 1\n")
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_mins(1), "it did not come true that {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn condition<'a>(dataset: &'a Dataset, name: &str) -> Option<&'a Condition> {
    dataset.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == name)
}

/// A Dataset in a line, for a test that waits in vain.
pub(crate) fn line(dataset: &Dataset) -> String {
    words(dataset.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default())
}

fn words(conditions: &[Condition]) -> String {
    let told =
        conditions.iter().map(|one| format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message));
    told.collect::<Vec<_>>().join(" | ")
}
