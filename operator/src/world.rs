//! What is known of the cluster: a store for each kind that the operator reads, kept by watches.
//!
//! Receives the API server's events; hands on objects without a request, and for each event the keys that it concerns.
//! Of what can be many and large only the outline is kept: of Secrets and foreign ConfigMaps, nothing but that they are
//! there.

pub mod seen;
mod wake;

use std::{fmt::Debug, hash::Hash};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};
use lakehouse_plan::cluster::{Kind, ObjectName, ResourceKind, names};
use seen::{Outline, Stamp, Whole};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::{
    store::{Change, Scope, Store},
    watch::{Health, Watch},
};

pub use wake::Wake;

/// Selects what the operator keeps, and the pods below it.
const OURS: &str = "app.kubernetes.io/managed-by=lakehouse-operator";

/// Every store. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The users' Datasets.
    pub datasets: Store<Whole<Dataset>>,
    /// The users' `VectorIndexes`.
    pub indexes: Store<Whole<VectorIndex>>,
    /// The users' `ChatProviders`.
    pub providers: Store<Whole<ChatProvider>>,
    /// Our Jobs.
    pub jobs: Store<Whole<Job>>,
    /// The pods of our Jobs and Deployments.
    pub pods: Store<Whole<Pod>>,
    /// Our Deployments.
    pub deployments: Store<Whole<Deployment>>,
    /// Our Services.
    pub services: Store<Outline>,
    /// Our ConfigMaps.
    pub config_maps: Store<Outline>,
    /// Our `PodDisruptionBudgets`.
    pub budgets: Store<Outline>,
    /// Our `ServiceAccounts`.
    pub accounts: Store<Outline>,
    /// Every Secret.
    pub secrets: Store<Stamp>,
    /// Every ConfigMap.
    pub sources: Store<Stamp>,
}

/// How many watches a scope has.
pub const WATCHES: usize = 12;

impl World {
    /// Follows everything within `scopes` for as long as the tasks run; `wake` hears what happens.
    pub fn watch(&self, client: &Client, scopes: &[Scope], wake: &Wake, health: &Health) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for scope in scopes {
            let mut begin = Begin { tasks: &mut tasks, client, scope, wake, health };
            begin.all("datasets.lakehouse.dev", &self.datasets, Whole::resource, Wake::dataset);
            begin.all("vectorindexes.lakehouse.dev", &self.indexes, Whole::resource, Wake::index);
            begin.all("chatproviders.lakehouse.dev", &self.providers, Whole::resource, Wake::provider);
            begin.ours("jobs", &self.jobs, Whole::job, Wake::job);
            begin.ours("pods", &self.pods, Whole::pod, Wake::pod);
            begin.ours("deployments", &self.deployments, Whole::deployment, Wake::deployment);
            let keep = |object: Service| Outline::of(&object);
            begin.ours("services", &self.services, keep, Wake::service);
            let keep = |object: ConfigMap| Outline::of(&object);
            begin.ours("configmaps", &self.config_maps, keep, Wake::config_map);
            let keep = |object: PodDisruptionBudget| Outline::of(&object);
            begin.ours("poddisruptionbudgets", &self.budgets, keep, Wake::budget);
            let keep = |object: ServiceAccount| Outline::of(&object);
            begin.ours("serviceaccounts", &self.accounts, keep, Wake::account);
            let keep = |object: PartialObjectMeta<Secret>| Stamp::of(&object);
            begin.all("secrets", &self.secrets, keep, Wake::secret);
            let keep = |object: PartialObjectMeta<ConfigMap>| Stamp::of(&object);
            begin.all("configmaps", &self.sources, keep, Wake::source);
        }
        tasks
    }

    /// Which state of one of our objects was seen last.
    pub fn stamp(&self, namespace: &str, object: &ObjectName) -> Option<Stamp> {
        let name = object.name.as_str();
        match object.kind {
            Kind::Job => self.jobs.get(namespace, name).map(|job| job.stamp.clone()),
            Kind::Deployment => self.deployments.get(namespace, name).map(|object| object.stamp.clone()),
            Kind::Service => self.services.get(namespace, name).map(|object| object.stamp.clone()),
            Kind::ConfigMap => self.config_maps.get(namespace, name).map(|object| object.stamp.clone()),
            Kind::PodDisruptionBudget => self.budgets.get(namespace, name).map(|object| object.stamp.clone()),
            Kind::ServiceAccount => self.accounts.get(namespace, name).map(|object| object.stamp.clone()),
            Kind::Secret => self.secrets.get(namespace, name).map(|stamp| Stamp::clone(&stamp)),
        }
    }

    /// Whether what every pod of a namespace needs to start is there. Without it a Job's pod is refused or waits, and is tried
    /// again by others in their own time.
    pub fn is_prepared(&self, namespace: &str, token_secret: &str) -> bool {
        self.accounts.get(namespace, names::SERVICE_ACCOUNT).is_some()
            && self.config_maps.get(namespace, names::SETTINGS).is_some()
            && self.secrets.get(namespace, token_secret).is_some()
    }

    /// The name of the resource with this short name, as a label says it.
    pub fn name_of(&self, kind: ResourceKind, namespace: &str, short: &str) -> Option<String> {
        let (is_there, names) = match kind {
            ResourceKind::Dataset => {
                (self.datasets.get(namespace, short).is_some(), self.datasets.names_of(namespace))
            }
            ResourceKind::VectorIndex => {
                (self.indexes.get(namespace, short).is_some(), self.indexes.names_of(namespace))
            }
            ResourceKind::ChatProvider => return None,
        };
        if is_there && names::short(short) == short {
            return Some(short.to_owned());
        }
        names.into_iter().find(|name| names::short(name) == short)
    }
}

/// Begins watches of one scope.
struct Begin<'a> {
    tasks: &'a mut JoinSet<()>,
    client: &'a Client,
    scope: &'a Scope,
    wake: &'a Wake,
    health: &'a Health,
}

impl Begin<'_> {
    /// Follows every object of a kind.
    fn all<K, T>(&mut self, kind: &'static str, store: &Store<T>, keep: fn(K) -> T, concern: Concern<T>)
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default + Clone + Debug + Eq + Hash + Send + Sync,
        T: Send + Sync + 'static,
    {
        self.begin(kind, None, store, keep, concern);
    }

    /// Follows the objects of a kind that are ours.
    fn ours<K, T>(&mut self, kind: &'static str, store: &Store<T>, keep: fn(K) -> T, concern: Concern<T>)
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default + Clone + Debug + Eq + Hash + Send + Sync,
        T: Send + Sync + 'static,
    {
        self.begin(kind, Some(OURS), store, keep, concern);
    }

    fn begin<K, T>(
        &mut self,
        kind: &'static str,
        labels: Option<&'static str>,
        store: &Store<T>,
        keep: fn(K) -> T,
        concern: Concern<T>,
    ) where
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default + Clone + Debug + Eq + Hash + Send + Sync,
        T: Send + Sync + 'static,
    {
        let api: Api<K> = match self.scope {
            Scope::All => Api::all(self.client.clone()),
            Scope::Namespace(namespace) => Api::namespaced(self.client.clone(), namespace),
        };
        let watch = Watch { api, scope: self.scope.clone(), labels, kind };
        let wake = self.wake.clone();
        let changed = move |change: &Change<T>| concern(&wake, change);
        self.tasks.spawn(watch.follow(store.clone(), keep, changed, self.health.clone()));
    }
}

/// What an event of a kind means for the queue.
type Concern<T> = fn(&Wake, &Change<T>);
