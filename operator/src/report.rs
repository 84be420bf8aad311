//! Tells users what is known: the status of a resource, and an Event at each turn.
//!
//! Receives the status as it shall be; writes it only when it differs from the last one, and publishes one Event for each turn
//! of `Ready`, `Ingested`, `Built` and `Stalled`. The last status is the one that was written, not the one that a watch has brought yet, so
//! that no turn is told twice.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use lakehouse_crds::{
    ChatProvider, ChatProviderStatus, Dataset, DatasetStatus, VectorIndex, VectorIndexStatus,
    conditions::{BUILT, INGESTED, READY, STALLED},
};
use lakehouse_plan::{Reason, cluster::names::FIELD_MANAGER};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::{debug, info};

use crate::{watch::chain, world::seen::Stamp};

/// The most that an Event's note may hold, in bytes.
const NOTE: usize = 1024;

/// A resource with a status of conditions.
pub trait Reported:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    /// Its status.
    type Status: Clone + PartialEq + Serialize + Send + Sync + 'static;

    /// The status that the object carries.
    fn status(&self) -> Option<&Self::Status>;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];
}

impl Reported for VectorIndex {
    type Status = VectorIndexStatus;

    fn status(&self) -> Option<&VectorIndexStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &VectorIndexStatus) -> &[Condition] {
        &status.conditions
    }
}

impl Reported for ChatProvider {
    type Status = ChatProviderStatus;

    fn status(&self) -> Option<&ChatProviderStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &ChatProviderStatus) -> &[Condition] {
        &status.conditions
    }
}

impl Reported for Dataset {
    type Status = DatasetStatus;

    fn status(&self) -> Option<&DatasetStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &DatasetStatus) -> &[Condition] {
        &status.conditions
    }
}

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource has gone meanwhile.
    #[error("the resource is gone")]
    Gone,
    /// The API server said no, or nothing.
    #[error("the status was not written: {0}")]
    Api(Box<kube::Error>),
}

/// Writes the status of resources of one kind. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reporter<K: Reported> {
    client: Client,
    /// Tells this operator from its siblings.
    instance: String,
    /// What was written and not seen back yet.
    written: Arc<Mutex<HashMap<Place, Written<K::Status>>>>,
}

/// Namespace and name.
type Place = (String, String);

struct Written<S> {
    uid: Option<String>,
    version: String,
    status: S,
}

impl<K: Reported> Reporter<K> {
    /// Reports in the name of this operator; `instance` tells it from its siblings.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, written: Arc::default() }
    }

    /// The last status of a resource: the one that was written, until it is seen.
    pub fn last(&self, resource: &K) -> Option<K::Status> {
        let place = (resource.namespace().unwrap_or_default(), resource.name_any());
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = all.get(&place) {
            if written.uid == resource.uid() && Stamp::of(resource).is_before(&written.version) {
                return Some(written.status.clone());
            }
            all.remove(&place);
        }
        resource.status().cloned()
    }

    /// Writes a status where it is not the `last`, and tells its turns.
    pub async fn report(
        &self,
        resource: &K,
        last: Option<&K::Status>,
        status: K::Status,
    ) -> Result<(), Error> {
        if last == Some(&status) {
            return Ok(());
        }
        let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            // One of the same name that was made since has another uid, and a status of its own.
            "metadata": {"name": name, "uid": resource.uid()},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
            Ok(written) => written,
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {
                return Err(Error::Gone);
            }
            Err(error) => return Err(Error::Api(Box::new(error))),
        };
        let turns = turns(last.map(K::conditions).unwrap_or_default(), K::conditions(&status));
        let (uid, version) = (resource.uid(), written.resource_version().unwrap_or_default());
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((namespace, name), Written { uid, version, status });
        let about = written.object_ref(&());
        for turn in turns {
            self.tell(&about, turn).await;
        }
        Ok(())
    }

    /// Forgets what was seen back meanwhile; `seen` is the version that was.
    pub fn settle(&self, seen: impl Fn(&str, &str) -> Option<Stamp>) {
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(namespace, name), written| {
            seen(namespace, name).is_some_and(|stamp| stamp.is_before(&written.version))
        });
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let place = (namespace.to_owned(), name.to_owned());
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
    }

    /// Publishes an Event of its own for each turn. The library's recorder would count a second one of the same reason
    /// under the first one's words.
    async fn tell(&self, about: &ObjectReference, turn: Turn) {
        let (namespace, name) = (about.namespace.clone().unwrap_or_default(), about.name.as_deref());
        let Turn { failed, reason, message } = turn;
        info!(namespace, name, reason, "{message}");
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                namespace: about.namespace.clone(),
                name: Some(format!("{}.{:x}", name.unwrap_or_default(), now.as_nanosecond())),
                ..ObjectMeta::default()
            },
            type_: Some(if failed { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason),
            note: Some(shortened(message)),
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            regarding: Some(about.clone()),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        // The status holds the same; an Event that is lost is no reason to try everything again.
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            debug!(namespace, name, "An Event was not published: {}", chain(&error));
        }
    }
}

/// Something that a user may want to be told of.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    failed: bool,
    reason: String,
    message: String,
}

/// The turns between two sets of conditions, each reason once.
fn turns(before: &[Condition], after: &[Condition]) -> Vec<Turn> {
    let mut turns = Vec::<Turn>::new();
    for name in [STALLED, INGESTED, BUILT, READY] {
        let find = |all: &[Condition]| all.iter().find(|condition| condition.type_ == name).cloned();
        let Some(now) = find(after) else { continue };
        let then = find(before);
        let turned = then.as_ref().is_none_or(|then| then.status != now.status || then.reason != now.reason);
        if turned
            && let Some(failed) = is_told(name, &now)
            && turns.iter().all(|turn| turn.reason != now.reason)
        {
            turns.push(Turn { failed, reason: now.reason, message: now.message });
        }
    }
    turns
}

/// Whether a turn of this condition is told, and then whether it is a failure. What only waits for what is told anyway is not.
fn is_told(name: &str, condition: &Condition) -> Option<bool> {
    let holds = condition.status == "True";
    if name == STALLED {
        return holds.then_some(true);
    }
    let reason: Reason = condition.reason.parse().ok()?;
    match reason {
        _ if holds => Some(false),
        Reason::Ingesting if name == INGESTED => Some(false),
        Reason::Building if name == BUILT => Some(false),
        Reason::Suspended | Reason::WaitingForUpload | Reason::Deleting => Some(false),
        Reason::NotChecked
        | Reason::Waiting
        | Reason::Ingesting
        | Reason::Building
        | Reason::NotBuilt
        | Reason::NotPublished
        | Reason::NotServed
        | Reason::VersionPending => None,
        _ => Some(true),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > NOTE {
        let end = (0..=NOTE - '…'.len_utf8()).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_way_to_ready_is_told_once_a_step() {
        let waiting = [ready("False", "Waiting"), ingested("False", "Waiting"), stalled("False")];
        let running = [ready("False", "Ingesting"), ingested("False", "Ingesting"), stalled("False")];
        let serving = [ready("True", "Serving"), ingested("True", "UpToDate"), stalled("False")];
        assert_eq!(told(&[], &waiting), []);
        assert_eq!(told(&waiting, &running), [(false, "Ingesting")]);
        assert_eq!(told(&running, &running), []);
        assert_eq!(told(&running, &serving), [(false, "UpToDate"), (false, "Serving")]);
    }

    #[test]
    fn a_failure_that_turns_three_conditions_is_one_warning() {
        let running = [ready("False", "Ingesting"), ingested("False", "Ingesting"), stalled("False")];
        let reason = "InvalidData";
        let stuck = Condition { reason: reason.to_owned(), ..stalled("True") };
        let failed = [ready("False", reason), ingested("False", reason), stuck];
        assert_eq!(told(&running, &failed), [(true, "InvalidData")]);
        assert_eq!(told(&failed, &failed), []);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = shortened("ä".repeat(2000));
        assert!(note.len() <= NOTE && note.ends_with("ä…"));
        assert_eq!(shortened("short".to_owned()), "short");
    }

    fn told(before: &[Condition], after: &[Condition]) -> Vec<(bool, &'static str)> {
        turns(before, after)
            .into_iter()
            .map(|turn| (turn.failed, turn.reason.parse::<Reason>().unwrap().as_str()))
            .collect()
    }

    fn ready(status: &str, reason: &str) -> Condition {
        condition(READY, status, reason)
    }

    fn ingested(status: &str, reason: &str) -> Condition {
        condition(INGESTED, status, reason)
    }

    fn stalled(status: &str) -> Condition {
        condition(STALLED, status, "Settled")
    }

    fn condition(name: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: format!("{name} {reason}"),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }
}
