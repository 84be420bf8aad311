//! The definitions as a cluster installs them.
//!
//! [`kube`] derives them from the types; this module takes out what the API server would warn of or what would make
//! an absent field and an empty one differ, and names the file that each is written to.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{ChatProvider, Dataset, VectorIndex};

/// Every definition, in the order a document lists them.
pub fn all() -> [CustomResourceDefinition; 3] {
    [Dataset::crd(), VectorIndex::crd(), ChatProvider::crd()].map(tidied)
}

/// The file that holds a definition, such as `datasets.yaml`.
pub fn file_name(definition: &CustomResourceDefinition) -> String {
    format!("{}.yaml", definition.spec.names.plural)
}

/// The schema of a definition's only version.
pub fn schema(definition: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn tidied(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(schema);
            hold_back(schema);
        }
    }
    definition
}

/// Until it is reconciled for the first time, a resource has a status of the generation -1. Without any status, `kstatus` (which
/// Flux and Helm judge by) would take a resource that nobody has looked at yet for one that is done.
fn hold_back(schema: &mut JSONSchemaProps) {
    if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
}

fn tidy(schema: &mut JSONSchemaProps) {
    // Without `nullable` the API server drops a null, so that `csv:` with nothing behind it means the same as no `csv`.
    schema.nullable = None;
    // A default would be written into the stored object, and Argo CD or Flux would see a difference.
    schema.default = None;
    // The unsigned formats are unknown to the API server, which warns of them; the minimum of 0 stays.
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}
