//! Hashes of pages and the rolling checksum of a database.
//!
//! A page's hash is the CRC-64/XZ of its image, mixed with its number; the checksum of a database
//! is the wrapping sum of its pages' hashes, so it can be carried from commit to commit and doesn't
//! depend on the order. FORMAT.md has the definition.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// The bytes of page 1 that belong to one machine's store; hashed as if they were zero.
pub const SERVED: [(usize, usize); 4] = [(18, 20), (24, 28), (40, 44), (92, 100)];

/// Length of the database header at the start of page 1, in bytes.
pub const HEADER_LEN: usize = 100;

/// Murmur3's 64-bit finaliser: a bijection, so that no flipped bit of a CRC is lost.
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Hash of the image of page number `page`. Never 0, which stands for "not known".
pub fn page_hash(page: u32, image: &[u8]) -> u64 {
    let crc = if page == 1 && image.len() >= HEADER_LEN {
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&image[..HEADER_LEN]);
        for (from, to) in SERVED {
            header[from..to].fill(0);
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc64Xz);
        digest.update(&header);
        digest.update(&image[HEADER_LEN..]);
        digest.finalize()
    } else {
        checksum(CrcAlgorithm::Crc64Xz, image)
    };
    let hash = mix(crc ^ u64::from(page).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if hash == 0 { 1 } else { hash }
}

/// Hash of a page of `size` zero bytes.
pub fn zero_hash(page: u32, size: usize) -> u64 {
    static ZEROS: [u8; 65536] = [0; 65536];
    page_hash(page, &ZEROS[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_one_that_the_format_names() {
        // The check value of CRC-64/XZ.
        assert_eq!(checksum(CrcAlgorithm::Crc64Xz, b"123456789"), 0x995d_c9bb_df19_39fa);
    }

    #[test]
    fn served_bytes_do_not_count_and_all_others_do() {
        let image = [7u8; 512];
        let hash = page_hash(1, &image);
        for at in 0..512 {
            let mut other = image;
            other[at] ^= 1;
            let served = SERVED.iter().any(|&(from, to)| (from..to).contains(&at));
            assert_eq!(page_hash(1, &other) == hash, served, "byte {at}");
            assert_ne!(page_hash(2, &other), page_hash(2, &image), "byte {at}");
        }
    }

    #[test]
    fn number_of_the_page_counts() {
        assert_ne!(page_hash(2, &[0; 512]), page_hash(3, &[0; 512]));
        assert_eq!(zero_hash(2, 512), page_hash(2, &[0; 512]));
    }
}
