//! CPU and memory, in layers: what a user leaves out stays what it was below.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

/// CPU and memory of a container; what is left out is the default's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What the pod is promised.
    pub requests: BTreeMap<String, Quantity>,
    /// What the pod cannot exceed.
    pub limits: BTreeMap<String, Quantity>,
}
