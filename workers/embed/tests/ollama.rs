//! The Ollama provider against a real Ollama server.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use lakehouse_contract::provider::Provider;
use lakehouse_embed::{Embedder, Reason};
use lakehouse_parts::Ollama;
use serde_json::json;
use support::{Fixture, plain, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_ollama_embeds_refuses_and_changes_its_model() {
    let ollama = tokio::task::spawn_blocking(Ollama::start).await.unwrap();
    let fixture = Fixture::new([provider(&ollama)]);
    embeds(&fixture).await;
    refuses_what_is_too_long(&fixture).await;
    knows_its_models(&fixture).await;
    another_model_under_the_same_name_is_another_identity(&fixture, &ollama).await;
}

async fn embeds(fixture: &Fixture) {
    let identity = fixture.embedd.identity("home/tiny-embed").await.unwrap();
    assert_eq!(identity.model, "home/tiny-embed");
    assert_eq!((identity.dimension as usize, identity.normalised), (Ollama::DIMENSION, true));
    let digest = identity.digest.strip_prefix("sha256:").unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");

    // More texts than go in one request; each has its own vector, the same one alone as in a list.
    let list: Vec<String> = (0..70).map(|number| format!("text number {number}")).collect();
    let embedded = fixture.embedd.embed("home/tiny-embed", &list).await.unwrap();
    assert_eq!(embedded.identity, identity);
    let fresh = Fixture::new(fixture.providers.borrow().providers.clone());
    let alone = fresh.embedd.embed("home/tiny-embed", &texts(["text number 69"])).await.unwrap();
    let (among, alone) = (&plain(&embedded.vectors)[69], &plain(&alone.vectors)[0]);
    assert!(among.iter().zip(alone).all(|(x, y)| (x - y).abs() < 1e-4), "{among:?} {alone:?}");
    assert_ne!(embedded.vectors[0], embedded.vectors[1]);
}

async fn refuses_what_is_too_long(fixture: &Fixture) {
    let mut list = texts(["short", "also short", "", "short again"]);
    list[2] = "x".repeat(2 * Ollama::CONTEXT);
    let error = fixture.embedd.embed("home/tiny-embed", &list).await.unwrap_err();
    assert_eq!((error.reason, error.item), (Reason::TooLong, Some(2)), "{error}");
    assert!(error.message.starts_with("texts[2]: provider `home` answered 400: "), "{error}");
}

async fn knows_its_models(fixture: &Fixture) {
    let error = fixture.embedd.identity("home/absent").await.unwrap_err();
    assert_eq!(error.reason, Reason::UnknownModel);
    assert_eq!(error.known, ["home/tiny-chat:latest", "home/tiny-embed:latest"]);
    let error = fixture.embedd.embed("home/absent", &texts(["a"])).await.unwrap_err();
    assert_eq!(error.reason, Reason::UnknownModel);
    let latest = fixture.embedd.identity("home/tiny-embed:latest").await.unwrap();
    assert_eq!(latest.digest, fixture.embedd.identity("home/tiny-embed").await.unwrap().digest);
}

async fn another_model_under_the_same_name_is_another_identity(fixture: &Fixture, ollama: &Ollama) {
    let before = fixture.embedd.embed("home/tiny-embed", &texts(["a text"])).await.unwrap();
    let recipe = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(recipe.path(), "FROM tiny-embed\nPARAMETER num_ctx 256\n").unwrap();
    let created = ollama.command().args(["create", "tiny-embed", "-f"]).arg(recipe.path()).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    // What was said lately holds for some seconds; a new embedd has heard nothing yet.
    let fresh = Fixture::new(fixture.providers.borrow().providers.clone());
    let after = fresh.embedd.identity("home/tiny-embed").await.unwrap();
    assert_ne!(before.identity.digest, after.digest);
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let followed = fixture.embedd.embed("home/tiny-embed", &texts(["a text"])).await.unwrap();
    assert_eq!(followed.identity, after);
}

fn provider(ollama: &Ollama) -> Provider {
    serde_json::from_value(json!({ "name": "home", "type": "Ollama", "url": ollama.url(), "embeddings": [] }))
        .unwrap()
}
