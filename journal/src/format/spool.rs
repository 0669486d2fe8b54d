//! What stands before everything else that is kept about remotes: which history they haven't got yet.

use super::{put, u32_at, u64_at};
use crate::lsn::Lsn;

/// Length of the head, and of what is said of one remote, in bytes.
const HEAD_LEN: usize = 8;
const UNSENT_LEN: usize = 16;

/// What a remote hasn't got yet, and is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Everything behind this commit.
    pub behind: Lsn,
    /// Most bytes of the journal that are kept for it.
    pub most: u64,
}

/// Both together, as they are kept.
pub fn join_unsent(unsent: &[Unsent], bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEAD_LEN + unsent.len() * UNSENT_LEN];
    put(&mut out, 0, &(unsent.len() as u32).to_le_bytes());
    for (one, place) in unsent.iter().zip(out[HEAD_LEN..].chunks_exact_mut(UNSENT_LEN)) {
        put(place, 0, &one.behind.get().to_le_bytes());
        put(place, 8, &one.most.to_le_bytes());
    }
    out.extend_from_slice(bytes);
    out
}

/// Both, from what is kept; `None` if that is damaged.
pub fn split_unsent(kept: &[u8]) -> Option<(Vec<Unsent>, &[u8])> {
    let (head, rest) = kept.split_at_checked(HEAD_LEN)?;
    let len = usize::try_from(u32_at(head, 0)).ok()?.checked_mul(UNSENT_LEN)?;
    let (unsent, bytes) = rest.split_at_checked(len)?;
    let one = |place: &[u8]| Unsent { behind: Lsn::new(u64_at(place, 0)), most: u64_at(place, 8) };
    Some((unsent.chunks_exact(UNSENT_LEN).map(one).collect(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split_again_and_nothing_else_is() {
        let unsent = [7, 9].map(|lsn| Unsent { behind: Lsn::new(lsn), most: lsn << 20 });
        for count in 0..=2 {
            for bytes in [&b""[..], b"{}"] {
                let kept = join_unsent(&unsent[..count], bytes);
                assert_eq!(split_unsent(&kept), Some((unsent[..count].to_vec(), bytes)));
            }
        }
        let kept = join_unsent(&unsent, b"");
        for end in 0..kept.len() {
            assert_eq!(split_unsent(&kept[..end]), None, "{end}");
        }
        assert_eq!(split_unsent(b"{\"remotes\":[]}"), None);
    }
}
