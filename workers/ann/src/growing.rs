//! A list that grows while others read it.
//!
//! Places lie in chunks that double in size and never move, so a reader needs no lock.

use std::sync::OnceLock;

/// Places of the first chunk.
const FIRST: usize = 64;
/// So many chunks hold more than `u32::MAX` places.
const CHUNKS: usize = 27;

/// Values by number.
pub(crate) struct Growing<T> {
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
}

impl<T> Growing<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// The value at a place, once it is there.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        let (chunk, at) = place(at);
        self.chunks[chunk].get()?[at].get()
    }

    /// Puts a value where none is.
    pub(crate) fn set(&self, at: usize, value: T) {
        let (chunk, at) = place(at);
        let chunk = self.chunks[chunk].get_or_init(|| (0..FIRST << chunk).map(|_| OnceLock::new()).collect());
        assert!(chunk[at].set(value).is_ok(), "a place is written once");
    }
}

/// The chunk of a place, and where it lies in it: chunk c begins at 64 · (2^c - 1).
fn place(at: usize) -> (usize, usize) {
    let chunk = ((at + FIRST).ilog2() - FIRST.ilog2()) as usize;
    (chunk, at + FIRST - (FIRST << chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let growing = Growing::new();
        for at in 0..5_000 {
            assert_eq!(growing.get(at), None);
            growing.set(at, at);
        }
        assert!((0..5_000).all(|at| growing.get(at) == Some(&at)));
        assert_eq!(place(u32::MAX as usize).0, CHUNKS - 1);
    }
}
