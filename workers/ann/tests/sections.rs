//! What a file of sections promises.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::{fs, path::PathBuf};

use lakehouse_ann::sections::{ALIGN, File, Writer};
use proptest::prelude::*;
use tempfile::TempDir;

#[test]
fn sections_come_back_as_they_were_written() {
    let (dir, path) = written();
    let file = File::open(&path).unwrap();
    file.verify().unwrap();
    assert_eq!(file.section(*b"words   ").unwrap(), b"one two three");
    assert_eq!(file.numbers::<u32>(*b"numbers ").unwrap(), [1, 2, 3]);
    assert_eq!(file.section(*b"empty   ").unwrap(), b"");
    assert!(file.find(*b"unknown ").is_none());
    assert!(file.section(*b"unknown ").unwrap_err().to_string().contains("`unknown`"));
    assert_eq!(file.size(), fs::metadata(&path).unwrap().len());
    drop(dir);
    assert_eq!(file.section(*b"words   ").unwrap(), b"one two three", "the map outlives the file's name");
}

#[test]
fn sections_begin_at_cache_lines() {
    let (_dir, path) = written();
    let file = File::open(path).unwrap();
    for name in [*b"words   ", *b"numbers ", *b"empty   "] {
        assert!((file.section(name).unwrap().as_ptr() as usize).is_multiple_of(ALIGN));
    }
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let (dir, path) = written();
    let whole = fs::read(&path).unwrap();
    let other = dir.path().join("changed");
    for at in 0..whole.len() {
        for flip in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&other, bytes).unwrap();
            let found = File::open(&other).and_then(|file| file.verify());
            assert!(found.is_err(), "byte {at} of {}", whole.len());
        }
    }
}

#[test]
fn a_damaged_section_is_named() {
    let (_dir, path) = written();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[at] = b'T';
    fs::write(&path, bytes).unwrap();
    let says = File::open(&path).unwrap().verify().unwrap_err().to_string();
    assert!(says.contains("`words`"), "{says}");
}

#[test]
fn a_file_that_is_cut_off_is_not_opened() {
    let (_dir, path) = written();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(File::open(&path).is_err(), "the first {length} of {} bytes", whole.len());
    }
}

#[test]
fn an_interrupted_write_leaves_nothing_that_opens() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("half");
    let mut writer = Writer::create(&path).unwrap();
    writer.put_section(*b"words   ", &vec![7; 1_000_000]).unwrap();
    drop(writer);
    assert!(File::open(&path).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_opened_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("any");
        fs::write(&path, bytes).unwrap();
        prop_assert!(File::open(&path).is_err());
    }
}

fn written() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    let mut writer = Writer::create(&path).unwrap();
    let mut words = writer.section(*b"words   ").unwrap();
    words.put(b"one two").unwrap();
    words.put(b" three").unwrap();
    writer.put_section(*b"empty   ", b"").unwrap();
    writer.section(*b"numbers ").unwrap().put_all(&[1_u32, 2, 3]).unwrap();
    let length = writer.finish().unwrap();
    assert_eq!(length, fs::metadata(&path).unwrap().len());
    (dir, path)
}
