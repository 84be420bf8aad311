//! What chatd's pods say of the namespace's `ChatProviders`.
//!
//! chatd looks at the providers itself, in its own time; here it is only asked what it saw.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use lakehouse_contract::chat::{ProviderInfo, ProviderList};
use lakehouse_plan::cluster::{
    meta::Component,
    serving::{Look, is_ready},
};

use super::{
    Services, address,
    http::Http,
    views::{self, Answer, How, Word},
};
use crate::key::Key;

/// chatd may wait for a provider that keeps silent before it says what it knows of all.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a pod said of a provider. Two are equal when the later one is no news.
#[derive(Clone, Debug)]
pub(super) struct Told(ProviderInfo);

impl Told {
    /// What of it is news: that it was looked at again, or is asked right now, is none.
    fn news(&self) -> ProviderInfo {
        let mut info = ProviderInfo { in_flight: 0, ..self.0.clone() };
        if let Some(probe) = &mut info.probe {
            (probe.at, probe.latency_ms) = (Timestamp::UNIX_EPOCH, None);
        }
        info
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.news() == other.news()
    }
}

impl Services {
    /// Asks chatd's pods of a namespace how their providers are, beside everything else. `ChatProviders` of which there is news are
    /// woken.
    pub fn look_at_providers(&self, namespace: &str) {
        if self.0.leads.load(Ordering::Relaxed) && self.0.providers.begin(namespace, How::Look) {
            let (me, namespace) = (self.clone(), namespace.to_owned());
            tokio::spawn(async move { me.follow_providers(&namespace).await });
        }
    }

    /// Every pod of a namespace's chatd, and what it last said of a provider.
    pub fn looks(&self, namespace: &str, provider: &str) -> Vec<(Arc<Pod>, Look)> {
        let said = |pod: Arc<Pod>| {
            let look = match self.0.providers.of(namespace, &pod, provider) {
                Word::Unasked => Look::Unknown,
                Word::Silent(error) => Look::Unreachable(error),
                Word::Absent => Look::Absent,
                Word::Says(Told(info)) => Look::Says(Box::new(info)),
            };
            (pod, look)
        };
        self.chatters(namespace).into_iter().map(said).collect()
    }

    /// Forgets a ChatProvider that is gone.
    pub fn forget_provider(&self, namespace: &str, provider: &str) {
        self.want_no_model(&Key::chat_provider(namespace, provider));
        if self.0.world.providers.names_of(namespace).is_empty() {
            self.0.providers.forget(namespace);
        }
    }

    /// Asks until nobody wants to know any more.
    async fn follow_providers(&self, namespace: &str) {
        let (world, providers) = (&self.0.world, &self.0.providers);
        while providers.next(namespace).is_some() {
            let mut pods = self.0.pods(namespace, Component::Chat);
            pods.retain(|pod| is_ready(pod));
            let answers = futures::future::join_all(pods.iter().map(async |pod| {
                let answer = ask(&self.0.http, namespace, pod).await;
                (views::uid(pod), answer)
            }));
            let changed = providers.put(namespace, answers.await);
            let known = world.providers.names_of(namespace);
            for name in known.into_iter().filter(|name| changed.concerns(name)) {
                self.0.queue.add(Key::chat_provider(namespace, name));
            }
            tokio::time::sleep(views::PAUSE).await;
        }
    }
}

async fn ask(http: &Http, namespace: &str, pod: &Pod) -> Answer<Told> {
    let Some(address) = address::of(pod) else { return Err("it has no address yet".to_owned()) };
    let list = http.get_patiently::<ProviderList>(namespace, &address, "/chat/providers", PATIENCE).await;
    let list = list.map_err(|error| error.to_string())?;
    Ok(list.providers.into_iter().map(|info| (info.name.clone(), Told(info))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_look_that_saw_the_same_is_no_news() {
        let looked = |at: &str, latency: u64| told(&json!({"at": at, "latency_ms": latency}));
        let first = looked("2026-11-20T12:00:01Z", 12);
        assert_eq!(first, looked("2026-11-20T12:09:59Z", 900));
        let failure = json!({"stage": "reach", "message": "refused"});
        assert_ne!(first, told(&json!({"at": "2026-11-20T12:00:01Z", "failure": failure})));
    }

    fn told(probe: &serde_json::Value) -> Told {
        let info = json!({
            "name": "a", "type": "Ollama", "endpoint": "http://h", "default": true, "prefixes": [], "suffixes": [],
            "models": ["m"], "tiers": {}, "weak_models": [], "fallback": [], "healthy": true, "in_flight": 3, "probe": probe,
        });
        Told(serde_json::from_value(info).unwrap())
    }
}
