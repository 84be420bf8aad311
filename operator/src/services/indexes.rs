//! What the pods of indexes are asked.

use std::sync::{Arc, atomic::Ordering};

use k8s_openapi::api::core::v1::Pod;
use lakehouse_contract::{
    build::Progress,
    vectors::{CreateRequest, IndexInfo, RollbackRequest},
};
use lakehouse_plan::cluster::{
    ResourceKind,
    meta::Component,
    names,
    serving::{View, is_ready},
};

use super::{
    Error, Services, address,
    views::{self, How, Word},
};
use crate::{key::Key, world::seen::Labels};

/// What a pod said of an index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reader {
    /// Whether it takes requests, and what they see.
    pub view: View,
    /// The index as it has it.
    pub info: Option<IndexInfo>,
}

impl Services {
    /// Asks the pods of a namespace's indexes what they serve, beside everything else. Indexes that differ are woken.
    pub fn look_at_indexes(&self, namespace: &str) {
        if self.0.leads.load(Ordering::Relaxed) && self.0.indexes.begin(namespace, How::Look) {
            let (me, namespace) = (self.clone(), namespace.to_owned());
            tokio::spawn(async move { me.follow_indexes(&namespace).await });
        }
    }

    /// Every pod of an index, and what it last said.
    pub fn readers(&self, namespace: &str, index: &str) -> Vec<(Arc<Pod>, Reader)> {
        let short = names::short(index);
        let mut pods = self.0.pods(namespace, Component::Vectors);
        pods.retain(|pod| Labels::of(&**pod).is_of(ResourceKind::VectorIndex, &short));
        let said = |pod: Arc<Pod>| {
            let reader = match self.0.indexes.of(namespace, &pod, index) {
                Word::Unasked => Reader::default(),
                Word::Silent(error) => Reader { view: View::Unreachable(error), info: None },
                Word::Absent => Reader { view: View::Absent, info: None },
                Word::Says(info) => Reader { view: View::Version(info.version), info: Some(info) },
            };
            (pod, reader)
        };
        pods.into_iter().map(said).collect()
    }

    /// Makes an index that clients fill. One that is there already is as good; what it is, is seen when it is looked at.
    pub async fn create_index(
        &self,
        namespace: &str,
        index: &str,
        request: &CreateRequest,
    ) -> Result<(), Error> {
        let address = self.reader_address(namespace, index)?;
        let made: Result<IndexInfo, Error> =
            self.0.http.post(namespace, &address, "/vectors/index", Some(request)).await;
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes an index serve another kept version.
    pub async fn roll_index_back(&self, namespace: &str, index: &str, version: u64) -> Result<(), Error> {
        let address = self.reader_address(namespace, index)?;
        let (path, body) =
            (format!("/vectors/index/{index}/rollback"), RollbackRequest { version: Some(version) });
        let rolled: IndexInfo = self.0.http.post(namespace, &address, &path, Some(&body)).await?;
        debug_assert_eq!(rolled.version, version);
        Ok(())
    }

    /// What the pod at this address last told of its build. It is asked again beside everything else, and the
    /// VectorIndex is woken when it has come further.
    pub fn build_progress(&self, namespace: &str, index: &str, address: &str) -> Option<Progress> {
        let address = self.0.worker(ResourceKind::VectorIndex, namespace, index, address)?;
        let builds = &self.0.builds;
        if self.0.leads.load(Ordering::Relaxed) && builds.begin(namespace, index, &address) {
            let (me, namespace, name) = (self.clone(), namespace.to_owned(), index.to_owned());
            let address = address.clone();
            tokio::spawn(async move {
                let told = me.0.http.get::<Vec<Progress>>(&namespace, &address, "/build/progress").await;
                let told = told.ok().and_then(|all| all.into_iter().find(|one| one.name == name));
                if me.0.builds.end(&namespace, &name, &address, told) {
                    me.0.queue.add(Key::vector_index(namespace, name));
                }
            });
        }
        builds.last(namespace, index, &address)
    }

    /// Forgets a VectorIndex that is gone.
    pub fn forget_index(&self, namespace: &str, index: &str) {
        self.0.builds.forget(namespace, index);
        self.want_no_model(&Key::vector_index(namespace, index));
        if self.0.world.indexes.names_of(namespace).is_empty() {
            self.0.indexes.forget(namespace);
        }
    }

    fn reader_address(&self, namespace: &str, index: &str) -> Result<String, Error> {
        let readers = self.readers(namespace, index);
        let mut ready = readers.iter().filter(|(pod, _)| is_ready(pod));
        ready.find_map(|(pod, _)| address::of(pod)).ok_or(Error::NoPod("vectors"))
    }

    /// Asks until nobody wants to know any more.
    async fn follow_indexes(&self, namespace: &str) {
        let (world, indexes) = (&self.0.world, &self.0.indexes);
        while indexes.next(namespace).is_some() {
            let mut pods = self.0.pods(namespace, Component::Vectors);
            pods.retain(|pod| is_ready(pod));
            let asked = pods.iter().filter_map(|pod| {
                let (kind, short) = Labels::of(&**pod).owner?;
                Some((pod, world.name_of(kind, namespace, &short)?))
            });
            let answers = futures::future::join_all(asked.map(async |(pod, name)| {
                let answer = views::ask_index(&self.0.http, namespace, pod, &name).await;
                (views::uid(pod), answer)
            }));
            let changed = indexes.put(namespace, answers.await);
            let known = world.indexes.names_of(namespace);
            for name in known.into_iter().filter(|name| changed.concerns(name)) {
                self.0.queue.add(Key::vector_index(namespace, name));
            }
            tokio::time::sleep(views::PAUSE).await;
        }
    }
}
