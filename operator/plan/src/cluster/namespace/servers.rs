//! The Deployments that answer requests, and the Services in front of them.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{PodTemplateSpec, Service, ServicePort, ServiceSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use lakehouse_contract::Role;

use super::Observed;
use crate::cluster::{
    Child, Kind, Settings,
    meta::{self, Component},
    names,
    pod::{self, Blueprint, Life, Surroundings},
    quantity,
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

/// The public edge, with the roles that hold nothing.
pub(super) fn gateway(observed: &Observed<'_>, settings: &Settings) -> Vec<Child> {
    let port = Role::Gateway.port();
    let query = Role::Queryd.port();
    let mut args = server("gateway,storaged,catalogd,ingestd", port);
    args.extend([
        "--upstream".to_owned(),
        format!("queryd=http://{}:{query}", names::QUERY),
        "--notify".to_owned(),
        format!("http://{}:{query}", names::QUERY_PODS),
    ]);
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
        metadata: ObjectMeta::default(),
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let service = service(observed, names::GATEWAY, Component::Gateway, port);
    let mut children = vec![Child::of(Kind::Service, &service)];
    children.extend(deployment(observed, names::GATEWAY, Component::Gateway, replicas, template));
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
        args: server("queryd", port),
        env: env.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        resources,
        disk: &settings.query.cache_size,
        port: Some(port),
        life: Life::Server { spread: replicas > 1 },
        volumes: Vec::new(),
        metadata: ObjectMeta::default(),
    };
    let template = pod::template(blueprint, &surroundings(observed), settings);
    let one = service(observed, names::QUERY, Component::Query, port);
    let mut each = service(observed, names::QUERY_PODS, Component::Query, port);
    if let Some(spec) = &mut each.spec {
        spec.cluster_ip = Some("None".to_owned());
    }
    let mut children = vec![Child::of(Kind::Service, &one), Child::of(Kind::Service, &each)];
    children.extend(deployment(observed, names::QUERY, Component::Query, replicas, template));
    children
}

/// DuckDB's limit, in MiB, in a pod with so many bytes: so that queryd ends a hungry query before the kernel ends the pod.
fn duckdb_memory(pod: f64) -> f64 {
    let (factor, beyond) = UNCOUNTED;
    ((pod / MEBIBYTE * (1.0 - OWN_SHARE) - beyond) / factor).floor().max(LEAST_MEMORY)
}

fn surroundings<'a>(observed: &Observed<'a>) -> Surroundings<'a> {
    Surroundings { namespace: observed.namespace, store_secret: observed.store_secret }
}

fn server(roles: &str, port: u16) -> Vec<String> {
    let listen = format!("0.0.0.0:{port}");
    ["serve", "--role", roles, "--listen", &listen, "--token-file", pod::TOKENS, "--drain-notice", "5"]
        .map(str::to_owned)
        .into()
}

fn service(observed: &Observed<'_>, name: &str, component: Component, port: u16) -> Service {
    Service {
        metadata: meta::shared(observed.namespace, name, Some(component), observed.owners),
        spec: Some(ServiceSpec {
            selector: Some(meta::selector(component)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: port.into(),
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A Deployment that is never without a ready pod while it rolls, and its budget where more than one pod makes that possible
/// while nodes are drained.
fn deployment(
    observed: &Observed<'_>,
    name: &str,
    component: Component,
    replicas: u16,
    template: PodTemplateSpec,
) -> Vec<Child> {
    let metadata = meta::shared(observed.namespace, name, Some(component), observed.owners);
    let selector =
        LabelSelector { match_labels: Some(meta::selector(component)), ..LabelSelector::default() };
    let budget = (replicas > 1).then(|| PodDisruptionBudget {
        metadata: metadata.clone(),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            // A pod that does not work anyway must not hold back a node that is drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            selector: Some(selector.clone()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    });
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(replicas.into()),
            revision_history_limit: Some(2),
            selector,
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let mut children = vec![Child::of(Kind::Deployment, &deployment)];
    children.extend(budget.map(|budget| Child::of(Kind::PodDisruptionBudget, &budget)));
    children
}
