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
        atomic::{AtomicI64, AtomicPtr, Ordering},
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
#[repr(C)]
#[derive(Clone, Copy)]
struct Hooks {
    alloc: Alloc,
    /// Without it, addresses are kept for later. Giving them back would let jemalloc take the next ones there, of another
    /// arena, for a part of their neighbours.
    dalloc: Option<Part>,
    destroy: *const c_void,
    commit: Part,
    decommit: Part,
    /// `purge_lazy`, `purge_forced`, `split` and `merge` stay as they are.
    others: [*const c_void; 4],
}

type Alloc =
    unsafe extern "C" fn(*mut Hooks, *mut c_void, usize, usize, *mut bool, *mut bool, c_uint) -> *mut c_void;
/// Takes the whole place and its size, and the offset and length of the part in question.
type Part = unsafe extern "C" fn(*mut Hooks, *mut c_void, usize, usize, usize, c_uint) -> bool;

/// jemalloc's own hooks. They live as long as the process.
static ORIGINAL: AtomicPtr<Hooks> = AtomicPtr::new(ptr::null_mut());

/// Gives addresses, and with `commit` memory behind them.
unsafe extern "C" fn alloc(
    _: *mut Hooks,
    place: *mut c_void,
    size: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    arena: c_uint,
) -> *mut c_void {
    // SAFETY: jemalloc says there what it needs.
    let wanted = unsafe { *commit };
    if wanted && !take(size) {
        return ptr::null_mut();
    }
    let original = ORIGINAL.load(Ordering::Acquire);
    // SAFETY: `original` was set before these hooks were; the arguments are jemalloc's own.
    let given = unsafe { ((*original).alloc)(original, place, size, alignment, zero, commit, arena) };
    if given.is_null() && wanted {
        give_back(size);
    }
    // SAFETY: as above. Linux gives memory when an address is first written to, but it is to be counted before.
    unsafe { *commit = wanted };
    given
}

unsafe extern "C" fn commit(
    _: *mut Hooks,
    _: *mut c_void,
    _: usize,
    _: usize,
    length: usize,
    _: c_uint,
) -> bool {
    !take(length)
}

unsafe extern "C" fn decommit(
    _: *mut Hooks,
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
        let original: *mut Hooks = self.read("arena.0.extent_hooks")?;
        ORIGINAL.store(original, Ordering::Release);
        // SAFETY: jemalloc's own hooks are never freed.
        let hooks = Hooks { alloc, dalloc: None, commit, decommit, ..unsafe { *original } };
        // jemalloc keeps the pointer for as long as the process lives.
        let hooks: *mut Hooks = Box::leak(Box::new(hooks));
        for arena in 0..arenas {
            // This makes the arena, where it is not there yet.
            self.write(&format!("arena.{arena}.extent_hooks"), hooks)?;
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
