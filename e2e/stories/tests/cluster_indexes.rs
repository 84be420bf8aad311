//! What users do with VectorIndexes, and what happens to these when something below goes away.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "cluster_indexes/models.rs"]
mod models;

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use lakehouse_crds::VectorIndex;
use lakehouse_e2e::{Load, Story, condition, message, reason};
use serde_json::{Value, json};

/// Workers, in the manner of the samples.
const WORKERS: &str = "worker_id,role,state,skills\n\
    101,welder,IL,MIG and TIG welding of stainless steel\n\
    102,forklift driver,IL,forklift licence and pallet racking\n\
    103,welder,WI,arc welding of heavy plate\n\
    104,nurse,IL,intensive care and wound dressing\n";

#[tokio::test]
async fn rows_become_a_search_whose_hits_lead_back_to_the_rows() {
    Story::run("search", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("near", "")).await?;
        let built = story.ready_of::<VectorIndex>("near").await?;
        for name in ["DatasetReady", "EmbedderReady", "Built", "Served", "Fresh"] {
            ensure!(condition(&built, name) == "True", "{name}: {}", message(&built, name));
        }
        let status = built.status.clone().context("no status")?;
        ensure!(status.vectors == Some(4) && status.version == Some(1), "{status:?}");
        ensure!(status.dataset_version == Some(1) && status.dimension == Some(384), "{status:?}");
        ensure!(status.embedding.as_ref().is_some_and(|model| model.digest.is_some()), "{status:?}");

        let answer = search(&story, "near", json!({"text": "welding of stainless steel", "k": 2})).await?;
        ensure!(ids(&answer) == ["w-101", "w-103"], "{answer}");
        let source = &answer["results"][0]["source"];
        ensure!(
            source["dataset"] == "workers" && source["version"] == 1 && source["key"] == "101",
            "{answer}"
        );
        let rows = story.sql(answer["sql"].as_str().context("no sql")?).await?;
        ensure!(rows.len() == 2 && rows.iter().all(|row| row[1] == "welder"), "{rows:?}");

        let filtered = json!({"text": "welding of stainless steel", "filter": {"state": "WI"}});
        let answer = search(&story, "near", filtered).await?;
        ensure!(ids(&answer) == ["w-103"] && answer["matches"] == 1, "{answer}");
        let refused = search(&story, "near", json!({"text": "x", "filter": {"salary": 3}})).await;
        let refusal = refused.err().context("an unknown field was taken")?.to_string();
        ensure!(refusal.contains("400") && refusal.contains("salary"), "{refusal}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_index_follows_its_dataset_and_no_search_fails_meanwhile() {
    Story::run("fresh", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("near", "")).await?;
        story.ready_of::<VectorIndex>("near").await?;
        let load = Load::search(&story, 3, "near", &json!({"text": "welding"})).await?;
        let mut rows = WORKERS.to_owned();
        for version in 2..=4_u64 {
            writeln!(rows, "{}00,crane operator,IL,tower cranes number {version}", version)?;
            story.text("workers", &rows).await?;
            story.ready_with("workers", version).await?;
            let behind = |index: &VectorIndex| {
                condition(index, "Fresh") == "False"
                    || index.status.as_ref().and_then(|status| status.dataset_version) == Some(version)
            };
            story.until("near", "not fresh, or fresh again already", behind).await?;
            let fresh = |index: &VectorIndex| {
                condition(index, "Fresh") == "True"
                    && condition(index, "Ready") == "True"
                    && index.status.as_ref().and_then(|status| status.dataset_version) == Some(version)
            };
            story.until("near", &format!("fresh with version {version}"), fresh).await?;
            let answer =
                search(&story, "near", json!({"text": format!("tower cranes number {version}"), "k": 1}))
                    .await?;
            ensure!(ids(&answer) == [format!("w-{version}00")], "version {version}: {answer}");
        }
        load.stop_without_failures().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_refresh_by_hand_waits_for_the_annotation_and_says_what_it_misses() {
    Story::run("manual", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("near", "refresh: Manual")).await?;
        story.ready_of::<VectorIndex>("near").await?;
        story.text("workers", &format!("{WORKERS}105,crane operator,IL,tower cranes\n")).await?;
        story.ready_with("workers", 2).await?;
        let behind = story
            .until("near", "not fresh", |index: &VectorIndex| condition(index, "Fresh") == "False")
            .await?;
        let told = message(&behind, "Fresh");
        ensure!(told.contains('1') && told.contains('2'), "both versions are named: {told}");
        ensure!(condition(&behind, "Ready") == "True", "it still answers: {}", message(&behind, "Ready"));
        let refresh = json!({"metadata": {"annotations": {"lakehouse.dev/refresh": "now"}}});
        story.edit_of::<VectorIndex>("near", refresh).await?;
        story.until("near", "fresh", |index: &VectorIndex| condition(index, "Fresh") == "True").await?;
        let answer = search(&story, "near", json!({"text": "tower cranes", "k": 1})).await?;
        ensure!(ids(&answer) == ["w-105"], "{answer}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_older_version_is_pinned_and_let_go() {
    Story::run("pinned", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("near", "")).await?;
        story.ready_of::<VectorIndex>("near").await?;
        story.text("workers", "worker_id,role,state,skills\n9,pilot,AK,bush flying\n").await?;
        serves(&story, "near", 2).await?;
        let load = Load::search(&story, 2, "near", &json!({"text": "welding"})).await?;
        story.edit_of::<VectorIndex>("near", json!({"spec": {"version": 1}})).await?;
        serves(&story, "near", 1).await?;
        ensure!(
            ids(&search(&story, "near", json!({"text": "welding", "k": 1})).await?) != ["w-9"],
            "version 1 answers"
        );
        story.edit_of::<VectorIndex>("near", json!({"spec": {"version": null}})).await?;
        serves(&story, "near", 2).await?;
        ensure!(
            ids(&search(&story, "near", json!({"text": "welding", "k": 1})).await?) == ["w-9"],
            "version 2 answers"
        );
        load.stop_without_failures().await?;

        story.edit_of::<VectorIndex>("near", json!({"spec": {"version": 77}})).await?;
        story.fails_of::<VectorIndex>("near", "VersionNotKept", &["77"]).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_is_lost_is_replaced_and_its_index_read_from_the_bucket() {
    Story::run("readers", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("near", "replicas: 2")).await?;
        story.ready_of::<VectorIndex>("near").await?;
        let before = story.who("vectors").await?;
        ensure!(before.len() >= 2, "{before:?}");
        let load = Load::search(&story, 2, "near", &json!({"text": "welding"})).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let victims = story.pods("vectors").await?;
        let of_near = |pod: &&Pod| pod.name_any().starts_with("near-vectors");
        let victim = victims.iter().find(of_near).context("no reader")?.name_any();
        story.api::<Pod>().delete(&victim, &DeleteParams::default().grace_period(0)).await?;
        let answered = load.answers();
        story
            .eventually("answers after the loss", async || Ok((load.answers() > answered + 50).then_some(())))
            .await?;
        story.ready_of::<VectorIndex>("near").await?;
        let (answers, failures) = load.stop().await;
        println!("{answers} answers, and {failures:?}");
        let is_told = |failure: &String| failure.contains("502 ") || failure.contains("504 ");
        ensure!(failures.iter().all(is_told) && failures.len() < 20, "{failures:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_index_in_parts_answers_as_a_whole() {
    Story::run("shards", async |story| {
        let mut rows = "worker_id,role,state,skills\n".to_owned();
        for i in 0..200 {
            writeln!(rows, "{i},role {i},IL,skill number {i}")?;
        }
        story.dataset_of_text("workers", &rows).await?;
        story.apply(&index("whole", "")).await?;
        story.apply(&index("parts", "shards: 2")).await?;
        for name in ["whole", "parts"] {
            story.ready_of::<VectorIndex>(name).await?;
        }
        for text in ["skill number 7", "role 150", "number 199 skill"] {
            let body = json!({"text": text, "k": 10});
            let distances = |answer: &Value| -> Vec<Value> {
                answer["results"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|hit| hit["distance"].clone())
                    .collect()
            };
            let (whole, parts) =
                (search(&story, "whole", body.clone()).await?, search(&story, "parts", body).await?);
            ensure!(distances(&whole) == distances(&parts), "{text}: {whole} and {parts}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn vectors_that_clients_push_survive_the_pod_that_took_them() {
    Story::run("pushed", async |story| {
        story
            .apply(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: VectorIndex\nmetadata: {name: pushed}\nspec: {dimension: 3}\n",
            )
            .await?;
        story.ready_of::<VectorIndex>("pushed").await?;
        let create = json!({"name": "by-hand", "dimension": 2, "metric": "euclidean"});
        post(&story, "/v1/vectors/index", create).await?;
        for round in 0..5_u16 {
            let x = f32::from(round) + 1.0;
            let items = json!({"items": [{"id": format!("v{round}"), "vector": [x, 1.0, 0.5], "metadata": {"round": round}}]});
            post(&story, "/v1/vectors/index/pushed/add", items).await?;
            let items = json!({"items": [{"id": format!("h{round}"), "vector": [x, x]}]});
            post(&story, "/v1/vectors/index/by-hand/add", items).await?;
            for pod in story.pods("vectors").await? {
                story.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
            }
            let asked = |name: &'static str, prefix: &'static str, vector: Value| {
                let story = &story;
                async move {
                    story
                        .eventually("all that was acknowledged", async || {
                            // The pod is gone, and its successor takes a moment.
                            let Ok(answer) = search(story, name, json!({"vector": vector, "k": 10})).await else {
                                return Ok(None);
                            };
                            let mut found = ids(&answer);
                            found.sort();
                            let wanted: Vec<String> = (0..=round).map(|round| format!("{prefix}{round}")).collect();
                            ensure!(found == wanted, "{name}: {found:?}");
                            Ok(Some(()))
                        })
                        .await
                }
            };
            asked("pushed", "v", json!([1.0, 1.0, 0.5])).await?;
            asked("by-hand", "h", json!([0.0, 0.0])).await?;
        }
        let told = story.until("pushed", "5 vectors", |index: &VectorIndex| {
            index.status.as_ref().and_then(|status| status.vectors) == Some(5)
        });
        told.await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_an_index_is_told_and_mended_by_an_edit() {
    Story::run("wrong", async |story| {
        let wrong = |name: &str, from: &str, to: &str| index(name, "").replace(from, to);
        for (yaml, sentence) in [
            (wrong("near", "{role} in {state}: {skills}", "a worker"), "at least one column in braces"),
            (wrong("near", "metadata: [role, state]", "metadata: [role, role]"), "metadata"),
            (wrong("near", "local: {model: lexical}", "provider: p"), "`model` belongs to `provider`"),
            (index("near", "dimension: 0"), "dimension"),
        ] {
            let refusal = story.refusal(&yaml).await?;
            ensure!(refusal.contains(sentence), "{sentence}: {refusal}");
        }
        story.apply(&index("near", "")).await?;
        story.fails_of::<VectorIndex>("near", "DatasetMissing", &["workers"]).await?;
        story.dataset_of_text("workers", WORKERS).await?;
        story.ready_of::<VectorIndex>("near").await?;

        story.apply(&wrong("columns", "{skills}", "{abilities}")).await?;
        story.fails_of::<VectorIndex>("columns", "InvalidColumns", &["abilities", "skills"]).await?;
        story.apply(&index("columns", "")).await?;
        story.ready_of::<VectorIndex>("columns").await?;

        story.apply(&index("dimension", "dimension: 100")).await?;
        story.fails_of::<VectorIndex>("dimension", "DimensionMismatch", &["100", "384"]).await?;

        story.dataset_of_text("twice", &format!("{WORKERS}101,welder,IL,again\n")).await?;
        story.ready("twice").await?;
        story.apply(&wrong("doubled", "dataset: workers", "dataset: twice")).await?;
        story.fails_of::<VectorIndex>("doubled", "InvalidData", &["101"]).await?;

        // Rows without text are counted, and the others are found.
        story
            .dataset_of_text(
                "gaps",
                "worker_id,role,state,skills\n1,,IL,\n,pilot,AK,flying\n3,pilot,AK,flying\n",
            )
            .await?;
        story.ready("gaps").await?;
        let gaps = wrong("gaps", "dataset: workers", "dataset: gaps")
            .replace("{role} in {state}: {skills}", "{role}{skills}");
        story.apply(&gaps).await?;
        let built = story.ready_of::<VectorIndex>("gaps").await?;
        let status = built.status.context("no status")?;
        ensure!(status.vectors == Some(1) && status.failed == Some(2), "{status:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deleting_an_index_keeps_its_vectors_or_removes_them_as_the_policy_says() {
    Story::run("ends", async |story| {
        story.dataset_of_text("workers", WORKERS).await?;
        story.apply(&index("kept", "")).await?;
        story.apply(&index("purged", "deletionPolicy: Delete")).await?;
        for name in ["kept", "purged"] {
            story.ready_of::<VectorIndex>(name).await?;
            story.api::<VectorIndex>().delete(name, &DeleteParams::default()).await?;
            story.gone::<VectorIndex>(name).await?;
        }
        ensure!(!story.list_objects("_vectors/kept/").await?.is_empty(), "the index `kept` is gone");
        let left = story.list_objects("_vectors/purged/").await?;
        // The name stays, and says that its index is gone.
        ensure!(left == ["_vectors/purged/manifest.json"], "{left:?}");
        story
            .eventually("the readers to go", async || {
                let pods = story.pods("vectors").await?;
                Ok(pods.iter().all(|pod| !pod.name_any().starts_with("kept-")).then_some(()))
            })
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_quickstart_of_a_laptop_searches_in_a_cluster_unchanged() {
    Story::run("quickstart-search", async |story| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/quickstart");
        for file in ["datasets.yaml", "indexes.yaml"] {
            story.apply(&std::fs::read_to_string(folder.join(file))?).await?;
        }
        for name in ["airports", "routes"] {
            story.fails(name, "WaitingForUpload", &[]).await?;
            story.upload(name, std::fs::read(folder.join(format!("{name}.csv")))?).await?;
        }
        let indexes = story.api::<VectorIndex>().list(&ListParams::default()).await?.items;
        ensure!(!indexes.is_empty(), "the quickstart has an index");
        for index in indexes {
            story.ready_of::<VectorIndex>(&index.name_any()).await?;
            let answer =
                search(&story, &index.name_any(), json!({"text": "international airport", "k": 3})).await?;
            ensure!(ids(&answer).len() == 3, "{answer}");
        }
        Ok(())
    })
    .await;
}

/// A VectorIndex over the Dataset `workers` with the lexical model, and more of its spec.
fn index(name: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("  {more}\n") };
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: VectorIndex\nmetadata: {{name: {name}}}\nspec:\n  \
         source:\n    dataset: workers\n    id: \"w-{{worker_id}}\"\n    \
         text: \"{{role}} in {{state}}: {{skills}}\"\n    metadata: [role, state]\n  \
         embedding: {{local: {{model: lexical}}}}\n{more}"
    )
}

/// Waits until an index serves this version.
async fn serves(story: &Story, name: &str, version: u64) -> Result<VectorIndex> {
    let serves = |index: &VectorIndex| {
        condition(index, "Ready") == "True"
            && condition(index, "Served") == "True"
            && index.status.as_ref().and_then(|status| status.version) == Some(version)
    };
    story.until(name, &format!("Ready with version {version}"), serves).await
}

async fn search(story: &Story, index: &str, body: Value) -> Result<Value> {
    post(story, &format!("/v1/vectors/index/{index}/search"), body).await
}

async fn post(story: &Story, path: &str, body: Value) -> Result<Value> {
    story.post(path, body.to_string().into_bytes()).await
}

/// The ids of an answer's hits, nearest first.
fn ids(answer: &Value) -> Vec<String> {
    let hits = answer["results"].as_array().into_iter().flatten();
    hits.map(|hit| hit["id"].as_str().unwrap_or_default().to_owned()).collect()
}
