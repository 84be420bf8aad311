//! Reads what the stores do not hold: an entry of a ConfigMap, the Events of an object, the end of a namespace.
//!
//! An entry is read once for each state of its ConfigMap, and only its digest is kept.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Namespace, Pod},
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use lakehouse_plan::cluster::{
    EventsOf, Kind, ObjectName, ResourceKind,
    dataset::{Entry, entry_digest},
    meta::owner_of,
};

use crate::world::{World, seen::Whole};

/// The API server could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: String,
    source: Box<kube::Error>,
}

impl Error {
    fn of(what: String) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self { what, source: Box::new(error) }
    }
}

/// Reads from the API server what no watch brings. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    world: World,
    entries: Arc<Mutex<HashMap<Place, Digest>>>,
}

/// Namespace, ConfigMap and key.
type Place = (String, String, String);

/// For which state of the ConfigMap, and the entry's digest where there is one.
type Digest = (String, Option<String>);

/// The entry of a ConfigMap, with what [`Entry`] borrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// None is asked for.
    #[default]
    NotNeeded,
    /// There is no such ConfigMap.
    NoConfigMap,
    /// It has no such entry.
    NoKey,
    /// The entry's digest.
    Digest(String),
}

impl Found {
    /// As the plan wants it.
    pub fn entry(&self) -> Entry<'_> {
        match self {
            Self::NotNeeded => Entry::NotNeeded,
            Self::NoConfigMap => Entry::NoConfigMap,
            Self::NoKey => Entry::NoKey,
            Self::Digest(digest) => Entry::Digest(digest),
        }
    }
}

impl Reader {
    /// Reads over this client what this world lacks.
    pub fn new(client: Client, world: World) -> Self {
        Self { client, world, entries: Arc::default() }
    }

    /// An entry of a ConfigMap.
    pub async fn entry(&self, namespace: &str, name: &str, key: &str) -> Result<Found, Error> {
        let place = (namespace.to_owned(), name.to_owned(), key.to_owned());
        let Some(stamp) = self.world.sources.get(namespace, name) else {
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
            return Ok(Found::NoConfigMap);
        };
        let state = stamp.identity();
        let known = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.get(&place).filter(|(of, _)| *of == state).map(|(_, digest)| digest.clone())
        };
        if let Some(digest) = known {
            return Ok(digest.map_or(Found::NoKey, Found::Digest));
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = api.get_opt(name).await.map_err(Error::of(format!("ConfigMap `{name}`")))?;
        let Some(map) = map else { return Ok(Found::NoConfigMap) };
        let text = map.data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
        let binary = map.binary_data.as_ref().and_then(|data| data.get(key)).map(|data| &*data.0);
        let digest = text.or(binary).map(entry_digest);
        // What was read may be newer than what was seen; then the event of that reads it once more.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(place, (state, digest.clone()));
        Ok(digest.map_or(Found::NoKey, Found::Digest))
    }

    /// The Events of an object.
    pub async fn events(&self, namespace: &str, of: &EventsOf) -> Result<Vec<Event>, Error> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let EventsOf { kind, name, uid } = of;
        let which = format!("involvedObject.kind={kind},involvedObject.name={name},involvedObject.uid={uid}");
        let listed = events.list(&ListParams::default().fields(&which).limit(100)).await;
        Ok(listed.map_err(Error::of(format!("the Events of {kind} `{name}`")))?.items)
    }

    /// Whether a namespace is being deleted. A right to ask is not needed: without it, the answer is no.
    pub async fn is_ending(&self, namespace: &str) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let asked = namespaces.get(namespace).await;
        asked.is_ok_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    /// The Jobs with the label of a resource.
    pub fn jobs(&self, kind: ResourceKind, namespace: &str, short: &str) -> Vec<Arc<Job>> {
        of_resource(self.world.jobs.of(namespace), kind, short)
    }

    /// The pods with the label of a resource.
    pub fn pods(&self, kind: ResourceKind, namespace: &str, short: &str) -> Vec<Arc<Pod>> {
        of_resource(self.world.pods.of(namespace), kind, short)
    }

    /// Our Deployments of a namespace.
    pub fn deployments(&self, namespace: &str) -> Vec<Arc<Deployment>> {
        self.world.deployments.of(namespace).into_iter().map(|one| Arc::clone(&one.object)).collect()
    }

    /// The names of our ConfigMaps with the label of a resource.
    pub fn config_maps(&self, kind: ResourceKind, namespace: &str, short: &str) -> Vec<String> {
        let maps = self.world.config_maps.entries(namespace).into_iter();
        maps.filter(|(_, map)| map.labels.is_of(kind, short)).map(|(name, _)| name).collect()
    }

    /// The Services, Deployments and budgets with the label of a resource.
    pub fn servers(&self, kind: ResourceKind, namespace: &str, short: &str) -> Vec<ObjectName> {
        let World { services, budgets, deployments, .. } = &self.world;
        let mut found = Vec::new();
        for (of, store) in [(Kind::Service, services), (Kind::PodDisruptionBudget, budgets)] {
            let own = store.entries(namespace).into_iter().filter(|(_, one)| one.labels.is_of(kind, short));
            found.extend(own.map(|(name, _)| ObjectName::new(of, name)));
        }
        let own = of_resource(deployments.of(namespace), kind, short).into_iter();
        found.extend(own.map(|deployment| ObjectName::new(Kind::Deployment, deployment.name_any())));
        found
    }

    /// Those of these Secrets that are there, each with its state.
    pub fn secrets(&self, namespace: &str, names: &[String]) -> BTreeMap<String, String> {
        let found = |name: &String| Some((name.clone(), self.world.secrets.get(namespace, name)?.identity()));
        names.iter().filter_map(found).collect()
    }

    /// Forgets what was read for a Dataset that is gone.
    pub fn forget(&self, namespace: &str) {
        if self.world.datasets.names_of(namespace).is_empty() {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|(of, _, _), _| of != namespace);
        }
    }
}

fn of_resource<K: Resource>(objects: Vec<Arc<Whole<K>>>, kind: ResourceKind, short: &str) -> Vec<Arc<K>> {
    let objects = objects.into_iter().map(|object| Arc::clone(&object.object));
    objects.filter(|object| owner_of(object.labels()) == Some((kind, short))).collect()
}
