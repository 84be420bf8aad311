//! The Deployments that resources of a namespace share, and the Services in front of them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ConfigMap, EnvVar, PodTemplateSpec, Volume},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use lakehouse_contract::Role;

use super::{Observed, providers};
use crate::{
    ReadyProvider,
    cluster::{
        Child, Kind, Owner, ResourceKind, Settings,
        meta::{self, Component},
        names,
        pod::{self, Blueprint, Life, Surroundings},
        quantity, server,
        settings::Resources,
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
/// Seconds that answers may go on in a pod that ends, where language models give them: what they may take altogether where a provider
/// says nothing.
const ANSWER_DRAIN: i64 = 600;
/// Seconds for the notice before that, and for the end after it.
const DRAIN_SLACK: i64 = 10;
/// chatd keeps nothing, but every server has a place to write.
const CHAT_DISK: &str = "1Gi";

/// The public edge, with the roles that hold nothing.
pub(super) fn gateway(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Gateway.port();
    let query = Role::Queryd.port();
    let vectors = Role::Vectord.port();
    let chat = Role::Chatd.port();
    let mut args = server::args("gateway,storaged,catalogd,ingestd", port);
    // All are named, be they there or not: a first index shall not roll the gateway.
    for (flag, value) in [
        ("--upstream", format!("queryd=http://{}:{query}", names::QUERY)),
        ("--upstream", format!("vectord=http://{}:{vectors}", names::VECTORS)),
        ("--upstream", format!("embedd={}", names::embedd())),
        ("--upstream", format!("chatd=http://{}:{chat}", names::CHAT)),
        ("--index-upstream", format!("http://{{index}}-vectors:{vectors}")),
        ("--notify", format!("http://{}:{query}", names::QUERY_PODS)),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args.extend(drain());
    let replicas = settings.gateway.replicas;
    let blueprint = Blueprint {
        component: Component::Gateway,
        args,
        env: Vec::new(),
        resources: settings.gateway_resources(),
        // Uploads are ingested here.
        disk: &settings.ingest.spool_size,
        port: Some(port),
        life: answers(replicas),
        volumes: Vec::new(),
        labels: Vec::new(),
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
        env: env.into_iter().filter_map(|(name, value)| Some(pod::variable(name, value?))).collect(),
        resources,
        disk: &settings.query.cache_size,
        port: Some(port),
        life: Life::server(replicas),
        volumes: Vec::new(),
        labels: Vec::new(),
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
        life: Life::server(replicas),
        volumes: Vec::new(),
        labels: vec![(meta::SHARED_LABEL.to_owned(), "true".to_owned())],
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let owners = &observed.owners_of(ResourceKind::VectorIndex);
    let place = Place { namespace: observed.namespace, component: Component::Vectors, owners };
    let mut children = vec![place.service(names::VECTORS, port)];
    children.extend(place.deployment(names::VECTORS, replicas, template));
    children
}

/// The pods that turn text into vectors, and what they are told of the `ChatProviders`.
pub(super) fn embed(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let told = observed.embedders();
    let (mut args, mut volumes) = (Vec::new(), Vec::new());
    pod::add_models(&mut args, &mut volumes, settings);
    let follower = Follower {
        role: Role::Embedd,
        component: Component::Embed,
        name: names::EMBED,
        list: names::PROVIDERS,
        args,
        env: Vec::new(),
        volumes,
        resources: settings.embed_resources(),
        disk: &settings.embed.cache_size,
        replicas: settings.embed.replicas,
        life: Life::server(settings.embed.replicas),
    };
    follower.children(observed, observed.embedding, &told, settings)
}

/// The pods that language models are asked through, and what they are told of the `ChatProviders`.
pub(super) fn chat(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let follower = Follower {
        role: Role::Chatd,
        component: Component::Chat,
        name: names::CHAT,
        list: names::CHAT,
        args: drain().into(),
        env: settings.chat.extra_env.clone(),
        volumes: Vec::new(),
        resources: settings.chat_resources(),
        disk: &Quantity(CHAT_DISK.to_owned()),
        replicas: settings.chat.replicas,
        life: answers(settings.chat.replicas),
    };
    let owners = observed.owners_of(ResourceKind::ChatProvider);
    follower.children(observed, &owners, &observed.chatters(), settings)
}

/// Pods that follow a list of `ChatProviders`.
struct Follower<'a> {
    role: Role,
    component: Component,
    name: &'static str,
    /// The ConfigMap with the list.
    list: &'static str,
    /// Beside those of all servers, and of those that follow a list.
    args: Vec<String>,
    env: Vec<EnvVar>,
    volumes: Vec<(Volume, String)>,
    resources: Resources,
    disk: &'a Quantity,
    replicas: u16,
    life: Life,
}

impl Follower<'_> {
    fn children(
        self,
        observed: &Observed<'_>,
        owners: &[Owner],
        told: &[&ReadyProvider],
        settings: &Settings,
    ) -> Vec<Child> {
        let Self {
            role,
            component,
            name,
            list,
            args: more,
            env,
            volumes: others,
            resources,
            disk,
            replicas,
            life,
        } = self;
        let port = role.port();
        let mut args = server::args(role.as_str(), port);
        args.extend(providers::args());
        args.extend(more);
        let mut volumes = providers::volumes(list, told);
        volumes.extend(others);
        let blueprint = Blueprint {
            component,
            args,
            env,
            resources,
            disk,
            port: Some(port),
            life,
            volumes,
            labels: Vec::new(),
        };
        let template = pod::template(blueprint, &surroundings(observed), settings);
        let place = Place { namespace: observed.namespace, component, owners };
        let config_map = ConfigMap {
            metadata: place.metadata(list),
            data: Some([(providers::LIST_FILE.to_owned(), providers::list(told))].into()),
            ..ConfigMap::default()
        };
        let mut children = vec![Child::of(Kind::ConfigMap, &config_map), place.service(name, port)];
        children.extend(place.deployment(name, replicas, template));
        children
    }
}

/// How a pod ends that answers of language models go through.
fn answers(replicas: u16) -> Life {
    Life::Server { spread: replicas > 1, grace: ANSWER_DRAIN + DRAIN_SLACK }
}

/// The argument for that.
fn drain() -> [String; 2] {
    ["--drain-deadline".to_owned(), ANSWER_DRAIN.to_string()]
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
