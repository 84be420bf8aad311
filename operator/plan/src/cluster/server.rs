//! Deployments that answer requests, and the Services in front of them.

use std::collections::BTreeMap;

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

use super::{Child, Kind, pod};

/// The arguments of a server that has these roles.
pub(super) fn args(roles: &str, port: u16) -> Vec<String> {
    let listen = format!("0.0.0.0:{port}");
    ["serve", "--role", roles, "--listen", &listen, "--token-file", pod::TOKENS, "--drain-notice", "5"]
        .map(str::to_owned)
        .into()
}

/// A Service in front of the pods with these labels.
pub(super) fn service(metadata: ObjectMeta, selector: BTreeMap<String, String>, port: u16) -> Service {
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(selector),
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
pub(super) fn deployment(
    metadata: ObjectMeta,
    selector: BTreeMap<String, String>,
    replicas: u16,
    template: PodTemplateSpec,
) -> Vec<Child> {
    let selector = LabelSelector { match_labels: Some(selector), ..LabelSelector::default() };
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
