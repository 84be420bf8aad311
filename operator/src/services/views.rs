//! What every pod of one component serves: one snapshot a namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use lakehouse_contract::{sql, vectors::IndexInfo};
use lakehouse_plan::cluster::serving::View;

use super::{address, http::Http};

/// So often does a leader look without being asked: uploads and rollbacks over HTTP are seen then.
pub const EVERY: Duration = Duration::from_secs(10);
/// Between two rounds of questions to the same pods.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// What it serves.
    Look,
    /// To read the catalogue first.
    Refresh,
}

/// What a pod said, by dataset or index, or why it said nothing.
pub(super) type Answer<V> = Result<BTreeMap<String, V>, String>;

/// What a pod said of one dataset or index.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word<V> {
    /// It has not been asked yet.
    Unasked,
    /// It was asked and did not answer; the error.
    Silent(String),
    /// It answered, and has no such thing.
    Absent,
    /// This.
    Says(V),
}

#[derive(Debug)]
pub(super) struct Views<V>(Mutex<HashMap<String, Namespace<V>>>);

impl<V> Default for Views<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// So often in a row may a pod give no answer before that is told: one that is busy for seconds serves all the same.
const SILENCES: u32 = 2;

#[derive(Debug)]
struct Namespace<V> {
    /// By the pod's uid.
    pods: HashMap<String, Told<V>>,
    asking: bool,
    wanted: Option<How>,
}

impl<V> Default for Namespace<V> {
    fn default() -> Self {
        Self { pods: HashMap::new(), asking: false, wanted: None }
    }
}

/// What a pod told last, and how often it has been asked in vain since.
#[derive(Debug)]
struct Told<V> {
    answer: Arc<Answer<V>>,
    silences: u32,
}

impl<V> Told<V> {
    /// What counts after this answer.
    fn after(before: Option<&Self>, answer: Answer<V>) -> Self {
        match (before, answer) {
            (Some(before), Err(_)) if before.answer.is_ok() && before.silences < SILENCES => {
                Self { answer: Arc::clone(&before.answer), silences: before.silences + 1 }
            }
            (_, answer) => Self { answer: Arc::new(answer), silences: 0 },
        }
    }
}

/// Whose views are not what they were.
#[derive(Debug, Default)]
pub(super) struct Changed {
    everyone: bool,
    names: BTreeSet<String>,
}

impl Changed {
    pub(super) fn concerns(&self, name: &str) -> bool {
        self.everyone || self.names.contains(name)
    }
}

impl<V: Clone + PartialEq> Views<V> {
    /// Somebody wants to know. Whether the caller is to ask: somebody else may be at it already.
    pub(super) fn begin(&self, namespace: &str, how: How) -> bool {
        let mut all = self.all();
        let namespace = all.entry(namespace.to_owned()).or_default();
        namespace.wanted = namespace.wanted.max(Some(how));
        !std::mem::replace(&mut namespace.asking, true)
    }

    /// What is wanted next; `None` ends the asking.
    pub(super) fn next(&self, namespace: &str) -> Option<How> {
        let mut all = self.all();
        let namespace = all.get_mut(namespace)?;
        let how = namespace.wanted.take();
        namespace.asking = how.is_some();
        how
    }

    /// What a pod last said of a dataset or index.
    pub(super) fn of(&self, namespace: &str, pod: &Pod, name: &str) -> Word<V> {
        let answer = self
            .all()
            .get(namespace)
            .and_then(|namespace| namespace.pods.get(&uid(pod)).map(|told| Arc::clone(&told.answer)));
        match answer.as_deref() {
            None => Word::Unasked,
            Some(Err(error)) => Word::Silent(error.clone()),
            Some(Ok(views)) => views.get(name).cloned().map_or(Word::Absent, Word::Says),
        }
    }

    /// Takes the answers of all ready pods.
    pub(super) fn put(&self, namespace: &str, answers: Vec<(String, Answer<V>)>) -> Changed {
        let mut all = self.all();
        let Some(namespace) = all.get_mut(namespace) else { return Changed::default() };
        let before = std::mem::take(&mut namespace.pods);
        let told = answers.into_iter().map(|(pod, answer)| {
            let told = Told::after(before.get(&pod), answer);
            (pod, told)
        });
        namespace.pods = told.collect();
        let mut changed = Changed::default();
        for (pod, after) in &namespace.pods {
            match (before.get(pod).map(|told| &*told.answer), &*after.answer) {
                (Some(Ok(before)), Ok(after)) => changed.names.extend(differences(before, after)),
                (Some(Err(before)), Err(after)) if before == after => {}
                _ => changed.everyone = true,
            }
        }
        changed
    }

    pub(super) fn forget(&self, namespace: &str) {
        let mut all = self.all();
        if all.get(namespace).is_some_and(|namespace| !namespace.asking) {
            all.remove(namespace);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Namespace<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one query pod.
pub(super) async fn ask(http: &Http, namespace: &str, pod: &Pod, how: How) -> Answer<View> {
    let Some(address) = address::of(pod) else { return Err("it has no address yet".to_owned()) };
    let refreshed: Option<sql::Views> = match how {
        How::Look => None,
        // It reads what is new before it answers, which may take longer than anybody waits; it serves meanwhile.
        How::Refresh => http.post(namespace, &address, "/sql/refresh", None::<&()>).await.ok(),
    };
    let sql::Views { views, damaged } = match refreshed {
        Some(views) => views,
        None => http.get(namespace, &address, "/sql/views").await.map_err(|error| error.to_string())?,
    };
    let views = views.into_iter().map(|view| (view.name, View::Version(view.version)));
    let damaged = damaged.into_iter().map(|broken| (broken.name, View::Damaged(broken.message)));
    Ok(views.chain(damaged).collect())
}

/// Asks one pod that serves an index.
pub(super) async fn ask_index(http: &Http, namespace: &str, pod: &Pod, index: &str) -> Answer<IndexInfo> {
    let Some(address) = address::of(pod) else { return Err("it has no address yet".to_owned()) };
    match http.get::<IndexInfo>(namespace, &address, &format!("/vectors/index/{index}")).await {
        Ok(info) => Ok([(index.to_owned(), info)].into()),
        Err(error) if error.is_not_found() => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    }
}

impl From<Word<Self>> for View {
    fn from(word: Word<Self>) -> Self {
        match word {
            Word::Unasked => Self::Unknown,
            Word::Silent(error) => Self::Unreachable(error),
            Word::Absent => Self::Absent,
            Word::Says(view) => view,
        }
    }
}

pub(super) fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn differences<V: PartialEq>(before: &BTreeMap<String, V>, after: &BTreeMap<String, V>) -> Vec<String> {
    let changed = after.iter().filter(|(name, view)| before.get(*name) != Some(view)).map(|(name, _)| name);
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changed.chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_and_the_others_wait_for_the_same_answer() {
        let views = Views::<View>::default();
        assert!(views.begin("ns", How::Look));
        assert_eq!(views.next("ns"), Some(How::Look));
        assert!(!views.begin("ns", How::Refresh), "somebody is at it");
        assert!(!views.begin("ns", How::Look));
        assert_eq!(views.next("ns"), Some(How::Refresh), "the stronger wish is not lost");
        assert_eq!(views.next("ns"), None);
        assert!(views.begin("ns", How::Look));
    }

    #[test]
    fn only_whose_view_differs_is_concerned() {
        let views = Views::default();
        views.begin("ns", How::Look);
        let answer = |views: &[(&str, u64)]| -> Answer<View> {
            Ok(views.iter().map(|(name, version)| ((*name).to_owned(), View::Version(*version))).collect())
        };
        let told = |answer: Answer<View>| views.put("ns", vec![("pod".to_owned(), answer)]);
        assert!(told(answer(&[("a", 1), ("b", 1)])).concerns("anybody"), "a new pod concerns everybody");
        let changed = told(answer(&[("a", 2), ("c", 1)]));
        assert_eq!(["a", "b", "c", "d"].map(|name| changed.concerns(name)), [true, true, true, false]);
        for _ in 0..SILENCES {
            assert!(!told(Err("busy".to_owned())).concerns("d"));
        }
        assert!(told(Err("gone".to_owned())).concerns("d"));
        assert!(!told(Err("gone".to_owned())).concerns("d"));
    }

    #[test]
    fn a_pod_that_is_silent_for_a_moment_still_serves_what_it_said() {
        let views = Views::default();
        views.begin("ns", How::Look);
        let pod = |uid: &str| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {"uid": uid}})).unwrap()
        };
        let seen = |uid: &str, answer: Answer<View>| {
            views.put("ns", vec![(uid.to_owned(), answer)]);
            View::from(views.of("ns", &pod(uid), "a"))
        };
        let one = || Ok(BTreeMap::from([("a".to_owned(), View::Version(1))]));
        let silent = || Err("timed out".to_owned());
        assert_eq!(seen("q", one()), View::Version(1));
        assert_eq!([seen("q", silent()), seen("q", silent())], [View::Version(1), View::Version(1)]);
        assert_eq!(seen("q", silent()), View::Unreachable("timed out".to_owned()));
        assert_eq!(seen("q", one()), View::Version(1));
        assert_eq!(seen("q", silent()), View::Version(1), "an answer begins the count anew");
        assert_eq!(seen("r", silent()), View::Unreachable("timed out".to_owned()), "it never said anything");
    }
}
