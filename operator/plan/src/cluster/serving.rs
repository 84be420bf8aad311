//! Whether a resource's published version answers, by what the pods are and say: SQL of a Dataset, searches of a VectorIndex. And
//! whether a ChatProvider's models do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use lakehouse_contract::{DatasetManifest, chat::ProviderInfo};

use super::{
    meta::SHARD_LABEL,
    names, namespace,
    pods::{self, Knobs, State},
};
use crate::{
    ReadyProvider, Reason,
    status::{EmbedderFacts, Failure, LookFacts, ServedFacts},
};

/// What a pod says of one dataset or index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It was asked and did not answer; the error.
    Unreachable(String),
    /// It answers, but has no such thing yet.
    Absent,
    /// Who asks it sees this version.
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

/// What is observed of the pods that answer searches of one index.
#[derive(Clone, Copy, Debug)]
pub struct IndexObserved<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The index.
    pub index: &'a str,
    /// The Deployments of the gateway and of the index, as far as they are there.
    pub deployments: &'a [Arc<Deployment>],
    /// The gateway's pods.
    pub gateway: &'a [Arc<Pod>],
    /// The index's pods, and what each says of it.
    pub readers: &'a [(Arc<Pod>, View)],
    /// Parts that its vectors are spread over.
    pub shards: u32,
    /// The version in the store; 0 where clients fill the index.
    pub version: Option<u64>,
}

/// Whether the published version answers SQL, and why not.
pub fn facts(observed: &Observed<'_>) -> ServedFacts {
    let query = Group {
        name: names::QUERY.to_owned(),
        knobs: pods::QUERY,
        pods: observed.query.iter().map(|(pod, _)| pod.as_ref()).collect(),
    };
    let groups = [Group::gateway(observed.gateway), query];
    let version = observed.manifest.map(|manifest| manifest.version);
    let endpoint = names::endpoint(observed.namespace);
    answered(&groups, observed.deployments, observed.query, version, endpoint)
}

/// Whether the version in the store answers searches, and why not.
pub fn index_facts(observed: &IndexObserved<'_>) -> ServedFacts {
    let IndexObserved { namespace, index, deployments, gateway, readers, shards, version } = *observed;
    let mut groups = vec![Group::gateway(gateway)];
    let layout = layout(readers.iter().map(|(pod, _)| pod.as_ref()), shards);
    for shard in 0..layout {
        let (name, label) = (names::vectors_of_shard(index, shard, layout), names::shard_of(shard, layout));
        let is_of = |pod: &&Pod| pod.labels().get(SHARD_LABEL) == Some(&label);
        let pods = readers.iter().map(|(pod, _)| pod.as_ref()).filter(is_of).collect();
        groups.push(Group { name, knobs: pods::VECTORS, pods });
    }
    answered(&groups, deployments, readers, version, names::index_endpoint(namespace, index))
}

/// Why no embedding model can be asked, by what the pods are that would be; `None` where one of them is ready.
pub fn embedder(pods: &[Arc<Pod>], deployments: &[Arc<Deployment>]) -> Option<EmbedderFacts> {
    let group = Group {
        name: names::EMBED.to_owned(),
        knobs: pods::EMBED,
        pods: pods.iter().map(Arc::as_ref).collect(),
    };
    if group.pods.iter().any(|pod| is_ready(pod)) {
        return None;
    }
    Some(match group.why_not(deployments) {
        ServedFacts::Failed(failure) => EmbedderFacts::Failed(failure),
        ServedFacts::Waiting(why) => EmbedderFacts::Waiting(format!("No model can be asked yet: {why}")),
        _ => EmbedderFacts::Unknown,
    })
}

/// What a pod says of one ChatProvider.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Look {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It was asked and did not answer; the error.
    Unreachable(String),
    /// It answers, but has no such provider yet.
    Absent,
    /// This.
    Says(Box<ProviderInfo>),
}

/// What the pods that ask a provider say of it: the worst that any of them does, for each of them takes requests.
pub fn look<'a>(provider: &ReadyProvider, pods: &'a [(Arc<Pod>, Look)]) -> LookFacts<'a> {
    let mut ready: Vec<_> = pods.iter().filter(|(pod, _)| is_ready(pod)).collect();
    ready.sort_by_key(|(pod, _)| pod.name_any());
    let digest = namespace::told(provider).digest();
    let mut worst: Option<(u8, &ProviderInfo, Option<String>)> = None;
    for (pod, look) in ready {
        let name = pod.name_any();
        let info = match look {
            Look::Unknown => {
                return LookFacts::Waiting(format!("The pod `{name}` has not told yet how it is."));
            }
            Look::Absent => return LookFacts::Waiting(format!("The pod `{name}` is about to hear of it.")),
            Look::Unreachable(error) => {
                let message = format!("The pod `{name}` does not say how its providers are: {error}");
                return LookFacts::Failed(Failure::new(Reason::ServingFailed, message));
            }
            Look::Says(info) => &**info,
        };
        let behind = (info.digest != digest)
            .then(|| format!("The pod `{name}` is about to hear of the newest settings."));
        let failure = info.probe.as_ref().map(|probe| probe.failure.as_ref().map(|failure| failure.stage));
        let rank = match (&behind, failure) {
            (Some(_), _) => 0,
            (None, Some(Some(stage))) => 1 + stage as u8,
            (None, Some(None)) if !info.healthy => 10,
            (None, Some(None)) => 11,
            // It has just begun, and the others know more.
            (None, None) => 12,
        };
        if worst.as_ref().is_none_or(|(least, ..)| rank < *least) {
            worst = Some((rank, info, behind));
        }
    }
    worst.map_or(LookFacts::NotYet, |(_, info, behind)| LookFacts::Told(info, behind))
}

/// What is observed of the pods that ask language models.
#[derive(Clone, Copy, Debug)]
pub struct ChatObserved<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The Deployments of the gateway and of chatd, as far as they are there.
    pub deployments: &'a [Arc<Deployment>],
    /// The gateway's pods.
    pub gateway: &'a [Arc<Pod>],
    /// chatd's pods.
    pub chat: &'a [Arc<Pod>],
    /// Whether the provider has language models, so that chatd is needed.
    pub chats: bool,
}

/// Whether requests for language models find somebody who passes them on, and why not. There are no versions: it is 0.
pub fn chat_facts(observed: &ChatObserved<'_>) -> ServedFacts {
    let chat = Group {
        name: names::CHAT.to_owned(),
        knobs: pods::CHAT,
        pods: observed.chat.iter().map(Arc::as_ref).collect(),
    };
    let groups = [Group::gateway(observed.gateway), chat];
    let needed = if observed.chats { &groups[..] } else { &groups[..1] };
    let endpoint = names::endpoint(observed.namespace);
    answered(needed, observed.deployments, &[], Some(0), endpoint)
}

/// How many shards the pods have that take an index's searches: as many as the index in the store, unless not all of those are ready
/// and all of others are, which were there before. Pods of any number of shards can serve an index of any other.
pub(super) fn layout<'a>(readers: impl Iterator<Item = &'a Pod>, stored: u32) -> u32 {
    let mut ready = BTreeMap::<u32, BTreeSet<u32>>::new();
    for pod in readers.filter(|pod| is_ready(pod)) {
        let place = pod.labels().get(SHARD_LABEL).and_then(|label| label.split_once("of"));
        if let Some((Ok(shard), Ok(shards))) = place.map(|(shard, shards)| (shard.parse(), shards.parse())) {
            ready.entry(shards).or_default().insert(shard);
        }
    }
    let is_up =
        |shards: u32| ready.get(&shards).is_some_and(|of| (0..shards).all(|shard| of.contains(&shard)));
    let mut others = ready.keys().rev().copied().filter(|&shards| is_up(shards));
    if is_up(stored) { stored } else { others.next().unwrap_or(stored) }
}

/// Whether every group has a ready pod, and every ready pod the version.
fn answered(
    groups: &[Group<'_>],
    deployments: &[Arc<Deployment>],
    views: &[(Arc<Pod>, View)],
    version: Option<u64>,
    endpoint: String,
) -> ServedFacts {
    for group in groups {
        if !group.pods.iter().any(|pod| is_ready(pod)) {
            return group.why_not(deployments);
        }
    }
    let Some(published) = version else { return ServedFacts::NotYet };
    match oldest(views, published) {
        Ok(version) => match groups.iter().find_map(|group| group.trouble(deployments)) {
            Some(failure) => ServedFacts::Limping { endpoint, version, failure },
            None => ServedFacts::Serving { endpoint, version },
        },
        Err(facts) => facts,
    }
}

/// The version that every ready pod answers from at least: the published one when all have it.
fn oldest(views: &[(Arc<Pod>, View)], published: u64) -> Result<u64, ServedFacts> {
    let mut told = published;
    for (pod, view) in views.iter().filter(|(pod, _)| is_ready(pod)) {
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
    name: String,
    knobs: Knobs,
    pods: Vec<&'a Pod>,
}

impl<'a> Group<'a> {
    fn gateway(pods: &'a [Arc<Pod>]) -> Self {
        let pods = pods.iter().map(Arc::as_ref).collect();
        Self { name: names::GATEWAY.to_owned(), knobs: pods::GATEWAY, pods }
    }

    /// Why none of them is ready.
    fn why_not(&self, deployments: &[Arc<Deployment>]) -> ServedFacts {
        if let Some(failure) = self.trouble(deployments) {
            return ServedFacts::Failed(failure);
        }
        let starting = self.pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        ServedFacts::Waiting(match starting {
            Some(pod) => format!("the pod `{}` is not ready yet.", pod.name_any()),
            None => format!("the Deployment `{}` has no pod yet.", self.name),
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
        let own = |deployment: &&Arc<Deployment>| deployment.name_any() == self.name;
        of_pods.or_else(|| deployments.iter().filter(own).find_map(|deployment| refused(deployment)))
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
