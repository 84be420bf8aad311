//! vectord's answers, through its router.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use axum::http::{Method, StatusCode};
use lakehouse_store::Store;
use lakehouse_vector::{Settings, Tuning};
use serde_json::{Value, json};
use support::{MODEL, Served, letters, publish, refusal, settings};

#[tokio::test]
async fn what_is_added_is_found_nearest_first() {
    let served = Served::over(&Store::memory()).await;
    let created = served.create("shelf", 2).await;
    assert_eq!(
        (&created["length"], &created["version"], &created["metric"]),
        (&json!(0), &json!(0), &json!("cosine"))
    );
    let added = served
        .add(
            "shelf",
            json!([
                {"id": "east", "vector": [1, 0], "metadata": {"side": "right"}},
                {"id": "north", "vector": [0, 1]},
                {"id": "north-east", "vector": [1, 1]},
            ]),
        )
        .await;
    assert_eq!(added, json!({"added": 3, "replaced": 0, "length": 3}));
    let found = served.search("shelf", json!({"vector": [2, 0.1], "k": 2})).await;
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!((&results[0]["id"], &results[0]["metadata"]), (&json!("east"), &json!({"side": "right"})));
    assert_eq!((&results[1]["id"], &results[1]["metadata"]), (&json!("north-east"), &json!({})));
    assert!(results[0]["distance"].as_f64().unwrap() < results[1]["distance"].as_f64().unwrap());
    assert_eq!(found.as_object().unwrap().len(), 1, "{found}");
}

#[tokio::test]
async fn an_index_is_made_once_and_gone_when_it_is_removed() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let (status, answer) = served.post("/vectors/index", json!({"name": "shelf", "dimension": 3})).await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::CONFLICT, "conflict"));
    served.add("shelf", json!([{"id": "a", "vector": [1, 0]}])).await;
    let (_, list) = served.get("/vectors/index").await;
    assert_eq!((&list["indexes"][0]["name"], &list["indexes"][0]["length"]), (&json!("shelf"), &json!(1)));
    let (status, _) = served.ask(Method::DELETE, "/vectors/index/shelf", &Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    for (method, path) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/search"),
        (Method::POST, "/add"),
        (Method::POST, "/merge"),
    ] {
        let body = match path {
            "/merge" => json!({"dest": "x"}),
            "" => Value::Null,
            _ => json!({"vector": [1, 0], "items": []}),
        };
        let (status, answer) = served.ask(method, &format!("/vectors/index/shelf{path}"), &body).await;
        assert_eq!((status, refusal(&answer).0), (StatusCode::NOT_FOUND, "not_found"), "{path}");
    }
    // The same name again has nothing of the one before.
    served.create("shelf", 3).await;
    assert_eq!(served.length("shelf").await, 0);
    served.add("shelf", json!([{"id": "b", "vector": [1, 0, 0]}])).await;
    assert_eq!(served.ids("shelf", json!({"vector": [1, 0, 0]})).await, ["b"]);
}

#[tokio::test]
async fn an_upsert_leaves_or_clears_metadata_as_it_is_told() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let kept = json!({"n": 9_007_199_254_740_993_i64, "x": 0.1, "b": true, "l": ["p", "q"], "t": "ü"});
    served.add("shelf", json!([{"id": "a", "vector": [3, 4], "metadata": kept}])).await;
    let again = served.add("shelf", json!([{"id": "a", "vector": [0, 2]}])).await;
    assert_eq!(again, json!({"added": 1, "replaced": 1, "length": 1}));
    assert_eq!(served.item("shelf", "a").await, json!({"id": "a", "vector": [0.0, 2.0], "metadata": kept}));
    served.vectord.flush().await.unwrap();
    served.add("shelf", json!([{"id": "a", "vector": [1, 2]}])).await;
    assert_eq!(served.item("shelf", "a").await["metadata"], kept);
    served.add("shelf", json!([{"id": "a", "vector": [1, 2], "metadata": {}}])).await;
    assert_eq!(served.item("shelf", "a").await["metadata"], json!({}));
    let got = served.good("/vectors/index/shelf/get", json!({"ids": ["x", "a", "a"]})).await;
    assert_eq!((got["items"].as_array().unwrap().len(), &got["missing"]), (2, &json!(["x"])));
}

#[tokio::test]
async fn a_bad_item_is_named_and_nothing_of_its_batch_is_taken() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let good = json!({"id": "good", "vector": [1, 0]});
    for (bad, part) in [
        (json!({"id": "", "vector": [1, 0]}), "the id is empty"),
        (json!({"id": "x".repeat(1025), "vector": [1, 0]}), "at most 1024"),
        (json!({"id": "a", "vector": [1, 0, 0]}), "3 numbers"),
        (json!({"id": "a", "vector": []}), "0 numbers"),
        (json!({"id": "a", "vector": [0, 0]}), "no direction"),
        (json!({"id": "a", "vector": [1e39, 0]}), "out of range"),
        (json!({"id": "a", "vector": [null, 0]}), "null"),
        (json!({"id": "a", "vector": [1, 0], "metadata": {"x": null}}), "metadata `x` is null"),
        (json!({"id": "a", "vector": [1, 0], "metadata": {"x": {"y": 1}}}), "metadata `x` is an object"),
        (json!({"id": "a", "vector": [1, 0], "meta": {}}), "unknown field `meta`"),
        (json!({"vector": [1, 0]}), "missing field `id`"),
    ] {
        let (status, answer) = served.post("/vectors/index/shelf/add", json!({"items": [good, bad]})).await;
        let (code, message) = refusal(&answer);
        assert_eq!((status, code), (StatusCode::BAD_REQUEST, "bad_request"), "{answer}");
        assert!(message.starts_with("items[1]: ") && message.contains(part), "{message}");
        assert_eq!(answer["error"]["details"], json!({"list": "items", "index": 1}));
    }
    let (status, answer) = served
        .call(Method::POST, "/vectors/index/shelf/add", r#"{"items": [{"id": "a", "vector": [NaN, 1]}]}"#)
        .await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, &answer["error"]["details"]["index"]), (StatusCode::BAD_REQUEST, &json!(0)));
    assert_eq!(served.length("shelf").await, 0);
    let (status, answer) = served.post("/vectors/index/shelf/delete", json!({"ids": ["a", ""]})).await;
    assert_eq!((status, &answer["error"]["details"]["index"]), (StatusCode::BAD_REQUEST, &json!(1)));
}

#[tokio::test]
async fn a_bad_request_says_what_would_help() {
    let served = Served::over(&Store::memory()).await;
    for (body, part) in [
        (json!({"name": "", "dimension": 2}), "`name`: the name is empty"),
        (json!({"name": "a/b", "dimension": 2}), "`name`"),
        (json!({"name": "a", "dimension": 0}), "`dimension` is 0"),
        (json!({"name": "a", "dimension": 20_000}), "1 to 16384"),
        (json!({"name": "a", "dimension": 2, "m": 1}), "`m` is 1"),
        (json!({"name": "a", "dimension": 2, "ef_search": 0}), "`ef_search` is 0"),
        (json!({"name": "a", "dimension": 2, "metric": "manhattan"}), "manhattan"),
        (json!({"name": "a", "dimension": 2, "x": 1}), "unknown field `x`"),
        (json!({"name": "a"}), "missing field `dimension`"),
        (json!({"name": "a", "dimension": 3, "model": "letters"}), "have 4 numbers"),
    ] {
        let (status, answer) = served.post("/vectors/index", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(refusal(&answer).1.contains(part), "{answer}");
    }
    served.create("shelf", 2).await;
    for (body, part) in [
        (json!({}), "exactly one of `vector`, `vectors` and `text`"),
        (json!({"vector": [1, 0], "text": "a"}), "exactly one of"),
        (json!({"vector": [1, 0], "k": 0}), "`k` is 0; 1 to 1000"),
        (json!({"vector": [1, 0], "k": 1001}), "`k` is 1001"),
        (json!({"vector": [1, 0], "ef": 0}), "`ef` is 0"),
        (json!({"vector": [1]}), "`vector`: it has 1 numbers"),
        (json!({"vector": [0, 0]}), "no direction"),
        (json!({"vectors": [[1, 0], [1]]}), "vectors[1]"),
        (json!({"vector": [1, 0], "filter": {"$near": 1}}), "there is no `$near`"),
        (json!({"vector": [1, 0], "filter": [1]}), "an object such as"),
    ] {
        let (status, answer) = served.post("/vectors/index/shelf/search", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(refusal(&answer).1.contains(part), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let huge = vec![b' '; (64 << 20) + 1];
    let (status, _) = served.call(Method::POST, "/vectors/index/shelf/add", huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn filters_are_exact_and_count_what_they_let_through() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let item = |row: u32| {
        let state = ["IL", "OH", "TX"][row as usize % 3];
        let metadata = json!({"row": row, "state": state, "even": row.is_multiple_of(2), "tags": [format!("t{}", row % 5)]});
        json!({"id": format!("{row:03}"), "vector": [1, row], "metadata": metadata})
    };
    let items: Vec<Value> = (0..150).map(item).collect();
    served.add("shelf", json!(items)).await;
    for flushed in [false, true] {
        for (filter, matches) in [
            (json!({}), 150),
            (json!({"state": "IL"}), 50),
            (json!({"state": {"$ne": "IL"}}), 100),
            (json!({"state": {"$in": ["IL", "OH"]}, "even": true}), 50),
            (json!({"row": {"$gte": 10, "$lt": 20.5}}), 11),
            (json!({"row": 7.0}), 1),
            (json!({"tags": "t1"}), 30),
            (json!({"tags": {"$nin": ["t1", "t2"]}}), 90),
            (json!({"$or": [{"row": {"$lt": 3}}, {"row": {"$gt": 147}}]}), 5),
            (json!({"$not": {"even": true}}), 75),
            (json!({"state": {"$not": {"$gt": "IL"}}}), 50),
            (json!({"even": {"$exists": false}}), 0),
        ] {
            let found = served.search("shelf", json!({"vector": [1, 0], "k": 1000, "filter": filter})).await;
            assert_eq!(found["matches"], json!(matches), "{filter} {flushed}");
            assert_eq!(found["results"].as_array().unwrap().len(), matches, "{filter}");
        }
        served.vectord.flush().await.unwrap();
    }
    for (filter, code, part) in [
        (json!({"states": "IL"}), "unknown_field", "`even`, `row`, `state`, `tags`"),
        (json!({"state": 5}), "wrong_type", "compares `state` with a number, and it is a text"),
        (json!({"row": {"$gt": "5"}}), "wrong_type", "a number here"),
        (json!({"even": {"$lt": true}}), "invalid_filter", "not a boolean"),
        (json!({"row": {"$between": [1, 2]}}), "invalid_filter", "`$between`"),
        (json!({"row": null}), "invalid_filter", "null"),
        (json!({"$and": []}), "invalid_filter", "`$and` takes a list"),
    ] {
        let (status, answer) =
            served.post("/vectors/index/shelf/search", json!({"vector": [1, 0], "filter": filter})).await;
        let (found, message) = refusal(&answer);
        assert_eq!((status, found), (StatusCode::BAD_REQUEST, code), "{answer}");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_batch_is_answered_list_by_list() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    served.add("shelf", json!([{"id": "a", "vector": [1, 0]}, {"id": "b", "vector": [0, 1]}])).await;
    let found = served.search("shelf", json!({"vectors": [[0, 1], [1, 0], [0, 2]], "k": 1})).await;
    let ids: Vec<&Value> = found["batches"].as_array().unwrap().iter().map(|batch| &batch[0]["id"]).collect();
    assert_eq!(ids, ["b", "a", "b"]);
    assert!(found.get("results").is_none());
    assert_eq!(served.search("shelf", json!({"vectors": []})).await["batches"], json!([]));
}

#[tokio::test]
async fn a_text_is_searched_with_the_indexs_own_model() {
    let served = Served::over(&Store::memory()).await;
    served.good("/vectors/index", json!({"name": "shelf", "dimension": 4, "model": "letters"})).await;
    served
        .add("shelf", json!([{"id": "a", "vector": letters("aaa")}, {"id": "b", "vector": letters("bb")}]))
        .await;
    assert_eq!(served.ids("shelf", json!({"text": "abba b", "k": 1})).await, ["b"]);
    assert_eq!(served.ids("shelf", json!({"text": "a", "model": MODEL, "k": 1})).await, ["a"]);
    let (status, answer) =
        served.post("/vectors/index/shelf/search", json!({"text": "a", "model": "other"})).await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::CONFLICT, "model_mismatch"));
    let details = &answer["error"]["details"];
    assert_eq!((&details["index"]["model"], &details["request"]["model"]), (&json!(MODEL), &json!("other")));
    let body = json!({"model": "other", "items": [{"id": "c", "vector": [1, 1, 1, 1]}]});
    assert_eq!(served.post("/vectors/index/shelf/add", body).await.0, StatusCode::CONFLICT);
    served.create("plain", 4).await;
    let (status, answer) = served.post("/vectors/index/plain/search", json!({"text": "a"})).await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::BAD_REQUEST, "no_model"));
}

#[tokio::test]
async fn a_built_index_tells_where_its_answers_come_from() {
    let store = Store::memory();
    let rows =
        [("w-1", vec![1.0, 0.0], json!({"state": "IL"})), ("w-o'2", vec![0.0, 1.0], json!({"state": "OH"}))];
    publish(&store, "workers", &rows, 1).await;
    let served = Served::over(&store).await;
    let found = served.search("workers", json!({"vector": [1, 0.5], "k": 2})).await;
    let source = json!({"dataset": "workers", "version": 3, "column": "worker id", "key": "1"});
    assert_eq!((&found["results"][0]["source"], &found["version"]), (&source, &json!(1)));
    assert_eq!(
        found["sql"],
        r#"SELECT * FROM "workers@3" WHERE CAST("worker id" AS VARCHAR) IN ('1', 'o''2')"#
    );
    // A field that was declared is known, though no vector has it.
    let none = served.search("workers", json!({"vector": [1, 0], "filter": {"rank": 3}})).await;
    assert_eq!(
        (&none["matches"], &none["sql"]),
        (&json!(0), &json!(r#"SELECT * FROM "workers@3" WHERE false"#))
    );
    for (path, body) in [
        ("add", json!({"items": [{"id": "x", "vector": [1, 0]}]})),
        ("delete", json!({"ids": ["w-1"]})),
        ("import", json!("x")),
    ] {
        let (status, answer) = served.post(&format!("/vectors/index/workers/{path}"), body).await;
        assert_eq!((status, refusal(&answer).0), (StatusCode::CONFLICT, "built_from_dataset"), "{path}");
        assert_eq!(answer["error"]["details"]["dataset"], "workers");
    }
}

#[tokio::test]
async fn versions_come_and_go_back_while_searches_go_on() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    let row = |id: &'static str| [(id, vec![1.0, 0.0], json!({}))];
    publish(&store, "workers", &row("w-1"), 1).await;
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-1"]);
    publish(&store, "workers", &row("w-2"), 1).await;
    served.vectord.refresh(&support::index_name("workers")).await.unwrap();
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-2"]);
    let info = served.good("/vectors/index/workers/rollback", json!({"version": 1})).await;
    assert_eq!(
        (&info["version"], &info["latest_version"], &info["versions"]),
        (&json!(1), &json!(2), &json!([1, 2]))
    );
    assert_eq!(served.ids("workers", json!({"vector": [1, 0]})).await, ["w-1"]);
    let (status, answer) = served.post("/vectors/index/workers/rollback", json!({"version": 9})).await;
    assert_eq!((status, &answer["error"]["details"]["kept"]), (StatusCode::NOT_FOUND, &json!([2, 1])));
    let next = publish(&store, "workers", &row("w-3"), 1).await;
    assert_eq!((next.version, next.latest_version), (3, 3));
    served.create("shelf", 2).await;
    let (status, answer) = served.post("/vectors/index/shelf/rollback", Value::Null).await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::CONFLICT, "filled_by_clients"));
}

#[tokio::test]
async fn a_merge_copies_what_is_missing_and_can_be_run_again() {
    let served = Served::over(&Store::memory()).await;
    served.create("from", 2).await;
    served.create("into", 2).await;
    served
        .add(
            "from",
            json!([{"id": "a", "vector": [1, 0], "metadata": {"x": 1}}, {"id": "b", "vector": [0, 1]}]),
        )
        .await;
    served.add("into", json!([{"id": "b", "vector": [1, 1], "metadata": {"own": true}}])).await;
    let first = served.good("/vectors/index/from/merge", json!({"dest": "into"})).await;
    let expected =
        json!({"merged": 1, "skipped_already_present": 1, "failed": 0, "length_dest": 2, "length_source": 2});
    assert_eq!(first, expected);
    assert_eq!(served.item("into", "b").await["metadata"], json!({"own": true}));
    assert_eq!(served.item("into", "a").await["metadata"], json!({"x": 1}));
    let again = served.good("/vectors/index/from/merge", json!({"dest": "into", "clear_source": true})).await;
    let expected =
        json!({"merged": 0, "skipped_already_present": 2, "failed": 0, "length_dest": 2, "length_source": 0});
    assert_eq!(again, expected);
    served.create("other", 3).await;
    let (status, _) = served.post("/vectors/index/into/merge", json!({"dest": "other"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = served.post("/vectors/index/into/merge", json!({"dest": "into"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = served.post("/vectors/index/into/merge", json!({"dest": "nowhere"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_index_goes_out_as_parquet_and_comes_back_the_same() {
    let served = Served::over(&Store::memory()).await;
    served.create("from", 3).await;
    served.create("into", 3).await;
    let item = |row: u32| json!({"id": format!("{row}"), "vector": [row, 0.25, 1], "metadata": {"row": row, "t": ["x"]}});
    served.add("from", json!((0..200).map(item).collect::<Vec<_>>())).await;
    let (status, file) = served.call(Method::GET, "/vectors/index/from/export", "").await;
    assert_eq!((status, &file[..4]), (StatusCode::OK, &b"PAR1"[..]));
    let (status, answer) = served.call(Method::POST, "/vectors/index/into/import", file.clone()).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, answer), (StatusCode::OK, json!({"added": 200, "replaced": 0, "length": 200})));
    for id in ["0", "7", "199"] {
        assert_eq!(served.item("into", id).await, served.item("from", id).await);
    }
    served.create("small", 2).await;
    let (status, answer) = served.call(Method::POST, "/vectors/index/small/import", file).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        (status, &answer["error"]["details"]),
        (StatusCode::BAD_REQUEST, &json!({"list": "rows", "index": 0}))
    );
    assert_eq!(served.length("small").await, 0);
    let (status, _) = served.call(Method::POST, "/vectors/index/into/import", "no parquet").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_answer_that_no_memory_holds_is_refused_before_it_is_made() {
    let served = Served::over(&Store::memory()).await;
    served.create("shelf", 2).await;
    let long = "x".repeat(60_000);
    let item = |row: u32| json!({"id": row.to_string(), "vector": [1, row], "metadata": {"text": format!("{row}{long}")}});
    served.add("shelf", json!((0..100).map(item).collect::<Vec<_>>())).await;
    let ask = |vectors: usize| json!({"vectors": vec![[1, 0]; vectors], "k": 100});
    assert_eq!(served.search("shelf", ask(10)).await["batches"].as_array().unwrap().len(), 10);
    let (status, answer) = served.post("/vectors/index/shelf/search", ask(12)).await;
    let (code, message) = refusal(&answer);
    assert_eq!((status, code), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    assert!(message.contains("fewer `vectors`"), "{message}");
    let ids: Vec<String> = (0..2000).map(|row| (row % 100).to_string()).collect();
    let (status, answer) = served.post("/vectors/index/shelf/get", json!({"ids": ids})).await;
    assert_eq!((status, refusal(&answer).0), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
}

#[tokio::test]
async fn an_import_takes_a_file_in_steps_by_bytes() {
    let store = Store::memory();
    let served = Served::over(&store).await;
    served.create("from", 1).await;
    served.create("into", 1).await;
    for first in (0..600).step_by(200) {
        let long = "x".repeat(60_000);
        let item = |row: u32| json!({"id": row.to_string(), "vector": [row + 1], "metadata": {"text": format!("{row}{long}")}});
        served.add("from", json!((first..first + 200).map(item).collect::<Vec<_>>())).await;
    }
    let (_, file) = served.call(Method::GET, "/vectors/index/from/export", "").await;
    let (status, answer) = served.call(Method::POST, "/vectors/index/into/import", file).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(served.length("into").await, 600);
    let records = store.list_all("_vectors/into/log/").await.unwrap();
    assert!(records.iter().all(|record| record.meta.size < 20 << 20), "{records:?}");
}

#[tokio::test]
async fn rows_with_much_metadata_become_a_segment_early() {
    let store = Store::memory();
    let tuning =
        Tuning { flush_rows: 1 << 20, flush_records: 1 << 20, flush_bytes: 1 << 20, ..Tuning::default() };
    let served = Served::with(&store, Settings { tuning, ..settings() }).await;
    served.create("shelf", 2).await;
    let item = |row: u32| json!({"id": row.to_string(), "vector": [1, row], "metadata": {"text": "x".repeat(50_000)}});
    served.add("shelf", json!((0..40).map(item).collect::<Vec<_>>())).await;
    let began = std::time::Instant::now();
    while !store.list_all("_vectors/shelf/segments/").await.unwrap().iter().any(|part| part.meta.size > 0) {
        assert!(began.elapsed().as_secs() < 20, "two megabytes of metadata stay in memory");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
