//! Providers that fail in every way they know, and what the caller hears of it. That they work is proven with a real Ollama.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::{Duration, Instant};

use lakehouse_contract::provider::{Limits, Provider, ProviderKind, Providers};
use lakehouse_embed::{EmbedError, Embedder, Reason, Settings};
use serde_json::json;
use support::{Act, Fixture, Length, Upstream, plain, texts};

const KEY: &str = "sk-very-secret";

#[tokio::test]
async fn each_cloud_is_asked_in_its_own_protocol_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    for (kind, path, expected) in [
        (
            ProviderKind::OpenAI,
            "/v1/embeddings",
            json!({"model": "m", "input": ["ab"], "encoding_format": "float"}),
        ),
        (
            ProviderKind::OpenRouter,
            "/v1/embeddings",
            json!({"model": "m", "input": ["ab"], "encoding_format": "float"}),
        ),
        (ProviderKind::Voyage, "/v1/embeddings", json!({"model": "m", "input": ["ab"], "truncation": false})),
    ] {
        let upstream = Upstream::start([]).await;
        let url = Some(format!("{}/v1/", upstream.url));
        let provider = Provider { key_file: Some(key.clone()), url, ..upstream.provider("cloud", kind) };
        let fixture = Fixture::new([provider]);
        let embedded = fixture.embedd.embed("m", &texts(["ab"])).await.unwrap();
        assert_eq!(plain(&embedded.vectors), [[2.0, 1.0, 0.0]]);
        let seen = upstream.script.seen.lock().unwrap();
        let expected = (path.to_owned(), format!("Bearer {KEY}"), expected);
        assert_eq!(seen.last().unwrap(), &expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_exchanged_is_used_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let upstream = Upstream::start([]).await;
    let provider =
        Provider { key_file: Some(key.clone()), ..upstream.provider("cloud", ProviderKind::OpenAI) };
    let fixture = Fixture::new([provider]);
    let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
    assert_eq!(error.reason, Reason::Credentials);
    assert!(error.message.contains("provider `cloud` has no key"), "{error}");
    for word in ["one", "two"] {
        std::fs::write(&key, word).unwrap();
        fixture.embedd.embed("m", &texts([word])).await.unwrap();
        assert_eq!(upstream.script.seen.lock().unwrap().last().unwrap().1, format!("Bearer {word}"));
    }
}

#[tokio::test]
async fn a_failure_says_the_provider_its_status_and_its_words_and_never_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let body = |message: &str| json!({"error": {"message": message}}).to_string();
    for (status, says, reason) in [
        (401, body(&format!("Incorrect API key provided: {KEY}")), Reason::Credentials),
        (402, body("you owe us money"), Reason::Refused),
        (404, body("no model `m`"), Reason::UnknownModel),
        (301, String::new(), Reason::Refused),
    ] {
        let upstream = Upstream::start([Act::Says(status, None, says)]).await;
        let provider =
            Provider { key_file: Some(key.clone()), ..upstream.provider("cloud", ProviderKind::OpenAI) };
        let fixture = Fixture::new([provider]);
        let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
        assert_eq!((error.reason, error.retry_helps()), (reason, false));
        assert!(error.message.starts_with(&format!("provider `cloud` answered {status}")), "{error}");
        assert!(!error.message.contains(KEY) && !format!("{:?}", fixture.embedd).contains(KEY), "{error}");
        assert_eq!(upstream.requests(), 1, "nothing is tried again that cannot help");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_told_as_such() {
    for (answer, says) in [
        ("<html>Welcome</html>", "not the JSON expected"),
        (r#"{"data": []}"#, "0 vectors for 1 texts"),
        (r#"{"data": [{"index": 0, "embedding": [1, NaN]}]}"#, "not the JSON expected"),
        (r#"{"data": [{"index": 0, "embedding": [1, 1e39]}]}"#, "number out of range"),
        (
            r#"{"data": [{"index": 0, "embedding": [1, 2]}]}"#,
            "a vector of 2 numbers from model `m`, which has 3",
        ),
    ] {
        // The first request is the trial that tells the dimension.
        let upstream = Upstream::start([Act::Works, Act::Says(200, None, answer.into())]).await;
        let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
        let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
        assert_eq!(error.reason, Reason::BadAnswer);
        assert!(error.message.starts_with("provider `cloud` answered with"), "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_counted() {
    let busy = || Act::Says(503, None, "busy".into());
    let upstream = Upstream::start([Act::Works, busy(), Act::Says(429, Some("0"), "slow down".into())]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    fixture.embedd.embed("m", &texts(["a"])).await.unwrap();
    assert_eq!(upstream.requests(), 4);
    let metrics = fixture.metrics.text();
    for reason in ["provider_unavailable", "rate_limited"] {
        let line = format!(
            "lakehouse_embed_upstream_errors_total{{provider=\"cloud\",kind=\"openai\",reason=\"{reason}\"}} 1"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(metrics.contains("lakehouse_embed_upstream_seconds_count{provider=\"cloud\",kind=\"openai\"} 4"));
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_is_handed_on_and_not_waited_for() {
    let upstream = Upstream::start([Act::Works, Act::Says(429, Some("3600"), "quota".into())]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    let started = Instant::now();
    let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.retry_after), (Reason::RateLimited, Some(Duration::from_hours(1))));
    assert!(error.message.contains("answered 429: quota"), "{error}");
    // The next is not even sent.
    let error = fixture.embedd.embed("m", &texts(["b"])).await.unwrap_err();
    assert_eq!((error.reason, upstream.requests()), (Reason::RateLimited, 2));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up_after_its_own_time() {
    let upstream = Upstream::start([Act::Works, Act::Hangs]).await;
    let limits = Limits { total_ms: Some(200), ..Limits::default() };
    let provider = Provider { limits, ..upstream.provider("cloud", ProviderKind::OpenAI) };
    let fixture = Fixture::new([provider]);
    // Its second attempt works.
    fixture.embedd.embed("m", &texts(["a"])).await.unwrap();

    let soon = Settings { deadline: Duration::from_millis(500), ..Settings::default() };
    let upstream = Upstream::start([Act::Works, Act::Hangs]).await;
    let fixture = Fixture::with(soon, Length::new(), [upstream.provider("cloud", ProviderKind::OpenAI)]);
    let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.retry_helps()), (Reason::Timeout, true));
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_named_with_its_place() {
    let nobody = Upstream::start([]).await;
    let provider = nobody.provider("cloud", ProviderKind::OpenAI);
    let place = nobody.url.trim_start_matches("http://").to_owned();
    drop(nobody);
    let soon = Settings { deadline: Duration::from_millis(500), ..Settings::default() };
    let fixture = Fixture::with(soon, Length::new(), [provider]);
    // The server is gone a moment after it was told to go.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.retry_helps()), (Reason::Unavailable, true));
    assert!(error.message.contains(&format!("provider `cloud` at {place} cannot be reached")), "{error}");
}

#[tokio::test]
async fn the_text_that_a_provider_refuses_is_found_and_the_others_are_kept() {
    let upstream = Upstream::start([Act::Refuses("long")]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    let mut list: Vec<String> = (0..40).map(|number| format!("text {number}")).collect();
    fixture.embedd.embed("m", &list[..5]).await.unwrap();
    list[23] = "a long text".into();
    let error = fixture.embedd.embed("m", &list).await.unwrap_err();
    assert_eq!((error.reason, error.item), (Reason::TooLong, Some(23)));
    assert!(
        error.message.starts_with("texts[23]: provider `cloud` answered 400: this model's maximum"),
        "{error}"
    );
    let requests = upstream.requests();
    list.remove(23);
    fixture.embedd.embed("m", &list).await.unwrap();
    assert_eq!(upstream.requests(), requests, "all other texts are in the cache");
}

#[tokio::test]
async fn no_more_requests_run_at_once_than_the_limit() {
    let upstream = Upstream::start([]).await;
    let limits = Limits { max_concurrent: Some(2), ..Limits::default() };
    let fixture = Fixture::new([Provider { limits, ..upstream.provider("cloud", ProviderKind::Voyage) }]);
    let list: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let embedded = fixture.embedd.embed("m", &list).await.unwrap();
    assert_eq!(embedded.vectors.len(), 1_000);
    assert!(
        embedded.vectors.iter().zip(&list).all(|(vector, text)| vector[..] == [text.len() as f32, 1.0, 0.0])
    );
    // One trial, and 1,000 texts in requests of 128.
    assert_eq!((upstream.requests(), upstream.most_at_once()), (9, 2));
}

#[tokio::test]
async fn a_minute_with_its_requests_spent_says_when_the_next_is_free() {
    let upstream = Upstream::start([]).await;
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let soon = Settings { deadline: Duration::from_secs(5), ..Settings::default() };
    let provider = Provider { limits, ..upstream.provider("cloud", ProviderKind::Voyage) };
    let fixture = Fixture::with(soon, Length::new(), [provider]);
    fixture.embedd.embed("m", &texts(["a"])).await.unwrap();
    let error = fixture.embedd.embed("m", &texts(["b"])).await.unwrap_err();
    assert_eq!(error.reason, Reason::RateLimited);
    assert!(error.retry_after.unwrap() > Duration::from_secs(50), "{error:?}");
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn names_are_resolved_as_the_configuration_is_now() {
    let (one, two) = (Upstream::start([]).await, Upstream::start([]).await);
    let first = Provider { embeddings: vec!["m".into()], ..one.provider("one", ProviderKind::OpenAI) };
    let second = Provider {
        embeddings: vec!["m".into(), "vendor/n".into(), "length".into()],
        ..two.provider("two", ProviderKind::OpenAI)
    };
    let fixture = Fixture::new([first.clone(), second]);
    for (name, model) in [
        ("m", "one/m"),
        ("one/m", "one/m"),
        ("two/m", "two/m"),
        ("vendor/n", "two/vendor/n"),
        ("length", "two/length"),
        ("local/length", "local/length"),
        ("", "local/length"),
    ] {
        assert_eq!(fixture.embedd.identity(name).await.unwrap().model, model, "{name}");
    }
    let known = ["local/length", "one/m", "two/length", "two/m", "two/vendor/n"];
    assert_eq!(fixture.embedd.models().await.models, known);
    assert_eq!(unknown(fixture.embedd.identity("nobody/m").await.unwrap_err()), known);
    assert_eq!(unknown(fixture.embedd.identity("local/m").await.unwrap_err()), known);
    assert_eq!(unknown(fixture.embedd.identity("one/n").await.unwrap_err()), ["one/m"]);

    fixture.providers.send(Providers { providers: vec![first] }).unwrap();
    assert_eq!(fixture.embedd.identity("length").await.unwrap().model, "local/length");
    let requests = one.requests();
    fixture.embedd.embed("one/m", &texts(["a"])).await.unwrap();
    assert_eq!(one.requests(), requests + 1, "a provider that did not change is not tried anew");
}

#[tokio::test]
async fn a_provider_that_is_configured_wrongly_says_so_when_it_is_asked() {
    let upstream = Upstream::start([]).await;
    for (url, says) in [
        ("ftp://host", "must start with http"),
        ("not a url", "its url is none"),
        ("http://user:hunter2@host", "holds a password"),
    ] {
        let provider = Provider { url: Some(url.into()), ..upstream.provider("cloud", ProviderKind::OpenAI) };
        let fixture = Fixture::new([provider]);
        let error = fixture.embedd.embed("m", &texts(["a"])).await.unwrap_err();
        assert_eq!(error.reason, Reason::Unusable);
        assert!(error.message.contains(says) && !error.message.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn identities_name_the_address_and_the_model_where_weights_are_not_known() {
    let upstream = Upstream::start([]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    let identity = fixture.embedd.identity("m").await.unwrap();
    assert_eq!(identity.digest, format!("{} m", upstream.url));
    assert_eq!((identity.dimension, identity.normalised), (3, false));
    let embedded = fixture.embedd.embed("m", &texts(["a"])).await.unwrap();
    assert_eq!(embedded.identity, identity);
}

fn unknown(error: EmbedError) -> Vec<String> {
    assert_eq!(error.reason, Reason::UnknownModel);
    assert!(error.known.iter().all(|name| error.message.contains(name)), "{error}");
    error.known
}
