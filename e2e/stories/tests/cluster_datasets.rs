//! What users do with Datasets when all goes well.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Pod, Service},
};
use kube::{ResourceExt, api::ListParams};
use lakehouse_crds::Dataset;
use lakehouse_e2e::{Helm, Load, Source, Story, condition, reason};
use serde_json::json;

#[tokio::test]
async fn a_dataset_becomes_ready_and_answers_sql_from_another_pod() {
    Story::run("first", async |story| {
        story.dataset_of_text("depots", "depot,postcode,docks\nD01,02108,12\nD02,60601,20\n").await?;
        let dataset = story.ready("depots").await?;
        let status = dataset.status.clone().context("no status")?;
        ensure!(status.rows == Some(2) && status.version == Some(1) && status.files == Some(1), "{status:?}");
        ensure!(status.columns.len() == 3, "{:?}", status.columns);
        ensure!(
            status.last_ingest.as_ref().is_some_and(|last| last.job.is_some()),
            "{:?}",
            status.last_ingest
        );
        for name in ["SourceReachable", "Ingested", "Published", "Served"] {
            ensure!(condition(&dataset, name) == "True", "{name}: {}", reason(&dataset, name));
        }
        for name in ["Reconciling", "Stalled"] {
            ensure!(condition(&dataset, name) == "False", "{name}: {}", reason(&dataset, name));
        }
        let answer = story.sql_from_a_pod("SELECT postcode, docks FROM depots ORDER BY depot").await?;
        ensure!(answer.contains("02108,12\n60601,20"), "{answer}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_quickstart_of_a_laptop_works_in_a_cluster_unchanged() {
    Story::run("quickstart", async |story| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/quickstart");
        story.apply(&fs::read_to_string(folder.join("datasets.yaml"))?).await?;
        story.ready("states").await?;
        story.fails("airports", "WaitingForUpload", &["POST /v1/ingest?name=airports"]).await?;
        for name in ["airports", "routes"] {
            story.upload(name, fs::read(folder.join(format!("{name}.csv")))?).await?;
            story.ready(name).await?;
        }
        // `nullValues` and the other promises of the YAML hold for what is uploaded, too.
        ensure!(story.sql("SELECT count(*) FROM airports WHERE city IS NULL").await? == [[json!(12)]], "12 airports have no city");
        let rows = story
            .sql("SELECT s.region, count(*) FROM airports a JOIN states s ON s.code = a.state GROUP BY 1 ORDER BY 2 DESC LIMIT 1")
            .await?;
        ensure!(rows.len() == 1, "{rows:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_is_read_as_its_dataset_says() {
    Story::run("uploads", async |story| {
        let dataset = |name: &str, more: &str| {
            format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
                 spec: {{source: {{upload: {{}}}}, {more}}}\n"
            )
        };
        story.apply(&dataset("places", "keepVersions: 1, columns: [{name: zip, type: string}]")).await?;
        story.apply(&dataset("counts", "columns: [{name: pieces, type: int64}]")).await?;
        story.dataset_of_text("depots", "depot\nD01\n").await?;
        for name in ["places", "counts"] {
            story.fails(name, "WaitingForUpload", &[]).await?;
        }
        story.upload("places", "zip\n1\n2\n3\n".into()).await?;
        story.ready("places").await?;
        let types = story.sql("SELECT DISTINCT typeof(zip) FROM places").await?;
        ensure!(types == [[json!("VARCHAR")]], "{types:?}");

        let refused = async |name: &str, csv: &str| match story.upload(name, csv.into()).await {
            Ok(answer) => bail!("{name} took it: {answer}"),
            Err(error) => Ok(error.to_string()),
        };
        let refusal = refused("counts", "pieces\n1\n2\nthree\n").await?;
        for part in ["400", "line 4", "column `pieces`", r#""value":"three""#] {
            ensure!(refusal.contains(part), "{part}: {refusal}");
        }
        story.fails("counts", "WaitingForUpload", &[]).await?;
        story.ready("depots").await?;
        let refusal = refused("depots", "depot\nD02\n").await?;
        ensure!(refusal.contains("409") && refusal.contains("it takes no uploads"), "{refusal}");
        ensure!(
            story.sql("SELECT depot FROM depots").await? == [[json!("D01")]],
            "the rows are the source's"
        );

        // An edit counts from the moment at which the Dataset is Ready with it.
        story.edit("places", json!({"spec": {"suspend": true}})).await?;
        story
            .until("places", "Suspended", |dataset: &Dataset| reason(dataset, "Reconciling") == "Suspended")
            .await?;
        let refusal = refused("places", "zip\n4\n").await?;
        ensure!(refusal.contains("409") && refusal.contains("remove spec.suspend first"), "{refusal}");
        story.edit("places", json!({"spec": {"suspend": null}})).await?;
        story.ready("places").await?;
        story.upload("places", "zip\n4\n".into()).await?;
        story.ready_with("places", 2).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_changed_source_a_pin_and_its_end_fail_no_query() {
    Story::run("versions", async |story| {
        story.dataset_of_text("prices", "item,price\na,1\n").await?;
        story.ready_with("prices", 1).await?;
        let load = Load::start(&story, 4, "SELECT sum(price) FROM prices").await?;
        for version in 2..=4_u64 {
            story.text("prices", &format!("item,price\na,{version}\n")).await?;
            story.ready_with("prices", version).await?;
            let rows = story.sql("SELECT price FROM prices").await?;
            ensure!(rows == [[json!(version)]], "version {version} answers {rows:?}");
        }
        let price_of = async |version: u64| -> Result<()> {
            let serves = |dataset: &Dataset| {
                condition(dataset, "Ready") == "True"
                    && condition(dataset, "Served") == "True"
                    && dataset.status.as_ref().and_then(|status| status.version) == Some(version)
            };
            story.until("prices", &format!("Ready with version {version} again"), serves).await?;
            let rows = story.sql("SELECT price FROM prices").await?;
            ensure!(rows == [[json!(version)]], "version {version} answers {rows:?}");
            Ok(())
        };
        story.edit("prices", json!({"spec": {"version": 2}})).await?;
        price_of(2).await?;
        story.edit("prices", json!({"spec": {"version": null}})).await?;
        price_of(4).await?;
        story.edit("prices", json!({"spec": {"version": 1}})).await?;
        let dataset = story.fails("prices", "VersionNotKept", &["1"]).await?;
        ensure!(dataset.status.and_then(|status| status.version) == Some(4), "what is served stays served");
        story.edit("prices", json!({"spec": {"version": null}})).await?;
        story.ready_with("prices", 4).await?;
        let answers = load.stop_without_failures().await?;
        println!("{answers} queries were answered meanwhile");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_refresh_is_asked_for_by_annotation_and_suspend_stops_all_work() {
    Story::run("refresh", async |story| {
        let source = Source::new(&story, "rows.csv").await?;
        source.put("a\n1\n").await?;
        source.declare("rows", "").await?;
        story.ready_with("rows", 1).await?;

        source.put("a\n2\n").await?;
        story.edit("rows", json!({"metadata": {"annotations": {"lakehouse.dev/refresh": "1"}}})).await?;
        story.ready_with("rows", 2).await?;

        story.edit("rows", json!({"spec": {"suspend": true}})).await?;
        source.put("a\n3\n").await?;
        story.edit("rows", json!({"metadata": {"annotations": {"lakehouse.dev/refresh": "2"}}})).await?;
        story
            .until("rows", "Suspended", |dataset: &Dataset| reason(dataset, "Reconciling") == "Suspended")
            .await?;
        ensure!(story.sql("SELECT a FROM rows").await? == [[json!(2)]], "a suspended dataset stays served");
        story.edit("rows", json!({"spec": {"suspend": null}})).await?;
        story.ready_with("rows", 3).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_wrong_spec_is_refused_by_kubectl_apply_with_a_sentence() {
    Story::run_bare("refused", async |story| {
        let cases = [
            ("{source: {}}", "exactly one of `http`, `s3`, `configMap` and `upload` must be set"),
            ("{source: {upload: {}}, schedule: '@daily'}", "an upload has no source to read again"),
            ("{source: {http: {url: 'ftp://x'}}}", "http"),
            ("{source: {upload: {}}, csv: {delimiter: '::'}}", "must be one ASCII character"),
            ("{source: {upload: {}}, format: Parquet, csv: {header: false}}", "`csv` says how to read CSV"),
            ("{source: {upload: {}}, keepVersions: 0}", "keepVersions"),
            ("{source: {upload: {}}, columns: [{name: a, type: decimal}]}", "Unsupported value"),
        ];
        for (spec, sentence) in cases {
            let yaml = format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: wrong}}\nspec: {spec}\n"
            );
            let refusal = story.refusal(&yaml).await?;
            ensure!(refusal.contains(sentence), "{spec}: {refusal}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() {
    Story::run("gitops", async |story| {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples");
        for file in ["datasets.yaml", "vector-index.yaml", "chat/ollama.yaml"] {
            let yaml = fs::read_to_string(samples.join(file))?;
            story.apply(&yaml).await?;
            if file == "datasets.yaml" {
                story.ready("depots").await?;
            }
            let differences = story.dry_run(&yaml, "stories").await?;
            ensure!(differences.is_empty(), "{file}: {differences:#?}");
        }
        let at_rest = story.eventually("all objects to be there", async || {
            let seen = generations(&story).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok((generations(&story).await? == seen).then_some(seen))
        });
        let before = at_rest.await?;
        story.apply(&fs::read_to_string(samples.join("datasets.yaml"))?).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        ensure!(generations(&story).await? == before, "the operator's own objects were written again");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deleting_a_dataset_keeps_its_rows_or_removes_them_as_the_policy_says() {
    Story::run("deletion", async |story| {
        story.dataset_of_text("kept", "a\n1\n").await?;
        story.dataset_of_text("removed", "a\n1\n").await?;
        story.edit("removed", json!({"spec": {"deletionPolicy": "Delete"}})).await?;
        story.dataset_of_text("stays", "a\n1\n").await?;
        for name in ["kept", "removed", "stays"] {
            story.ready(name).await?;
        }
        for name in ["kept", "removed"] {
            story.api::<Dataset>().delete(name, &kube::api::DeleteParams::default()).await?;
            story.gone::<Dataset>(name).await?;
        }
        ensure!(!story.list_objects("datasets/kept/").await?.is_empty(), "the rows of `kept` are gone");
        let left = story.list_objects("datasets/removed/").await?;
        ensure!(left.is_empty(), "{left:?}");
        let rows = story.sql("SELECT a FROM stays").await?;
        ensure!(rows == [[json!(1)]], "{rows:?}");

        // A new resource of the old name finds its rows and makes no new version of them.
        story.dataset_of_text("kept", "a\n1\n").await?;
        let again = story.ready("kept").await?;
        ensure!(
            again.status.and_then(|status| status.version) == Some(1),
            "the same rows are the same version"
        );

        // The shared services go with the last resource of the namespace.
        for name in ["kept", "stays"] {
            story.api::<Dataset>().delete(name, &kube::api::DeleteParams::default()).await?;
        }
        story.gone::<Deployment>("lakehouse-query").await?;
        story.gone::<Service>("lakehouse").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn old_versions_beyond_keep_versions_are_forgotten() {
    Story::run("kept", async |story| {
        story.dataset_of_text("rows", "a\n0\n").await?;
        story.edit("rows", json!({"spec": {"keepVersions": 2}})).await?;
        for version in 1..=4_u64 {
            story.text("rows", &format!("a\n{version}\n")).await?;
            story.ready_with("rows", version).await?;
        }
        let history = story.url().await? + "/v1/catalog/history/rows";
        let history: serde_json::Value = reqwest::Client::new()
            .get(history)
            .bearer_auth(story.token().await?)
            .send()
            .await?
            .json()
            .await?;
        let kept: Vec<_> = history["versions"]
            .as_array()
            .context("no versions")?
            .iter()
            .map(|v| v["version"].clone())
            .collect();
        ensure!(kept.len() == 2, "{kept:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_object_of_a_bucket_is_read_with_the_credentials_of_its_own_secret() {
    Story::run("s3", async |story| {
        story.dataset_of_text("first", "a\n1\n").await?;
        story.ready("first").await?;
        story.put_object("files/rows.csv", "a\n7\n").await?;
        let namespace = &story.namespace;
        let spec = |secret: &str| {
            format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: rows}}\nspec: {{source: {{s3: {{bucket: \
                 lakehouse, key: {namespace}/files/rows.csv, endpoint: 'http://minio.minio.svc:9000'{secret}}}}}}}\n"
            )
        };
        story.apply(&spec("")).await?;
        story.fails("rows", "SourceDenied", &["AccessDenied"]).await?;
        story.secret("keys", &lakehouse_e2e::store_credentials()).await?;
        story.apply(&spec(", credentialsSecretRef: {name: keys}")).await?;
        story.ready("rows").await?;
        ensure!(story.sql("SELECT a FROM rows").await? == [[json!(7)]], "the object's rows");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_schedule_reads_the_source_again() {
    Story::run("schedule", async |story| {
        let source = Source::new(&story, "rows.csv").await?;
        source.put("a\n1\n").await?;
        source.declare("rows", "schedule: '* * * * *'").await?;
        let dataset = story.ready("rows").await?;
        ensure!(dataset.status.and_then(|status| status.next_run).is_some(), "it says when it is read next");
        source.put("a\n2\n").await?;
        story.ready_with("rows", 2).await?;
        ensure!(story.sql("SELECT a FROM rows").await? == [[json!(2)]], "the new rows");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn helm_waits_for_a_dataset_as_for_any_other_resource() {
    Story::run("kstatus", async |story| {
        let chart = tempfile::tempdir()?;
        fs::create_dir(chart.path().join("templates"))?;
        fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: rows\nversion: 1.0.0\n")?;
        let dataset = "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {name: rows}\n\
                       spec: {source: {configMap: {name: rows, key: rows.csv}}}\n";
        fs::write(chart.path().join("templates/rows.yaml"), dataset)?;
        let chart = chart.path().to_str().context("the folder's name")?;
        // The library that Helm, Flux and others judge a resource by takes Stalled for a failure, and what is not Ready for unfinished.
        story.text("rows", "a\n1,2\n").await?;
        let helm = Helm::new(&story.namespace);
        let install = |timeout| ["upgrade", "--install", "rows", chart, "--wait", "--timeout", timeout];
        let refused =
            helm.run(&install("1m")).await.err().context("helm took a failed Dataset for a good one")?;
        ensure!(refused.to_string().contains("Failed"), "{refused:#}");
        story.text("rows", "a\n1\n").await?;
        helm.run(&install("5m")).await?;
        ensure!(condition(&story.dataset("rows").await?, "Ready") == "True", "helm did not wait");
        Ok(())
    })
    .await;
}

/// The versions of all objects that the operator owns in the story's namespace.
async fn generations(story: &Story) -> Result<Vec<(String, Option<String>)>> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=lakehouse-operator");
    let mut all = Vec::new();
    for object in story.api::<Deployment>().list(&ours).await? {
        all.push((object.name_any(), object.metadata.generation.map(|generation| generation.to_string())));
    }
    for object in story.api::<Service>().list(&ours).await? {
        all.push((object.name_any(), object.resource_version()));
    }
    for object in story.api::<Job>().list(&ours).await? {
        all.push((object.name_any(), object.uid()));
    }
    for object in story.api::<Pod>().list(&ours).await? {
        all.push((object.name_any(), object.uid()));
    }
    // Its source is out of reach, and it is tried again and again.
    all.retain(|(name, _)| !name.starts_with("exchange-rates-"));
    all.sort();
    Ok(all)
}
