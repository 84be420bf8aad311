//! An object that the operator keeps: for server-side apply, and by name for pruning.

use k8s_openapi::{
    Resource as Named,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Resource, ResourceExt,
    core::{ApiResource, DynamicObject},
};
use serde::Serialize;

/// The kinds of objects that the operator keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`.
    ConfigMap,
    /// `v1`.
    Secret,
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    Service,
    /// `apps/v1`.
    Deployment,
    /// `policy/v1`.
    PodDisruptionBudget,
    /// `batch/v1`.
    Job,
}

impl Kind {
    /// The name in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => ConfigMap::KIND,
            Self::Secret => Secret::KIND,
            Self::ServiceAccount => ServiceAccount::KIND,
            Self::Service => Service::KIND,
            Self::Deployment => Deployment::KIND,
            Self::PodDisruptionBudget => PodDisruptionBudget::KIND,
            Self::Job => Job::KIND,
        }
    }

    /// How a client addresses objects of this kind.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
        }
    }
}

/// An object's kind and name; the namespace is that of what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
}

impl ObjectName {
    /// The object of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// An object as it shall be, with exactly the fields that the operator owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    kind: Kind,
    object: DynamicObject,
}

impl Child {
    pub(super) fn of<K>(kind: Kind, object: &K) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        debug_assert_eq!(K::kind(&()), kind.as_str());
        let object = serde_json::to_value(object)
            .and_then(serde_json::from_value)
            .expect("an object of Kubernetes always has a JSON form that is an object's");
        Self { kind, object }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name.
    pub fn name(&self) -> String {
        self.object.name_any()
    }

    /// Kind and name.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(self.kind, self.name())
    }

    /// How a client addresses it.
    pub fn resource(&self) -> ApiResource {
        self.kind.resource()
    }

    /// Whether it is created once and never changed: that it is there already is as good. Everything else is applied.
    ///
    /// A Job's template cannot change, and two who plan the same Job must not quarrel over it.
    pub fn is_made_once(&self) -> bool {
        match self.kind {
            Kind::Job | Kind::Secret => true,
            Kind::ConfigMap => self.object.data.get("immutable") == Some(&serde_json::Value::Bool(true)),
            Kind::ServiceAccount | Kind::Service | Kind::Deployment | Kind::PodDisruptionBudget => false,
        }
    }

    /// What to apply.
    pub fn object(&self) -> &DynamicObject {
        &self.object
    }
}
