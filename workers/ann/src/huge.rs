//! Memory for what is read here and there: in huge pages where the system has them, so that finding a page costs nothing.
//!
//! A walk touches some thousand rows at random. In pages of 4 KiB each of them waits for a page table first, which takes
//! as long as reading the row.

use std::{
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;
use memmap2::MmapMut;

/// A list of numbers of a fixed length.
pub(crate) struct Huge<T> {
    map: Option<MmapMut>,
    of: PhantomData<T>,
}

impl<T: Pod> Huge<T> {
    /// So many zeros.
    pub(crate) fn zeros(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { map: None, of: PhantomData });
        }
        let map = MmapMut::map_anon(length * size_of::<T>())?;
        // A wish: without huge pages everything works, only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map), of: PhantomData })
    }

    /// A copy.
    pub(crate) fn copy(numbers: &[T]) -> io::Result<Self> {
        let mut copy = Self::zeros(numbers.len())?;
        copy.copy_from_slice(numbers);
        Ok(copy)
    }
}

impl<T: Pod> Deref for Huge<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.map.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}

impl<T: Pod> DerefMut for Huge<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.map.as_mut().map_or(&mut [], |map| bytemuck::cast_slice_mut(map))
    }
}
