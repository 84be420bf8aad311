//! A wall around the memory that DuckDB does not count.
//!
//! DuckDB counts blocks, sorts and hash tables. What a function builds for one batch of rows (`repeat`, `lpad`, `||`, lists)
//! comes straight from its allocator, and DuckDB notices no interrupt meanwhile: 2,048 texts of 100 MB are made in one call.
//! The official library holds jemalloc, which takes memory from the system through functions that can be replaced. Ours
//! refuse what goes beyond the shares of this process's databases, and DuckDB answers that like any other lack of memory.
//!
//! A library without jemalloc (that of macOS, or one of your own) has no wall.
#![allow(unsafe_code, reason = "jemalloc is told by pointers to C functions what to do")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use tracing::warn;

/// Bytes that jemalloc has from the system. Those from before the wall stood are given back without having been counted.
static TAKEN: AtomicI64 = AtomicI64::new(0);

/// Bytes that it may have: the shares of all databases. Without one, nobody has said how many.
static LIMIT: AtomicI64 = AtomicI64::new(0);

/// What one database may take from the system. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share(i64);

impl Share {
    /// Room for what DuckDB counts, for half as much that it does not, and for a start.
    pub(crate) fn of(memory_limit: u64) -> Self {
        const START: u64 = 256 << 20;
        let share = memory_limit.saturating_add(memory_limit / 2).saturating_add(START);
        let share = i64::try_from(share).unwrap_or(i64::MAX / 1024);
        LIMIT.fetch_add(share, Ordering::Relaxed);
        // After the share is counted: the wall's own arenas come out of it.
        wall();
        Self(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        LIMIT.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Gives back what DuckDB has freed and keeps for later, when little is left to take.
pub(crate) fn make_room() {
    if let Some(wall) = wall()
        && TAKEN.load(Ordering::Relaxed) > LIMIT.load(Ordering::Relaxed) / 10 * 9
    {
        wall.jemalloc.purge();
    }
}

/// Builds the wall when it is asked for first, which is before DuckDB works.
fn wall() -> Option<&'static Wall> {
    static WALL: OnceLock<Option<Wall>> = OnceLock::new();
    let build = || {
        let built = Jemalloc::find()?.enclose();
        built
            .inspect_err(|name| {
                warn!("DuckDB's functions may use more memory than its limit: jemalloc refuses `{name}`");
            })
            .ok()
    };
    WALL.get_or_init(build).as_ref()
}

struct Wall {
    jemalloc: Jemalloc,
}

/// jemalloc 5's `extent_hooks_t`: how it has its memory from the system. A hook says `true` when it did not do its part.
///
/// No hook may call jemalloc, not even its own ones: they may be called with its locks held, and by a thread for which it
/// has still to allocate something.
#[repr(C)]
struct Hooks {
    alloc: Alloc,
    /// Without it, addresses are kept for later. Giving them back would let jemalloc take the next ones there, of another
    /// arena, for a part of their neighbours.
    dalloc: Option<Part>,
    destroy: Option<Part>,
    commit: Option<Part>,
    decommit: Option<Part>,
    /// What is not used any more is decommitted, and needs no purge before that.
    purge_lazy: Option<Part>,
    purge_forced: Option<Part>,
    split: Option<Split>,
    merge: Option<Merge>,
}

static HOOKS: Hooks = Hooks {
    alloc,
    dalloc: None,
    destroy: None,
    commit: Some(commit),
    decommit: Some(decommit),
    purge_lazy: None,
    purge_forced: None,
    split: Some(split),
    merge: Some(merge),
};

type Alloc = unsafe extern "C" fn(
    *const Hooks,
    *mut c_void,
    usize,
    usize,
    *mut bool,
    *mut bool,
    c_uint,
) -> *mut c_void;
/// Takes a place with its size, and the offset and the length of the part in question.
type Part = unsafe extern "C" fn(*const Hooks, *mut c_void, usize, usize, usize, c_uint) -> bool;
type Split = unsafe extern "C" fn(*const Hooks, *mut c_void, usize, usize, usize, bool, c_uint) -> bool;
type Merge = unsafe extern "C" fn(*const Hooks, *mut c_void, usize, *mut c_void, usize, bool, c_uint) -> bool;

/// Gives addresses, and with `commit` memory behind them: Linux does that by itself when they are first written to, but
/// what is written to is to be counted before.
unsafe extern "C" fn alloc(
    _: *const Hooks,
    place: *mut c_void,
    size: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    _: c_uint,
) -> *mut c_void {
    // SAFETY: jemalloc says there what it needs, and reads there what it has.
    let counted = unsafe {
        *zero = true;
        *commit
    };
    if counted && !take(size) {
        return ptr::null_mut();
    }
    let given = map(place, size, alignment);
    if given.is_null() && counted {
        give_back(size);
    }
    given
}

/// Fresh pages at `place`, or anywhere when it is null. Null when there are none.
fn map(place: *mut c_void, size: usize, alignment: usize) -> *mut c_void {
    const FLAGS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let pages = |place, size| {
        // SAFETY: this takes nothing from anybody: without `MAP_FIXED`, `place` is a wish.
        let found = unsafe { libc::mmap(place, size, libc::PROT_READ | libc::PROT_WRITE, FLAGS, -1, 0) };
        if found == libc::MAP_FAILED { ptr::null_mut() } else { found }
    };
    // What stays mapped by mistake is never written to, and costs addresses only.
    let unmap = |place, size| {
        // SAFETY: this was mapped here, and nobody knows of it yet.
        let _ = unsafe { libc::munmap(place, size) };
    };
    let found = pages(place, size);
    if found.is_null() || (place.is_null() && found.addr().is_multiple_of(alignment)) || found == place {
        return found;
    }
    unmap(found, size);
    if !place.is_null() {
        return ptr::null_mut();
    }
    let Some(roomy) = size.checked_add(alignment) else { return ptr::null_mut() };
    let found = pages(ptr::null_mut(), roomy);
    if found.is_null() {
        return found;
    }
    let before = found.addr().next_multiple_of(alignment) - found.addr();
    let aligned = found.wrapping_byte_add(before);
    if before > 0 {
        unmap(found, before);
    }
    unmap(aligned.wrapping_byte_add(size), alignment - before);
    aligned
}

unsafe extern "C" fn commit(
    _: *const Hooks,
    _: *mut c_void,
    _: usize,
    _: usize,
    length: usize,
    _: c_uint,
) -> bool {
    !take(length)
}

unsafe extern "C" fn decommit(
    _: *const Hooks,
    place: *mut c_void,
    _: usize,
    offset: usize,
    length: usize,
    _: c_uint,
) -> bool {
    // SAFETY: jemalloc owns the part and has nothing in it any more.
    let failed = unsafe { libc::madvise(place.byte_add(offset), length, libc::MADV_DONTNEED) } != 0;
    if !failed {
        give_back(length);
    }
    failed
}

/// Mappings can be taken apart wherever jemalloc likes, …
unsafe extern "C" fn split(
    _: *const Hooks,
    _: *mut c_void,
    _: usize,
    _: usize,
    _: usize,
    _: bool,
    _: c_uint,
) -> bool {
    false
}

/// … and neighbours can be used as one.
unsafe extern "C" fn merge(
    _: *const Hooks,
    _: *mut c_void,
    _: usize,
    _: *mut c_void,
    _: usize,
    _: bool,
    _: c_uint,
) -> bool {
    false
}

/// Counts bytes, unless they are too many.
fn take(size: usize) -> bool {
    let bytes = signed(size);
    let (taken, limit) = (TAKEN.fetch_add(bytes, Ordering::Relaxed), LIMIT.load(Ordering::Relaxed));
    let fits = limit == 0 || taken.saturating_add(bytes) <= limit;
    if !fits {
        give_back(size);
    }
    fits
}

fn give_back(size: usize) {
    TAKEN.fetch_sub(signed(size), Ordering::Relaxed);
}

/// No address space has as many bytes as this could be wrong for.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The functions of the jemalloc in DuckDB's library.
struct Jemalloc {
    mallctl: Mallctl,
    malloc: Malloc,
    free: Free,
}

type Mallctl = unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

impl Jemalloc {
    fn find() -> Option<Self> {
        let symbol = |name: &CStr| {
            // SAFETY: `name` ends with a zero.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        let (mallctl, malloc, free) =
            (symbol(c"duckdb_je_mallctl")?, symbol(c"duckdb_je_malloc")?, symbol(c"duckdb_je_free")?);
        // SAFETY: under these names, jemalloc's interface has functions of these types.
        unsafe {
            Some(Self {
                mallctl: std::mem::transmute::<*mut c_void, Mallctl>(mallctl),
                malloc: std::mem::transmute::<*mut c_void, Malloc>(malloc),
                free: std::mem::transmute::<*mut c_void, Free>(free),
            })
        }
    }

    /// Puts our hooks into every arena, or names what was refused.
    fn enclose(self) -> Result<Wall, String> {
        // Large allocations have an arena of their own, which is there after the first of them.
        let large: usize = self.read("opt.oversize_threshold")?;
        // SAFETY: what was allocated is freed; `free` takes a null too.
        unsafe { (self.free)((self.malloc)(large)) };
        let arenas: c_uint = self.read("arenas.narenas")?;
        for arena in 0..arenas {
            // This makes the arena, where it is not there yet.
            self.write(&format!("arena.{arena}.extent_hooks"), &raw const HOOKS)?;
        }
        Ok(Wall { jemalloc: self })
    }

    /// Gives the system what all arenas hold without using it.
    fn purge(&self) {
        // SAFETY: this name takes and gives nothing. `MALLCTL_ARENAS_ALL` is 4096.
        unsafe {
            (self.mallctl)(c"arena.4096.purge".as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0)
        };
    }

    /// Reads a value. `T` must be what jemalloc's manual says of the name, and any bits must make one.
    fn read<T: Copy>(&self, name: &str) -> Result<T, String> {
        let key = CString::new(name).map_err(|_| name.to_owned())?;
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        let mut size = size_of::<T>();
        // SAFETY: jemalloc writes no more than `size` bytes, and fails when its value has another size.
        unsafe {
            match (self.mallctl)(key.as_ptr(), value.as_mut_ptr().cast(), &raw mut size, ptr::null_mut(), 0) {
                0 => Ok(value.assume_init()),
                _ => Err(name.to_owned()),
            }
        }
    }

    /// Writes a value. `T` must be what jemalloc's manual says of the name.
    fn write<T: Copy>(&self, name: &str, mut value: T) -> Result<(), String> {
        let key = CString::new(name).map_err(|_| name.to_owned())?;
        let place = (&raw mut value).cast();
        // SAFETY: jemalloc reads no more than the size that it is told, and fails when it expects another.
        match unsafe { (self.mallctl)(key.as_ptr(), ptr::null_mut(), ptr::null_mut(), place, size_of::<T>()) }
        {
            0 => Ok(()),
            _ => Err(name.to_owned()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    /// jemalloc has allocated nothing for this thread when it gives back the first of its neighbours.
    #[test]
    fn a_thread_can_free_what_another_has_allocated() {
        let _share = Share::of(1 << 30);
        let jemalloc = &wall().expect("the official library holds jemalloc").jemalloc;
        // SAFETY: the size is not zero.
        let places: Vec<usize> =
            (0..200).map(|_| unsafe { (jemalloc.malloc)(1 << 20) }.expose_provenance()).collect();
        let (done, wait) = mpsc::channel();
        thread::spawn(move || {
            for place in places {
                // SAFETY: each was allocated above and is freed once.
                unsafe { (jemalloc.free)(ptr::with_exposed_provenance_mut(place)) };
            }
            done.send(()).unwrap();
        });
        assert_eq!(wait.recv_timeout(Duration::from_secs(20)), Ok(()), "it waits for itself");
    }

    #[test]
    fn pages_are_aligned_and_lie_where_they_are_wanted() {
        const SIZE: usize = 1 << 16;
        for shift in [12, 21, 26] {
            let found = map(ptr::null_mut(), SIZE, 1 << shift);
            assert!(!found.is_null() && found.addr().is_multiple_of(1 << shift));
            assert!(map(found, SIZE, 1 << 12).is_null(), "that place is taken");
            // SAFETY: these pages are this test's own.
            unsafe {
                found.cast::<u8>().write_bytes(1, SIZE);
                libc::munmap(found, SIZE);
            }
        }
    }
}
