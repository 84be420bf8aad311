//! What is embedded once: texts in the cache, in the same list, and on their way for somebody else.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::Duration;

use lakehouse_contract::provider::ProviderKind;
use lakehouse_embed::{Embedder, Reason, Settings};
use support::{Act, Fixture, Length, Upstream, plain, texts};

#[tokio::test]
async fn vectors_come_in_the_order_of_the_texts_and_equal_texts_go_once() {
    let fixture = Fixture::new([]);
    let list = texts(["ccc", "a", "ccc", "bb", "a"]);
    let embedded = fixture.embedd.embed("", &list).await.unwrap();
    assert_eq!(plain(&embedded.vectors), [[3.0, 1.5], [1.0, 0.5], [3.0, 1.5], [2.0, 1.0], [1.0, 0.5]]);
    assert_eq!(embedded.identity.model, "local/length");
    assert_eq!(fixture.length.texts(), ["a", "bb", "ccc"]);
}

#[tokio::test]
async fn a_text_that_was_embedded_lately_is_not_embedded_again_whatever_the_model_is_called() {
    let fixture = Fixture::new([]);
    for name in ["", "length", "local/length"] {
        fixture.embedd.embed(name, &texts(["a", "b"])).await.unwrap();
    }
    assert_eq!(fixture.length.texts(), ["a", "b"]);
    let stats = fixture.embedd.stats();
    assert_eq!((stats.hits, stats.misses, stats.size, stats.capacity), (4, 2, 2, 10_000));
    assert!((stats.hit_rate - 4.0 / 6.0).abs() < 1e-9);
    let metrics = fixture.metrics.text();
    assert!(metrics.contains("lakehouse_embed_texts_total{from=\"cache\"} 4"), "{metrics}");
    assert!(metrics.contains("lakehouse_embed_cache_entries 2"), "{metrics}");
}

#[tokio::test]
async fn without_a_cache_every_request_is_embedded() {
    let off = Settings { cache_entries: 0, ..Settings::default() };
    let fixture = Fixture::with(off, Length::new(), []);
    for _ in 0..2 {
        fixture.embedd.embed("", &texts(["a", "a"])).await.unwrap();
    }
    assert_eq!(fixture.length.texts(), ["a", "a"]);
    assert_eq!((fixture.embedd.stats().size, fixture.embedd.stats().hits), (0, 0));
}

#[tokio::test]
async fn a_text_that_is_on_its_way_is_waited_for_and_not_sent_again() {
    let fixture = Fixture::with(Settings::default(), Length::slow(Duration::from_millis(200)), []);
    let (first, second) = (texts(["a", "b"]), texts(["b", "c", "a"]));
    let later = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fixture.embedd.embed("", &second).await
    };
    let (one, two) = tokio::join!(fixture.embedd.embed("", &first), later);
    assert_eq!(plain(&one.unwrap().vectors), [[1.0, 0.5], [1.0, 0.5]]);
    assert_eq!(two.unwrap().vectors.len(), 3);
    assert_eq!(fixture.length.texts(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_caller_who_leaves_takes_nothing_from_one_who_waits() {
    let upstream = Upstream::start([Act::Works]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    fixture.embedd.identity("cloud/m").await.unwrap();
    let before = upstream.requests();
    let leaves = fixture.embedd.clone();
    let leaving = tokio::spawn(async move { leaves.embed("cloud/m", &texts(["a"])).await });
    while upstream.requests() == before {
        tokio::task::yield_now().await;
    }
    let list = texts(["a"]);
    let stays = fixture.embedd.embed("cloud/m", &list);
    leaving.abort();
    assert_eq!(plain(&stays.await.unwrap().vectors), [[1.0, 1.0, 0.0]]);
}

#[tokio::test]
async fn the_last_who_leaves_ends_the_call_and_the_next_starts_another() {
    let upstream = Upstream::start([Act::Works, Act::Hangs]).await;
    let fixture = Fixture::new([upstream.provider("cloud", ProviderKind::OpenAI)]);
    fixture.embedd.identity("cloud/m").await.unwrap();
    let list = texts(["a"]);
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), fixture.embedd.embed("cloud/m", &list)).await;
    assert!(given_up.is_err());
    fixture.embedd.embed("cloud/m", &list).await.unwrap();
    assert_eq!(upstream.requests(), 3);
}

#[tokio::test]
async fn who_joins_a_flight_has_his_own_time_and_nothing_is_embedded_twice() {
    let soon = Settings { deadline: Duration::from_millis(800), ..Settings::default() };
    let fixture = Fixture::with(soon, Length::slow(Duration::from_millis(120)), []);
    // Ten pieces: longer than the first one waits, and not as long as the second.
    let list: Vec<String> = (0..640).map(|number| format!("text {number}")).collect();
    let joins = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        fixture.embedd.embed("", &list).await
    };
    let (first, second) = tokio::join!(fixture.embedd.embed("", &list), joins);
    assert_eq!(first.unwrap_err().reason, Reason::Timeout);
    assert_eq!(second.unwrap().vectors.len(), 640);
    assert_eq!(fixture.length.texts().len(), 640);
}

#[tokio::test]
async fn one_deadline_holds_for_the_whole_list() {
    let soon = Settings { deadline: Duration::from_millis(150), ..Settings::default() };
    let fixture = Fixture::with(soon, Length::slow(Duration::from_millis(60)), []);
    // Each piece is in time, all of them are not.
    let list: Vec<String> = (0..640).map(|number| format!("text {number}")).collect();
    let error = fixture.embedd.embed("", &list).await.unwrap_err();
    assert_eq!((error.reason, error.retry_helps()), (Reason::Timeout, true));
    // What was embedded before that is kept.
    assert!(fixture.embedd.stats().size >= 64);
}
