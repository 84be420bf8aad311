//! What a pod is doing, and why it does not: the scheduler's, the kubelet's or the container's own words, and what would help.
//!
//! The words are for somebody who reads `kubectl describe` of the resource and nothing else.

mod words;

use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Event, Pod, PodCondition,
};
use kube::ResourceExt;
use lakehouse_contract::job::Summary;

use crate::{Reason, status::Failure};
pub(super) use words::last_words;

/// What a user can change of a component's pods, each with the place where it is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knobs {
    pub(super) memory: &'static str,
    pub(super) requests: &'static str,
    pub(super) disk: &'static str,
    /// Where it is said how long a Job may take.
    pub(super) deadline: Option<&'static str>,
}

pub(super) const INGEST: Knobs = Knobs {
    memory: "`spec.ingest.resources.limits.memory`",
    requests: "`spec.ingest.resources.requests`",
    disk: "`ingest.spoolSize` of the operator's settings",
    deadline: Some("`spec.ingest.activeDeadlineSeconds`"),
};
pub(super) const BUILD: Knobs = Knobs {
    memory: "`spec.build.resources.limits.memory`",
    requests: "`spec.build.resources.requests`",
    disk: "`build.spoolSize` of the operator's settings",
    deadline: Some("`spec.build.activeDeadlineSeconds`"),
};
pub(super) const VECTORS: Knobs = Knobs {
    memory: "`spec.resources.limits.memory`",
    requests: "`spec.resources.requests`",
    disk: "`vectors.cacheSize` of the operator's settings",
    deadline: None,
};
pub(super) const EMBED: Knobs = Knobs {
    memory: "`embed.resources.limits.memory` of the operator's settings",
    requests: "`embed.resources.requests` of the operator's settings",
    disk: "`embed.cacheSize` of the operator's settings",
    deadline: None,
};
pub(super) const CHAT: Knobs = Knobs {
    memory: "`chat.resources.limits.memory` of the operator's settings",
    requests: "`chat.resources.requests` of the operator's settings",
    // It writes nothing there.
    disk: "`chat.resources` of the operator's settings",
    deadline: None,
};
pub(super) const PURGE: Knobs = Knobs {
    memory: "`ingest.resources.limits.memory` of the operator's settings",
    requests: "`ingest.resources.requests` of the operator's settings",
    disk: "`ingest.spoolSize` of the operator's settings",
    deadline: None,
};
pub(super) const GATEWAY: Knobs = Knobs {
    memory: "`gateway.resources.limits.memory` of the operator's settings",
    requests: "`gateway.resources.requests` of the operator's settings",
    disk: "`ingest.spoolSize` of the operator's settings",
    deadline: None,
};
pub(super) const QUERY: Knobs = Knobs {
    memory: "`query.resources.limits.memory` of the operator's settings",
    requests: "`query.resources.requests` of the operator's settings",
    disk: "`query.cacheSize` of the operator's settings",
    deadline: None,
};

/// What a pod is doing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State<'a> {
    /// It is on its way; nothing speaks against it.
    Starting,
    /// Its container runs.
    Running,
    /// Its container ended well.
    Succeeded,
    /// It cannot start, or its container ended badly. It may be tried again.
    Failed(Failure),
    /// It is being deleted, and says why where somebody told.
    Leaving(Option<&'a str>),
}

/// What a pod is doing. `events` are those of the pod, where somebody fetched them.
pub(super) fn state<'a>(pod: &'a Pod, events: &[Event], knobs: Knobs) -> State<'a> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    match phase {
        "Succeeded" => State::Succeeded,
        "Failed" => State::Failed(failure_of_end(pod, knobs)),
        _ if pod.metadata.deletion_timestamp.is_some() => State::Leaving(disruption(pod)),
        // Its container has ended, and its phase follows, or it is about to be started again.
        _ if ended_now(pod) == Some(0) => State::Succeeded,
        _ if ended_now(pod).is_some() => State::Failed(failure_of_end(pod, knobs)),
        _ => match failure_of_start(pod, events, knobs) {
            Some(failure) => State::Failed(failure),
            None if container(pod).is_some_and(running) => State::Running,
            None => State::Starting,
        },
    }
}

/// Whether a pod will never run again.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Why the container of a pod was started again.
pub(super) fn failure_before(pod: &Pod, knobs: Knobs) -> Option<Failure> {
    let before = container(pod)?.last_state.as_ref()?.terminated.as_ref()?;
    (before.exit_code != 0).then(|| failure_of_end(pod, knobs))
}

/// The last words of a pod's container that has ended, where they are a summary.
pub(super) fn summary(pod: &Pod) -> Option<Summary> {
    serde_json::from_str(terminated(pod)?.message.as_deref()?).ok()
}

/// How a container ended, now or before it was started again.
pub(super) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let status = container(pod)?;
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or_else(|| status.last_state.as_ref()?.terminated.as_ref())
}

fn ended_now(pod: &Pod) -> Option<i32> {
    Some(container(pod)?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The only container.
fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn condition<'a>(pod: &'a Pod, name: &str, value: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == name && condition.status == value)
}

/// Why a pod makes room, where somebody told.
fn disruption(pod: &Pod) -> Option<&str> {
    condition(pod, "DisruptionTarget", "True")?.message.as_deref()
}

/// Why a pod that has not ended does not run.
fn failure_of_start(pod: &Pod, events: &[Event], knobs: Knobs) -> Option<Failure> {
    let name = pod.name_any();
    if let Some(condition) = condition(pod, "PodScheduled", "False")
        && condition.reason.as_deref() == Some("Unschedulable")
    {
        let why = words::sentence(condition.message.as_deref().unwrap_or("no node can run it"));
        let help = format!("Lower {}, or give the cluster more room.", knobs.requests);
        return Some(Failure::new(
            Reason::Unschedulable,
            format!("Pod `{name}` finds no node: {why} {help}"),
        ));
    }
    let status = container(pod);
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting
        && let Some(failure) = failure_of_waiting(pod, &name, waiting, knobs)
    {
        return Some(failure);
    }
    if status.is_some_and(running) {
        return None;
    }
    // The kubelet tells of volumes and networks in events alone.
    let event = words::newest(events, &["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])?;
    let message = event.message.as_deref().unwrap_or_default();
    Some(cannot_start(&name, message))
}

fn failure_of_waiting(
    pod: &Pod,
    name: &str,
    waiting: &ContainerStateWaiting,
    knobs: Knobs,
) -> Option<Failure> {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or(reason);
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            let image = image(pod);
            let why = words::sentence(words::of_pull(message));
            Some(Failure::new(
                Reason::ImagePullFailed,
                format!(
                    "Pod `{name}` cannot start, because the image `{image}` cannot be pulled: {why} It is `image` of the \
                     operator's settings; a registry that asks for a login needs `imagePullSecrets` beside it."
                ),
            ))
        }
        "CrashLoopBackOff" => Some(failure_of_end(pod, knobs)),
        "" | "ContainerCreating" | "PodInitializing" => None,
        _ => Some(cannot_start(name, message)),
    }
}

fn cannot_start(name: &str, message: &str) -> Failure {
    let reason = if message.contains("secret \"") && message.contains("not found") {
        Reason::SecretMissing
    } else {
        Reason::PodFailed
    };
    Failure::new(reason, format!("Pod `{name}` cannot start: {}", words::sentence(message)))
}

/// Why a pod, or its container, ended badly.
fn failure_of_end(pod: &Pod, knobs: Knobs) -> Failure {
    let name = pod.name_any();
    if let Some(Summary::Failed { reason, message, .. }) = summary(pod) {
        return Failure::new(reason.parse().unwrap_or(Reason::Failed), message);
    }
    let status = pod.status.as_ref();
    let why = status.and_then(|status| status.reason.as_deref());
    let told = status.and_then(|status| status.message.as_deref());
    let terminated = terminated(pod);
    if terminated.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled")) {
        return out_of_memory(pod, &name, knobs);
    }
    if why == Some("Evicted") {
        return evicted(&name, told.unwrap_or_default(), knobs);
    }
    if let Some(message) = disruption(pod) {
        let message = words::sentence(message);
        return Failure::new(Reason::Interrupted, format!("Pod `{name}` had to make room: {message}"));
    }
    if let (Some(reason), None) = (why, terminated) {
        let message = words::sentence(told.unwrap_or(reason));
        return Failure::new(Reason::PodFailed, format!("Pod `{name}` failed ({reason}): {message}"));
    }
    let Some(ended) = terminated else {
        return Failure::new(Reason::PodFailed, format!("Pod `{name}` failed, and nobody told why."));
    };
    let how = match (ended.exit_code, ended.reason.as_deref()) {
        (137, _) => "was killed (exit status 137)".to_owned(),
        (status, Some(reason)) if !matches!(reason, "Error" | "Completed") => {
            format!("ended with exit status {status} ({reason})")
        }
        (status, _) => format!("ended with exit status {status}"),
    };
    let words = ended.message.as_deref().and_then(last_words).map_or_else(
        || format!(" without a word. `kubectl logs {name}` may tell more."),
        |words| format!(": {}", words::sentence(&words)),
    );
    Failure::new(Reason::PodFailed, format!("Pod `{name}` {how}{words}"))
}

fn out_of_memory(pod: &Pod, name: &str, knobs: Knobs) -> Failure {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let limit = container
        .and_then(|container| container.resources.as_ref()?.limits.as_ref()?.get("memory"))
        .map(|limit| format!(" of {}", limit.0))
        .unwrap_or_default();
    Failure::new(
        Reason::OutOfMemory,
        format!(
            "Pod `{name}` was killed, because it needed more memory than its limit{limit}. Raise {}.",
            knobs.memory
        ),
    )
}

fn evicted(name: &str, message: &str, knobs: Knobs) -> Failure {
    let lower = message.to_ascii_lowercase();
    let why = words::sentence(message);
    if lower.contains("emptydir") || lower.contains("ephemeral") {
        let help = format!("Raise {}.", knobs.disk);
        Failure::new(Reason::DiskFailed, format!("Pod `{name}` was evicted: {why} {help}"))
    } else {
        Failure::new(Reason::PodFailed, format!("Pod `{name}` was evicted from its node: {why}"))
    }
}

fn image(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or("?")
}

/// Why the API server refuses the pods of a Job or a Deployment, by the events of what makes them.
pub(super) fn refused(events: &[Event]) -> Option<Failure> {
    let event = words::newest(events, &["FailedCreate"])?;
    let message = words::sentence(event.message.as_deref()?);
    Some(Failure::new(Reason::ObjectRefused, format!("The API server refuses the pod: {message}")))
}
