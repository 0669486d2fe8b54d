//! Names of the files in the side folder: parsed and printed here alone.

use std::fmt;

use crate::lsn::Lsn;

/// What is put behind the database's path to name its side folder.
pub const SIDE_SUFFIX: &str = "-tide";

/// A file of the side folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The superblock.
    Superblock,
    /// The first superblock, before it has its name.
    NewSuperblock,
    /// The control file; its content means nothing after a boot.
    Control,
    /// Hashes of the base's pages.
    Hashes,
    /// Segment of the journal.
    Segment(u32),
    /// Images that a fold replaced in the base and history still needs.
    Kept(u32),
    /// The same while it is written, before it gets that name.
    NewKept(u32),
    /// A segment that the journal went through before, to be written again: its number then, and the
    /// newest LSN when it was given up.
    Spare(u32, Lsn),
    /// Pieces of a shipped entry that isn't complete yet.
    Incoming,
    /// What is kept about remotes.
    Remotes,
    /// The same while it is written, before it gets that name.
    NewRemotes,
    /// Where the pages come from that the base of a lazy clone doesn't have.
    Source,
    /// The same while it is written, before it gets that name.
    NewSource,
    /// Which pages it has.
    Present,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Superblock => f.write_str("store"),
            Name::NewSuperblock => f.write_str("store.new"),
            Name::Control => f.write_str("control"),
            Name::Hashes => f.write_str("hashes"),
            Name::Segment(n) => write!(f, "{n:08x}.seg"),
            Name::Kept(n) => write!(f, "{n:08x}.kept"),
            Name::NewKept(n) => write!(f, "{n:08x}.kept.new"),
            Name::Spare(n, lsn) => write!(f, "{n:08x}.{:016x}.spare", lsn.get()),
            Name::Incoming => f.write_str("incoming"),
            Name::Remotes => f.write_str("remotes"),
            Name::NewRemotes => f.write_str("remotes.new"),
            Name::Source => f.write_str("source"),
            Name::NewSource => f.write_str("source.new"),
            Name::Present => f.write_str("present"),
        }
    }
}

impl Name {
    /// Number of the segment, if it is one.
    pub fn segment(self) -> Option<u32> {
        match self {
            Name::Segment(number) => Some(number),
            _ => None,
        }
    }

    /// The file that `name` names; `None` if it isn't one of ours.
    pub fn parse(name: &str) -> Option<Name> {
        let hex = |digits: &str, count: usize| {
            (digits.len() == count
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
        };
        let number = |digits: &str| hex(digits, 8).map(|n| n as u32);
        match name {
            "store" => Some(Name::Superblock),
            "store.new" => Some(Name::NewSuperblock),
            "control" => Some(Name::Control),
            "hashes" => Some(Name::Hashes),
            "incoming" => Some(Name::Incoming),
            "remotes" => Some(Name::Remotes),
            "remotes.new" => Some(Name::NewRemotes),
            "source" => Some(Name::Source),
            "source.new" => Some(Name::NewSource),
            "present" => Some(Name::Present),
            _ => match name.split_once('.')? {
                (digits, "seg") => number(digits).map(Name::Segment),
                (digits, "kept") => number(digits).map(Name::Kept),
                (digits, "kept.new") => number(digits).map(Name::NewKept),
                (digits, rest) => {
                    let lsn = hex(rest.strip_suffix(".spare")?, 16)?;
                    number(digits).map(|number| Name::Spare(number, Lsn::new(lsn)))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_and_parse_agree() {
        for name in [
            Name::Superblock,
            Name::NewSuperblock,
            Name::Control,
            Name::Hashes,
            Name::Incoming,
            Name::Remotes,
            Name::NewRemotes,
            Name::Source,
            Name::NewSource,
            Name::Present,
            Name::Segment(0),
            Name::Segment(0xdead_beef),
            Name::Kept(17),
            Name::NewKept(17),
            Name::Spare(3, Lsn::new(0xfedc_ba98_7654_3210)),
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in ["", "x", "0000001.seg", "0000000G.seg", "000000001.seg", "00000001.tmp", "+0000001.seg"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
