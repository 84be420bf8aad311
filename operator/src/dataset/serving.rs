//! Whether SQL is answered from a Dataset's published version.

use lakehouse_contract::DatasetManifest;
use lakehouse_plan::{
    cluster::serving::{Observed, View, facts, is_ready},
    status::ServedFacts,
};

use crate::context::Context;

/// Whether a query pod is ready but has not been asked yet what it serves. The answer, or that there is none, takes seconds.
pub(super) fn is_unasked(context: &Context, namespace: &str, name: &str) -> bool {
    let query = context.services.views(namespace, name);
    query.iter().any(|(pod, view)| *view == View::Unknown && is_ready(pod))
}

/// What is known of the service, and whether a query pod is behind what is published.
pub(super) fn of(
    context: &Context,
    namespace: &str,
    name: &str,
    manifest: Option<&DatasetManifest>,
) -> (ServedFacts, bool) {
    let deployments = context.reader.deployments(namespace);
    let (gateway, query) = (context.services.gateway(namespace), context.services.views(namespace, name));
    let behind = manifest.is_some_and(|manifest| {
        query.iter().filter(|(pod, _)| is_ready(pod)).any(|(_, view)| match view {
            View::Absent => true,
            View::Version(version) => *version != manifest.version,
            View::Unknown | View::Unreachable(_) | View::Damaged(_) => false,
        })
    });
    let observed =
        Observed { namespace, deployments: &deployments, gateway: &gateway, query: &query, manifest };
    let served = facts(&observed).with(context.refusals.of(namespace));
    (served, behind)
}
