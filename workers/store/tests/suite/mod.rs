//! The promises that every backend keeps, as functions over a [`Store`] that is empty when it is handed in.
//!
//! [`for_each_promise`] makes one test of each for a backend.

mod logs;
mod objects;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lakehouse_contract::Key;
use lakehouse_store::{Condition, Error, Etag, Payload, Result, Store};

pub(crate) use logs::*;
pub(crate) use objects::*;

/// One `#[tokio::test]` for each promise; `$open` gives an empty [`Store`].
#[macro_export]
macro_rules! for_each_promise {
    ($open:expr) => {
        $crate::for_each_promise! { $open;
            what_is_put_is_read_back
            nothing_is_not_found
            create_happens_once
            an_update_needs_the_current_mark
            an_update_of_nothing_is_a_conflict
            equal_sizes_in_a_row_have_marks_of_their_own
            one_of_many_creators_wins
            no_update_of_many_is_lost
            a_broken_body_writes_nothing
            a_stream_of_many_pieces_arrives_whole
            ranges_are_cut_as_asked
            an_empty_object_has_no_range
            deleting_is_final_and_repeatable
            a_listing_is_in_the_order_of_bytes
            a_listing_goes_on_where_it_ended
            a_prefix_is_a_start_of_the_key_and_no_path
            an_object_and_objects_below_it_live_together
            odd_names_come_back_as_they_were
            a_reader_keeps_what_it_opened
            a_part_below_a_prefix_is_a_store_of_its_own
            blobs_are_named_by_their_content
            a_fetched_blob_is_checked
            a_manifest_is_swapped_by_one_writer_only
            a_log_counts_from_zero_and_goes_on
            an_append_is_next_to_itself
            appends_that_wait_share_an_object
            two_writers_of_a_log_never_share_a_number
            a_log_is_read_from_the_middle
            a_truncated_log_says_where_it_starts
            a_damaged_end_is_cut_and_said
            a_hole_in_a_log_is_said
        }
    };
    ($open:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (store, _held) = $open.await;
                suite::$promise(&store).await;
            }
        )*
    };
}

pub(crate) fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub(crate) fn text(text: &str) -> Payload {
    Payload::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) async fn put(store: &Store, name: &str, content: &str) -> Etag {
    store.put(&key(name), text(content), Condition::Always).await.unwrap()
}

pub(crate) async fn read(store: &Store, name: &str) -> Result<String> {
    let bytes = store.get(&key(name), None).await?.bytes(1 << 20).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

pub(crate) async fn names(store: &Store, prefix: &str) -> Vec<String> {
    store.list_all(prefix).await.unwrap().into_iter().map(|listed| listed.key.to_string()).collect()
}

/// `count` pieces of `size` bytes, no two alike.
pub(crate) fn pieces(count: usize, size: usize) -> Payload {
    Payload::Stream(futures::stream::iter(0..count).map(move |index| Ok(piece(index, size))).boxed())
}

pub(crate) fn piece(index: usize, size: usize) -> Bytes {
    (0..size).map(|at| u8::try_from((at * 31 + index * 7) % 251).unwrap()).collect::<Vec<_>>().into()
}

pub(crate) async fn has_pieces(store: &Store, name: &str, count: usize, size: usize) -> bool {
    let mut body = store.get(&key(name), None).await.unwrap().body;
    let expected: Vec<u8> = (0..count).flat_map(|index| piece(index, size)).collect();
    let mut at = 0;
    while let Some(found) = body.try_next().await.unwrap() {
        if !expected[at..].starts_with(&found) {
            return false;
        }
        at += found.len();
    }
    at == expected.len()
}

pub(crate) fn is_conflict<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Conflict { .. }))
}
