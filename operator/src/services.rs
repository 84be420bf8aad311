//! The pods' side: what the gateway, the query pods, and the pods of indexes, of models and of chats say.
//!
//! Receives the pods that are known; hands on manifests, views, models and progress. Pods are asked directly, at the port that their
//! own spec names, with the namespace's token; the API server hears nothing of it. Nobody waits for a pod twice: views
//! are one snapshot a namespace, a manifest is asked for again only when something says that it has changed.

mod address;
mod declared;
mod http;
mod indexes;
mod manifests;
mod models;
mod progress;
mod providers;
mod tokens;
mod views;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use lakehouse_contract::{DatasetManifest, build, catalog::RollbackRequest, ingest, vectors::IndexInfo};
use lakehouse_crds::DatasetSpec;
use lakehouse_plan::cluster::{
    ResourceKind, Settings,
    meta::Component,
    names,
    serving::{View, is_ready},
};

use crate::{
    key::Key,
    queue::Queue,
    world::{World, seen::Labels},
};

pub use http::Error;
pub use manifests::{Evidence, Known, Said};
pub use progress::INTERVAL as PROGRESS_INTERVAL;
pub use views::EVERY as LOOK_EVERY;

/// Everything that is asked of pods. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Services(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: World,
    queue: Queue<Key>,
    http: http::Http,
    views: views::Views<View>,
    indexes: views::Views<IndexInfo>,
    models: models::Models,
    providers: views::Views<providers::Told>,
    manifests: manifests::Manifests,
    declared: declared::Declared,
    progress: progress::Seen<ingest::Progress>,
    builds: progress::Seen<build::Progress>,
    /// Only a leader asks.
    leads: AtomicBool,
}

impl Services {
    /// Asks the pods of this world, and wakes those whom an answer concerns.
    pub fn new(
        client: Client,
        world: World,
        queue: Queue<Key>,
        settings: &Settings,
    ) -> reqwest::Result<Self> {
        let tokens = tokens::Tokens::new(client, world.clone(), settings.token_secret.clone());
        Ok(Self(Arc::new(Inner {
            world,
            queue,
            http: http::Http::new(tokens)?,
            views: views::Views::default(),
            indexes: views::Views::default(),
            models: models::Models::default(),
            providers: views::Views::default(),
            manifests: manifests::Manifests::default(),
            declared: declared::Declared::default(),
            progress: progress::Seen::default(),
            builds: progress::Seen::default(),
            leads: AtomicBool::new(false),
        })))
    }

    /// Whether this operator leads, so that it asks at all.
    pub fn lead(&self, leads: bool) {
        self.0.leads.store(leads, Ordering::Relaxed);
    }

    /// Asks every pod of every namespace with resources what it serves, and what its models are.
    pub fn look_everywhere(&self) {
        for namespace in self.0.world.datasets.namespaces() {
            self.look(&namespace);
        }
        for namespace in self.0.world.indexes.namespaces() {
            self.look_at_indexes(&namespace);
            self.ask_models(&namespace);
        }
        for namespace in self.0.world.providers.namespaces() {
            self.look_at_providers(&namespace);
            self.ask_models(&namespace);
        }
    }

    /// Asks the query pods of a namespace what they serve, beside everything else. Datasets whose views differ are woken.
    pub fn look(&self, namespace: &str) {
        self.ask_views(namespace, views::How::Look);
    }

    /// Lets the query pods of a namespace refresh at once, since something newer is published.
    pub fn refresh(&self, namespace: &str) {
        self.ask_views(namespace, views::How::Refresh);
    }

    /// Every query pod of a namespace, and what it last said of a dataset.
    pub fn views(&self, namespace: &str, dataset: &str) -> Vec<(Arc<Pod>, View)> {
        let said = |pod: Arc<Pod>| {
            let view = View::from(self.0.views.of(namespace, &pod, dataset));
            (pod, view)
        };
        self.0.pods(namespace, Component::Query).into_iter().map(said).collect()
    }

    /// The pods of a namespace's gateway.
    pub fn gateway(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.0.pods(namespace, Component::Gateway)
    }

    /// The pods that turn text into vectors.
    pub fn embedders(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.0.pods(namespace, Component::Embed)
    }

    /// The pods that ask language models.
    pub fn chatters(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.0.pods(namespace, Component::Chat)
    }

    /// What the catalogue says is current; asked again only when `evidence` is not what it was.
    pub async fn manifest(&self, namespace: &str, dataset: &str, evidence: Evidence) -> Known {
        let Inner { manifests, http, .. } = &*self.0;
        if let Some(said) = manifests.known(namespace, dataset, &evidence) {
            return Known::Yes(said);
        }
        let path = format!("/v1/catalog/manifest/{dataset}");
        let asked = match self.0.gateway_address(namespace) {
            Ok(address) => http.get::<DatasetManifest>(namespace, &address, &path).await,
            Err(error) => Err(error),
        };
        let said = match asked {
            Ok(manifest) => Said::Current(Arc::new(manifest)),
            Err(error) if error.is_not_found() => Said::Nothing,
            Err(error) => return Known::No(error, manifests.last(namespace, dataset)),
        };
        manifests.put(namespace, dataset, evidence, said.clone());
        Known::Yes(said)
    }

    /// Makes the catalogue serve an earlier version.
    pub async fn rollback(&self, namespace: &str, dataset: &str, version: u64) -> Result<(), Error> {
        let address = self.0.gateway_address(namespace)?;
        let path = format!("/v1/catalog/rollback/{dataset}");
        let body = RollbackRequest { version: Some(version) };
        let manifest: DatasetManifest = self.0.http.post(namespace, &address, &path, Some(&body)).await?;
        self.0.manifests.replace(namespace, dataset, manifest);
        Ok(())
    }

    /// Lets the gateway know what a Dataset's spec says of uploads, unless it has acknowledged just that.
    pub async fn declare(&self, namespace: &str, dataset: &str, spec: &DatasetSpec) -> Result<(), Error> {
        let Inner { declared, http, .. } = &*self.0;
        let declaration = declared::declaration(spec);
        if declared.knows(namespace, dataset, &declaration) {
            return Ok(());
        }
        let address = self.0.gateway_address(namespace)?;
        http.put(namespace, &address, &declared_path(dataset), &declaration).await?;
        declared.put(namespace, dataset, declaration);
        Ok(())
    }

    /// Lets the gateway forget what it was told of a Dataset that is gone. One that is gone as well needs no telling.
    pub async fn undeclare(&self, namespace: &str, dataset: &str) -> Result<(), Error> {
        let Ok(address) = self.0.gateway_address(namespace) else { return Ok(()) };
        self.0.http.delete(namespace, &address, &declared_path(dataset)).await
    }

    /// What the pod at this address last told of its ingest. It is asked again beside everything else, and the
    /// Dataset is woken when it has come further.
    pub fn progress(&self, namespace: &str, dataset: &str, address: &str) -> Option<ingest::Progress> {
        let address = self.0.worker(ResourceKind::Dataset, namespace, dataset, address)?;
        let progress = &self.0.progress;
        if self.0.leads.load(Ordering::Relaxed) && progress.begin(namespace, dataset, &address) {
            let (me, namespace, name) = (self.clone(), namespace.to_owned(), dataset.to_owned());
            let address = address.clone();
            tokio::spawn(async move {
                let path = format!("/ingest/progress?name={name}");
                let told = me.0.http.get::<Vec<ingest::Progress>>(&namespace, &address, &path).await;
                let told = told.ok().and_then(|all| all.into_iter().find(|one| one.name == name));
                if me.0.progress.end(&namespace, &name, &address, told) {
                    me.0.queue.add(Key::dataset(namespace, name));
                }
            });
        }
        progress.last(namespace, dataset, &address)
    }

    /// Forgets a Dataset that is gone.
    pub fn forget(&self, namespace: &str, dataset: &str) {
        self.0.manifests.forget(namespace, dataset);
        self.0.declared.forget(namespace, dataset);
        self.0.progress.forget(namespace, dataset);
        if self.0.world.datasets.names_of(namespace).is_empty() {
            self.0.views.forget(namespace);
        }
    }

    fn ask_views(&self, namespace: &str, how: views::How) {
        if self.0.leads.load(Ordering::Relaxed) && self.0.views.begin(namespace, how) {
            let (me, namespace) = (self.clone(), namespace.to_owned());
            tokio::spawn(async move { me.follow_views(&namespace).await });
        }
    }

    /// Asks until nobody wants to know any more.
    async fn follow_views(&self, namespace: &str) {
        let Inner { world, queue, http, views, .. } = &*self.0;
        while let Some(how) = views.next(namespace) {
            let mut pods = self.0.pods(namespace, Component::Query);
            pods.retain(|pod| is_ready(pod));
            let answers = futures::future::join_all(pods.iter().map(async |pod| {
                let answer = views::ask(http, namespace, pod, how).await;
                (views::uid(pod), answer)
            }));
            let changed = views.put(namespace, answers.await);
            let known = world.datasets.names_of(namespace);
            for name in known.into_iter().filter(|name| changed.concerns(name)) {
                queue.add(Key::dataset(namespace, name));
            }
            tokio::time::sleep(views::PAUSE).await;
        }
    }
}

fn declared_path(dataset: &str) -> String {
    format!("/v1/catalog/declared/{dataset}")
}

impl Inner {
    /// Where the pod of a resource's Job listens that has this IP address.
    fn worker(&self, kind: ResourceKind, namespace: &str, name: &str, ip: &str) -> Option<String> {
        let (pods, short) = (self.world.pods.of(namespace), names::short(name));
        // Pods that have ended keep their addresses, which others may have now.
        let is_meant = |pod: &Pod| address::ip(pod) == Some(ip) && Labels::of(pod).is_of(kind, &short);
        address::of(&pods.iter().find(|pod| is_meant(&pod.object))?.object)
    }

    fn pods(&self, namespace: &str, component: Component) -> Vec<Arc<Pod>> {
        let pods = self.world.pods.of(namespace).into_iter();
        pods.map(|pod| Arc::clone(&pod.object))
            .filter(|pod| Labels::of(&**pod).component.as_deref() == Some(component.as_str()))
            .collect()
    }

    fn gateway_address(&self, namespace: &str) -> Result<String, Error> {
        let pods = self.pods(namespace, Component::Gateway);
        let mut ready = pods.iter().filter(|pod| is_ready(pod));
        ready.find_map(|pod| address::of(pod)).ok_or(Error::NoPod("gateway"))
    }
}
