//! Images, compressed against another one that the reader has.
//!
//! Each is one frame of zstd, with the other image for a raw dictionary: what stays costs nothing, and what moved within
//! the page a few bytes.

use zstd_safe::{CCtx, DCtx};

/// Level for an image that has an earlier one: what differs is little, and worth looking for.
const DIFFERENCE_LEVEL: i32 = 3;
/// Level for any other.
const LEVEL: i32 = 1;

/// Compresses images.
pub(super) struct Squeezer {
    context: CCtx<'static>,
    out: Vec<u8>,
}

impl Squeezer {
    pub fn new() -> Squeezer {
        Squeezer { context: CCtx::create(), out: Vec::new() }
    }

    /// `image` against `other`; `None` if that isn't shorter than `limit`. `similar` says that `other` is an earlier
    /// image of the same page.
    pub fn squeeze(&mut self, image: &[u8], other: &[u8], similar: bool, limit: usize) -> Option<&[u8]> {
        self.out.resize(limit, 0);
        let level = if similar { DIFFERENCE_LEVEL } else { LEVEL };
        // It fails where there is no room for it, or `other` begins like a dictionary that was trained.
        let len = self.context.compress_using_dict(&mut self.out[..], image, other, level).ok()?;
        (len < limit).then_some(&self.out[..len])
    }
}

/// Undoes what a [`Squeezer`] did.
pub(super) struct Stretcher {
    context: DCtx<'static>,
}

impl Stretcher {
    pub fn new() -> Stretcher {
        Stretcher { context: DCtx::create() }
    }

    /// Fills `image`; false if `squeezed` isn't as long an image, compressed against `other`.
    pub fn stretch(&mut self, squeezed: &[u8], other: &[u8], image: &mut [u8]) -> bool {
        self.context.decompress_using_dict(image, squeezed, other).is_ok_and(|len| len == image.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn what_moved_and_what_changed_costs_little() {
        let mut seed = 1u32;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        });
        let other: Vec<u8> = noise.take(4096).collect();
        let mut image = other.clone();
        image.copy_within(100..2000, 102);
        image[3000..3030].fill(7);
        let (mut squeezer, mut stretcher) = (Squeezer::new(), Stretcher::new());
        let squeezed = squeezer.squeeze(&image, &other, true, 4096).unwrap().to_vec();
        assert!(squeezed.len() < 160, "{} bytes", squeezed.len());
        let mut found = vec![0; 4096];
        assert!(stretcher.stretch(&squeezed, &other, &mut found));
        assert_eq!(found, image);
        assert!(squeezer.squeeze(&image, &[], false, 4096).is_none(), "noise");
        // Another length, other bytes, another dictionary.
        assert!(!stretcher.stretch(&squeezed, &other, &mut vec![0; 4095]));
        assert!(!stretcher.stretch(&squeezed, &other, &mut vec![0; 8192]));
        assert!(!stretcher.stretch(&squeezed[..squeezed.len() - 1], &other, &mut found));
        assert!(!stretcher.stretch(&[], &other, &mut found));
        let trained = [&0xec30_a437u32.to_le_bytes()[..], &[9; 4092]].concat();
        assert!(squeezer.squeeze(&image, &trained, true, 4096).is_none());
    }
}
