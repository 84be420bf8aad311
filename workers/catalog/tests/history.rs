//! What a rollback, a removal and the history promise.

mod support;

use lakehouse_catalog::{Catalog, Error};
use lakehouse_contract::{DatasetManifest, keys};
use lakehouse_store::{Condition, Store};
use support::{damage, name, on_every_store, register, request};

#[tokio::test]
async fn a_rollback_brings_the_old_number_and_content_back() {
    on_every_store(async |store| {
        let [first, second, third] = three_versions(&store).await;
        let catalog = Catalog::new(store);
        let back = catalog.rollback(&name("sales"), Some(1)).await.unwrap();
        assert!(back.updated_at > third.updated_at);
        let expected = DatasetManifest { latest_version: 3, updated_at: back.updated_at, ..first.clone() };
        assert_eq!(*back, expected);
        let history = catalog.history(&name("sales")).await.unwrap();
        assert_eq!(history.current, 1);
        assert_eq!(history.versions, [third, second, expected]);
    })
    .await;
}

#[tokio::test]
async fn a_rollback_without_a_number_goes_one_step_back() {
    on_every_store(async |store| {
        three_versions(&store).await;
        let catalog = Catalog::new(store);
        assert_eq!(catalog.rollback(&name("sales"), None).await.unwrap().version, 2);
        assert_eq!(catalog.rollback(&name("sales"), None).await.unwrap().version, 1);
        let error = catalog.rollback(&name("sales"), None).await.unwrap_err();
        assert_eq!(error.to_string(), "dataset `sales` has no earlier version; versions 3, 2, 1 are kept");
    })
    .await;
}

#[tokio::test]
async fn a_number_is_never_given_out_twice() {
    on_every_store(async |store| {
        three_versions(&store).await;
        let catalog = Catalog::new(store.clone());
        catalog.rollback(&name("sales"), Some(1)).await.unwrap();
        assert_eq!(register(&store, "sales", "thursday").await.version, 4);
        catalog.rollback(&name("sales"), Some(3)).await.unwrap();
        assert!(catalog.remove(&name("sales")).await.unwrap());
        let answer = catalog.register(&request(&store, "sales", "new:date", "friday").await).await.unwrap();
        assert!(!answer.existing);
        assert_eq!(answer.manifest.version, 5);
    })
    .await;
}

#[tokio::test]
async fn a_rollback_to_the_current_version_writes_nothing() {
    let store = Store::memory();
    let [_, _, third] = three_versions(&store).await;
    assert_eq!(*Catalog::new(store).rollback(&name("sales"), Some(3)).await.unwrap(), third);
}

#[tokio::test]
async fn an_unknown_version_is_refused_with_the_kept_ones() {
    let store = Store::memory();
    three_versions(&store).await;
    let catalog = Catalog::new(store);
    let error = catalog.rollback(&name("sales"), Some(9)).await.unwrap_err();
    assert_eq!(error.to_string(), "dataset `sales` has no version 9; versions 3, 2, 1 are kept");
    let error = catalog.rollback(&name("none"), None).await.unwrap_err();
    assert!(matches!(error, Error::UnknownDataset(_)));
    assert!(matches!(catalog.history(&name("none")).await, Err(Error::UnknownDataset(_))));
}

#[tokio::test]
async fn a_kept_version_is_found_by_its_number() {
    on_every_store(async |store| {
        let [first, second, third] = three_versions(&store).await;
        let catalog = Catalog::new(store.clone());
        let sales = name("sales");
        for expected in [&first, &second, &third] {
            assert_eq!(
                catalog.get_version(&sales, expected.version).await.unwrap().objects,
                expected.objects
            );
        }
        let error = catalog.get_version(&sales, 4).await.unwrap_err();
        assert_eq!(error.to_string(), "dataset `sales` has no version 4; versions 3, 2, 1 are kept");
        let error = catalog.get_version(&name("none"), 1).await.unwrap_err();
        assert!(matches!(error, Error::UnknownDataset(_)));
        damage(&store, "sales").await;
        assert_eq!(catalog.get_version(&sales, 2).await.unwrap().objects, second.objects);
        assert!(catalog.remove(&sales).await.unwrap());
        assert_eq!(catalog.get_version(&sales, 1).await.unwrap().objects, first.objects);
    })
    .await;
}

#[tokio::test]
async fn a_version_whose_rows_are_gone_is_not_served_again() {
    let store = Store::memory();
    let [first, _, third] = three_versions(&store).await;
    store.delete(&first.objects[0].key).await.unwrap();
    let catalog = Catalog::new(store);
    let error = catalog.rollback(&name("sales"), Some(1)).await.unwrap_err().to_string();
    assert!(error.contains("version 1: objects[0]: nothing is stored"), "{error}");
    assert_eq!(*catalog.get(&name("sales")).await.unwrap().unwrap(), third);
}

#[tokio::test]
async fn a_removed_dataset_is_gone_from_the_listing_and_can_be_brought_back() {
    on_every_store(async |store| {
        let [_, _, third] = three_versions(&store).await;
        let catalog = Catalog::new(store);
        assert!(catalog.remove(&name("sales")).await.unwrap());
        assert!(!catalog.remove(&name("sales")).await.unwrap());
        assert_eq!(catalog.list().await.unwrap().datasets, []);
        let back = catalog.rollback(&name("sales"), None).await.unwrap();
        assert_eq!((back.version, &back.objects), (3, &third.objects));
    })
    .await;
}

#[tokio::test]
async fn a_damaged_manifest_is_repaired_by_a_rollback_or_removed() {
    on_every_store(async |store| {
        let [_, second, _] = three_versions(&store).await;
        damage(&store, "sales").await;
        let catalog = Catalog::new(store.clone());
        let error = catalog.register(&request(&store, "sales", "id:int64", "x").await).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        let back = catalog.rollback(&name("sales"), None).await.unwrap();
        assert_eq!((back.version, &back.objects), (2, &second.objects));
        // The lost manifest was version 3, and its number stays its own.
        assert_eq!(register(&store, "sales", "thursday").await.version, 4);
        damage(&store, "sales").await;
        assert!(catalog.remove(&name("sales")).await.unwrap());
        assert_eq!(catalog.list().await.unwrap().damaged, []);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_version_is_named_and_hides_only_itself() {
    let store = Store::memory();
    let [first, _, third] = three_versions(&store).await;
    let key = keys::history_entry(&name("sales"), 2);
    store.put(&key, b"rot".to_vec().into(), Condition::Always).await.unwrap();
    let history = Catalog::new(store).history(&name("sales")).await.unwrap();
    assert_eq!(history.versions, [third, first]);
    assert!(history.damaged[0].message.starts_with("version 2: it is not readable as Parquet"));
}

#[tokio::test]
async fn a_version_under_another_number_is_damaged() {
    let store = Store::memory();
    three_versions(&store).await;
    let bytes = store.read_manifest(&keys::history_entry(&name("sales"), 1)).await.unwrap().unwrap().0;
    let key = keys::history_entry(&name("sales"), 2);
    store.put(&key, bytes.into(), Condition::Always).await.unwrap();
    let error = Catalog::new(store).rollback(&name("sales"), Some(2)).await.unwrap_err().to_string();
    assert!(error.ends_with("version 2: it is version 1"), "{error}");
}

async fn three_versions(store: &Store) -> [DatasetManifest; 3] {
    let first = register(store, "sales", "monday").await;
    let second = register(store, "sales", "tuesday").await;
    [first, second, register(store, "sales", "wednesday").await]
}
