//! Sentence transformers beside their Python original, by the models and vectors of `tests/reference/make.py`.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use lakehouse_embed::LocalModel;
use lakehouse_model::SentenceTransformer;
use serde_json::{Value, json};

/// How far a number may be from the original's.
const NEAR: f32 = 2e-5;

const MODELS: [&str; 6] = ["bert", "bert-cls", "distilbert", "mpnet", "roberta", "xlm-roberta"];

#[test]
fn vectors_are_those_of_the_original() {
    for name in MODELS {
        let model = SentenceTransformer::load(name, &reference(name)).unwrap();
        check(name, &model);
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_a_long_list() {
    for name in MODELS {
        let model = SentenceTransformer::load(name, &reference(name)).unwrap();
        let list: Vec<String> = (0..200).map(|number| "operator ".repeat(1 + number % 11)).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let together = model.embed(&list).unwrap();
        for at in [0, 5, 10, 199] {
            near(name, &model.embed(&[list[at]]).unwrap()[0], &together[at]);
        }
    }
}

#[test]
fn folders_of_earlier_versions_are_read_too() {
    let copy = copy_of("bert");
    let write = |name: &str, content: Value| fs::write(copy.path().join(name), content.to_string()).unwrap();
    write("sentence_bert_config.json", json!({"max_seq_length": 16, "do_lower_case": false}));
    write("tokenizer_config.json", json!({"model_max_length": 1e30}));
    write(
        "1_Pooling/config.json",
        json!({
            "word_embedding_dimension": 16,
            "pooling_mode_cls_token": false,
            "pooling_mode_mean_tokens": true,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
        }),
    );
    write(
        "modules.json",
        json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ]),
    );
    check("bert", &SentenceTransformer::load("old", copy.path()).unwrap());
}

#[test]
fn the_digest_names_every_file_that_decides_and_no_other() {
    let digest = |folder: &Path| SentenceTransformer::load("m", folder).unwrap().identity().digest.clone();
    let copy = copy_of("bert");
    let before = digest(copy.path());
    assert_eq!(before, digest(&reference("bert")));
    assert!(before.starts_with("sha256:") && before.len() == 71, "{before}");
    fs::write(copy.path().join("README.md"), "words").unwrap();
    assert_eq!(digest(copy.path()), before);
    let pooling = copy.path().join("1_Pooling/config.json");
    let maximum = fs::read_to_string(&pooling).unwrap().replace("mean", "max");
    fs::write(&pooling, maximum).unwrap();
    assert_ne!(digest(copy.path()), before);
}

#[test]
fn a_folder_that_cannot_be_computed_names_the_file_and_why() {
    let replace = |file: &str, from: &str, to: &str| {
        let copy = copy_of("bert");
        let path = copy.path().join(file);
        let changed = fs::read_to_string(&path).unwrap().replace(from, to);
        fs::write(&path, changed).unwrap();
        copy
    };
    let without = |file: &str| {
        let copy = copy_of("bert");
        fs::remove_file(copy.path().join(file)).unwrap();
        copy
    };
    let cut = copy_of("bert");
    let weights = cut.path().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    for (folder, file, says) in [
        (without("config.json"), "config.json", "missing"),
        (without("model.safetensors"), "model.safetensors", "missing"),
        (without("tokenizer.json"), "tokenizer.json", "missing"),
        (without("1_Pooling/config.json"), "1_Pooling/config.json", "missing"),
        (cut, "model.safetensors", ""),
        (replace("config.json", "\"bert\"", "\"llama\""), "config.json", "`llama`"),
        (replace("config.json", "\"gelu\"", "\"swish\""), "config.json", "swish"),
        (replace("config.json", "\"hidden_size\": 16", "\"hidden_size\": 32"), "model.safetensors", "shape"),
        (
            replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
            "model.safetensors",
            "encoder.layer.2",
        ),
        (
            replace("config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
            "config.json",
            "5 heads",
        ),
        (replace("modules.json", "Normalize\"", "Dense\""), "modules.json", "Transformer, Pooling, Dense"),
        (replace("modules.json", "\"1_Pooling\"", "\"../else\""), "modules.json", "`../else`"),
        (replace("1_Pooling/config.json", "mean", "lasttoken"), "1_Pooling/config.json", ""),
        (replace("tokenizer.json", "{", "["), "tokenizer.json", ""),
    ] {
        let refusal = SentenceTransformer::load("m", folder.path()).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("`{file}`: ")) && refusal.contains(says), "{refusal}");
    }
}

fn check(name: &str, model: &SentenceTransformer) {
    let vectors = fs::read(reference(name).join("vectors.json")).unwrap();
    let expected: Value = serde_json::from_slice(&vectors).unwrap();
    let texts: Vec<&str> =
        expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let computed = model.embed(&texts).unwrap();
    assert_eq!(computed.len(), texts.len());
    for (at, vector) in computed.iter().enumerate() {
        let original: Vec<f32> = serde_json::from_value(expected["vectors"][at].clone()).unwrap();
        assert_eq!(model.identity().dimension as usize, original.len());
        near(&format!("{name}, {:?}", texts[at]), vector, &original);
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert_eq!(model.identity().normalised, (length - 1.0).abs() < 1e-4, "{name}");
    }
}

fn near(what: &str, one: &[f32], other: &[f32]) {
    let apart = one.iter().zip(other).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(one.len() == other.len() && apart < NEAR, "{what}: {apart} apart\n{one:?}\n{other:?}");
}

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&reference(name), copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
