//! A list that grows while it is read.

use std::sync::OnceLock;

use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_slice_box;

/// First chunk's length in an [`Appended`]; each next is twice as long.
const FIRST_CHUNK: usize = 64;

/// A list that one thread appends to while others read it.
pub(super) struct Appended<T> {
    chunks: [OnceLock<Box<[T]>>; 40],
    /// Makes a chunk of this length.
    make: fn(usize) -> Box<[T]>,
}

impl<T: Zeroable> Appended<T> {
    /// Its chunks take no memory where nothing was written yet.
    pub fn zeroed() -> Self {
        Appended { chunks: std::array::from_fn(|_| OnceLock::new()), make: zeroed_slice_box }
    }
}

impl<T: Default> Appended<T> {
    pub fn new() -> Self {
        let make = |len| (0..len).map(|_| T::default()).collect::<Vec<T>>().into();
        Appended { chunks: std::array::from_fn(|_| OnceLock::new()), make }
    }
}

impl<T> Appended<T> {
    fn place(index: usize) -> (usize, usize) {
        let n = index / FIRST_CHUNK + 1;
        let chunk = n.ilog2() as usize;
        (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        let (chunk, at) = Self::place(index);
        self.chunks.get(chunk)?.get()?.get(at)
    }

    pub fn slot(&self, index: usize) -> &T {
        let (chunk, at) = Self::place(index);
        &self.chunks[chunk].get_or_init(|| (self.make)(FIRST_CHUNK << chunk))[at]
    }
}

#[cfg(test)]
mod tests {
    use super::Appended;

    #[test]
    fn places_are_dense() {
        let mut expected = (0, 0);
        for index in 0..if cfg!(miri) { 5000 } else { 100_000 } {
            let place = Appended::<u8>::place(index);
            if index > 0 && place != expected {
                assert_eq!(place, (expected.0 + 1, 0), "index {index}");
            }
            expected = (place.0, place.1 + 1);
        }
    }
}
