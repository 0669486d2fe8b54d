//! A manifest: one push, as a numbered object that is created once and never replaced.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Lsn, LsnRange, Result};

use crate::hex;
use crate::runs::Runs;

/// Version of what lies in an object store.
pub(crate) const VERSION: u32 = 1;

/// A manifest so far behind the one before that has the whole database has it too.
pub(crate) const WHOLE_EVERY: u64 = 16;

/// So far behind the one before that has it, also a lazy clone fetches all pages for it.
pub(crate) const WHOLE_AT_LAST: u64 = 64;

/// No manifest has a larger number.
pub(crate) const LAST: u64 = 1 << 62;

/// A hash of the bytes of an object.
pub(crate) type Hash = [u8; 32];

/// A segment, by the hash of its bytes, under which it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentName {
    #[serde(with = "hex")]
    pub hash: Hash,
    pub bytes: u64,
}

/// What one push brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub first: u64,
    pub last: u64,
    /// Identity of the commit `last`.
    #[serde(with = "hex::number")]
    pub id: u64,
    /// Time of the commit `last`, in milliseconds since 1970; none is before that of an earlier commit.
    pub time: u64,
    /// What is behind the commit before isn't there by itself, but only in the runs of the manifest.
    pub full: bool,
    /// In the order in which their entries are to be applied.
    pub segments: Vec<SegmentName>,
}

impl Part {
    /// LSNs that it brought.
    pub fn range(&self) -> LsnRange {
        LsnRange { first: Lsn::new(self.first), last: Lsn::new(self.last) }
    }
}

/// What was given up at a remote, in two steps: nobody is to begin with manifests below `below`, and those below `removed`,
/// which was that a while ago, may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trimmed {
    /// Number of a manifest that has the whole database.
    pub below: u64,
    /// Number of the manifest that said so first.
    pub by: u64,
    /// Number of a manifest that has the whole database, or 1.
    pub removed: u64,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub tideline: u32,
    pub number: u64,
    #[serde(with = "hex")]
    pub lineage: [u8; 16],
    /// Random; whoever gets no clear answer knows its own by it.
    #[serde(with = "hex")]
    pub writer: [u8; 16],
    /// Hash of the manifest before it; zeros for the first.
    #[serde(with = "hex")]
    pub previous: Hash,
    /// Milliseconds since 1970.
    pub time: u64,
    pub part: Part,
    /// Number of the newest manifest that has the whole database, up to this one.
    pub whole: u64,
    /// What was given up, once anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trimmed: Option<Trimmed>,
    /// The whole database as it is behind `part`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
}

/// Where the manifest `number` is.
pub(crate) fn name(number: u64) -> String {
    format!("manifest/{number:020}")
}

/// Hash of the bytes of an object.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    *blake3::hash(bytes).as_bytes()
}

impl Manifest {
    /// Number of the oldest manifest that is kept.
    pub fn oldest(&self) -> u64 {
        self.trimmed.map_or(1, |trimmed| trimmed.below)
    }

    /// Its bytes: a line of JSON, and a line with the hash of the first.
    pub fn encode(&self) -> Result<Bytes> {
        let mut text = serde_json::to_string(self).map_err(|e| {
            Error::new(Code::Io, format!("a manifest can't be written: {e}; report this as a bug"))
        })?;
        text.push('\n');
        let seal = hex::print(&hash(text.as_bytes()));
        text.push_str(&seal);
        text.push('\n');
        Ok(Bytes::from(text))
    }

    /// Reads the manifest `number`.
    ///
    /// # Errors
    /// `Damaged`; `Format` of a newer one.
    pub fn decode(bytes: &[u8], number: u64) -> Result<Manifest> {
        let damaged = |why: &str| {
            let text = format!("{} {why}; put it back as it was, or clone from another remote", name(number));
            Error::new(Code::Damaged, text)
        };
        let lines = bytes.strip_suffix(b"\n").ok_or_else(|| damaged("is cut short"))?;
        let end = lines.iter().rposition(|&b| b == b'\n').ok_or_else(|| damaged("is cut short"))? + 1;
        let (body, seal) = lines.split_at(end);
        let sealed = std::str::from_utf8(seal).ok().and_then(hex::parse);
        if sealed != Some(hash(body)) {
            return Err(damaged("fails its checksum"));
        }
        #[derive(Deserialize)]
        struct Version {
            tideline: u32,
        }
        let Version { tideline } = serde_json::from_slice(body).map_err(|_| damaged("is no manifest"))?;
        if tideline != VERSION {
            let text =
                format!("{} is of format {tideline}, newer than this version; use that one", name(number));
            return Err(Error::new(Code::Format, text));
        }
        let manifest: Manifest = serde_json::from_slice(body).map_err(|_| damaged("is no manifest"))?;
        let part = &manifest.part;
        let runs = manifest.runs.as_ref();
        let whole = match runs {
            Some(runs) => {
                let same = (runs.state.lsn, runs.state.id) == (part.last, part.id);
                same && runs.is_possible() && manifest.whole == number
            }
            None => !part.full && (1..number).contains(&manifest.whole),
        };
        let trimmed = manifest.trimmed.is_none_or(|Trimmed { below, by, removed }| {
            1 <= removed && removed <= below && below <= by && by <= manifest.whole
        });
        let sound = manifest.number == number
            && trimmed
            && number <= LAST
            && (1..=part.last).contains(&part.first)
            && (!part.full || part.segments.is_empty())
            && whole;
        if sound { Ok(manifest) } else { Err(damaged("isn't what its name says")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Segment;
    use crate::runs::Run;
    use tideline_journal::State;

    fn manifest() -> Manifest {
        let segments = vec![SegmentName { hash: [7; 32], bytes: 1 << 40 }];
        let part = Part { first: 3, last: 9, id: u64::MAX - 1, time: 5, full: false, segments };
        let mut segment = Segment::new(512, [5; 8]);
        (1..=3).for_each(|page| segment.push(page, &[page as u8; 512]));
        let state = State { lsn: Lsn::new(9), id: part.id, page_size: 512, size: 3, ..State::default() };
        let runs = vec![Run { first: 1, last: 9, segments: vec![segment.finish().0] }];
        Manifest {
            tideline: VERSION,
            number: 64,
            lineage: [1; 16],
            writer: [2; 16],
            previous: [3; 32],
            time: 1_700_000_000_000,
            part,
            whole: 64,
            trimmed: Some(Trimmed { below: 48, by: 64, removed: 32 }),
            runs: Some(Runs { state: state.into(), checksum: Some(7), runs }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes, 64).unwrap(), manifest);
        assert_eq!(Manifest::decode(&bytes, 65).unwrap_err().code(), Code::Damaged);
    }

    #[test]
    fn every_byte_that_changes_is_noticed() {
        let bytes = manifest().encode().unwrap().to_vec();
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                assert_eq!(Manifest::decode(&changed, 64).unwrap_err().code(), Code::Damaged, "byte {at}");
            }
            assert_eq!(Manifest::decode(&bytes[..at], 64).unwrap_err().code(), Code::Damaged, "cut at {at}");
        }
    }

    #[test]
    fn what_is_given_up_ends_with_a_whole_database() {
        let with = |below, removed| {
            let trimmed = Some(Trimmed { below, by: 64, removed });
            Manifest::decode(&Manifest { trimmed, ..manifest() }.encode().unwrap(), 64).map(|_| ())
        };
        assert!(with(64, 64).is_ok() && with(1, 1).is_ok());
        for (below, removed) in [(65, 1), (16, 17), (16, 0)] {
            assert_eq!(with(below, removed).unwrap_err().code(), Code::Damaged, "{below} {removed}");
        }
    }

    #[test]
    fn a_newer_one_is_refused_as_such() {
        let newer = Manifest { tideline: VERSION + 1, ..manifest() };
        let refused = Manifest::decode(&newer.encode().unwrap(), 64).unwrap_err();
        assert_eq!(refused.code(), Code::Format);
    }
}
