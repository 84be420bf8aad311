//! What readers see, and what it costs them.

mod support;

use std::collections::HashMap;

use lakehouse_catalog::Catalog;
use lakehouse_contract::{Key, keys};
use lakehouse_store::{Condition, Store};
use parquet::file::reader::{FileReader, SerializedFileReader};
use support::{Watched, damage, name, on_every_store, register};

#[tokio::test]
async fn an_empty_store_lists_nothing() {
    on_every_store(async |store| {
        let listing = Catalog::new(store).list().await.unwrap();
        assert_eq!((listing.datasets.len(), listing.damaged.len()), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn datasets_are_listed_by_name() {
    on_every_store(async |store| {
        // By key `a-b.parquet` would come before `a.parquet`.
        for dataset in ["b", "a-b", "a", "A"] {
            register(&store, dataset, "rows").await;
        }
        let listing = Catalog::new(store).list().await.unwrap();
        let names: Vec<&str> = listing.datasets.iter().map(|manifest| manifest.name.as_str()).collect();
        assert_eq!(names, ["A", "a", "a-b", "b"]);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_manifest_is_named_and_hides_only_its_own_dataset() {
    on_every_store(async |store| {
        register(&store, "good", "rows").await;
        register(&store, "bad", "rows").await;
        damage(&store, "bad").await;
        let odd = Key::parse("_catalog/manifests/no such name.parquet").unwrap();
        store.put(&odd, b"x".to_vec().into(), Condition::Always).await.unwrap();
        let moved = store.read_manifest(&keys::manifest(&name("good"))).await.unwrap().unwrap().0;
        store.put(&keys::manifest(&name("moved")), moved.into(), Condition::Always).await.unwrap();

        let catalog = Catalog::new(store);
        let listing = catalog.list().await.unwrap();
        assert_eq!(listing.datasets.len(), 1);
        let damaged: HashMap<_, _> =
            listing.damaged.iter().map(|damaged| (damaged.name.as_str(), damaged.message.as_str())).collect();
        assert!(damaged["bad"].starts_with("it is not readable as Parquet"));
        assert_eq!(damaged["moved"], "it is the manifest of `good`");
        assert!(damaged["no such name.parquet"].contains("is not `_catalog/manifests/<dataset>.parquet`"));
        let error = catalog.get(&name("bad")).await.unwrap_err().to_string();
        assert!(error.starts_with("the manifest of dataset `bad` is damaged: "), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_listing_reads_only_what_changed_since_the_last_one() {
    let watched = Watched::default();
    let store = Store::new(watched.clone());
    for dataset in ["a", "b", "c"] {
        register(&store, dataset, "rows").await;
    }
    damage(&store, "c").await;
    let catalog = Catalog::new(store.clone());
    watched.asked();
    catalog.list().await.unwrap();
    assert_eq!(watched.asked(), (1, 3));
    catalog.list().await.unwrap();
    assert_eq!(watched.asked(), (1, 0), "nothing changed");
    register(&store, "b", "other rows").await;
    watched.asked();
    let listing = catalog.list().await.unwrap();
    assert_eq!(watched.asked(), (1, 1));
    assert_eq!(listing.datasets[1].version, 2);
    assert_eq!(listing.damaged[0].name, "c", "what is known to be damaged is still said");
}

#[tokio::test]
async fn a_reader_never_knows_more_or_less_than_the_store() {
    on_every_store(async |store| {
        let (here, there) = (Catalog::new(store.clone()), Catalog::new(store.clone()));
        let first = register(&store, "sales", "monday").await;
        assert_eq!(*here.get(&name("sales")).await.unwrap().unwrap(), first);
        assert_eq!(here.list().await.unwrap().datasets.len(), 1);
        there.remove(&name("sales")).await.unwrap();
        assert_eq!(here.get(&name("sales")).await.unwrap(), None);
        assert_eq!(here.list().await.unwrap().datasets, []);
        let second = register(&store, "sales", "tuesday").await;
        assert_eq!(*here.get(&name("sales")).await.unwrap().unwrap(), second);
    })
    .await;
}

#[tokio::test]
async fn a_manifest_is_one_parquet_row_with_nested_columns() {
    let store = Store::memory();
    register(&store, "sales", "rows").await;
    let file = store.read_manifest(&keys::manifest(&name("sales"))).await.unwrap().unwrap().0;
    let reader = SerializedFileReader::new(file).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 1);
    let row = reader.get_row_iter(None).unwrap().next().unwrap().unwrap().to_string();
    assert!(row.contains("name: \"sales\""), "{row}");
    assert!(row.contains("schema: [{name: \"id\", type: \"int64\", field_id: 1}, {name: \"city\""), "{row}");
    assert!(row.contains("objects: [{key: \"datasets/sales/"), "{row}");
    assert!(row.contains("origin: null"), "{row}");
}
