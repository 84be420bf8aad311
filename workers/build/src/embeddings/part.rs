//! One immutable file of vectors by the hash of their text.
//!
//! ```text
//! magic 8 │ format u32 │ dimension u32 │ count u64 │ CRC-32 of the hashes u32 │ CRC-32 of all before u32
//! hashes, sorted      count × 32 bytes: SHA-256 of the text
//! vectors, as sorted  count × (dimension × f32, CRC-32 of the hash and the numbers u32)
//! ```
//! Little-endian. The head, which is all before the vectors, is enough to know what is in it.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

/// SHA-256 of a text.
pub(crate) type Hash = [u8; 32];

const MAGIC: [u8; 8] = *b"LHVECTOR";
const FORMAT: u32 = 1;
/// Bytes before the first hash.
pub(super) const PREAMBLE: usize = 32;
const HASH: usize = size_of::<Hash>();
/// Every so many hashes, one is kept in memory: a search reads one run of them.
const RUN: usize = 128;

/// What stands before the hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) dimension: u32,
    pub(super) count: u64,
    hashes_crc: u32,
}

impl Preamble {
    fn bytes(self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.dimension.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.hashes_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let bytes: &[u8; PREAMBLE] = bytes
            .get(..PREAMBLE)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| damaged("it ends within its first bytes"))?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..8] != MAGIC || u32_at(28) != crc32fast::hash(&bytes[..28]) {
            return Err(damaged("its first bytes are not those of a file of vectors"));
        }
        if u32_at(8) != FORMAT {
            return Err(damaged(&format!("it has format {}, and this version reads {FORMAT}", u32_at(8))));
        }
        let (low, high) = (u64::from(u32_at(16)), u64::from(u32_at(20)));
        let parsed = Self { dimension: u32_at(12), count: low | (high << 32), hashes_crc: u32_at(24) };
        if parsed.count > (1 << 40) {
            return Err(damaged("it says that it holds more vectors than there can be"));
        }
        Ok(parsed)
    }

    /// Bytes of the head.
    pub(super) fn head_bytes(self) -> u64 {
        PREAMBLE as u64 + self.count * HASH as u64
    }

    /// Bytes of the whole file.
    pub(super) fn whole_bytes(self) -> u64 {
        self.head_bytes().saturating_add(self.count.saturating_mul(self.entry_bytes()))
    }

    /// Fails where a file has other bytes than it should.
    pub(super) fn fit(self, size: u64) -> io::Result<()> {
        let whole = self.whole_bytes();
        if size == whole {
            Ok(())
        } else {
            Err(damaged(&format!("it has {size} bytes, and {whole} were written")))
        }
    }

    fn entry_bytes(self) -> u64 {
        u64::from(self.dimension) * 4 + 4
    }
}

/// A head that was checked, and searches in it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) preamble: Preamble,
    file: File,
    /// The first hash of each run.
    firsts: Vec<Hash>,
}

impl Head {
    /// Reads and checks a file that starts with a head.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let mut bytes = [0; PREAMBLE];
        reader.read_exact(&mut bytes)?;
        let preamble = Preamble::parse(&bytes)?;
        let (mut crc, mut firsts) = (crc32fast::Hasher::new(), Vec::new());
        let mut hash = Hash::default();
        for place in 0..preamble.count {
            reader.read_exact(&mut hash)?;
            crc.update(&hash);
            if place % RUN as u64 == 0 {
                firsts.push(hash);
            }
        }
        if crc.finalize() != preamble.hashes_crc {
            return Err(damaged("its hashes are not those that were written"));
        }
        Ok(Self { preamble, file, firsts })
    }

    /// The place of a hash.
    pub(super) fn find(&self, hash: &Hash) -> io::Result<Option<u64>> {
        let run = self.firsts.partition_point(|first| first <= hash);
        let Some(run) = run.checked_sub(1) else { return Ok(None) };
        let start = (run * RUN) as u64;
        let left = usize::try_from(self.preamble.count - start).map_err(io::Error::other)?;
        let mut bytes = [0; RUN * HASH];
        let bytes = &mut bytes[..left.min(RUN) * HASH];
        self.file.read_exact_at(bytes, PREAMBLE as u64 + start * HASH as u64)?;
        let (hashes, _) = bytes.as_chunks::<HASH>();
        Ok(hashes.binary_search(hash).ok().map(|place| start + place as u64))
    }
}

/// The vector at a place of a whole file; `None` where its checksum does not hold.
pub(super) fn vector(
    file: &File,
    preamble: Preamble,
    place: u64,
    hash: &Hash,
) -> io::Result<Option<Vec<f32>>> {
    let size = usize::try_from(preamble.entry_bytes()).map_err(io::Error::other)?;
    let mut entry = vec![0; size];
    file.read_exact_at(&mut entry, preamble.head_bytes() + place * preamble.entry_bytes())?;
    Ok(decoded(hash, &entry))
}

fn decoded(hash: &Hash, entry: &[u8]) -> Option<Vec<f32>> {
    let (numbers, crc) = entry.split_last_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == entry_crc(hash, numbers)).then(|| {
        let (numbers, _) = numbers.as_chunks::<4>();
        numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
    })
}

fn entry_crc(hash: &Hash, numbers: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(hash);
    crc.update(numbers);
    crc.finalize()
}

/// The entries of a whole file in their order, without those whose checksum does not hold.
pub(super) struct Entries {
    hashes: BufReader<File>,
    vectors: BufReader<File>,
    preamble: Preamble,
    left: u64,
}

impl Entries {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (mut hashes, mut vectors) =
            (BufReader::new(File::open(path)?), BufReader::new(File::open(path)?));
        let mut bytes = [0; PREAMBLE];
        hashes.read_exact(&mut bytes)?;
        let preamble = Preamble::parse(&bytes)?;
        vectors.seek(SeekFrom::Start(preamble.head_bytes()))?;
        Ok(Self { hashes, vectors, preamble, left: preamble.count })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<(Hash, Vec<f32>)>> {
        let mut entry = vec![0; usize::try_from(self.preamble.entry_bytes()).map_err(io::Error::other)?];
        while self.left > 0 {
            self.left -= 1;
            let mut hash = Hash::default();
            self.hashes.read_exact(&mut hash)?;
            self.vectors.read_exact(&mut entry)?;
            if let Some(vector) = decoded(&hash, &entry) {
                return Ok(Some((hash, vector)));
            }
        }
        Ok(None)
    }
}

/// Writes entries that come in the order of their hashes, each once, and gives how many they were.
///
/// The vectors wait in a file beside it until the hashes are complete, so that memory does not grow with their number.
pub(super) fn write(
    path: &Path,
    dimension: u32,
    mut next: impl FnMut() -> io::Result<Option<(Hash, Vec<f32>)>>,
) -> io::Result<u64> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut out = BufWriter::new(File::options().write(true).create(true).truncate(true).open(path)?);
    let mut vectors = BufWriter::new(tempfile::tempfile_in(folder)?);
    out.write_all(&[0; PREAMBLE])?;
    let (mut count, mut crc, mut numbers) = (0, crc32fast::Hasher::new(), Vec::new());
    while let Some((hash, vector)) = next()? {
        crc.update(&hash);
        out.write_all(&hash)?;
        numbers.clear();
        numbers.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
        vectors.write_all(&numbers)?;
        vectors.write_all(&entry_crc(&hash, &numbers).to_le_bytes())?;
        count += 1;
    }
    let mut vectors = vectors.into_inner().map_err(io::IntoInnerError::into_error)?;
    vectors.rewind()?;
    io::copy(&mut vectors, &mut out)?;
    let mut out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    out.rewind()?;
    out.write_all(&Preamble { dimension, count, hashes_crc: crc.finalize() }.bytes())?;
    Ok(count)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_vector_is_found_by_its_hash_and_no_other(count in 0_u64..400, dimension in 1_u32..5) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("part");
            written(&path, count, dimension);
            let head = Head::open(File::open(&path).unwrap()).unwrap();
            let file = File::open(&path).unwrap();
            for number in 0..count {
                let place = head.find(&hash(2 * number)).unwrap().unwrap();
                let found = vector(&file, head.preamble, place, &hash(2 * number)).unwrap();
                prop_assert_eq!(found, Some(numbers(number, dimension)));
                prop_assert_eq!(head.find(&hash(2 * number + 1)).unwrap(), None);
            }
            let mut entries = Entries::open(&path).unwrap();
            let mut read = 0;
            while let Some((found, vector)) = entries.next().unwrap() {
                prop_assert_eq!((found, vector), (hash(2 * read), numbers(read, dimension)));
                read += 1;
            }
            prop_assert_eq!(read, count);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        written(&path, 3, 2);
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x20;
            std::fs::write(&path, &bytes).unwrap();
            let Ok(head) = Head::open(File::open(&path).unwrap()) else { continue };
            let file = File::open(&path).unwrap();
            let read = (0..3).filter_map(|number| {
                let place = head.find(&hash(2 * number)).unwrap()?;
                vector(&file, head.preamble, place, &hash(2 * number)).unwrap()
            });
            assert_eq!(read.count(), 2, "byte {place}: one vector is not believed, the others are");
        }
        for length in [0, 10, PREAMBLE, PREAMBLE + 40] {
            std::fs::write(&path, &whole[..length]).unwrap();
            Head::open(File::open(&path).unwrap()).unwrap_err();
        }
    }

    fn written(path: &Path, count: u64, dimension: u32) {
        let mut number = 0;
        let next = || {
            number += 1;
            Ok((number <= count).then(|| (hash(2 * (number - 1)), numbers(number - 1, dimension))))
        };
        assert_eq!(write(path, dimension, next).unwrap(), count);
    }

    /// Hashes in the order of their numbers.
    fn hash(number: u64) -> Hash {
        let mut hash = Hash::default();
        hash[..8].copy_from_slice(&number.to_be_bytes());
        hash
    }

    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    fn numbers(number: u64, dimension: u32) -> Vec<f32> {
        (0..dimension).map(|place| number as f32 + place as f32 / 8.0).collect()
    }
}
