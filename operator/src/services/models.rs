//! What each embedding model was when it was last asked.
//!
//! A model is asked when somebody wants to know it, and from then on again and again: its provider may get other weights under the
//! same name, or fail. Who is concerned is woken when the answer is another one. A model that nobody wants any more is forgotten.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use lakehouse_contract::embed::{IdentityRequest, ModelIdentity};
use lakehouse_plan::{
    Reason,
    cluster::{meta::Component, serving::is_ready},
    status::{EmbedderFacts, Failure},
};
use tokio::time::Instant;

use super::{Error, Services, address};
use crate::key::Key;

/// How often a model that answers is asked again.
const OFTEN: Duration = Duration::from_secs(30);
/// How often one is that does not.
const SOON: Duration = Duration::from_secs(5);
/// A provider may load the model first.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is known of models, by namespace and full name.
#[derive(Debug, Default)]
pub(super) struct Models(Mutex<HashMap<(String, String), Entry>>);

#[derive(Debug, Default)]
struct Entry {
    asking: bool,
    /// When it is to be asked again; at once where nothing stands here.
    due: Option<Instant>,
    last: EmbedderFacts,
    /// The resources that name it.
    wanted_by: BTreeSet<Key>,
}

impl Models {
    /// A resource wants to know this model, and no other. What is known of it.
    fn want(&self, by: &Key, model: &str) -> EmbedderFacts {
        self.release(by, Some(model));
        let mut all = self.all();
        let entry = all.entry((by.namespace().to_owned(), model.to_owned())).or_default();
        entry.wanted_by.insert(by.clone());
        entry.last.clone()
    }

    /// A resource wants to know no model but this one.
    fn release(&self, by: &Key, but: Option<&str>) {
        self.all().retain(|(of, model), entry| {
            if of != by.namespace() || but == Some(model) {
                return true;
            }
            entry.wanted_by.remove(by);
            !entry.wanted_by.is_empty()
        });
    }

    /// The models of a namespace that are to be asked now; who is told so asks and calls [`Self::end`].
    fn begin(&self, namespace: &str) -> Vec<String> {
        let now = Instant::now();
        let mut due = Vec::new();
        for ((_, model), entry) in self.all().iter_mut().filter(|((of, _), _)| of == namespace) {
            if !entry.asking && entry.due.is_none_or(|due| due <= now) {
                entry.asking = true;
                due.push(model.clone());
            }
        }
        due
    }

    /// Takes an answer, and says whether it is news.
    fn end(&self, namespace: &str, model: &str, told: &EmbedderFacts) -> bool {
        let mut all = self.all();
        let Some(entry) = all.get_mut(&(namespace.to_owned(), model.to_owned())) else { return false };
        entry.asking = false;
        let wait = if told.identity().is_some() { OFTEN } else { SOON };
        entry.due = Some(Instant::now() + wait);
        let is_news = entry.last != *told;
        entry.last.clone_from(told);
        is_news
    }

    /// Everything of a namespace is to be asked again.
    fn expire(&self, namespace: &str) {
        let mut all = self.all();
        all.iter_mut().filter(|((of, _), _)| of == namespace).for_each(|(_, entry)| entry.due = None);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services {
    /// What a model was when it was last asked. It is asked beside everything else, and the indexes of the namespace are
    /// woken when the answer is news.
    pub fn model(&self, by: &Key, model: &str) -> EmbedderFacts {
        let known = self.0.models.want(by, model);
        self.ask_models(by.namespace());
        known
    }

    /// A resource names no model, is wrong, or is gone.
    pub fn want_no_model(&self, by: &Key) {
        self.0.models.release(by, None);
    }

    /// Asks the models of a namespace that are due.
    pub fn ask_models(&self, namespace: &str) {
        if !self.0.leads.load(Ordering::Relaxed) {
            return;
        }
        for model in self.0.models.begin(namespace) {
            let (me, namespace) = (self.clone(), namespace.to_owned());
            tokio::spawn(async move {
                let told = me.ask_model(&namespace, &model).await;
                if me.0.models.end(&namespace, &model, &told) {
                    for name in me.0.world.indexes.names_of(&namespace) {
                        me.0.queue.add(Key::vector_index(namespace.clone(), name));
                    }
                    if let Some((provider, _)) = model.split_once('/')
                        && me.0.world.providers.get(&namespace, provider).is_some()
                    {
                        me.0.queue.add(Key::chat_provider(namespace, provider));
                    }
                }
            });
        }
    }

    /// Something has changed that may change every answer.
    pub fn ask_models_again(&self, namespace: &str) {
        self.0.models.expire(namespace);
        self.ask_models(namespace);
    }

    async fn ask_model(&self, namespace: &str, model: &str) -> EmbedderFacts {
        let pods = self.0.pods(namespace, Component::Embed);
        let address = pods.iter().filter(|pod| is_ready(pod)).find_map(|pod| address::of(pod));
        let Some(address) = address else { return EmbedderFacts::Unknown };
        let request = IdentityRequest { model: Some(model.to_owned()) };
        let http = &self.0.http;
        let asked = http.post_patiently(namespace, &address, "/embed/identity", &request, PATIENCE).await;
        of_answer(model, asked)
    }
}

/// What an answer tells of a model.
fn of_answer(model: &str, answer: Result<ModelIdentity, Error>) -> EmbedderFacts {
    let error = match answer {
        Ok(identity) => return EmbedderFacts::Answers(identity),
        Err(error) => error,
    };
    let reason = if error.is_not_found() { Reason::UnknownModel } else { Reason::EmbedderFailed };
    EmbedderFacts::Failed(Failure::new(reason, format!("The model `{model}` cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_model_is_asked_once_at_a_time_and_again_after_a_while() {
        let models = Models::default();
        assert_eq!(models.want(&key("ns", "shelf"), "m"), EmbedderFacts::Unknown);
        assert_eq!(models.begin("ns"), ["m"]);
        assert!(models.begin("ns").is_empty(), "somebody is at it");
        assert!(models.begin("other").is_empty());
        assert!(models.end("ns", "m", &answers("a")));
        assert_eq!(models.want(&key("ns", "shelf"), "m"), answers("a"));
        assert!(models.begin("ns").is_empty(), "it is too soon");
        tokio::time::advance(OFTEN).await;
        assert_eq!(models.begin("ns"), ["m"]);
        assert!(!models.end("ns", "m", &answers("a")), "that is no news");
        models.expire("ns");
        assert_eq!(models.begin("ns"), ["m"]);
        assert!(models.end("ns", "m", &answers("b")), "other weights under the same name");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_asked_again_soon() {
        let models = Models::default();
        models.want(&key("ns", "shelf"), "m");
        models.begin("ns");
        let failed = of_answer("m", Err(Error::Unreachable("refused".to_owned())));
        assert!(
            matches!(&failed, EmbedderFacts::Failed(failure) if failure.reason == Reason::EmbedderFailed)
        );
        assert!(models.end("ns", "m", &failed));
        tokio::time::advance(SOON).await;
        assert_eq!(models.begin("ns"), ["m"]);
        models.release(&key("ns", "shelf"), None);
        assert!(!models.end("ns", "m", &answers("a")), "nobody wants to know it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_nobody_names_any_more_is_not_asked() {
        let models = Models::default();
        models.want(&key("ns", "shelf"), "old");
        models.want(&key("ns", "other"), "old");
        models.want(&key("else", "shelf"), "old");
        models.want(&key("ns", "shelf"), "new");
        assert_eq!(sorted(models.begin("ns")), ["new", "old"], "another index still wants it");
        models.want(&key("ns", "other"), "new");
        assert!(!models.end("ns", "old", &answers("a")), "its answer comes too late");
        tokio::time::advance(OFTEN).await;
        models.end("ns", "new", &answers("b"));
        tokio::time::advance(OFTEN).await;
        assert_eq!(models.begin("ns"), ["new"]);
        assert_eq!(models.begin("else"), ["old"]);
        models.release(&key("ns", "shelf"), None);
        models.release(&key("ns", "other"), None);
        models.expire("ns");
        assert!(models.begin("ns").is_empty());
    }

    fn key(namespace: &str, index: &str) -> Key {
        Key::vector_index(namespace, index)
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names
    }

    fn answers(digest: &str) -> EmbedderFacts {
        EmbedderFacts::Answers(ModelIdentity {
            model: "local/m".into(),
            digest: digest.into(),
            dimension: 3,
            normalised: true,
        })
    }
}
