//! Makes the cluster hold what a plan names.
//!
//! Receives children and names; asks the API server for nothing that is so already: what was applied before and looks
//! as it did then is left alone, so an operator without news sends nothing, and an edit by hand is put right. What the API
//! server refuses is a failure with its own words, for the conditions.

mod memory;

use std::fmt::Debug;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{NamespaceResourceScope, PartialObjectMeta, Status},
};
use lakehouse_plan::{
    Reason,
    cluster::{
        Child, Kind, ObjectName,
        deletion::{Finalizer, KeepsData},
        meta::PROVIDERS,
        names::{FIELD_MANAGER, FINALIZER},
        namespace::Notice,
    },
    status::Failure,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{debug, info};

use crate::world::{World, seen};

pub use memory::Memory;

/// Why something could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not accept it as it is.
    #[error("{what} was refused: {message}")]
    Refused {
        /// Kind and name.
        what: String,
        /// The API server's own words.
        message: String,
    },
    /// The namespace, or what was to be changed, is going away: there is nothing left to do.
    #[error("{0} is going away")]
    Gone(String),
    /// The API server could not be asked, or is not in a state to answer.
    #[error("{what}: {source}")]
    Api {
        /// Kind and name.
        what: String,
        /// What happened.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// What a user is told, where the objects themselves are what is wrong.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Refused { what, message } => {
                Some(Failure::new(Reason::ObjectRefused, format!("The API server refuses {what}: {message}")))
            }
            Self::Gone(_) | Self::Api { .. } => None,
        }
    }

    fn of(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) if is_ending(&status) => Self::Gone(what),
            kube::Error::Api(status) if is_refusal(&status) => {
                Self::Refused { what, message: status.message.clone() }
            }
            error => Self::Api { what, source: Box::new(error) },
        }
    }
}

/// The API server's answer when a namespace is being deleted, or is gone.
fn is_ending(status: &Status) -> bool {
    let details = status.details.as_ref();
    let terminating = details
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
    terminating || (status.is_not_found() && details.is_some_and(|details| details.kind == "namespaces"))
}

/// Whether the same object would be refused again: by validation, a quota, an admission rule, or for want of a right.
fn is_refusal(status: &Status) -> bool {
    match status.code {
        400 | 403 | 405 | 413 | 415 | 422 => true,
        // An admission webhook that does not answer.
        500 => status.message.contains("webhook"),
        _ => false,
    }
}

/// Applies and prunes. Cheap to clone.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    world: World,
    memory: Memory,
}

impl Applier {
    /// Applies over this client what this world lacks.
    pub fn new(client: Client, world: World, memory: Memory) -> Self {
        Self { client, world, memory }
    }

    /// Makes every child what it shall be, in order. The first that cannot be ends it: what follows may need it.
    pub async fn children(&self, namespace: &str, children: &[Child]) -> Result<(), Error> {
        for child in children {
            if child.is_made_once() {
                self.make(namespace, child).await?;
            } else {
                self.apply(namespace, child).await?;
            }
        }
        Ok(())
    }

    /// Removes what nobody needs any more: a Job with its pods, which it waits for.
    pub async fn delete(&self, namespace: &str, objects: &[ObjectName]) -> Result<(), Error> {
        for object in objects {
            let Some(stamp) = self.world.stamp(namespace, object) else { continue };
            if object.kind == Kind::Job && self.is_ending(namespace, &object.name) {
                continue;
            }
            let policy = match object.kind {
                Kind::Job => PropagationPolicy::Foreground,
                _ => PropagationPolicy::Background,
            };
            // Only the one that was looked at; one that was made anew under this name stays.
            let this_one = Preconditions { uid: Some(stamp.uid), resource_version: None };
            let how = DeleteParams {
                propagation_policy: Some(policy),
                preconditions: Some(this_one),
                ..DeleteParams::default()
            };
            match self.api(namespace, object.kind).delete(&object.name, &how).await {
                Ok(_) => info!(namespace, "Deleted {}", what(object)),
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                Err(error) => return Err(Error::of(what(object), error)),
            }
        }
        Ok(())
    }

    /// Stops a Job, or lets it go on.
    pub async fn suspend(&self, namespace: &str, job: &str, suspend: bool) -> Result<(), Error> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"spec": {"suspend": suspend}});
        match jobs.patch(job, &patch_params(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::of(format!("Job `{job}`"), error)),
        }
    }

    /// Lets a pod's node know that the pod's files have changed. One that is gone needs no notice.
    pub async fn notify(&self, namespace: &str, notice: &Notice) -> Result<(), Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": {(PROVIDERS): notice.state}}});
        match pods.patch_metadata(&notice.pod, &patch_params(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::of(format!("Pod `{}`", notice.pod), error)),
        }
    }

    /// Adds or removes the finalizer of a resource, of the very state that was looked at.
    /// False when it has changed meanwhile.
    pub async fn finalizer<K>(&self, resource: &K, change: Finalizer) -> Result<bool, Error>
    where
        K: KeepsData
            + Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
        let mut finalizers = resource.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if change == Finalizer::Add {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {
            "uid": resource.uid(),
            "resourceVersion": resource.resource_version(),
            "finalizers": finalizers,
        }});
        let resources: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        match resources.patch(&name, &patch_params(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(Error::of(format!("the finalizer of {} `{name}`", K::KIND.as_str()), error)),
        }
    }

    /// Creates an object that is never changed; that it is there already is as good.
    async fn make(&self, namespace: &str, child: &Child) -> Result<(), Error> {
        let object = child.object_name();
        if self.world.stamp(namespace, &object).is_some() || self.memory.was_just_made(namespace, &object) {
            return Ok(());
        }
        let api = self.api(namespace, child.kind());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, child.object()).await {
            Ok(_) => info!(namespace, "Created {}", what(&object)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.take_back(namespace, child).await?;
            }
            Err(error) => return Err(Error::of(what(&object), error)),
        }
        self.memory.made(namespace, &object);
        Ok(())
    }

    /// An object that is there but was not seen: either its event is on the way, or it has lost the label that shows it.
    async fn take_back(&self, namespace: &str, child: &Child) -> Result<(), Error> {
        let object = child.object_name();
        if object.kind == Kind::Secret {
            return Ok(()); // a user's, or another operator's of this moment
        }
        let metadata = &child.object().metadata;
        let params = patch_params();
        let patch = json!({"metadata": {"labels": metadata.labels}});
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), namespace, &child.resource());
        api.patch_metadata(&object.name, &params, &Patch::Merge(&patch))
            .await
            .map(|_| ())
            .map_err(|error| Error::of(what(&object), error))
    }

    async fn apply(&self, namespace: &str, child: &Child) -> Result<(), Error> {
        let object = child.object_name();
        let asked = seen::of_value(&serde_json::to_value(child.object()).unwrap_or_default());
        let live = self.world.stamp(namespace, &object);
        if !self.memory.needs(namespace, &object, asked, live.as_ref()) {
            return Ok(());
        }
        let api = self.api(namespace, child.kind());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&object.name, &params, &Patch::Apply(child.object())).await;
        let applied = match applied {
            Err(kube::Error::Api(status)) if live.is_some() && cannot_change(&status) => {
                // It holds nothing but what we asked for, so it can be made anew.
                info!(
                    namespace,
                    "{} cannot be changed into what it shall be; it is made anew",
                    what(&object)
                );
                self.delete(namespace, std::slice::from_ref(&object)).await?;
                api.patch(&object.name, &params, &Patch::Apply(child.object())).await
            }
            applied => applied,
        };
        let applied = applied.map_err(|error| Error::of(what(&object), error))?;
        debug!(namespace, "Applied {}", what(&object));
        let stamp = seen::stamp_of(child.kind(), &applied);
        self.memory.applied(namespace, object, asked, stamp);
        Ok(())
    }

    fn is_ending(&self, namespace: &str, job: &str) -> bool {
        let job = self.world.jobs.get(namespace, job);
        job.is_some_and(|job| job.object.meta().deletion_timestamp.is_some())
    }

    fn api(&self, namespace: &str, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Whether a field that can never change is what was refused.
fn cannot_change(status: &Status) -> bool {
    status.is_invalid() && status.message.contains("immutable")
}

fn what(object: &ObjectName) -> String {
    format!("{} `{}`", object.kind.as_str(), object.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_refusal_and_a_namespace_that_ends_is_none() {
        let quota = status(json!({"code": 403, "reason": "Forbidden", "message": "exceeded quota: jobs"}));
        let failure = Error::of("Job `a`", quota).failure().unwrap();
        assert_eq!(failure.reason, Reason::ObjectRefused);
        assert_eq!(failure.message, "The API server refuses Job `a`: exceeded quota: jobs");

        let ending = json!({"code": 403, "reason": "Forbidden", "message": "no",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "", "field": ""}]}});
        assert!(matches!(Error::of("Job `a`", status(ending)), Error::Gone(_)));
        let gone =
            json!({"code": 404, "reason": "NotFound", "message": "no", "details": {"kind": "namespaces"}});
        assert!(matches!(Error::of("Job `a`", status(gone)), Error::Gone(_)));
    }

    #[test]
    fn an_api_server_in_trouble_refuses_nothing() {
        for code in [401, 409, 429, 500, 503, 504] {
            let error = status(json!({"code": code, "reason": "x", "message": "try later"}));
            assert!(Error::of("Job `a`", error).failure().is_none(), "{code}");
        }
        let webhook =
            json!({"code": 500, "reason": "InternalError", "message": "failed calling webhook \"x\""});
        assert!(Error::of("Job `a`", status(webhook)).failure().is_some());
    }

    fn status(mut value: serde_json::Value) -> kube::Error {
        value["status"] = json!("Failure");
        value["metadata"] = json!({});
        let status: Status = serde_json::from_value(value).unwrap();
        kube::Error::Api(Box::new(status))
    }
}
