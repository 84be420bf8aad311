//! Whether SQL is answered from a Dataset's published version, by what the pods are and say.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use lakehouse_contract::DatasetManifest;

use super::{
    meta::{COMPONENT_LABEL, Component},
    names,
    pods::{self, Knobs, State},
};
use crate::{
    Reason,
    status::{Failure, ServedFacts},
};

/// What a query pod says of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It was asked and did not answer; the error.
    Unreachable(String),
    /// It answers queries, but has no such dataset yet.
    Absent,
    /// Queries see this version.
    Version(u64),
    /// It cannot read the version; the error.
    Damaged(String),
}

/// What is observed of the pods that answer SQL.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The Deployments of gateway and query pods, as far as they are there.
    pub deployments: &'a [Arc<Deployment>],
    /// The gateway's pods.
    pub gateway: &'a [Arc<Pod>],
    /// The query pods, and what each says of the dataset.
    pub query: &'a [(Arc<Pod>, View)],
    /// The published version.
    pub manifest: Option<&'a DatasetManifest>,
}

/// Whether a pod takes requests: it is ready and not about to end.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the published version is served, and why not.
pub fn facts(observed: &Observed<'_>) -> ServedFacts {
    let query: Vec<&Pod> = observed.query.iter().map(|(pod, _)| pod.as_ref()).collect();
    let gateway: Vec<&Pod> = observed.gateway.iter().map(Arc::as_ref).collect();
    let groups = [
        Group { component: Component::Gateway, knobs: pods::GATEWAY, pods: gateway },
        Group { component: Component::Query, knobs: pods::QUERY, pods: query },
    ];
    for group in &groups {
        if !group.pods.iter().any(|pod| is_ready(pod)) {
            return group.why_not(observed.deployments);
        }
    }
    let Some(manifest) = observed.manifest else { return ServedFacts::NotYet };
    match oldest(observed.query, manifest.version) {
        Ok(version) => {
            let endpoint = names::endpoint(observed.namespace);
            match groups.iter().find_map(|group| group.trouble(observed.deployments)) {
                Some(failure) => ServedFacts::Limping { endpoint, version, failure },
                None => ServedFacts::Serving { endpoint, version },
            }
        }
        Err(facts) => facts,
    }
}

/// The version that every ready pod answers from at least: the published one when all have it.
fn oldest(query: &[(Arc<Pod>, View)], published: u64) -> Result<u64, ServedFacts> {
    let mut told = published;
    for (pod, view) in query.iter().filter(|(pod, _)| is_ready(pod)) {
        let name = pod.name_any();
        match view {
            View::Version(version) if *version == published => {}
            View::Version(version) => told = *version,
            View::Unknown => {
                return Err(ServedFacts::Waiting(format!(
                    "the pod `{name}` has not told yet what it serves."
                )));
            }
            View::Absent => {
                return Err(ServedFacts::Waiting(format!("the pod `{name}` is about to read it.")));
            }
            View::Unreachable(error) => {
                let message = format!("The pod `{name}` does not answer: {error}");
                return Err(ServedFacts::Failed(Failure::new(Reason::ServingFailed, message)));
            }
            View::Damaged(error) => {
                let message = format!("The pod `{name}` cannot read version {published}: {error}");
                return Err(ServedFacts::Failed(Failure::new(Reason::ServingFailed, message)));
            }
        }
    }
    Ok(told)
}

/// The pods of one Deployment.
struct Group<'a> {
    component: Component,
    knobs: Knobs,
    pods: Vec<&'a Pod>,
}

impl Group<'_> {
    fn name(&self) -> &'static str {
        if self.component == Component::Query { names::QUERY } else { names::GATEWAY }
    }

    /// Why none of them is ready.
    fn why_not(&self, deployments: &[Arc<Deployment>]) -> ServedFacts {
        if let Some(failure) = self.trouble(deployments) {
            return ServedFacts::Failed(failure);
        }
        let starting = self.pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        ServedFacts::Waiting(match starting {
            Some(pod) => format!("the pod `{}` is not ready yet.", pod.name_any()),
            None => format!("the Deployment `{}` has no pod yet.", self.name()),
        })
    }

    /// What one of them suffers from, or why they cannot be made.
    fn trouble(&self, deployments: &[Arc<Deployment>]) -> Option<Failure> {
        // A pod that has ended for good is replaced; its successor tells how it is.
        let of_pods =
            self.pods.iter().filter(|pod| !is_ready(pod) && !pods::has_ended(pod)).find_map(|pod| {
                match pods::state(pod, &[], self.knobs) {
                    State::Failed(failure) => Some(failure),
                    State::Running => pods::failure_before(pod, self.knobs),
                    State::Starting | State::Succeeded | State::Leaving(_) => None,
                }
            });
        of_pods.or_else(|| {
            deployments.iter().filter(|deployment| self.is_of(deployment)).find_map(|it| refused(it))
        })
    }

    fn is_of(&self, deployment: &Deployment) -> bool {
        let label = deployment.metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT_LABEL));
        label.is_some_and(|label| label == self.component.as_str())
    }
}

/// Why a Deployment cannot make its pods.
fn refused(deployment: &Deployment) -> Option<Failure> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let message = failure.message.as_deref().or(failure.reason.as_deref()).unwrap_or("it does not say why");
    Some(Failure::new(
        Reason::ObjectRefused,
        format!("The API server refuses the pods of the Deployment `{}`: {message}", deployment.name_any()),
    ))
}
