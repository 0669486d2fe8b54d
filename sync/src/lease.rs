//! A lease: what a lazy clone may still have to read at a remote, and so isn't removed there.
//!
//! It is an object that is written again every so often; one that wasn't for long counts for nothing. Where a clone may
//! not write, it has none, and reads for as long as what it was cloned from is retained.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Result};

use crate::hex;
use crate::manifest::{Hash, VERSION};
use crate::objects::{Listed, Objects};
use crate::runs::Runs;

const FOLDER: &str = "lease";
/// How long it counts after it was written, in milliseconds: 30 days.
const COUNTS_FOR: u64 = 30 * 24 * 3600 * 1000;
/// How often it is written again, in milliseconds: once a day.
pub(crate) const RENEWED_EVERY: u64 = 24 * 3600 * 1000;
/// Where that fails, how often it is tried, in milliseconds: every ten minutes.
pub(crate) const TRIED_EVERY: u64 = 600_000;
/// No lease is longer, in bytes.
const LEASE_LIMIT: u64 = 1 << 28;

/// What is in it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Lease {
    tideline: u32,
    /// Number of the manifest whose runs they are.
    pub number: u64,
    /// Nobody needs them any more.
    ended: bool,
    /// Hashes of the segments.
    segments: Vec<Digits>,
}

#[derive(Serialize, Deserialize)]
struct Digits(#[serde(with = "hex")] Hash);

impl Lease {
    /// The segments that it is of.
    pub fn segments(&self) -> impl Iterator<Item = Hash> {
        self.segments.iter().map(|Digits(hash)| *hash)
    }
}

fn name(id: &str) -> String {
    format!("{FOLDER}/{id}")
}

/// Writes the lease `id`, of everything that the `runs` of the manifest `number` name; or that it has ended.
pub(crate) fn write(objects: &Objects<'_>, id: &str, number: u64, runs: &Runs, ended: bool) -> Result<()> {
    let segments = runs.segments().map(|segment| Digits(segment.hash)).collect();
    let text = serde_json::to_vec(&Lease { tideline: VERSION, number, ended, segments })
        .map_err(|e| Error::new(Code::Io, format!("a lease can't be written: {e}; report this as a bug")))?;
    objects.put(&name(id), Bytes::from(text))
}

/// All leases.
#[derive(Default)]
pub(crate) struct Leases {
    /// Segments that somebody has one of.
    pub held: HashSet<Hash>,
    /// Those that count no more.
    pub over: Vec<(Listed, Lease)>,
}

/// All leases, `now`, in milliseconds since 1970.
///
/// # Errors
/// `Damaged` where one can't be read: who knows what it is of.
pub(crate) fn all(objects: &Objects<'_>, now: u64) -> Result<Leases> {
    let mut all = Leases::default();
    for listed in objects.list(FOLDER)? {
        // Another sweeper may have removed it meanwhile.
        let Some(bytes) = objects.get_listed(&listed.stored, LEASE_LIMIT)? else { continue };
        let lease: Lease = serde_json::from_slice(&bytes).map_err(|_| {
            let text = format!(
                "the lease {} at {} can't be read, so nothing is removed there; use a newer version, or remove it",
                listed.stored,
                objects.url()
            );
            Error::new(Code::Damaged, text)
        })?;
        // A copy of the clone may need it still, and says so within a day.
        let counts_for = if lease.ended { 2 * RENEWED_EVERY } else { COUNTS_FOR };
        if listed.last_modified.saturating_add(counts_for) < now {
            all.over.push((listed, lease));
        } else {
            all.held.extend(lease.segments());
        }
    }
    Ok(all)
}
