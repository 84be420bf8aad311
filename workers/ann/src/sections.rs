//! A file of named sections: written once from front to end, then mapped and read only.
//!
//! ```text
//! header 64 bytes: magic, format version
//! section, section, …      each begins at a multiple of 64
//! table: name, offset, length, CRC32 of each section
//! trailer 32 bytes: where the table lies, the file's length, CRC32 of header, table and trailer, magic
//! ```
//! Numbers are little-endian. Nothing is written twice, so a file can be hashed or sent while it grows. Every byte is covered:
//! [`File::open`] checks header, table and trailer; [`File::verify`] checks the rest and names the section that is damaged.

use std::{
    fs,
    io::{self, BufWriter, Write},
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;

use crate::{Error, Result, huge::Huge};

#[cfg(target_endian = "big")]
compile_error!("sections are mapped as they lie in the file, which is little-endian");

/// What a section is called: printable ASCII, filled up with spaces or zeros.
pub type Name = [u8; 8];

/// The version of the container and of what this crate puts into it.
pub const FORMAT: u32 = 1;
/// Where sections begin: a cache line, and enough for any SIMD load.
pub const ALIGN: usize = 64;

const MAGIC: [u8; 8] = *b"LAKESEGM";
const END: [u8; 8] = *b"LAKESEGE";

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: u32,
    zeros: [u32; 13],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    name: Name,
    offset: u64,
    length: u64,
    crc: u32,
    zeros: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Trailer {
    table: u64,
    length: u64,
    sections: u32,
    /// Of the header, the table, and the trailer up to here.
    crc: u32,
    magic: [u8; 8],
}

const HEADER: Header = Header { magic: MAGIC, format: FORMAT, zeros: [0; 13] };

fn crc_of_frame(header: &Header, table: &[u8], trailer: &Trailer) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::bytes_of(header));
    crc.update(table);
    crc.update(&bytemuck::bytes_of(trailer)[..20]);
    crc.finalize()
}

/// Writes a file of sections.
pub struct Writer {
    path: PathBuf,
    out: BufWriter<fs::File>,
    at: u64,
    sections: Vec<(Name, Range<u64>, crc32fast::Hasher)>,
}

impl Writer {
    /// Begins a new file; one that is there is overwritten.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = fs::File::create(&path).map_err(|error| Error::io(&path, error))?;
        let mut writer =
            Self { path, out: BufWriter::with_capacity(1 << 18, file), at: 0, sections: Vec::new() };
        writer.put(bytemuck::bytes_of(&HEADER))?;
        Ok(writer)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the next section; it ends where another begins.
    ///
    /// # Panics
    /// When the file has a section of this name.
    pub fn section(&mut self, name: Name) -> Result<Section<'_>> {
        assert!(self.sections.iter().all(|(known, ..)| *known != name), "section {} twice", shown(name));
        self.align()?;
        self.sections.push((name, self.at..self.at, crc32fast::Hasher::new()));
        Ok(Section { writer: self })
    }

    /// Writes a whole section.
    pub fn put_section(&mut self, name: Name, bytes: &[u8]) -> Result<()> {
        self.section(name)?.put(bytes)
    }

    /// Ends the file and gives its length. It is handed to the system, not synced.
    pub fn finish(mut self) -> Result<u64> {
        self.align()?;
        let table: Vec<Entry> = std::mem::take(&mut self.sections)
            .into_iter()
            .map(|(name, Range { start, end }, crc)| Entry {
                name,
                offset: start,
                length: end - start,
                crc: crc.finalize(),
                zeros: 0,
            })
            .collect();
        let table: &[u8] = bytemuck::cast_slice(&table);
        let mut trailer = Trailer {
            table: self.at,
            length: self.at + (table.len() + size_of::<Trailer>()) as u64,
            sections: u32::try_from(table.len() / size_of::<Entry>()).expect("a file has a few sections"),
            crc: 0,
            magic: END,
        };
        trailer.crc = crc_of_frame(&HEADER, table, &trailer);
        self.put(table)?;
        self.put(bytemuck::bytes_of(&trailer))?;
        self.out.flush().map_err(|error| Error::io(&self.path, error))?;
        Ok(self.at)
    }

    fn align(&mut self) -> Result<()> {
        let over = usize::try_from(self.at % ALIGN as u64).expect("below 64");
        if over == 0 { Ok(()) } else { self.put(&[0; ALIGN][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io(&self.path, error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// A section that is being written.
pub struct Section<'w> {
    writer: &'w mut Writer,
}

impl Section<'_> {
    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.put(bytes)?;
        let at = self.writer.at;
        let (_, range, crc) = self.writer.sections.last_mut().expect("this section has been begun");
        range.end = at;
        crc.update(bytes);
        Ok(())
    }

    /// Adds numbers as they lie in memory.
    pub fn put_all<T: Pod>(&mut self, numbers: &[T]) -> Result<()> {
        self.put(bytemuck::cast_slice(numbers))
    }
}

impl Write for Section<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A finished file, mapped. Cheap to clone; the map lives as long as the last clone, also when the file is removed meanwhile.
#[derive(Clone)]
pub struct File {
    inner: Arc<Mapped>,
}

struct Mapped {
    path: PathBuf,
    map: Mmap,
    table: Vec<Entry>,
}

impl File {
    /// Maps a file and checks header, table and trailer; sections are read when they are used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let map = map(&path)?;
        let table = frame(&map).map_err(|what| Error::Damaged { path: path.clone(), what })?;
        Ok(Self { inner: Arc::new(Mapped { path, map, table }) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.inner.map.len() as u64
    }

    /// A section's bytes.
    pub fn section(&self, name: Name) -> Result<&[u8]> {
        self.find(name).ok_or_else(|| self.damaged(format!("it has no section {}", shown(name))))
    }

    /// A section's bytes, where there is one.
    pub fn find(&self, name: Name) -> Option<&[u8]> {
        let entry = self.inner.table.iter().find(|entry| entry.name == name)?;
        Some(&self.inner.map[range(entry)])
    }

    /// A section as numbers.
    pub fn numbers<T: Pod>(&self, name: Name) -> Result<&[T]> {
        let bytes = self.section(name)?;
        bytemuck::try_cast_slice(bytes)
            .map_err(|_| self.damaged(format!("section {} has {} bytes", shown(name), bytes.len())))
    }

    /// A section of so many numbers, which lives on with this file.
    pub(crate) fn column<T: Pod>(&self, name: Name, length: usize) -> Result<Column<T>> {
        let numbers = self.numbers::<T>(name)?.len();
        if numbers != length {
            return Err(self.damaged(format!("section {} has {numbers} numbers, not {length}", shown(name))));
        }
        let entry = self.inner.table.iter().find(|entry| entry.name == name).expect("it has just been read");
        Ok(Column::Mapped(self.clone(), range(entry)))
    }

    /// Reads everything and compares the checksums.
    pub fn verify(&self) -> Result<()> {
        let Mapped { map, table, .. } = &*self.inner;
        let mut end = size_of::<Header>();
        for entry in table {
            let Range { start, .. } = range(entry);
            if map[end..start].iter().any(|&byte| byte != 0) {
                return Err(
                    self.damaged(format!("the gap before section {} is not empty", shown(entry.name)))
                );
            }
            if crc32fast::hash(&map[range(entry)]) != entry.crc {
                return Err(self.damaged(format!("section {} does not have its checksum", shown(entry.name))));
            }
            end = range(entry).end;
        }
        let tail = map.len() - size_of::<Trailer>() - size_of_val(table.as_slice());
        if map[end..tail].iter().any(|&byte| byte != 0) {
            return Err(self.damaged("the gap before the table is not empty".into()));
        }
        Ok(())
    }

    pub(crate) fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.inner.path.clone(), what }
    }
}

/// Numbers of a mapped section.
pub(crate) enum Column<T> {
    /// As they lie in the file.
    Mapped(File, Range<usize>),
    /// A copy that is faster to read here and there.
    Hot(Huge<T>),
}

impl<T: Pod> Column<T> {
    /// Copies the numbers, if there is memory.
    pub(crate) fn hot(self) -> Self {
        Huge::copy(&self).map_or(self, Self::Hot)
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Mapped(file, range) => bytemuck::cast_slice(&file.inner.map[range.clone()]),
            Self::Hot(numbers) => numbers,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "`frame` has found both to lie within the map")]
fn range(entry: &Entry) -> Range<usize> {
    entry.offset as usize..(entry.offset + entry.length) as usize
}

fn shown(name: Name) -> String {
    format!("`{}`", String::from_utf8_lossy(&name).trim_end_matches(['\0', ' ']))
}

#[expect(unsafe_code, reason = "the system can map a file in no other way")]
fn map(path: &Path) -> Result<Mmap> {
    let file = fs::File::open(path).map_err(|error| Error::io(path, error))?;
    // SAFETY: what is mapped must not change. These files are written once, under a name of their own, and only ever removed.
    unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, error))
}

/// Checks all that surrounds the sections and gives the table.
fn frame(map: &[u8]) -> Result<Vec<Entry>, String> {
    const LEAST: usize = size_of::<Header>() + size_of::<Trailer>();
    if map.len() < LEAST {
        return Err(format!("it has {} bytes, fewer than any segment", map.len()));
    }
    let header: Header = bytemuck::pod_read_unaligned(&map[..size_of::<Header>()]);
    let (body, trailer) = map.split_at(map.len() - size_of::<Trailer>());
    let trailer: Trailer = bytemuck::pod_read_unaligned(trailer);
    if header.magic != MAGIC {
        return Err("it is no segment: it begins with other bytes".into());
    }
    if header.format != FORMAT {
        return Err(format!("it has format {}, and this release reads {FORMAT}", header.format));
    }
    if trailer.magic != END || trailer.length != map.len() as u64 {
        return Err("it is cut off or has grown".into());
    }
    let table = usize::try_from(trailer.table)
        .ok()
        .filter(|&at| at >= size_of::<Header>() && at.is_multiple_of(ALIGN))
        .and_then(|at| body.get(at..))
        .filter(|table| table.len() == trailer.sections as usize * size_of::<Entry>())
        .ok_or("its table lies elsewhere")?;
    if trailer.crc != crc_of_frame(&header, table, &trailer) {
        return Err("its table does not have its checksum".into());
    }
    let table: Vec<Entry> =
        table.chunks_exact(size_of::<Entry>()).map(bytemuck::pod_read_unaligned).collect();
    let mut end = size_of::<Header>() as u64;
    for entry in &table {
        let next = entry.offset.checked_add(entry.length).filter(|&next| next <= trailer.table);
        match next {
            Some(next) if entry.offset >= end && entry.offset.is_multiple_of(ALIGN as u64) => end = next,
            _ => return Err(format!("section {} lies outside", shown(entry.name))),
        }
    }
    Ok(table)
}
