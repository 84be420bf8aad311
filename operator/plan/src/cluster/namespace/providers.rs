//! What pods are told of the namespace's `ChatProviders`: a list in a ConfigMap, and each key in a file.
//!
//! Pods follow both by themselves, so an edit starts none anew; only a Secret that is to be mounted, or no longer, does. A kubelet renews
//! such files in its own time, which can be more than a minute, and at once when anything of the pod changes: therefore pods are given
//! a [`Notice`] whenever the list or a key has changed.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{KeyToPath, Pod, SecretVolumeSource, Volume};
use kube::ResourceExt;
use lakehouse_contract::provider::{Provider, Providers};
use lakehouse_crds::common::KeyRef;

use super::Observed;
use crate::{
    ReadyProvider,
    cluster::{
        job,
        meta::{self, Component},
        names, pod, pods,
    },
};

const LIST_FOLDER: &str = "/etc/lakehouse/providers";
/// The list's entry in its ConfigMap, and its file.
pub(super) const LIST_FILE: &str = "providers.yaml";
const KEYS_FOLDER: &str = "/etc/lakehouse/keys";

/// A pod that is to learn at once that its files have changed: by an annotation, [`meta::PROVIDERS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The pod's name.
    pub pod: String,
    /// The annotation's value: it changes with the list and the keys.
    pub state: String,
}

/// A ChatProvider as its namespace's pods are told of it.
pub fn told(provider: &ReadyProvider) -> Provider {
    let file = |key: &KeyRef| PathBuf::from(format!("{KEYS_FOLDER}/{}/{}", provider.name, key.key));
    provider.provider(provider.key.as_ref().map(file))
}

impl<'a> Observed<'a> {
    /// Those that embed, or are named by an index.
    pub(super) fn embedders(&self) -> Vec<&'a ReadyProvider> {
        let named = |provider: &&ReadyProvider| self.named.contains(&provider.name);
        self.providers.iter().filter(|provider| provider.embeds() || named(provider)).collect()
    }

    /// Those with language models. The keys of the others are none of chatd's business.
    pub(super) fn chatters(&self) -> Vec<&'a ReadyProvider> {
        self.providers.iter().filter(|provider| provider.chats()).collect()
    }
}

/// The list, in the order of precedence. One that is suspended is not on it.
pub(super) fn list(providers: &[&ReadyProvider]) -> String {
    let providers = providers.iter().filter(|one| !one.suspend).map(|one| told(one)).collect();
    serde_json::to_string_pretty(&Providers { providers })
        .expect("plain data with text keys always has a JSON form")
}

/// The arguments of a server that follows a list.
pub(super) fn args() -> [String; 2] {
    ["--providers".to_owned(), format!("{LIST_FOLDER}/{LIST_FILE}")]
}

/// The list of this ConfigMap, and the keys. Whatever their precedence, equal providers give equal volumes; who suspends one and
/// resumes it starts no pods, so its key stays.
pub(super) fn volumes(list: &str, providers: &[&ReadyProvider]) -> Vec<(Volume, String)> {
    let mut sorted = providers.to_vec();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let list = (job::config_map("providers", list, None), LIST_FOLDER.to_owned());
    std::iter::once(list).chain(sorted.into_iter().filter_map(key)).collect()
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

/// Which pods do not know yet that their list or their keys are as they have been seen.
pub(super) fn notices(observed: &Observed<'_>) -> Vec<Notice> {
    let followers = [
        (Component::Embed, names::PROVIDERS, observed.embedders()),
        (Component::Chat, names::CHAT, observed.chatters()),
    ];
    let mut notices = Vec::new();
    for (component, list, providers) in followers {
        let Some(state) = state(observed, list, &providers) else { continue };
        let is_told = |pod: &Pod| pod.annotations().get(meta::PROVIDERS) == Some(&state);
        let pods = observed.pods.iter().filter(|pod| follows(pod, component) && !is_told(pod));
        notices.extend(pods.map(|pod| Notice { pod: pod.name_any(), state: state.clone() }));
    }
    notices
}

/// Whether a pod is of this component and has not begun to end.
fn follows(pod: &Arc<Pod>, component: Component) -> bool {
    pod.labels().get(meta::COMPONENT_LABEL).is_some_and(|label| label == component.as_str())
        && pod.metadata.deletion_timestamp.is_none()
        && !pods::has_ended(pod)
}

/// The state of a list and its keys as the cluster has them; nothing before the list has been seen.
fn state(observed: &Observed<'_>, list: &str, providers: &[&ReadyProvider]) -> Option<String> {
    let find = |all: &'_ [(String, String)], name: &str| {
        all.iter().find(|(one, _)| one == name).map(|(_, state)| state.clone())
    };
    let secrets: BTreeSet<&str> =
        providers.iter().filter_map(|one| Some(one.key.as_ref()?.name.as_str())).collect();
    let mut parts = vec![find(observed.lists, list)?];
    parts.extend(secrets.into_iter().map(|name| find(observed.secrets, name).unwrap_or_default()));
    Some(names::digest(&parts.iter().map(String::as_str).collect::<Vec<_>>()))
}
