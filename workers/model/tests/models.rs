//! Where models are found, and what is said of those that are not.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lakehouse_contract::{Key, provider::Providers};
use lakehouse_embed::{Embedd, Embedder, Locals, Reason, Settings};
use lakehouse_http::Metrics;
use lakehouse_model::Models;
use lakehouse_store::{Condition, Payload, Store};
use tokio::sync::watch;

#[tokio::test]
async fn lexical_is_always_there_in_every_dimension() {
    let embedd = embedd(Models::new());
    for (name, dimension) in [("", 384), ("lexical", 384), ("local/lexical", 384), ("local/lexical-64", 64)] {
        let identity = embedd.identity(name).await.unwrap();
        assert_eq!(identity.dimension, dimension);
        assert_eq!(identity.digest, format!("lexical-v1-{dimension}"));
        let embedded = embedd.embed(name, &["some text".to_owned()]).await.unwrap();
        assert_eq!((embedded.identity, embedded.vectors[0].len()), (identity, dimension as usize));
    }
    assert_eq!(Models::new().names().await, ["lexical"]);
}

#[tokio::test]
async fn a_folder_and_the_bucket_give_the_same_model() {
    let (store, cache) = (Store::memory(), tempfile::tempdir().unwrap());
    upload(&store, "mini", &reference("bert")).await;
    let there = Models::new().with_bucket(store.clone(), cache.path().to_owned());
    let here = Models::new().with_folder(reference(""));
    assert_eq!(there.names().await, ["lexical", "mini"]);
    assert_eq!(
        here.names().await,
        ["bert", "bert-cls", "distilbert", "lexical", "mpnet", "roberta", "xlm-roberta"]
    );
    let (there, here) = (there.get("mini").await.unwrap().unwrap(), here.get("bert").await.unwrap().unwrap());
    assert_eq!(there.identity().digest, here.identity().digest);
    assert_eq!(there.identity().model, "local/mini");
    assert_eq!(there.embed(&["a text"]).unwrap(), here.embed(&["a text"]).unwrap());

    // The next process finds its files, and needs no store for their content.
    let folders: Vec<PathBuf> =
        fs::read_dir(cache.path().join("models")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert!(folders[0].join("1_Pooling/config.json").is_file());
    assert!(!folders[0].join("vectors.json").exists(), "only what decides is fetched");
}

#[tokio::test]
async fn other_files_in_the_bucket_are_another_model_for_the_next_process() {
    let (store, cache) = (Store::memory(), tempfile::tempdir().unwrap());
    let digest = async || {
        let models = Models::new().with_bucket(store.clone(), cache.path().to_owned());
        models.get("mini").await.unwrap().unwrap().identity().digest.clone()
    };
    upload(&store, "mini", &reference("bert")).await;
    let before = digest().await;
    upload(&store, "mini", &reference("distilbert")).await;
    assert_ne!(digest().await, before);
}

#[tokio::test]
async fn a_broken_model_says_what_is_wrong_and_an_unknown_one_which_are_known() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("broken")).unwrap();
    fs::write(folder.path().join("broken/config.json"), "{}").unwrap();
    let embedd = embedd(Models::new().with_folder(folder.path().to_owned()));
    let error = embedd.identity("local/broken").await.unwrap_err();
    assert_eq!(error.reason, Reason::Unusable);
    assert!(error.message.starts_with("model `local/broken` cannot be used: `config.json`: "), "{error}");
    for name in ["local/absent", "local/../broken", "local/", "local/.", "local/broken/", "local/lexical-1"] {
        let error = embedd.identity(name).await.unwrap_err();
        assert_eq!((error.reason, error.known.len()), (Reason::UnknownModel, 2), "{name}");
    }
}

#[tokio::test]
async fn texts_of_a_real_model_are_computed_once_and_come_in_order() {
    let embedd = embedd(Models::new().with_folder(reference("")));
    let texts: Vec<String> = (0..300).map(|number| format!("text {}", number % 150)).collect();
    let embedded = embedd.embed("bert", &texts).await.unwrap();
    assert_eq!(embedded.vectors[..150], embedded.vectors[150..]);
    assert_ne!(embedded.vectors[0], embedded.vectors[1]);
    assert_eq!(embedd.stats().size, 150);
}

fn embedd(models: Models) -> Embedd {
    let (_, providers) = watch::channel(Providers::default());
    Embedd::new(Settings::default(), providers, Arc::new(models), &Metrics::default())
}

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// Puts a folder's files below `_models/<name>/`, whatever lies there.
async fn upload(store: &Store, name: &str, folder: &Path) {
    let mut folders = vec![(folder.to_owned(), format!("_models/{name}"))];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let key = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                folders.push((entry.path(), key));
            } else {
                let content = fs::read(entry.path()).unwrap();
                let key = Key::parse(key).unwrap();
                store.put(&key, Payload::Bytes(content.into()), Condition::Always).await.unwrap();
            }
        }
    }
}
