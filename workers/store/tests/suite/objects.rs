//! What is promised of single objects, listings, blobs and manifests.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all};
use lakehouse_store::{ByteRange, Condition, Error, Etag, Payload, Store};

use super::{has_pieces, is_conflict, key, names, piece, pieces, put, read, text};

pub(crate) async fn what_is_put_is_read_back(store: &Store) {
    let etag = put(store, "a/b.parquet", "rows").await;
    assert_eq!(read(store, "a/b.parquet").await.unwrap(), "rows");
    let meta = store.head(&key("a/b.parquet")).await.unwrap();
    assert_eq!((meta.size, &meta.etag), (4, &etag));
    let object = store.get(&key("a/b.parquet"), None).await.unwrap();
    // A GET may say the time in whole seconds.
    assert_eq!((object.meta.size, object.meta.etag, object.range), (4, etag, (0, 4)));
    let age = jiff::Timestamp::now().duration_since(meta.modified).as_secs();
    assert!((-60..60).contains(&age), "written {age} seconds ago");
}

pub(crate) async fn nothing_is_not_found(store: &Store) {
    for name in ["a", "a/b", "a/b.parquet"] {
        assert!(
            matches!(store.get(&key(name), None).await, Err(Error::NotFound { key: found }) if found == key(name))
        );
        assert!(matches!(store.head(&key(name)).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(store.read_manifest(&key("a")).await.unwrap(), None);
    assert_eq!(names(store, "").await, [""; 0]);
}

pub(crate) async fn create_happens_once(store: &Store) {
    store.put(&key("a"), text("first"), Condition::Absent).await.unwrap();
    assert!(is_conflict(&store.put(&key("a"), text("second"), Condition::Absent).await));
    assert_eq!(read(store, "a").await.unwrap(), "first");
}

pub(crate) async fn an_update_needs_the_current_mark(store: &Store) {
    let first = put(store, "a", "first").await;
    let second = store.put(&key("a"), text("second"), Condition::Matches(first.clone())).await.unwrap();
    assert!(is_conflict(&store.put(&key("a"), text("third"), Condition::Matches(first)).await));
    assert_eq!(read(store, "a").await.unwrap(), "second");
    assert_eq!(store.head(&key("a")).await.unwrap().etag, second);
}

pub(crate) async fn an_update_of_nothing_is_a_conflict(store: &Store) {
    let gone = put(store, "a", "content").await;
    store.delete(&key("a")).await.unwrap();
    assert!(is_conflict(&store.put(&key("a"), text("again"), Condition::Matches(gone)).await));
    assert!(matches!(store.head(&key("a")).await, Err(Error::NotFound { .. })));
}

pub(crate) async fn equal_sizes_in_a_row_have_marks_of_their_own(store: &Store) {
    let mut marks = std::collections::HashSet::new();
    for number in 0..20 {
        assert!(marks.insert(put(store, "a", &format!("{number:04}")).await), "write {number}");
    }
}

pub(crate) async fn one_of_many_creators_wins(store: &Store) {
    let key = key("a");
    let answers = join_all((0..16).map(|number| {
        let body = text(&number.to_string());
        store.put(&key, body, Condition::Absent)
    }))
    .await;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert!(answers.iter().filter(|answer| answer.is_err()).all(is_conflict));
    assert_eq!(read(store, "a").await.unwrap(), winners[0].0.to_string());
}

pub(crate) async fn no_update_of_many_is_lost(store: &Store) {
    put(store, "counter", "0").await;
    join_all((0..4).map(|_| async {
        let mut done = 0;
        while done < 10 {
            let (bytes, etag) = store.read_manifest(&key("counter")).await.unwrap().unwrap();
            let next = std::str::from_utf8(&bytes).unwrap().parse::<u32>().unwrap() + 1;
            match store.swap_manifest(&key("counter"), Some(etag), next.to_string().into()).await {
                Ok(_) => done += 1,
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }))
    .await;
    assert_eq!(read(store, "counter").await.unwrap(), "40");
}

pub(crate) async fn a_broken_body_writes_nothing(store: &Store) {
    for size in [10, 9 << 20] {
        let broken = [Ok(piece(0, size)), Err(Error::Body { message: "the client went away".into() })];
        let body = Payload::Stream(futures::stream::iter(broken).boxed());
        let error = store.put(&key("a"), body, Condition::Always).await.unwrap_err();
        assert_eq!(error.to_string(), "the body could not be read: the client went away");
        assert!(matches!(store.head(&key("a")).await, Err(Error::NotFound { .. })));
        assert_eq!(names(store, "").await, [""; 0]);
    }
}

pub(crate) async fn a_stream_of_many_pieces_arrives_whole(store: &Store) {
    for (name, count, size) in [("empty", 0, 1), ("small", 3, 5), ("large", 90, 100_003)] {
        store.put(&key(name), pieces(count, size), Condition::Absent).await.unwrap();
        assert_eq!(store.head(&key(name)).await.unwrap().size, (count * size) as u64);
        assert!(has_pieces(store, name, count, size).await, "{name}");
        let again = store.put(&key(name), pieces(count, size), Condition::Absent).await;
        assert!(is_conflict(&again), "{name}");
    }
}

pub(crate) async fn ranges_are_cut_as_asked(store: &Store) {
    put(store, "digits", "0123456789").await;
    let bounded = |start, end| ByteRange::Bounded { start, end };
    for (range, expected, from) in [
        (bounded(0, 1), "0", 0),
        (bounded(3, 6), "345", 3),
        (bounded(8, 100), "89", 8),
        (ByteRange::From(7), "789", 7),
        (ByteRange::Last(3), "789", 7),
        (ByteRange::Last(100), "0123456789", 0),
    ] {
        let object = store.get(&key("digits"), Some(range)).await.unwrap();
        assert_eq!((object.meta.size, object.range), (10, (from, from + expected.len() as u64)), "{range:?}");
        assert_eq!(object.bytes(10).await.unwrap(), expected, "{range:?}");
    }
    for range in [bounded(10, 11), bounded(5, 5), ByteRange::From(10), ByteRange::Last(0)] {
        let answer = store.get(&key("digits"), Some(range)).await;
        assert!(matches!(answer, Err(Error::Range { size: 10, .. })), "{range:?}: {answer:?}");
    }
    assert!(matches!(store.get(&key("none"), Some(bounded(0, 1))).await, Err(Error::NotFound { .. })));
}

pub(crate) async fn an_empty_object_has_no_range(store: &Store) {
    put(store, "empty", "").await;
    assert_eq!(read(store, "empty").await.unwrap(), "");
    for range in [ByteRange::From(0), ByteRange::Last(5), ByteRange::Bounded { start: 0, end: 1 }] {
        let answer = store.get(&key("empty"), Some(range)).await;
        assert!(matches!(answer, Err(Error::Range { size: 0, .. })), "{range:?}: {answer:?}");
    }
}

pub(crate) async fn deleting_is_final_and_repeatable(store: &Store) {
    put(store, "a/b", "content").await;
    for _ in 0..2 {
        store.delete(&key("a/b")).await.unwrap();
        assert!(matches!(read(store, "a/b").await, Err(Error::NotFound { .. })));
        assert_eq!(names(store, "").await, [""; 0]);
    }
    store.delete(&key("a")).await.unwrap();
    store.put(&key("a/b"), text("anew"), Condition::Absent).await.unwrap();
}

pub(crate) async fn a_listing_is_in_the_order_of_bytes(store: &Store) {
    let mut keys = ["a/b", "a-b", "a.b", "a0", "b/c/d", "b/c-d", "b/c.parquet", "A", "é", "~", "b/cé"];
    join_all(keys.map(|name| put(store, name, name))).await;
    keys.sort_unstable();
    assert_eq!(names(store, "").await, keys);
    let listed = store.list("a0", None, 1).await.unwrap().objects.remove(0);
    let head = store.head(&key("a0")).await.unwrap();
    assert_eq!((listed.meta.size, listed.meta.etag), (2, head.etag));
}

pub(crate) async fn a_listing_goes_on_where_it_ended(store: &Store) {
    let all: Vec<String> =
        (0..25).map(|number| format!("d{}/f{}/{number}", number % 3, number % 5)).collect();
    join_all(all.iter().map(|name| put(store, name, "x"))).await;
    let expected = names(store, "").await;
    assert_eq!(expected.len(), 25);
    for limit in [1, 2, 7, 24, 25, 26] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = store.list("", found.last().map(String::as_str), limit).await.unwrap();
            assert!(page.objects.len() <= limit);
            found.extend(page.objects.into_iter().map(|listed| listed.key.to_string()));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    // A place that is no key, before, between and behind the keys.
    for (after, count) in [("c", 25), ("d0/f9", 16), ("d2", 8), ("e", 0)] {
        assert_eq!(store.list("", Some(after), 100).await.unwrap().objects.len(), count, "after {after}");
    }
}

pub(crate) async fn a_prefix_is_a_start_of_the_key_and_no_path(store: &Store) {
    for name in ["sales/1", "sales/2/x", "sales-old/1", "sale"] {
        put(store, name, "x").await;
    }
    assert_eq!(names(store, "sales/").await, ["sales/1", "sales/2/x"]);
    assert_eq!(names(store, "sales").await, ["sales-old/1", "sales/1", "sales/2/x"]);
    assert_eq!(names(store, "sales/2").await, ["sales/2/x"]);
    for none in ["sales/3", "x", "../", "sales/../", "/", "//", "./"] {
        assert_eq!(names(store, none).await, [""; 0], "{none}");
    }
}

pub(crate) async fn an_object_and_objects_below_it_live_together(store: &Store) {
    for name in ["a", "a/b", "a/b/c"] {
        put(store, name, name).await;
    }
    for name in ["a", "a/b", "a/b/c"] {
        assert_eq!(read(store, name).await.unwrap(), name);
    }
    store.delete(&key("a/b")).await.unwrap();
    assert_eq!(read(store, "a").await.unwrap(), "a");
    assert_eq!(read(store, "a/b/c").await.unwrap(), "a/b/c");
}

pub(crate) async fn odd_names_come_back_as_they_were(store: &Store) {
    let mut keys = [
        "a b+c%20",
        "lakehouse.json",
        ".lakehouse/locks/00",
        "x.object",
        "x.folder/y.parquet/z.json",
        "ünï/ço dé",
        "q?x=1&y#z",
        "back\\slash",
        "\"quoted\" <&>",
        "lost+found/x",
    ];
    for name in keys {
        put(store, name, name).await;
    }
    keys.sort_unstable();
    assert_eq!(names(store, "").await, keys);
    for name in keys {
        assert_eq!(read(store, name).await.unwrap(), name);
        assert_eq!(names(store, name).await, [name]);
    }
}

pub(crate) async fn a_reader_keeps_what_it_opened(store: &Store) {
    store.put(&key("a"), pieces(20, 100_000), Condition::Always).await.unwrap();
    let mut body = store.get(&key("a"), None).await.unwrap().body;
    let mut found = body.try_next().await.unwrap().unwrap().to_vec();
    put(store, "a", "another").await;
    while let Some(piece) = body.try_next().await.unwrap() {
        found.extend_from_slice(&piece);
    }
    let expected: Vec<u8> = (0..20).flat_map(|index| piece(index, 100_000)).collect();
    assert!(found == expected, "{} bytes are not those of the first content", found.len());
}

pub(crate) async fn a_part_below_a_prefix_is_a_store_of_its_own(store: &Store) {
    let (left, right) = (store.below(key("tenants/a")), store.below(key("tenants/ab")));
    put(&left, "x/1", "left").await;
    put(&right, "x/1", "right").await;
    assert_eq!(names(&left, "").await, ["x/1"]);
    assert_eq!(names(&left, "x/").await, ["x/1"]);
    assert_eq!(left.list("", Some("x/0"), 10).await.unwrap().objects.len(), 1);
    assert_eq!(left.list("", Some("x/1"), 10).await.unwrap().objects.len(), 0);
    assert_eq!(names(store, "").await, ["tenants/a/x/1", "tenants/ab/x/1"]);
    assert_eq!(read(&left, "x/1").await.unwrap(), "left");
    let missing = left.get(&key("y"), None).await.unwrap_err();
    assert_eq!(missing.to_string(), "nothing is stored under `y`");
    assert!(is_conflict(&left.put(&key("x/1"), text("again"), Condition::Absent).await));
    left.delete(&key("x/1")).await.unwrap();
    assert_eq!(names(store, "").await, ["tenants/ab/x/1"]);
    let too_long = key("k/".repeat(511).trim_end_matches('/'));
    assert!(matches!(left.put(&too_long, text("x"), Condition::Always).await, Err(Error::UnfitKey { .. })));
    assert!(matches!(left.head(&too_long).await, Err(Error::NotFound { .. })));
}

pub(crate) async fn blobs_are_named_by_their_content(store: &Store) {
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let blob = store.put_blob(&key("rows"), "parquet", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(blob.key, key(&format!("rows/{HELLO}.parquet")));
    assert_eq!((blob.size, blob.sha256.as_str()), (5, HELLO));
    let before = store.head(&blob.key).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hello").unwrap();
    let again = store.put_blob_file(&key("rows"), "parquet", HELLO.into(), file.path()).await.unwrap();
    assert_eq!((blob.existed, again.existed), (false, true));
    assert_eq!((again.key, again.size, again.sha256), (blob.key.clone(), blob.size, blob.sha256));
    assert_eq!(store.head(&blob.key).await.unwrap(), before, "written once");
}

pub(crate) async fn a_fetched_blob_is_checked(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    let content = piece(3, 10 << 20);
    std::fs::write(&source, &content).unwrap();
    let named = store.put_blob(&key("b"), "bin", content.clone()).await.unwrap();
    store.delete(&named.key).await.unwrap();
    let blob = store.put_blob_file(&key("b"), "bin", named.sha256.clone(), &source).await.unwrap();
    store.fetch_blob(&blob.key, &blob.sha256, &copy).await.unwrap();
    assert!(std::fs::read(&copy).unwrap() == content);
    store.put(&blob.key, text("something else"), Condition::Always).await.unwrap();
    let error = store.fetch_blob(&blob.key, &blob.sha256, &copy).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

pub(crate) async fn a_manifest_is_swapped_by_one_writer_only(store: &Store) {
    let name = key("_catalog/manifests/sales.parquet");
    let first = store.swap_manifest(&name, None, "1".into()).await.unwrap();
    assert!(is_conflict(&store.swap_manifest(&name, None, "other".into()).await));
    let (content, seen) = store.read_manifest(&name).await.unwrap().unwrap();
    assert_eq!((content, &seen), (Bytes::from_static(b"1"), &first));
    store.swap_manifest(&name, Some(seen), "2".into()).await.unwrap();
    assert!(is_conflict(&store.swap_manifest(&name, Some(first), "late".into()).await));
    let unknown = Etag("\"never\"".into());
    assert!(is_conflict(&store.swap_manifest(&name, Some(unknown), "late".into()).await));
    assert_eq!(store.read_manifest(&name).await.unwrap().unwrap().0, "2");
}
