//! Pods, objects and the bucket go away under a Dataset that is in use.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use lakehouse_e2e::{Load, Source, Story};
use serde_json::json;

#[tokio::test]
async fn a_query_pod_killed_under_load_is_replaced_within_seconds() {
    Story::run("killed", async |story| {
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let load = Load::start(&story, 2, "SELECT sum(a) FROM rows").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = story.pods("query").await?;
        let victim = before.first().context("no query pod")?.name_any();
        story.api::<Pod>().delete(&victim, &DeleteParams::default().grace_period(0)).await?;
        let answered = load.answers();
        story.ready("rows").await?;
        story
            .eventually(
                "the successor's answers",
                async || Ok((load.answers() > answered + 50).then_some(())),
            )
            .await?;
        let (answers, failures) = load.stop().await;
        println!("{answers} answers, and {failures:?}");
        // What the pod was working on goes with it; what comes after that waits for the successor, though not for ever.
        let is_told = |failure: &String| failure.contains("502 ") || failure.contains("504 ");
        ensure!(failures.iter().all(is_told), "{failures:#?}");
        ensure!(failures.len() < 20, "the gateway did not wait: {failures:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_rollout_of_the_query_pods_fails_no_query() {
    Story::run("rollout", async |story| {
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let before = story.who("query").await?;
        let load = Load::start(&story, 4, "SELECT sum(a) FROM rows").await?;
        // Rotated credentials roll the pods: the old ones end only when the new ones are ready.
        story.secret("lakehouse-store", &[("ROTATED", "1".to_owned())]).await?;
        story.secret("lakehouse-store", &with(&lakehouse_e2e::store_credentials(), "ROTATED")).await?;
        story
            .eventually("the pods to be replaced", async || {
                let now = story.who("query").await?;
                Ok((now.len() == before.len() && now.iter().all(|pod| !before.contains(pod))).then_some(()))
            })
            .await?;
        load.stop_without_failures().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_child_that_is_deleted_or_edited_by_hand_is_restored() {
    Story::run("drift", async |story| {
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.ready("rows").await?;
        let services: Api<Service> = story.api();
        let uid = services.get("lakehouse").await?.uid();
        services.delete("lakehouse", &DeleteParams::default()).await?;
        story.until_of("lakehouse", "a new Service", |service: &Service| service.uid() != uid).await?;

        let wrong = json!({"spec": {"template": {"spec": {"containers": [{"name": "query", "image": "example.invalid/wrong:1"}]}}}});
        story.api::<Deployment>().patch("lakehouse-query", &PatchParams::default(), &Patch::Strategic(wrong)).await?;
        let image = |deployment: &Deployment| {
            let template = deployment.spec.as_ref().map(|spec| spec.template.spec.clone().unwrap_or_default());
            template.and_then(|spec| spec.containers.first().and_then(|container| container.image.clone()))
        };
        story
            .until_of("lakehouse-query", "its own image", |deployment: &Deployment| {
                image(deployment) == Some(lakehouse_e2e::image())
            })
            .await?;

        let settings: Api<ConfigMap> = story.api();
        let data = json!({"data": {"LAKEHOUSE_STORE": "s3://elsewhere"}});
        settings.patch("lakehouse-settings", &PatchParams::default(), &Patch::Merge(data)).await?;
        let ours = |map: &ConfigMap| {
            map.data.as_ref().and_then(|data| data.get("LAKEHOUSE_STORE")).is_some_and(|store| store != "s3://elsewhere")
        };
        story.until_of("lakehouse-settings", "its own data", ours).await?;

        // A Job is the record of what was done. A new one finds nothing to do.
        let jobs: Api<Job> = story.api();
        let job = jobs.list(&ListParams::default()).await?.items.first().context("no Job")?.clone();
        jobs.delete(&job.name_any(), &DeleteParams::background()).await?;
        let again = |again: &Job| again.uid() != job.uid() && again.status.as_ref().is_some_and(|s| s.succeeded == Some(1));
        story.until_of(&job.name_any(), "the Job again", again).await?;
        let dataset = story.ready("rows").await?;
        ensure!(dataset.status.and_then(|status| status.version) == Some(1), "nothing new was made");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_the_bucket_in_the_middle_of_ingests_and_queries_loses_nothing() {
    Story::run("bucket", async |story| {
        story.dataset_of_text("first", "a\n1\n").await?;
        story.ready("first").await?;
        let source = Source::new(&story, "big.csv").await?;
        let mut csv = String::from("id,text\n");
        for id in 0..300_000_u64 {
            writeln!(csv, "{id},row number {id} has a text of its own {}", id * 7919 % 10007)?;
        }
        source.put(csv).await?;
        let load = Load::start(&story, 2, "SELECT sum(a) FROM first").await?;
        for name in ["one", "two", "three"] {
            source.declare(name, "").await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let minio: Api<Pod> = Api::namespaced(story.client.clone(), "minio");
        for pod in minio.list(&ListParams::default()).await? {
            minio.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        for name in ["one", "two", "three"] {
            story.ready(name).await?;
            ensure!(
                story.sql(&format!("SELECT count(*) FROM {name}")).await? == [[json!(300_000)]],
                "{name}"
            );
        }
        let answers = load.stop_without_failures().await?;
        println!("{answers} queries were answered from the cache meanwhile");
        Ok(())
    })
    .await;
}

/// The entries and one more.
fn with(entries: &[(&'static str, String)], more: &'static str) -> Vec<(&'static str, String)> {
    entries.iter().cloned().chain([(more, "2".to_owned())]).collect()
}
