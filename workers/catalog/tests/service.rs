//! catalogd's answers, through its router.
#![allow(clippy::unwrap_used, reason = "tests panic; clippy knows it only inside test functions")]

mod support;

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use lakehouse_catalog::{Catalog, Catalogd, router};
use lakehouse_contract::{catalog::RegisterRequest, keys};
use lakehouse_store::{Condition, Store};
use serde_json::{Value, json};
use support::{damage, name, register, request};
use tower::ServiceExt;

#[tokio::test]
async fn a_register_answers_the_manifest_and_whether_the_name_was_known() {
    let store = Store::memory();
    let body = json(&request(&store, "sales", "id:int64", "rows").await);
    let (status, first) = post(&store, "/catalog/register", &body).await;
    assert_eq!((status, &first["existing"], &first["version"]), (StatusCode::OK, &json!(false), &json!(1)));
    assert_eq!(first["schema"], json!([{"name": "id", "type": "int64", "field_id": 1}]));
    let (status, again) = post(&store, "/catalog/register", &body).await;
    assert_eq!((status, &again["existing"]), (StatusCode::OK, &json!(true)));
    assert_eq!(again["dataset_id"], first["dataset_id"]);
}

#[tokio::test]
async fn a_bad_register_is_a_400_that_names_what_is_wrong() {
    let store = Store::memory();
    let good = request(&store, "sales", "id:int64", "rows").await;
    let nameless = RegisterRequest { name: String::new(), ..good.clone() };
    let unprinted = RegisterRequest { schema_fingerprint: String::new(), ..good.clone() };
    let mut absent = good.clone();
    absent.objects[0].size += 1;
    for (body, sentence) in [
        (json(&nameless), "the name is empty"),
        (json(&unprinted), "schema_fingerprint is empty"),
        (json(&absent), "objects[0]"),
        ("{".to_owned(), "not the JSON that is expected"),
        (json!({"name": "a", "nmae": 1}).to_string(), "nmae"),
    ] {
        let (status, answer) = post(&store, "/catalog/register", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(sentence), "{message:?} does not say {sentence:?}");
    }
    let (_, answer) = post(&store, "/catalog/register", &json(&absent)).await;
    assert_eq!(answer["error"]["details"], json!({"index": 0}));
}

#[tokio::test]
async fn another_fingerprint_is_a_409_that_lists_the_columns() {
    let store = Store::memory();
    register(&store, "sales", "rows").await;
    let body = json(&request(&store, "sales", "id:string price:float64", "rows").await);
    let (status, answer) = post(&store, "/catalog/register", &body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["error"]["code"], "schema_conflict");
    assert_eq!(
        answer["error"]["details"]["difference"],
        json!({
            "added": ["price"],
            "removed": ["city"],
            "changed": [{"name": "id", "from": "int64", "to": "string"}],
            "reordered": false,
        })
    );
}

#[tokio::test]
async fn a_manifest_is_found_by_name_or_is_a_404() {
    let store = Store::memory();
    let manifest = register(&store, "sales", "rows").await;
    let (status, answer) = get(&store, "/catalog/manifest/sales").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer, serde_json::to_value(manifest).unwrap());
    let (status, answer) = get(&store, "/catalog/manifest/none").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"]["message"], "there is no dataset `none`");
    assert_eq!(get(&store, "/catalog/manifest/a%2Fb").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get(&store, "/catalog/manifest/%FF").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_damaged_manifest_is_a_500_with_its_name_and_the_list_still_answers() {
    let store = Store::memory();
    register(&store, "good", "rows").await;
    register(&store, "bad", "rows").await;
    damage(&store, "bad").await;
    let (status, answer) = get(&store, "/catalog/manifest/bad").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer["error"]["code"], "damaged_manifest");
    assert_eq!(answer["error"]["details"], json!({"name": "bad"}));
    let (status, answer) = get(&store, "/catalog/list").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["datasets"].as_array().unwrap().len(), 1);
    assert_eq!(answer["damaged"][0]["name"], "bad");
}

#[tokio::test]
async fn a_rollback_takes_a_version_or_goes_one_step_back() {
    let store = Store::memory();
    for content in ["monday", "tuesday", "wednesday"] {
        register(&store, "sales", content).await;
    }
    let (status, answer) = post(&store, "/catalog/rollback/sales", "").await;
    assert_eq!((status, &answer["version"]), (StatusCode::OK, &json!(2)));
    let (status, answer) = post(&store, "/catalog/rollback/sales", r#"{"version": 1}"#).await;
    assert_eq!((status, &answer["version"]), (StatusCode::OK, &json!(1)));
    let (status, answer) = post(&store, "/catalog/rollback/sales", r#"{"version": 7}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"]["details"], json!({"kept": [3, 2, 1]}));
    assert_eq!(post(&store, "/catalog/rollback/sales", r#"{"v": 1}"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&store, "/catalog/rollback/none", "").await.0, StatusCode::NOT_FOUND);
    let (status, answer) = get(&store, "/catalog/history/sales").await;
    assert_eq!((status, &answer["current"]), (StatusCode::OK, &json!(1)));
    assert_eq!(answer["versions"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_rollback_that_would_not_last_is_a_409_and_changes_nothing() {
    let store = Store::memory();
    register(&store, "sales", "monday").await;
    let second = register(&store, "sales", "tuesday").await;
    let catalog = Catalog::new(store);
    let catalogd = Catalogd::new(catalog.clone()).rolls_back_where(|name| Err(format!("not `{name}`")));
    let request = Request::post("/catalog/rollback/sales").body(Body::empty()).unwrap();
    let answer = router(catalogd).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(*catalog.get(&second.name).await.unwrap().unwrap(), second);
}

#[tokio::test]
async fn who_must_know_of_a_change_is_told_before_the_answer() {
    let store = Store::memory();
    register(&store, "sales", "monday").await;
    register(&store, "sales", "tuesday").await;
    let told = Arc::<Mutex<Vec<String>>>::default();
    let catalogd = Catalogd::new(Catalog::new(store.clone())).on_published({
        let told = told.clone();
        move |name| {
            told.lock().unwrap().push(name.to_string());
            std::future::ready(())
        }
    });
    let ask = async |method, path, body: &str| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_owned())).unwrap();
        router(catalogd.clone()).oneshot(request).await.unwrap().status()
    };
    assert_eq!(ask(Method::GET, "/catalog/list", "").await, StatusCode::OK);
    assert_eq!(ask(Method::POST, "/catalog/rollback/none", "").await, StatusCode::NOT_FOUND);
    assert_eq!(*told.lock().unwrap(), [""; 0], "nothing has changed");
    assert_eq!(ask(Method::POST, "/catalog/rollback/sales", "").await, StatusCode::OK);
    let body = json(&request(&store, "other", "id:int64", "rows").await);
    assert_eq!(ask(Method::POST, "/catalog/register", &body).await, StatusCode::OK);
    assert_eq!(*told.lock().unwrap(), ["sales", "other"]);
}

#[tokio::test]
async fn a_declaration_is_kept_as_it_is_until_it_is_taken_back() {
    let store = Store::memory();
    let path = "/catalog/declared/sales";
    let (status, answer) = get(&store, path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"]["message"], "nothing is declared of dataset `sales`");
    for spec in [json!({"source": {"upload": {}}, "ofTomorrow": [1]}), json!({"suspend": true})] {
        let declaration = json!({ "spec": spec });
        assert_eq!(send(&store, Method::PUT, path, &declaration.to_string()).await.0, StatusCode::NO_CONTENT);
        assert_eq!(get(&store, path).await, (StatusCode::OK, declaration));
    }
    for _ in 0..2 {
        assert_eq!(send(&store, Method::DELETE, path, "").await.0, StatusCode::NO_CONTENT);
        assert_eq!(get(&store, path).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_declaration_is_an_object_of_at_most_a_mebibyte_with_a_spec() {
    let store = Store::memory();
    let path = "/catalog/declared/sales";
    for body in ["", "[]", r#"{"spec": []}"#, r#"{"spec": "text"}"#, r#"{"spec": {}, "status": {}}"#, "{}"] {
        let (status, answer) = send(&store, Method::PUT, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
    }
    let large = json!({"spec": {"a": "x".repeat(1 << 20)}}).to_string();
    assert_eq!(send(&store, Method::PUT, path, &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let elsewhere = "/catalog/declared/a%2Fb";
    assert_eq!(send(&store, Method::PUT, elsewhere, r#"{"spec": {}}"#).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get(&store, path).await.0, StatusCode::NOT_FOUND);
    store.put(&keys::declared(&name("sales")), b"{".to_vec().into(), Condition::Always).await.unwrap();
    let (status, answer) = get(&store, path).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("damaged_declaration"))
    );
}

async fn get(store: &Store, path: &str) -> (StatusCode, Value) {
    send(store, Method::GET, path, "").await
}

async fn post(store: &Store, path: &str, body: &str) -> (StatusCode, Value) {
    send(store, Method::POST, path, body).await
}

async fn send(store: &Store, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let answer = router(Catalogd::new(Catalog::new(store.clone()))).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    (status, body)
}

fn json(request: &RegisterRequest) -> String {
    serde_json::to_string(request).unwrap()
}
