//! What goes wrong below a Dataset: each fault shows its reason and real message, and heals when its cause goes.

use std::fmt::Write;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Event;
use kube::{ResourceExt, api::ListParams};
use lakehouse_e2e::{Source, Story, condition, reason};
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn a_missing_file_is_waited_for() {
    Story::run("missing", async |story| {
        let source = Source::new(&story, "late.csv").await?;
        source.declare("late", "").await?;
        let dataset = story.fails("late", "SourceMissing", &["404", "files:8000/late.csv"]).await?;
        ensure!(condition(&dataset, "SourceReachable") == "False", "{dataset:?}");
        ensure!(condition(&dataset, "Stalled") == "False", "it is tried again");
        source.fail_with(StatusCode::SERVICE_UNAVAILABLE, "closed for the night").await?;
        story.fails("late", "SourceUnreachable", &["503", "closed for the night"]).await?;
        source.put("a\n1\n").await?;
        story.ready("late").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_source_that_goes_away_leaves_what_is_served() {
    Story::run("lost", async |story| {
        let source = Source::new(&story, "rows.csv").await?;
        source.put("a\n1\n").await?;
        source.declare("rows", "").await?;
        story.ready("rows").await?;
        source.remove().await?;
        story.edit("rows", json!({"metadata": {"annotations": {"lakehouse.dev/refresh": "1"}}})).await?;
        story.fails("rows", "SourceMissing", &["Version 1 stays published"]).await?;
        ensure!(story.sql("SELECT a FROM rows").await? == [[json!(1)]], "what is served stays served");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_secret_of_a_source_is_named_and_waited_for() {
    Story::run("secret", async |story| {
        let source = Source::new(&story, "rows.csv").await?;
        source.put("a\n1\n").await?;
        source.declare_with("rows", "absent", "").await?;
        story.fails("rows", "SecretMissing", &["absent"]).await?;
        story.secret("absent", &[("Authorization", "Bearer wrong".to_owned())]).await?;
        story.fails("rows", "SourceDenied", &["401"]).await?;
        story.secret("absent", &[("Authorization", "Bearer the-story".to_owned())]).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_store_secret_is_named_and_waited_for() {
    Story::run_bare("nostore", async |story| {
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.fails("rows", "SecretMissing", &["lakehouse-store"]).await?;
        story.secret("lakehouse-store", &lakehouse_e2e::store_credentials()).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn wrong_bucket_credentials_are_told_and_followed_when_they_change() {
    Story::run_bare("denied", async |story| {
        let wrong = "not-the-key-that-minio-has".to_owned();
        story
            .secret(
                "lakehouse-store",
                &[("AWS_ACCESS_KEY_ID", "nobody".to_owned()), ("AWS_SECRET_ACCESS_KEY", wrong.clone())],
            )
            .await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        let dataset = story.fails("rows", "StoreFailed", &["lakehouse"]).await?;
        ensure!(!serde_json::to_string(&dataset)?.contains(&wrong), "a status must not hold a secret");
        story.secret("lakehouse-store", &lakehouse_e2e::store_credentials()).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_malformed_file_is_told_with_its_line_and_served_once_it_is_mended() {
    Story::run("malformed", async |story| {
        story.dataset_of_text("rows", "a,b\n1,2\n1,2,3\n").await?;
        let dataset = story.fails("rows", "InvalidData", &["line 3"]).await?;
        ensure!(
            condition(&dataset, "Stalled") == "True" && condition(&dataset, "SourceReachable") == "True",
            "{dataset:?}"
        );
        story.text("rows", "a,b\n1,2\n1,2\n").await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_value_that_breaks_a_declared_type_is_told_with_its_line_column_and_value() {
    Story::run("promise", async |story| {
        story.text("rows", "id,price\n1,2.5\n2,free\n").await?;
        story
            .apply(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {name: rows}\nspec: {source: {configMap: \
                 {name: rows, key: rows.csv}}, columns: [{name: price, type: float64}]}\n",
            )
            .await?;
        story.fails("rows", "InvalidData", &["line 3", "price", "free"]).await?;
        let events = story.api::<Event>();
        let of_datasets = ListParams::default().fields("involvedObject.kind=Dataset");
        let told = |event: &Event| event.message.as_ref().is_some_and(|message| message.contains("free"));
        story
            .eventually("an Event that tells it", async || {
                Ok(events.list(&of_datasets).await?.iter().any(told).then_some(()))
            })
            .await?;
        story.edit("rows", json!({"spec": {"columns": [{"name": "price", "type": "string"}]}})).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_without_enough_memory_says_so_and_runs_once_it_has_more() {
    Story::run("memory", async |story| {
        let source = Source::new(&story, "big.csv").await?;
        let mut csv = String::from("id,text\n");
        for id in 0..200_000_u64 {
            writeln!(csv, "{id},row number {id} has a text of its own that compresses badly {}", id * 7919 % 10007)?;
        }
        source.put(csv).await?;
        let limit = |memory: &str| format!("ingest: {{backoffLimit: 0, resources: {{requests: {{memory: {memory}}}, limits: {{memory: {memory}}}}}}}");
        source.declare("big", &limit("24Mi")).await?;
        story.fails("big", "OutOfMemory", &["24Mi", "spec.ingest.resources.limits.memory"]).await?;
        source.declare("big", &limit("512Mi")).await?;
        let dataset = story.ready("big").await?;
        ensure!(dataset.status.and_then(|status| status.rows) == Some(200_000), "all rows are there");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_takes_longer_than_it_may_is_ended_and_says_so() {
    Story::run("deadline", async |story| {
        // Nobody answers there, so the pod still waits when its time is over.
        story
            .apply(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {name: slow}\nspec: {source: {http: {url: \
                 'http://10.255.255.1:81/rows.csv'}}, ingest: {activeDeadlineSeconds: 3}}\n",
            )
            .await?;
        story.fails("slow", "DeadlineExceeded", &["3 seconds", "spec.ingest.activeDeadlineSeconds"]).await?;
        story.dataset_of_text("slow", "a\n1\n").await?;
        story.ready("slow").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_object_that_the_api_server_refuses_is_told_and_made_once_it_may_be() {
    Story::run("quota", async |story| {
        let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {count/jobs.batch: '0'}}\n";
        story.apply(quota).await?;
        // The quota counts once its controller has seen it.
        let counted = |quota: &k8s_openapi::api::core::v1::ResourceQuota| {
            quota.status.as_ref().is_some_and(|status| status.hard.is_some())
        };
        story.until_of("none", "the quota to count", counted).await?;
        story.dataset_of_text("rows", "a\n1\n").await?;
        story.fails("rows", "ObjectRefused", &["exceeded quota", "none"]).await?;
        story.apply(&quota.replace("'0'", "'9'")).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_no_node_can_take_is_told_in_the_schedulers_words() {
    Story::run("nowhere", async |story| {
        story.text("rows", "a\n1\n").await?;
        let pod = |cpu: &str| {
            format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: rows}}\nspec: {{source: {{configMap: \
                 {{name: rows, key: rows.csv}}}}, ingest: {{resources: {{requests: {{cpu: {cpu}, memory: 64Mi}}, \
                 limits: {{cpu: '999', memory: 512Mi}}}}}}}}\n"
            )
        };
        story.apply(&pod("'900'")).await?;
        let dataset = story.fails("rows", "Unschedulable", &["Insufficient cpu"]).await?;
        ensure!(reason(&dataset, "Ingested") == "Unschedulable", "{dataset:?}");
        story.apply(&pod("10m")).await?;
        story.ready("rows").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn two_names_that_need_shortening_do_not_meet() {
    Story::run("names", async |story| {
        let names = ["one", "two"].map(|end| format!("{}-{end}", "long".repeat(40)));
        for (i, name) in names.iter().enumerate() {
            story.dataset_of_text(name, &format!("a\n{i}\n")).await?;
        }
        for (i, name) in names.iter().enumerate() {
            story.ready(name).await?;
            ensure!(story.sql(&format!("SELECT a FROM \"{name}\"")).await? == [[json!(i)]], "{name}");
        }
        let jobs = story.api::<k8s_openapi::api::batch::v1::Job>().list(&ListParams::default()).await?;
        ensure!(jobs.iter().all(|job| job.name_any().len() <= 63), "{jobs:?}");
        Ok(())
    })
    .await;
}
