//! What is promised of logs.

use std::ops::Range;

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use jiff::SignedDuration;
use lakehouse_store::{
    Condition, Error, Payload, Result, Store,
    log::{Log, MAX_BYTES, MAX_RECORDS},
};

use super::{key, names};

pub(crate) async fn a_log_counts_from_zero_and_goes_on(store: &Store) {
    let log = open(store).await;
    assert_eq!(read(&log, 0).await.unwrap(), []);
    assert_eq!(append(&log, &["a", "b", "c"]).await, 0..3);
    assert_eq!(append(&log, &["d"]).await, 3..4);
    let again = open(store).await;
    assert_eq!(again.cut_tail(), None);
    assert_eq!(again.next().await.unwrap(), 4);
    assert_eq!(append(&again, &["", "f"]).await, 4..6);
    assert_eq!(append(&log, &["g"]).await, 6..7);
    assert_eq!(read(&log, 0).await.unwrap(), numbered(0, &["a", "b", "c", "d", "", "f", "g"]));
}

pub(crate) async fn an_append_is_next_to_itself(store: &Store) {
    let log = open(store).await;
    let most: Vec<Bytes> = (0..MAX_RECORDS).map(|number| number.to_string().into()).collect();
    assert_eq!(log.append(most.clone()).await.unwrap(), 0..MAX_RECORDS as u64);
    assert_eq!(names(store, "log/").await.len(), 1);
    assert!(matches!(log.append([most, vec!["one more".into()]].concat()).await, Err(Error::Unfit { .. })));
    assert!(matches!(log.append(vec![]).await, Err(Error::Unfit { .. })));
    let huge = Bytes::from(vec![0; MAX_BYTES + 1]);
    assert!(matches!(log.append(vec![huge]).await, Err(Error::TooLarge { .. })));
    assert_eq!(append(&log, &["after"]).await, 4096..4097);
    for (wanted, first) in [(0, Some(0)), (1, Some(4096)), (4096, Some(4096)), (4097, None)] {
        assert_eq!(log.starts_from(wanted).await.unwrap(), first, "{wanted}");
    }
    assert_eq!(read(&log, 4095).await.unwrap(), [(4095, "4095".into()), (4096, "after".into())]);
}

pub(crate) async fn appends_that_wait_share_an_object(store: &Store) {
    let log = open(store).await;
    let contents: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let numbers = join_all(contents.iter().map(|content| append(&log, std::slice::from_ref(content)))).await;
    let mut expected: Vec<(u64, String)> = numbers.iter().map(|range| range.start).zip(contents).collect();
    expected.sort_unstable();
    assert_eq!(read(&log, 0).await.unwrap(), expected);
    assert!(expected.iter().map(|(number, _)| *number).eq(0..200));
    let objects = names(store, "log/").await.len();
    assert!(objects < 150, "200 appends made {objects} objects");
}

pub(crate) async fn two_writers_of_a_log_never_share_a_number(store: &Store) {
    let (left, right) = (open(store).await, open(store).await);
    let write = async |log: &Log, name: &str| {
        let mut done = Vec::new();
        for index in 0..10 {
            let content = format!("{name}{index}");
            done.push((append(log, std::slice::from_ref(&content)).await.start, content));
        }
        done
    };
    let (of_left, of_right) = futures::join!(write(&left, "left"), write(&right, "right"));
    let mut expected = [of_left, of_right].concat();
    expected.sort_unstable();
    assert_eq!(read(&right, 0).await.unwrap(), expected);
}

pub(crate) async fn a_log_is_read_from_the_middle(store: &Store) {
    let log = open(store).await;
    append(&log, &["0", "1", "2"]).await;
    append(&log, &["3", "4"]).await;
    for from in 0..8 {
        let expected: Vec<_> = (from..5).map(|number| (number, number.to_string())).collect();
        assert_eq!(read(&log, from).await.unwrap(), expected, "from {from}");
    }
}

pub(crate) async fn a_truncated_log_says_where_it_starts(store: &Store) {
    let patient = open(store).await;
    for content in ["0", "1", "2", "3"] {
        append(&patient, &[content, content]).await;
    }
    assert_eq!(patient.truncate_before(100).await.unwrap(), 0, "what is young stays");
    let log =
        Log::open_with_grace(store.clone(), &key("log"), SignedDuration::from_secs(-600)).await.unwrap();
    assert_eq!(log.truncate_before(5).await.unwrap(), 2, "record 5 shares its object with record 4");
    assert!(matches!(read(&log, 3).await, Err(Error::Gone { first: 4, .. })));
    assert_eq!(read(&log, 5).await.unwrap(), [(5, "2".into()), (6, "3".into()), (7, "3".into())]);
    assert_eq!(log.truncate_before(100).await.unwrap(), 1, "the last object stays");
    assert_eq!(append(&open(store).await, &["4"]).await, 8..9);
}

pub(crate) async fn a_damaged_end_is_cut_and_said(store: &Store) {
    let log = open(store).await;
    append(&log, &["0", "1"]).await;
    append(&log, &["2", "3", "4"]).await;
    let last = key("log/00000000000000000002");
    let whole = store.get(&last, None).await.unwrap().bytes(1 << 20).await.unwrap();
    for (left, records) in [(whole.len() - 1, 2), (whole.len() - 14, 1), (5, 0)] {
        let cut = Payload::Bytes(whole.slice(..left));
        store.put(&last, cut, Condition::Always).await.unwrap();
        let log = open(store).await;
        let tail = log.cut_tail().expect("the end is damaged");
        assert_eq!((&tail.key, tail.next), (&last, 2 + records.max(1)), "{left} bytes are left");
        let all = numbered(0, &["0", "1", "2", "3"][..2 + usize::try_from(records).unwrap()]);
        assert_eq!(read(&log, 0).await.unwrap(), all);
    }
    let log = open(store).await;
    assert_eq!(append(&log, &["after"]).await, 3..4);
    let all = [(0, "0".to_owned()), (1, "1".to_owned()), (3, "after".to_owned())];
    assert_eq!(read(&open(store).await, 0).await.unwrap(), all);
}

pub(crate) async fn a_hole_in_a_log_is_said(store: &Store) {
    let log = open(store).await;
    for content in ["0", "1", "2"] {
        append(&log, &[content]).await;
    }
    store.delete(&key("log/00000000000000000001")).await.unwrap();
    let error = read(&log, 0).await.unwrap_err();
    assert_eq!(error.to_string(), "`log/00000000000000000001` is damaged: records 1 to 1 are missing");
}

async fn open(store: &Store) -> Log {
    Log::open(store.clone(), &key("log")).await.unwrap()
}

async fn append(log: &Log, contents: &[impl AsRef<str>]) -> Range<u64> {
    let records =
        contents.iter().map(|content| Bytes::copy_from_slice(content.as_ref().as_bytes())).collect();
    log.append(records).await.unwrap()
}

async fn read(log: &Log, from: u64) -> Result<Vec<(u64, String)>> {
    let records: Vec<_> = log.read_from(from).try_collect().await?;
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    Ok(records.into_iter().map(|record| (record.number, text(record.content))).collect())
}

fn numbered(from: u64, contents: &[&str]) -> Vec<(u64, String)> {
    (from..).zip(contents.iter().map(|content| (*content).to_owned())).collect()
}
