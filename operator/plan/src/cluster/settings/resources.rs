//! CPU and memory, in layers: what a user leaves out stays what it was below.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use serde::Deserialize;

use crate::cluster::quantity;

/// CPU and memory of a container; what is left out is the default's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What the pod is promised.
    pub requests: BTreeMap<String, Quantity>,
    /// What the pod cannot exceed.
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    pub(in crate::cluster) fn new(requests: [(&str, &str); 2], limits: [(&str, &str); 2]) -> Self {
        let quantities = |list: [(&str, &str); 2]| {
            list.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
        };
        Self { requests: quantities(requests), limits: quantities(limits) }
    }

    /// These, with `above` in their place where it says something.
    ///
    /// A limit that is set below what was requested so far lowers the request, and a request above the limit so far raises the
    /// limit: to say one number is enough. Where one layer says both, they are its affair.
    pub(in crate::cluster) fn under(mut self, above: &Self) -> Self {
        for (name, limit) in &above.limits {
            if let Some(request) = self.requests.get_mut(name)
                && quantity::value(request) > quantity::value(limit)
            {
                request.clone_from(limit);
            }
        }
        for (name, request) in &above.requests {
            if let Some(limit) = self.limits.get_mut(name)
                && quantity::value(request) > quantity::value(limit)
            {
                limit.clone_from(request);
            }
        }
        self.limits.extend(above.limits.clone());
        self.requests.extend(above.requests.clone());
        self
    }

    pub(in crate::cluster) fn limit(&self, name: &str) -> Option<f64> {
        self.limits.get(name).and_then(quantity::value)
    }

    pub(in crate::cluster) fn into_requirements(self) -> ResourceRequirements {
        ResourceRequirements { requests: Some(self.requests), limits: Some(self.limits), claims: None }
    }
}

impl From<&lakehouse_crds::common::Resources> for Resources {
    fn from(of_spec: &lakehouse_crds::common::Resources) -> Self {
        Self { requests: of_spec.requests.clone(), limits: of_spec.limits.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays_the_defaults() {
        let merged = base().under(&above("{}"));
        assert_eq!(merged, base());
        let merged = base().under(&above("{limits: {memory: 8Gi}}"));
        assert_eq!(shown(&merged), "250m/2 1Gi/8Gi");
    }

    #[test]
    fn one_number_is_enough() {
        assert_eq!(shown(&base().under(&above("{limits: {memory: 512Mi, cpu: 1}}"))), "250m/1 512Mi/512Mi");
        assert_eq!(shown(&base().under(&above("{requests: {memory: 4Gi, cpu: '3'}}"))), "3/3 4Gi/4Gi");
        // Who says both has the say.
        let both = above("{requests: {memory: 4Gi}, limits: {memory: 3Gi}}");
        assert_eq!(shown(&base().under(&both)), "250m/2 4Gi/3Gi");
    }

    #[test]
    fn other_resources_pass_through() {
        let merged = base().under(&above("{limits: {ephemeral-storage: 5Gi}}"));
        assert_eq!(merged.limits["ephemeral-storage"].0, "5Gi");
    }

    fn base() -> Resources {
        Resources::new([("cpu", "250m"), ("memory", "1Gi")], [("cpu", "2"), ("memory", "2Gi")])
    }

    fn above(yaml: &str) -> Resources {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn shown(resources: &Resources) -> String {
        let pair = |name: &str| format!("{}/{}", resources.requests[name].0, resources.limits[name].0);
        format!("{} {}", pair("cpu"), pair("memory"))
    }
}
