//! The folder backend keeps every promise, and those that only a folder makes: to whoever looks into it, to other
//! processes, and after a crash.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lakehouse_contract::dataset::hex;
use lakehouse_store::{Condition, Error, Payload, Store, folder::Folder};
use sha2::{Digest, Sha256};
use suite::{key, names, put, read, text};
use tempfile::TempDir;

mod suite;

for_each_promise!(async {
    let folder = TempDir::new().unwrap();
    (Store::folder(folder.path().join("made/on/the/way")).await.unwrap(), folder)
});

#[tokio::test]
async fn a_blob_is_a_plain_file_to_whoever_looks() {
    let (store, folder) = fresh().await;
    let blob = store.put_blob(&key("datasets/us-airports.v2/ab12"), "parquet", "rows".into()).await.unwrap();
    let path = folder.path().canonicalize().unwrap().join(blob.key.as_str());
    assert_eq!(store.local_file(&blob.key), Some(path.clone()));
    assert_eq!(fs::read(&path).unwrap(), b"rows");
    assert_eq!(store.local_file(&key("datasets/none.parquet")), None);
    assert_eq!(
        store.below(key("datasets")).local_file(&key("us-airports.v2")),
        None,
        "a folder is no object"
    );
}

#[tokio::test]
async fn files_that_are_no_objects_are_not_listed() {
    let (store, folder) = fresh().await;
    put(&store, "a/b.parquet", "rows").await;
    fs::write(folder.path().join(".DS_Store"), "x").unwrap();
    fs::write(folder.path().join("a/notes.txt"), "x").unwrap();
    assert_eq!(names(&store, "").await, ["a/b.parquet"]);
}

#[tokio::test]
async fn an_object_that_was_edited_by_hand_has_another_mark() {
    let (store, folder) = fresh().await;
    let seen = put(&store, "a.json", "{}").await;
    fs::write(folder.path().join("a.json"), "[]").unwrap();
    assert!(suite::is_conflict(&store.put(&key("a.json"), text("x"), Condition::Matches(seen)).await));
}

#[tokio::test]
async fn a_copied_folder_is_the_same_store() {
    let (store, folder) = fresh().await;
    let etag = put(&store, "a.json", "{}").await;
    let copies = TempDir::new().unwrap();
    let copy = copies.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(folder.path()).arg(&copy).status().unwrap().success());
    let copy = Store::folder(&copy).await.unwrap();
    assert_eq!(read(&copy, "a.json").await.unwrap(), "{}");
    copy.put(&key("a.json"), text("[]"), Condition::Matches(etag)).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_was_removed_by_hand_is_made_again() {
    let (store, folder) = fresh().await;
    put(&store, "a/b/c", "first").await;
    fs::remove_dir_all(folder.path().join("a")).unwrap();
    put(&store, "a/b/c", "second").await;
    assert_eq!(read(&store, "a/b/c").await.unwrap(), "second");
}

#[tokio::test]
async fn a_key_that_no_file_can_have_is_refused_and_holds_nothing() {
    let (store, _folder) = fresh().await;
    let long = key(&format!("a/{}", "s".repeat(300)));
    let error = store.put(&long, text("x"), Condition::Always).await.unwrap_err();
    assert!(error.to_string().ends_with("a segment has 300 bytes; a folder holds at most 248"), "{error}");
    assert!(matches!(store.head(&long).await, Err(Error::NotFound { .. })));
    store.delete(&long).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_another_use_is_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    let error = Store::folder(folder.path()).await.unwrap_err();
    assert!(matches!(error, Error::Unfit { .. }));
    assert!(error.to_string().contains("is not a Lakehouse folder (it holds `thesis.tex`"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was scattered");
}

#[tokio::test]
async fn a_folder_of_a_newer_version_is_refused() {
    let (_store, folder) = fresh().await;
    let marker = folder.path().join("lakehouse.json");
    assert_eq!(fs::read_to_string(&marker).unwrap(), "{\"layout\":1}\n");
    fs::write(&marker, r#"{"layout":2,"since":"later"}"#).unwrap();
    let error = Store::folder(folder.path()).await.unwrap_err().to_string();
    assert!(
        error.contains("was written by a newer version of Lakehouse (layout 2; this one reads up to 1)"),
        "{error}"
    );
    fs::write(&marker, "not JSON").unwrap();
    let error = Store::folder(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("does not say which layout"), "{error}");
}

#[tokio::test]
async fn a_place_where_no_folder_can_be_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/lakehouse")] {
        let error = Store::folder(&path).await.unwrap_err();
        assert!(matches!(error, Error::Unfit { .. } | Error::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not() {
    let (store, folder) = fresh().await;
    let writing = folder.path().join(".lakehouse/writing");
    fs::write(writing.join("left"), "half a body").unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let body = futures::stream::once(async move {
        receiver.await.unwrap();
        Ok("whole".into())
    });
    let put = tokio::spawn({
        let store = store.clone();
        async move { store.put(&key("a"), Payload::Stream(Box::pin(body)), Condition::Absent).await }
    });
    while fs::read_dir(&writing).unwrap().count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Folder::open(folder.path()).await.unwrap();
    assert_eq!(fs::read_dir(&writing).unwrap().count(), 1);
    sender.send(()).unwrap();
    put.await.unwrap().unwrap();
    assert_eq!(read(&store, "a").await.unwrap(), "whole");
    assert_eq!(fs::read_dir(&writing).unwrap().count(), 0);
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_the_old_object_or_the_new_one() {
    let (store, folder) = fresh().await;
    let mut acknowledged = 0;
    for round in 0..12 {
        let mut writer = process("writes_until_it_is_killed", folder.path());
        let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
        // Some writes first, then a moment that no write chose.
        for line in said.by_ref().map_while(Result::ok).filter(|line| line.starts_with("wrote ")).take(2) {
            acknowledged = line["wrote ".len()..].parse().unwrap();
        }
        std::thread::sleep(Duration::from_micros(rand::random_range(0..20_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        for line in said.map_while(Result::ok) {
            acknowledged = line.strip_prefix("wrote ").map_or(acknowledged, |number| number.parse().unwrap());
        }
        let store = if round % 2 == 0 { Store::folder(folder.path()).await.unwrap() } else { store.clone() };
        let current = store.get(&key("current.json"), None).await.unwrap().bytes(1 << 20).await.unwrap();
        let current = std::str::from_utf8(&current).unwrap();
        let (number, rest) = current.split_once('\n').expect("a whole first line");
        let number: usize = number.parse().unwrap();
        assert!(number >= acknowledged, "write {acknowledged} was acknowledged, and {number} is there");
        assert_eq!(rest.len(), filling(number), "the rest of write {number}");
        for listed in store.list_all("blobs/").await.unwrap() {
            let blob = store.get(&listed.key, None).await.unwrap().bytes(1 << 20).await.unwrap();
            let hash = hex(&Sha256::digest(&blob));
            assert_eq!(listed.key.as_str(), format!("blobs/{hash}.parquet"));
        }
    }
    Folder::open(folder.path()).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join(".lakehouse/writing")).unwrap().count(), 0);
}

#[tokio::test]
async fn no_update_of_several_processes_is_lost() {
    let (store, folder) = fresh().await;
    put(&store, "counter", "0").await;
    let counting: Vec<Child> = (0..3).map(|_| process("counts_to_forty", folder.path())).collect();
    for child in counting {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
    assert_eq!(read(&store, "counter").await.unwrap(), "120");
}

/// Needs a file system of its own, which Linux gives to a namespace of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_and_a_read_only_disk_are_said_and_harm_nothing() {
    let disk = TempDir::new().unwrap();
    let script = r#"mount -t tmpfs -o size=2m none "$1" && LAKEHOUSE_TEST_FOLDER=$1 exec "$2" --exact meets_a_full_disk --nocapture"#;
    let namespace = ["--user", "--map-root-user", "--mount"];
    let allowed =
        Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("skipped: this machine gives no mount namespace");
        return;
    }
    let shell = ["sh", "-c", script, "sh"];
    let done = Command::new("unshare")
        .args(namespace)
        .args(shell)
        .arg(disk.path())
        .arg(env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("met a full disk"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

// What other processes do: each of these runs only when a test above starts it.

#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(store) = handed_in().await else { return };
    let first = match store.get(&key("current.json"), None).await {
        Ok(object) => {
            let bytes = object.bytes(1 << 20).await.unwrap();
            std::str::from_utf8(&bytes).unwrap().split_once('\n').unwrap().0.parse::<usize>().unwrap() + 1
        }
        Err(_) => 0,
    };
    for number in first.. {
        let content = format!("{number}\n{}", "x".repeat(filling(number)));
        store.put_blob(&key("blobs"), "parquet", content.clone().into()).await.unwrap();
        store.put(&key("current.json"), text(&content), Condition::Always).await.unwrap();
        println!("wrote {number}");
    }
}

#[tokio::test]
async fn counts_to_forty() {
    let Some(store) = handed_in().await else { return };
    let mut done = 0;
    while done < 40 {
        let (bytes, etag) = store.read_manifest(&key("counter")).await.unwrap().unwrap();
        let next = std::str::from_utf8(&bytes).unwrap().parse::<u32>().unwrap() + 1;
        match store.swap_manifest(&key("counter"), Some(etag), next.to_string().into()).await {
            Ok(_) => done += 1,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn meets_a_full_disk() {
    let Some(store) = handed_in().await else { return };
    put(&store, "a.json", "old").await;
    let large = Payload::Bytes(vec![0; 4 << 20].into());
    let error = store.put(&key("a.json"), large, Condition::Always).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let error = store.put(&key("b"), suite::pieces(40, 100_000), Condition::Always).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(names(&store, "").await, ["a.json"]);
    assert_eq!(read(&store, "a.json").await.unwrap(), "old");
    put(&store, "c", "there is room again").await;

    let disk = env::var_os("LAKEHOUSE_TEST_FOLDER").unwrap();
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status().unwrap().success());
    let error = store.put(&key("d"), text("x"), Condition::Always).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(matches!(Store::folder(&disk).await.unwrap_err(), Error::Denied { .. }));
    assert_eq!(read(&store, "c").await.unwrap(), "there is room again");
    println!("met a full disk");
}

async fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::folder(folder.path()).await.unwrap(), folder)
}

/// Starts this program again for one of the tests that do another process's part.
fn process(part: &str, folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", part, "--nocapture"])
        .env("LAKEHOUSE_TEST_FOLDER", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The store that [`process`] hands to another process; `None` in an ordinary run of the tests.
async fn handed_in() -> Option<Store> {
    let folder = env::var_os("LAKEHOUSE_TEST_FOLDER")?;
    Some(Store::folder(folder).await.unwrap())
}

/// How much text follows the number of a write.
fn filling(number: usize) -> usize {
    number * 7919 % 300_000
}
