//! The Deployments that resources of a namespace share, and the Services in front of them.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::{
    api::core::v1::{ConfigMap, KeyToPath, PodTemplateSpec, SecretVolumeSource, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lakehouse_contract::{
    Role,
    provider::{Provider, Providers},
};
use lakehouse_crds::common::KeyRef;

use super::Observed;
use crate::{
    ReadyProvider,
    cluster::{
        Child, Kind, Owner, ResourceKind, Settings, job,
        meta::{self, Component},
        names,
        pod::{self, Blueprint, Life, Surroundings},
        quantity, server,
    },
};

/// What a query pod keeps of its memory for answers, Parquet footers and itself.
const OWN_SHARE: f64 = 0.15;
/// queryd ends a query at half more than DuckDB's limit and this, in MiB: where DuckDB itself does not count.
const UNCOUNTED: (f64, f64) = (1.5, 256.0);
/// DuckDB's limit in the smallest of pods, in MiB.
const LEAST_MEMORY: f64 = 64.0;
/// The shares of a query pod's disk; what is left is for files on their way.
const COPIES_SHARE: f64 = 0.55;
const SPILL_SHARE: f64 = 0.35;
const MEBIBYTE: f64 = 1_048_576.0;
/// Seconds that queries may be behind what other processes publish, should nobody tell the pod.
const REFRESH_SECONDS: u8 = 15;
const PROVIDERS_FOLDER: &str = "/etc/lakehouse/providers";
const PROVIDERS_FILE: &str = "providers.yaml";
const KEYS_FOLDER: &str = "/etc/lakehouse/keys";

/// The public edge, with the roles that hold nothing.
pub(super) fn gateway(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Gateway.port();
    let query = Role::Queryd.port();
    let vectors = Role::Vectord.port();
    let mut args = server::args("gateway,storaged,catalogd,ingestd", port);
    // All are named, be they there or not: a first index shall not roll the gateway.
    for (flag, value) in [
        ("--upstream", format!("queryd=http://{}:{query}", names::QUERY)),
        ("--upstream", format!("vectord=http://{}:{vectors}", names::VECTORS)),
        ("--upstream", format!("embedd={}", names::embedd())),
        ("--index-upstream", format!("http://{{index}}-vectors:{vectors}")),
        ("--notify", format!("http://{}:{query}", names::QUERY_PODS)),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    let replicas = settings.gateway.replicas;
    let blueprint = Blueprint {
        component: Component::Gateway,
        args,
        env: Vec::new(),
        resources: settings.gateway_resources(),
        // Uploads are ingested here.
        disk: &settings.ingest.spool_size,
        port: Some(port),
        life: Life::Server { spread: replicas > 1 },
        volumes: Vec::new(),
        labels: Vec::new(),
        annotations: Vec::new(),
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let place =
        Place { namespace: observed.namespace, component: Component::Gateway, owners: observed.owners };
    let mut children = vec![place.service(names::GATEWAY, port)];
    children.extend(place.deployment(names::GATEWAY, replicas, template));
    children
}

/// The pods that answer SQL.
pub(super) fn query(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Queryd.port();
    let replicas = settings.query.replicas;
    let resources = settings.query_resources();
    let memory = resources.limit("memory").map(duckdb_memory);
    let disk = quantity::value(&settings.query.cache_size);
    let share = |share: f64| disk.map(|bytes| format!("{}MiB", (bytes * share / MEBIBYTE).floor().max(1.0)));
    let threads = resources.limit("cpu").map(|cores| cores.ceil().max(1.0));
    let env = [
        ("LAKEHOUSE_QUERY_MEMORY", memory.map(|mebibytes| format!("{mebibytes}MiB"))),
        ("LAKEHOUSE_QUERY_THREADS", threads.map(|threads| threads.to_string())),
        ("LAKEHOUSE_QUERY_CACHE", share(COPIES_SHARE)),
        ("LAKEHOUSE_QUERY_SPILL", share(SPILL_SHARE)),
        ("LAKEHOUSE_QUERY_REFRESH", Some(REFRESH_SECONDS.to_string())),
    ];
    let blueprint = Blueprint {
        component: Component::Query,
        args: server::args("queryd", port),
        env: env.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        resources,
        disk: &settings.query.cache_size,
        port: Some(port),
        life: Life::Server { spread: replicas > 1 },
        volumes: Vec::new(),
        labels: Vec::new(),
        annotations: Vec::new(),
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let owners = &observed.owners_of(ResourceKind::Dataset);
    let place = Place { namespace: observed.namespace, component: Component::Query, owners };
    let mut children = vec![place.service(names::QUERY, port), place.headless(names::QUERY_PODS, port)];
    children.extend(place.deployment(names::QUERY, replicas, template));
    children
}

/// The pods that serve indexes which no resource declares: those that clients make over HTTP.
pub(super) fn vectors(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Vectord.port();
    let replicas = settings.vectors.replicas;
    let mut args = server::args("vectord", port);
    args.extend(["--embedd".to_owned(), names::embedd()]);
    let blueprint = Blueprint {
        component: Component::Vectors,
        args,
        env: Vec::new(),
        resources: settings.vectors_resources(),
        disk: &settings.vectors.cache_size,
        port: Some(port),
        life: Life::Server { spread: replicas > 1 },
        volumes: Vec::new(),
        labels: vec![(meta::SHARED_LABEL.to_owned(), "true".to_owned())],
        annotations: Vec::new(),
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let owners = &observed.owners_of(ResourceKind::VectorIndex);
    let place = Place { namespace: observed.namespace, component: Component::Vectors, owners };
    let mut children = vec![place.service(names::VECTORS, port)];
    children.extend(place.deployment(names::VECTORS, replicas, template));
    children
}

/// The pods that turn text into vectors, and what they are told of the `ChatProviders`.
///
/// A key is a file that follows its Secret by itself; everything else that changes starts new pods.
pub(super) fn embed(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Embedd.port();
    let replicas = settings.embed.replicas;
    let mut providers: Vec<&ReadyProvider> = observed.providers.iter().filter(|one| !one.suspend).collect();
    providers.sort_by(|a, b| a.name.cmp(&b.name));
    let told =
        Providers { providers: observed.providers.iter().filter(|one| !one.suspend).map(told).collect() };
    let told = serde_json::to_string_pretty(&told).expect("plain data with text keys always has a JSON form");
    let mut volumes =
        vec![(job::config_map("providers", names::PROVIDERS, None), PROVIDERS_FOLDER.to_owned())];
    volumes.extend(providers.into_iter().filter_map(key));
    let mut args = server::args("embedd", port);
    args.extend(["--providers".to_owned(), format!("{PROVIDERS_FOLDER}/{PROVIDERS_FILE}")]);
    pod::add_models(&mut args, &mut volumes, settings);
    let blueprint = Blueprint {
        component: Component::Embed,
        args,
        env: Vec::new(),
        resources: settings.embed_resources(),
        disk: &settings.embed.cache_size,
        port: Some(port),
        life: Life::Server { spread: replicas > 1 },
        volumes,
        labels: Vec::new(),
        annotations: vec![(meta::PROVIDERS, names::digest(&[&told]))],
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let place =
        Place { namespace: observed.namespace, component: Component::Embed, owners: observed.embedding };
    let config_map = ConfigMap {
        metadata: place.metadata(names::PROVIDERS),
        data: Some([(PROVIDERS_FILE.to_owned(), told)].into()),
        ..ConfigMap::default()
    };
    let mut children = vec![Child::of(Kind::ConfigMap, &config_map), place.service(names::EMBED, port)];
    children.extend(place.deployment(names::EMBED, replicas, template));
    children
}

/// A ChatProvider as embedd is told of it.
fn told(provider: &ReadyProvider) -> Provider {
    let file = |key: &KeyRef| PathBuf::from(format!("{KEYS_FOLDER}/{}/{}", provider.name, key.key));
    provider.provider(provider.key.as_ref().map(file))
}

/// The Secret with a ChatProvider's key. Pods start without it, so that a missing key keeps no other model away.
fn key(provider: &ReadyProvider) -> Option<(Volume, String)> {
    let KeyRef { name, key } = provider.key.clone()?;
    let mut volume = pod::secret(&format!("key-{}", names::short(&provider.name)), &name);
    if let Some(SecretVolumeSource { optional, items, .. }) = &mut volume.secret {
        *optional = Some(true);
        *items = Some(vec![KeyToPath { path: key.clone(), key, mode: None }]);
    }
    Some((volume, format!("{KEYS_FOLDER}/{}", provider.name)))
}

/// DuckDB's limit, in MiB, in a pod with so many bytes: so that queryd ends a hungry query before the kernel ends the pod.
fn duckdb_memory(pod: f64) -> f64 {
    let (factor, beyond) = UNCOUNTED;
    ((pod / MEBIBYTE * (1.0 - OWN_SHARE) - beyond) / factor).floor().max(LEAST_MEMORY)
}

fn surroundings<'a>(observed: &Observed<'a>) -> Surroundings<'a> {
    Surroundings { namespace: observed.namespace, store_secret: observed.store_secret }
}

/// Where the objects of a component are.
struct Place<'a> {
    namespace: &'a str,
    component: Component,
    owners: &'a [Owner],
}

impl Place<'_> {
    fn metadata(&self, name: &str) -> ObjectMeta {
        meta::shared(self.namespace, name, Some(self.component), self.owners)
    }

    fn selector(&self) -> BTreeMap<String, String> {
        let mut selector = meta::selector(self.component);
        if self.component == Component::Vectors {
            // Those of single indexes are of the same component.
            selector.insert(meta::SHARED_LABEL.to_owned(), "true".to_owned());
        }
        selector
    }

    fn service(&self, name: &str, port: u16) -> Child {
        Child::of(Kind::Service, &server::service(self.metadata(name), self.selector(), port))
    }

    /// A Service that names every pod.
    fn headless(&self, name: &str, port: u16) -> Child {
        let mut service = server::service(self.metadata(name), self.selector(), port);
        if let Some(spec) = &mut service.spec {
            spec.cluster_ip = Some("None".to_owned());
        }
        Child::of(Kind::Service, &service)
    }

    fn deployment(&self, name: &str, replicas: u16, template: PodTemplateSpec) -> Vec<Child> {
        server::deployment(self.metadata(name), self.selector(), replicas, template)
    }
}
