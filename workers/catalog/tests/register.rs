//! What a register promises.

mod support;

use std::collections::BTreeSet;

use lakehouse_catalog::{Catalog, Error};
use lakehouse_contract::{
    DatasetManifest, Origin,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{SchemaPolicy, WriteMode},
    keys,
};
use lakehouse_store::{Error as StoreError, Store};
use support::{Watched, columns, name, on_every_store, put_object, register, request};

const TWO: &str = "id:int64 city:string";

#[tokio::test]
async fn a_first_register_makes_version_one() {
    on_every_store(async |store| {
        let request = request(&store, "sales", TWO, "rows").await;
        let answer = Catalog::new(store.clone()).register(&request).await.unwrap();
        assert!(!answer.existing);
        let manifest = answer.manifest;
        assert_eq!((manifest.version, manifest.latest_version, manifest.row_count), (1, 1, 3));
        assert_eq!(manifest.dataset_id, name("sales").id());
        assert_eq!(manifest.created_at, manifest.updated_at);
        // Another process reads exactly what this one was told.
        assert_eq!(*Catalog::new(store).get(&name("sales")).await.unwrap().unwrap(), manifest);
    })
    .await;
}

#[tokio::test]
async fn the_same_content_again_keeps_its_version_and_bumps_updated_at() {
    on_every_store(async |store| {
        let catalog = Catalog::new(store.clone());
        let mut request = request(&store, "sales", TWO, "rows").await;
        let first = catalog.register(&request).await.unwrap().manifest;
        request.origin = Some(Origin { source: "sales.csv".into(), ..Origin::default() });
        let again = catalog.register(&request).await.unwrap();
        assert!(again.existing);
        assert!(again.manifest.updated_at > first.updated_at);
        let expected = DatasetManifest {
            updated_at: again.manifest.updated_at,
            origin: request.origin.clone(),
            ..first
        };
        assert_eq!(again.manifest, expected);
        assert_eq!(store.list_all("_catalog/history/").await.unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn other_objects_make_the_next_version_and_keep_the_one_before() {
    on_every_store(async |store| {
        let first = register(&store, "sales", "monday").await;
        let second = register(&store, "sales", "tuesday").await;
        assert_eq!((second.version, second.latest_version), (2, 2));
        assert_eq!(second.created_at, first.created_at);
        let history = Catalog::new(store).history(&name("sales")).await.unwrap();
        assert_eq!(history.current, 2);
        assert_eq!(history.versions, [second, first]);
    })
    .await;
}

#[tokio::test]
async fn another_schema_is_refused_by_name_and_changes_nothing() {
    on_every_store(async |store| {
        let before = register(&store, "sales", "rows").await;
        let other = request(&store, "sales", "id:string town:string", "other rows").await;
        let catalog = Catalog::new(store);
        let error = catalog.register(&other).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "dataset `sales` has another schema: added `town`; removed `city`; \
             changed `id` from int64 to string"
        );
        assert_eq!(*catalog.get(&name("sales")).await.unwrap().unwrap(), before);
    })
    .await;
}

#[tokio::test]
async fn a_schema_that_would_be_refused_is_found_before_anything_is_written() {
    let store = Store::memory();
    let catalog = Catalog::new(store.clone());
    let offered = columns("id:int64 city:string price:float64");
    assert_eq!(catalog.columns_for(&name("sales"), &offered, SchemaPolicy::Reject).await.unwrap(), offered);
    register(&store, "sales", "rows").await;
    let refused = catalog.columns_for(&name("sales"), &offered, SchemaPolicy::Reject).await;
    assert!(matches!(refused, Err(Error::SchemaConflict { .. })));
    assert_eq!(catalog.columns_for(&name("sales"), &offered, SchemaPolicy::Evolve).await.unwrap(), offered);
}

#[tokio::test]
async fn evolve_accepts_added_columns_and_every_column_keeps_its_field_id() {
    on_every_store(async |store| {
        register(&store, "sales", "rows").await;
        let catalog = Catalog::new(store.clone());
        let wider = evolving(&store, "price:float64 city:string id:int64", "wider").await;
        let answer = catalog.register(&wider).await.unwrap();
        assert_eq!(ids(&answer.manifest), [("price", 3), ("city", 2), ("id", 1)]);
        assert_eq!(answer.manifest.version, 2);
        let narrower = evolving(&store, "id:int64 price:float64", "narrower").await;
        assert!(matches!(catalog.register(&narrower).await, Err(Error::SchemaConflict { .. })));
        let retyped = evolving(&store, "price:float64 city:date id:int64", "retyped").await;
        assert!(matches!(catalog.register(&retyped).await, Err(Error::SchemaConflict { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_field_id_of_a_later_version_is_not_given_to_another_column_after_a_rollback() {
    let store = Store::memory();
    let catalog = Catalog::new(store.clone());
    register(&store, "sales", "rows").await;
    catalog.register(&evolving(&store, "id:int64 city:string price:float64", "p").await).await.unwrap();
    catalog.rollback(&name("sales"), Some(1)).await.unwrap();
    let other = evolving(&store, "id:int64 city:string colour:string price:float64", "c").await;
    let answer = catalog.register(&other).await.unwrap();
    assert_eq!(ids(&answer.manifest), [("id", 1), ("city", 2), ("colour", 4), ("price", 3)]);
    assert_eq!(answer.manifest.version, 3);
}

#[tokio::test]
async fn appended_objects_follow_the_current_ones_and_none_is_appended_twice() {
    on_every_store(async |store| {
        let first = register(&store, "sales", "monday").await;
        let catalog = Catalog::new(store.clone());
        let mut tuesday = request(&store, "sales", TWO, "tuesday").await;
        tuesday.write_mode = WriteMode::Append;
        let second = catalog.register(&tuesday).await.unwrap().manifest;
        assert_eq!(second.objects, [first.objects, tuesday.objects.clone()].concat());
        assert_eq!((second.version, second.row_count), (2, 6));
        let again = catalog.register(&tuesday).await.unwrap().manifest;
        assert_eq!((again.version, again.objects), (2, second.objects));
    })
    .await;
}

#[tokio::test]
async fn objects_must_be_in_the_store_before_they_are_registered() {
    on_every_store(async |store| {
        let catalog = Catalog::new(store.clone());
        let mut good = request(&store, "sales", TWO, "rows").await;
        let mut missing = put_object(&store, "sales", &good.schema, "gone").await;
        store.delete(&missing.key).await.unwrap();
        good.objects.push(missing.clone());
        let error = catalog.register(&good).await.unwrap_err().to_string();
        assert!(error.starts_with("objects[1]: nothing is stored under"), "{error}");
        missing.size += 1;
        good.objects[1] = put_object(&store, "sales", &good.schema, "here").await;
        good.objects[1].size += 1;
        let error = catalog.register(&good).await.unwrap_err().to_string();
        assert!(error.contains("has 4 bytes in the store and not 5"), "{error}");
        assert_eq!(catalog.get(&name("sales")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_contradicts_itself_is_refused_with_a_sentence() {
    let store = Store::memory();
    let good = request(&store, "sales", TWO, "rows").await;
    let foreign = request(&store, "other", TWO, "rows").await.objects;
    let mut misnamed = good.objects.clone();
    misnamed[0].sha256 = "0".repeat(64);
    let mut huge = [good.objects.clone(), good.objects.clone()].concat();
    huge[0].rows = u64::MAX;
    for (request, sentence) in [
        (RegisterRequest { name: String::new(), ..good.clone() }, "the name is empty"),
        (RegisterRequest { name: "a/b".into(), ..good.clone() }, "holds '/'"),
        (
            RegisterRequest { schema_fingerprint: String::new(), ..good.clone() },
            "schema_fingerprint is empty",
        ),
        (RegisterRequest { schema_fingerprint: "x".into(), ..good.clone() }, "not that of the schema"),
        (RegisterRequest { schema: columns("id:int64 id:int64"), ..good.clone() }, "schema[1]"),
        (RegisterRequest { objects: foreign, ..good.clone() }, "does not lie below `datasets/sales/`"),
        (RegisterRequest { objects: misnamed, ..good.clone() }, "objects[0]"),
        (RegisterRequest { objects: huge, ..good.clone() }, "64 bits"),
    ] {
        let error = Catalog::new(store.clone()).register(&request).await.unwrap_err().to_string();
        assert!(error.contains(sentence), "{error:?} does not say {sentence:?}");
    }
    assert_eq!(store.list_all("_catalog/").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_registers_none_is_lost() {
    on_every_store(async |store| {
        // Each writer has a catalogue of its own, as if each were a process of its own.
        let mut writers = tokio::task::JoinSet::new();
        for i in 0..16 {
            let store = store.clone();
            writers.spawn(async move { register(&store, "sales", &format!("rows {i}")).await });
        }
        let acknowledged = writers.join_all().await;
        let numbers: BTreeSet<u64> = acknowledged.iter().map(|manifest| manifest.version).collect();
        assert_eq!(numbers, (1..=16).collect());
        let history = Catalog::new(store).history(&name("sales")).await.unwrap();
        assert_eq!(history.damaged, []);
        for manifest in acknowledged {
            let kept = history.versions.iter().find(|kept| kept.version == manifest.version).unwrap();
            assert_eq!(kept.objects, manifest.objects);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_appends_all_arrive() {
    on_every_store(async |store| {
        let mut writers = tokio::task::JoinSet::new();
        for i in 0..16 {
            let store = store.clone();
            writers.spawn(async move {
                let mut request = request(&store, "sales", TWO, &format!("rows {i}")).await;
                request.write_mode = WriteMode::Append;
                Catalog::new(store).register(&request).await.unwrap();
            });
        }
        writers.join_all().await;
        let manifest = Catalog::new(store).get(&name("sales")).await.unwrap().unwrap();
        let keys: BTreeSet<_> = manifest.objects.iter().map(|object| &object.key).collect();
        assert_eq!((keys.len(), manifest.row_count), (16, 48));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_schemas_one_wins_and_the_others_are_refused() {
    on_every_store(async |store| {
        let mut writers = tokio::task::JoinSet::new();
        for i in 0..8 {
            let store = store.clone();
            writers.spawn(async move {
                let request = request(&store, "sales", &format!("column_{i}:int64"), "rows").await;
                Catalog::new(store).register(&request).await
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|answer| matches!(answer, Err(Error::SchemaConflict { .. }))));
        let manifest = Catalog::new(store).get(&name("sales")).await.unwrap().unwrap();
        assert_eq!(*manifest, won.into_iter().next().unwrap().unwrap().manifest);
    })
    .await;
}

#[tokio::test]
async fn a_swap_that_happened_though_it_looked_lost_is_not_done_twice() {
    let watched = Watched::default();
    let store = Store::new(watched.clone());
    register(&store, "sales", "monday").await;
    let key = keys::manifest(&name("sales"));
    *watched.next_swap.lock().unwrap() = Some((StoreError::Conflict { key }, true));
    let mut tuesday = request(&store, "sales", TWO, "tuesday").await;
    tuesday.write_mode = WriteMode::Append;
    let manifest = Catalog::new(store).register(&tuesday).await.unwrap().manifest;
    assert_eq!((manifest.version, manifest.row_count), (2, 6));
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing_that_readers_see() {
    let watched = Watched::default();
    let store = Store::new(watched.clone());
    let before = register(&store, "sales", "monday").await;
    let catalog = Catalog::new(store.clone());
    let tuesday = request(&store, "sales", TWO, "tuesday").await;
    *watched.next_swap.lock().unwrap() = Some((StoreError::Full { message: "no space".into() }, false));
    let error = catalog.register(&tuesday).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Full { .. })), "{error}");
    assert_eq!(*catalog.get(&name("sales")).await.unwrap().unwrap(), before);
    assert_eq!(catalog.history(&name("sales")).await.unwrap().versions, [before]);
}

async fn evolving(store: &Store, schema: &str, content: &str) -> RegisterRequest {
    RegisterRequest { schema_policy: SchemaPolicy::Evolve, ..request(store, "sales", schema, content).await }
}

fn ids(manifest: &DatasetManifest) -> Vec<(&str, i32)> {
    assert_eq!(manifest.schema_fingerprint, schema_fingerprint(&manifest.schema));
    manifest.schema.iter().map(|column| (column.name.as_str(), column.field_id)).collect()
}

#[tokio::test]
async fn listeners_hear_of_each_change_and_only_of_changes() {
    let store = Store::memory();
    let catalog = Catalog::new(store.clone());
    let mut changes = catalog.clone().changes();
    catalog.register(&request(&store, "a", "x:int64", "one").await).await.unwrap();
    catalog.register(&request(&store, "a", "x:int64", "two").await).await.unwrap();
    catalog.rollback(&name("a"), Some(1)).await.unwrap();
    catalog.rollback(&name("a"), Some(1)).await.unwrap();
    assert!(catalog.register(&request(&store, "a", "x:string", "three").await).await.is_err());
    catalog.remove(&name("a")).await.unwrap();
    let heard: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
    assert_eq!(
        heard,
        [name("a"), name("a"), name("a"), name("a")],
        "two registers, one rollback, one removal"
    );
}
