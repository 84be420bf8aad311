//! What is kept of an object: as little as later questions need.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Container, Pod, PodSpec, PodTemplateSpec, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt, core::DynamicObject};
use lakehouse_plan::cluster::{
    Kind, ResourceKind,
    meta::{COMPONENT_LABEL, owner_of},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Which state of an object was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Of everything that somebody asked for: all but the status and what the API server keeps account of. 0 where nobody
    /// compares it.
    pub digest: u64,
}

/// What an object is for, by its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The kind and the short name of the resource that it belongs to alone.
    pub owner: Option<(ResourceKind, String)>,
    /// Its component.
    pub component: Option<String>,
}

/// An object of which enough is kept to plan with, but for the account of its fields.
#[derive(Clone, Debug)]
pub struct Whole<K> {
    /// The object.
    pub object: Arc<K>,
    /// Which state of it.
    pub stamp: Stamp,
}

/// An object of which only the outline is kept.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Which state of it.
    pub stamp: Stamp,
    /// What it is for.
    pub labels: Labels,
}

impl Stamp {
    /// The identity of a state without what it looks like.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version().unwrap_or_default(),
            digest: 0,
        }
    }

    /// With the digest of what the object looks like.
    pub fn with_digest<K: Resource + Serialize>(object: &K) -> Self {
        Self { digest: digest(object), ..Self::of(object) }
    }

    /// `uid/resourceVersion`, which changes whenever the object does.
    pub fn identity(&self) -> String {
        format!("{}/{}", self.uid, self.version)
    }

    /// Whether this state came before `other`. Resource versions are numbers that grow (KEP-5504); where one is none,
    /// nothing is known.
    pub fn is_before(&self, other: &str) -> bool {
        match (self.version.parse::<u64>(), other.parse::<u64>()) {
            (Ok(ours), Ok(theirs)) => ours < theirs,
            _ => false,
        }
    }
}

impl Labels {
    /// What an object is for.
    pub fn of<K: Resource>(object: &K) -> Self {
        let labels = object.labels();
        let owner = owner_of(labels).map(|(kind, short)| (kind, short.to_owned()));
        Self { owner, component: labels.get(COMPONENT_LABEL).cloned() }
    }

    /// Whether it belongs to the resource of this kind and short name alone.
    pub fn is_of(&self, kind: ResourceKind, short: &str) -> bool {
        self.owner.as_ref().is_some_and(|(of, name)| *of == kind && name == short)
    }
}

/// A resource of a user.
impl<K: Resource> Whole<K> {
    /// Keeps a resource.
    pub fn resource(object: K) -> Self {
        Self::of(Stamp::of(&object), object)
    }
}

impl Whole<Job> {
    /// Keeps a Job, without the pod that it makes: nobody can change it, and its volumes alone outweigh everything else.
    pub fn job(mut object: Job) -> Self {
        let stamp = Stamp::with_digest(&object);
        if let Some(spec) = &mut object.spec {
            spec.template = PodTemplateSpec::default();
        }
        Self::of(stamp, object)
    }
}

impl Whole<Pod> {
    /// Keeps a pod: how it is, and of what it shall be only its containers' images, ports and resources.
    pub fn pod(mut object: Pod) -> Self {
        let stamp = Stamp::of(&object);
        if let Some(spec) = &mut object.spec {
            let containers = std::mem::take(&mut spec.containers).into_iter();
            let kept = |container: Container| Container {
                name: container.name,
                image: container.image,
                ports: container.ports,
                resources: container.resources,
                ..Container::default()
            };
            *spec = PodSpec { containers: containers.map(kept).collect(), ..PodSpec::default() };
        }
        Self::of(stamp, object)
    }
}

impl Whole<Deployment> {
    /// Keeps a Deployment.
    pub fn deployment(object: Deployment) -> Self {
        Self::of(Stamp::with_digest(&object), object)
    }
}

impl<K: Resource> Whole<K> {
    fn of(stamp: Stamp, mut object: K) -> Self {
        forget_account(&mut object);
        Self { object: Arc::new(object), stamp }
    }
}

impl Outline {
    /// The outline of an object whose looks are compared.
    pub fn of<K: Resource + Serialize>(object: &K) -> Self {
        Self { stamp: Stamp::with_digest(object), labels: Labels::of(object) }
    }
}

/// The account of who owns which field is often larger than the rest of the object.
fn forget_account<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// A digest of what an object asks for. It means something within this process only.
pub fn digest<K: Resource + Serialize>(object: &K) -> u64 {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in
            ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"]
        {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            // Counted up by the controller of Deployments, which is no drift.
            annotations.remove("deployment.kubernetes.io/revision");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    of_value(&value)
}

/// The stamp of an object as the API server answered it. It is read as its kind first, as those that a watch brings are:
/// a field that only one of the two ways knows would look like drift.
pub fn stamp_of(kind: Kind, object: &DynamicObject) -> Stamp {
    fn read<K: Resource + Serialize + DeserializeOwned>(object: &DynamicObject) -> Stamp {
        let typed = serde_json::to_value(object).and_then(serde_json::from_value::<K>);
        typed.map_or_else(|_| Stamp::default(), |typed| Stamp::with_digest(&typed))
    }
    match kind {
        Kind::ConfigMap => read::<ConfigMap>(object),
        Kind::Secret => read::<Secret>(object),
        Kind::ServiceAccount => read::<ServiceAccount>(object),
        Kind::Service => read::<Service>(object),
        Kind::Deployment => read::<Deployment>(object),
        Kind::PodDisruptionBudget => read::<PodDisruptionBudget>(object),
        Kind::Job => read::<Job>(object),
    }
}

/// A digest of a JSON value. Its maps are sorted, so equal values have equal digests.
pub fn of_value(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_keep_account_of_is_no_drift() {
        let before =
            deployment(json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"replicas": 1}}));
        let after = deployment(json!({
            "metadata": {"name": "a", "resourceVersion": "9", "generation": 2, "uid": "u",
                "annotations": {"deployment.kubernetes.io/revision": "3"},
                "managedFields": [{"manager": "m"}]},
            "spec": {"replicas": 1},
            "status": {"replicas": 1}
        }));
        assert_eq!(digest(&before), digest(&after));
        let edited = deployment(json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}}));
        assert_ne!(digest(&before), digest(&edited));
        let labelled =
            deployment(json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"replicas": 1}}));
        assert_ne!(digest(&before), digest(&labelled));
    }

    #[test]
    fn of_a_pod_is_kept_what_tells_how_it_is() {
        let pod = json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "m"}]},
            "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c", "image": "i", "ports": [{"containerPort": 1}], "args": ["x"],
                    "resources": {"limits": {"memory": "1Gi"}},
                }],
            },
            "status": {"phase": "Running"},
        });
        let kept = Whole::pod(serde_json::from_value(pod).unwrap());
        let container = json!({
            "name": "c", "image": "i", "ports": [{"containerPort": 1}],
            "resources": {"limits": {"memory": "1Gi"}},
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [container]}, "status": {"phase": "Running"},
        });
        assert_eq!(serde_json::to_value(&*kept.object).unwrap(), expected);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let stamp = |version: &str| Stamp { version: version.to_owned(), ..Stamp::default() };
        assert!(stamp("9").is_before("10"));
        assert!(!stamp("10").is_before("9") && !stamp("9").is_before("9"));
        assert!(!stamp("").is_before("9") && !stamp("a").is_before("b"));
    }

    fn deployment(value: Value) -> Deployment {
        let mut value = value;
        value["spec"]["selector"] = json!({});
        value["spec"]["template"] = json!({});
        serde_json::from_value(value).unwrap()
    }
}
