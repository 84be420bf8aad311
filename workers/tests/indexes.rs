//! What `lakehouse up` promises of VectorIndexes, told as a user would live it.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{path::Path, time::Duration};

use common::{Lakehouse, eventually, file, ollama::Ollama, run};
use serde_json::{Value, json};

const JOBS: &str = "id,title,state\n1,night nurse,IL\n2,day nurse,OH\n3,forklift driver,IL\n";
const LEXICAL: &str = "{local: {model: lexical}}";

#[test]
fn text_of_a_dataset_becomes_a_search() {
    let desk = Desk::new(&index(LEXICAL, ""));
    let lakehouse = desk.up();
    fresh(&lakehouse, 1);
    let found = search(&lakehouse, &json!({ "text": "forklift", "k": 1 }));
    let hit = &found["results"][0];
    assert_eq!((&hit["id"], &hit["metadata"]), (&json!("job-3"), &json!({ "state": "IL" })));
    assert_eq!(hit["source"], json!({ "dataset": "jobs", "version": 1, "column": "id", "key": "3" }));
    let rows = lakehouse.sql(found["sql"].as_str().unwrap());
    assert_eq!(rows, json!([[3, "forklift driver", "IL"]]), "the answer can be replayed");

    let filtered = search(&lakehouse, &json!({ "text": "nurse", "filter": { "state": "IL" } }));
    assert_eq!((&filtered["matches"], filtered["results"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(filtered["results"][0]["id"], "job-1");

    let args = ["search", "jobs-text", "forklift driver", "-k", "1", "--server", &lakehouse.url];
    let (ended_well, table, stderr) = run(common::lakehouse().args(args));
    assert!(
        ended_well && table.contains("| job-3 |") && table.contains("(1 hit, version 1, "),
        "{table}{stderr}"
    );
    let (_, sql, _) = run(common::lakehouse().args(args).arg("--sql"));
    assert!(sql.starts_with("SELECT * FROM \"jobs@1\" WHERE "), "{sql}");
    let (_, listed, _) = run(common::lakehouse().args(["get", "lhv", "--server", &lakehouse.url]));
    assert!(listed.contains("jobs-text   True    jobs      local/lexical   3         True"), "{listed}");
}

#[test]
fn a_new_version_of_the_dataset_is_followed_and_searches_never_fail() {
    let desk = Desk::new(&index(LEXICAL, ""));
    let lakehouse = desk.up();
    fresh(&lakehouse, 1);
    desk.data(&format!("{JOBS}4,crane operator,TX\n"));
    eventually("the new row is found", || {
        let found = search(&lakehouse, &json!({ "text": "crane operator", "k": 1 }));
        if found["results"][0]["id"] == "job-4" { Ok(()) } else { Err(found.to_string()) }
    });
    fresh(&lakehouse, 2);
    assert_eq!(told(&lakehouse)["vectors"], 4);
}

#[test]
fn a_second_start_builds_nothing_again() {
    let desk = Desk::new(&index(LEXICAL, ""));
    let first = desk.up();
    fresh(&first, 1);
    let before = first.get("/v1/vectors/index/jobs-text").1;
    assert!(first.stop().0);
    let second = desk.up();
    fresh(&second, 1);
    assert_eq!(second.get("/v1/vectors/index/jobs-text").1, before, "not even updated_at has moved");
}

#[test]
fn a_pin_serves_the_kept_version_and_taking_it_out_the_newest() {
    let desk = Desk::new(&index(LEXICAL, ""));
    let lakehouse = desk.up();
    fresh(&lakehouse, 1);
    desk.data(&format!("{JOBS}4,crane operator,TX\n"));
    fresh(&lakehouse, 2);
    desk.resources(&index(LEXICAL, "  version: 1\n"));
    wait_for(&lakehouse, "version", &json!(1));
    condition(&lakehouse, "Fresh", "False");
    assert_eq!(lakehouse.get("/v1/vectors/index/jobs-text").1["length"], 3);
    desk.resources(&index(LEXICAL, ""));
    fresh(&lakehouse, 2);
    assert_eq!(told(&lakehouse)["version"], 2, "it was kept, and not built again");
}

#[test]
fn another_model_builds_beside_and_then_takes_over() {
    let ollama = Ollama::start();
    let desk = Desk::new(&index(LEXICAL, ""));
    let lakehouse = desk.up();
    fresh(&lakehouse, 1);
    ollama.slow(Duration::from_millis(500));
    desk.resources(&(ollama.resource() + &index("{provider: ollama, model: tiny}", "")));
    eventually("the other model answers", || {
        let (status, answer) =
            lakehouse.post("/v1/vectors/index/jobs-text/search", json!({ "text": "nurse" }).to_string());
        assert_eq!(status, 200, "searches go on: {answer}");
        match &told(&lakehouse)["embedding"]["model"] {
            model if *model == "ollama/tiny" => Ok(()),
            model => Err(model.to_string()),
        }
    });
    let refused = lakehouse.post(
        "/v1/vectors/index/jobs-text/search",
        json!({ "text": "nurse", "model": "local/lexical" }).to_string(),
    );
    assert_eq!((refused.0, &refused.1["error"]["code"]), (409, &json!("model_mismatch")), "{}", refused.1);
    let embedded = ollama.embedded();
    ollama.change_weights();
    wait_for(&lakehouse, "version", &json!(3));
    assert!(ollama.embedded() > embedded, "vectors of other weights are others");
}

#[test]
fn a_provider_that_is_away_is_waited_for_and_nothing_is_embedded_twice() {
    let ollama = Ollama::start();
    let desk = Desk::new(&(ollama.resource() + &index("{provider: ollama, model: tiny}", "")));
    desk.data(&many(600));
    ollama.slow(Duration::from_millis(100));
    let lakehouse = desk.up();
    eventually("some texts are embedded", || match ollama.embedded() {
        0..100 => Err("few".to_owned()),
        _ => Ok(()),
    });
    ollama.fail(429);
    std::thread::sleep(Duration::from_secs(2));
    lakehouse.kill();
    let done = ollama.embedded();
    assert!(done < 600, "it was stopped in the middle");
    let again = desk.up();
    let failed = condition(&again, "EmbedderReady", "False");
    assert!(failed["message"].as_str().unwrap().contains("429"), "{failed}");
    ollama.slow(Duration::ZERO);
    ollama.recover();
    fresh(&again, 1);
    assert_eq!((told(&again)["vectors"].clone(), ollama.embedded(), ollama.most()), (json!(600), 600, 1));
}

#[test]
fn clients_fill_an_index_that_a_resource_makes() {
    let desk = Desk::new(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: VectorIndex\nmetadata: {name: jobs-text}\nspec: {dimension: 2}\n",
    );
    let lakehouse = desk.up();
    condition(&lakehouse, "Ready", "True");
    let items =
        json!({ "items": [{ "id": "a", "vector": [1.0, 0.0] }, { "id": "b", "vector": [0.0, 1.0] }] });
    let (status, answer) = lakehouse.post("/v1/vectors/index/jobs-text/add", items.to_string());
    assert_eq!(status, 200, "{answer}");
    let found = search(&lakehouse, &json!({ "vector": [0.1, 0.9], "k": 1 }));
    assert_eq!(found["results"][0]["id"], "b");
    wait_for(&lakehouse, "vectors", &json!(2));
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let desk = Desk::new(&index(LEXICAL, "").replace("{title}", "{titel}"));
    let lakehouse = desk.up();
    eventually("the column is named", || {
        let built = condition(&lakehouse, "Built", "False");
        match (&built["reason"], built["message"].as_str().unwrap()) {
            (reason, message) if *reason == "InvalidColumns" && message.contains("`titel`") => Ok(()),
            _ => Err(built.to_string()),
        }
    });
    desk.resources(&index(LEXICAL, "").replace("jobs\n    id:", "nowhere\n    id:"));
    condition(&lakehouse, "DatasetReady", "False");
    desk.resources(&index(LEXICAL, "  dimension: 7\n"));
    let embedder = condition(&lakehouse, "EmbedderReady", "False");
    assert_eq!(embedder["reason"], "DimensionMismatch", "{embedder}");
    desk.resources(&index("{provider: nobody, model: tiny}", ""));
    eventually("the provider is named", || {
        let embedder = condition(&lakehouse, "EmbedderReady", "False");
        if embedder["message"].as_str().unwrap().contains("nobody") {
            Ok(())
        } else {
            Err(embedder.to_string())
        }
    });
    desk.resources(&index(LEXICAL, ""));
    fresh(&lakehouse, 1);
}

#[test]
fn rows_without_a_text_are_counted_and_listed() {
    let desk = Desk::new(&index(LEXICAL, ""));
    desk.data(&format!("{JOBS}4,,TX\n,cook,TX\n"));
    let lakehouse = desk.up();
    fresh(&lakehouse, 1);
    let told = told(&lakehouse);
    assert_eq!((&told["vectors"], &told["failed"]), (&json!(3), &json!(2)));
    let info = lakehouse.get("/v1/vectors/index/jobs-text").1;
    let inputs = info["source"]["inputs"].as_str().unwrap();
    let list = format!("/v1/storage/get/_vectors/jobs-text/rejects/{inputs}.ndjson");
    let list = lakehouse.get(&list).1;
    assert_eq!(list, "{\"row\":4,\"id\":\"job-4\",\"reason\":\"noText\"}\n{\"row\":5,\"reason\":\"noId\"}\n");
}

/// Searches the VectorIndex `jobs-text`.
fn search(lakehouse: &Lakehouse, request: &Value) -> Value {
    let (status, answer) = lakehouse.post("/v1/vectors/index/jobs-text/search", request.to_string());
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Its status.
fn told(lakehouse: &Lakehouse) -> Value {
    let path = "/apis/lakehouse.dev/v1alpha1/namespaces/default/vectorindexes/jobs-text";
    let (status, answer) = lakehouse.get(path);
    assert_eq!(status, 200, "{answer}");
    answer["status"].clone()
}

/// A folder with the Dataset `jobs` and the VectorIndex `jobs-text`.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(resources: &str) -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(desk.folder.path().join("in")).unwrap();
        desk.data(JOBS);
        desk.resources(resources);
        desk
    }

    fn up(&self) -> Lakehouse {
        Lakehouse::up(&self.folder.path().join("data"), &[self.inputs().to_str().unwrap()])
    }

    fn inputs(&self) -> std::path::PathBuf {
        self.folder.path().join("in")
    }

    fn data(&self, csv: &str) {
        replace(&self.inputs(), "jobs.csv", csv);
    }

    fn resources(&self, yaml: &str) {
        replace(&self.inputs(), "index.yaml", yaml);
    }
}

/// Waits until a field of its status has this value.
fn wait_for(lakehouse: &Lakehouse, field: &str, wanted: &Value) {
    eventually(&format!("{field} is {wanted}"), || {
        let told = told(lakehouse);
        if told[field] == *wanted { Ok(()) } else { Err(told.to_string()) }
    });
}

/// Waits until the condition has this status, and gives it.
fn condition(lakehouse: &Lakehouse, name: &str, wanted: &str) -> Value {
    eventually(&format!("{name}={wanted}"), || {
        let told = told(lakehouse);
        let conditions = told["conditions"].as_array().cloned().unwrap_or_default();
        match conditions.into_iter().find(|condition| condition["type"] == name) {
            Some(found) if found["status"] == wanted => Ok(found),
            _ => Err(told.to_string()),
        }
    })
}

/// Waits until it is ready and holds this version of the dataset.
fn fresh(lakehouse: &Lakehouse, version: u64) {
    wait_for(lakehouse, "datasetVersion", &json!(version));
    condition(lakehouse, "Fresh", "True");
    condition(lakehouse, "Ready", "True");
}
fn index(embedding: &str, more: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1
kind: VectorIndex
metadata: {{name: jobs-text}}
spec:
  source:
    dataset: jobs
    id: \"job-{{id}}\"
    text: \"{{title}}\"
    metadata: [state]
  embedding: {embedding}
{more}"
    )
}

fn many(rows: u32) -> String {
    let rows: Vec<String> = (1..=rows).map(|row| format!("{row},title number {row},IL\n")).collect();
    format!("id,title,state\n{}", rows.concat())
}

/// Replaces a file in one step, as editors do.
fn replace(folder: &Path, name: &str, content: &str) {
    let new = file(folder.parent().unwrap(), &format!("{name}.new"), content);
    std::fs::rename(new, folder.join(name)).unwrap();
}
