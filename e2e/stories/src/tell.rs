//! What a failed story tells: its resources, their Events, its pods and their last lines.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, LogParams},
};
use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};
use serde::Serialize;

/// Prints all of it. A part that cannot be read is left out: the story's own failure is what matters.
pub(crate) async fn everything(client: &Client, namespace: &str, story: &str, failure: &str) {
    let all = ListParams::default();
    println!("\n===== {story} failed in {namespace}: {failure}");
    if let Ok(datasets) = Api::<Dataset>::namespaced(client.clone(), namespace).list(&all).await {
        datasets.into_iter().for_each(resource);
    }
    if let Ok(indexes) = Api::<VectorIndex>::namespaced(client.clone(), namespace).list(&all).await {
        indexes.into_iter().for_each(resource);
    }
    if let Ok(providers) = Api::<ChatProvider>::namespaced(client.clone(), namespace).list(&all).await {
        providers.into_iter().for_each(resource);
    }
    if let Ok(jobs) = Api::<Job>::namespaced(client.clone(), namespace).list(&all).await {
        for job in jobs {
            println!("----- Job {}: {:?}", job.name_any(), job.status.unwrap_or_default().conditions);
        }
    }
    if let Ok(mut events) = Api::<Event>::namespaced(client.clone(), namespace).list(&all).await {
        events.items.sort_by_key(|event| event.metadata.creation_timestamp.clone());
        println!("----- Events");
        for event in events {
            let about = event.involved_object;
            println!(
                "{} {}/{}: {}: {}",
                event.type_.unwrap_or_default(),
                about.kind.unwrap_or_default(),
                about.name.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            );
        }
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&all).await.map(|list| list.items).unwrap_or_default() {
        let name = pod.name_any();
        let status = pod.status.unwrap_or_default();
        println!("----- Pod {name}: {}", status.phase.unwrap_or_default());
        for container in status.container_statuses.unwrap_or_default() {
            println!("{}: {:?}", container.name, container.state.unwrap_or_default());
        }
        let last = LogParams { tail_lines: Some(20), ..LogParams::default() };
        if let Ok(log) = pods.logs(&name, &last).await {
            print!("{log}");
        }
    }
}

fn resource<K: Resource<DynamicType = ()> + Serialize>(mut resource: K) {
    resource.meta_mut().managed_fields = None;
    let yaml = serde_saphyr::to_string(&resource).unwrap_or_default();
    println!("----- {} {}\n{yaml}", K::kind(&()), resource.name_any());
}
