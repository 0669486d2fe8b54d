//! The page store under Tideline: every commit is a journal entry with a log sequence number.
//!
//! ```text
//!   Session ──► Snapshot ──► Index ──► Segment ─┐
//!      │            ├──────► base ──────────────┤──► disk::{Disk, File, Words}
//!      │            └──────► PageSource         │    (what the base of a lazy clone lacks)
//!      └► Overlay ──► Store ──► Control ────────┘
//! ```
//! No SQLite type is known here, and the only `unsafe` code is in `disk/mmap.rs` and `disk/warm.rs`.
//! ARCHITECTURE.md explains the whole, FORMAT.md the bytes.

#![deny(unsafe_code)]

mod amount;
mod checksum;
mod clock;
mod compact;
mod control;
mod detach;
mod durable;
mod error;
mod export;
mod fold;
mod format;
mod hash;
mod hashes;
mod hydrate;
mod image;
mod index;
mod interrupt;
mod kept;
mod log;
mod lsn;
mod maintenance;
mod mend;
mod merge;
mod overlay;
mod past;
mod prepared;
mod present;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod probe;
mod receive;
mod recover;
mod remotes;
mod replace;
mod retention;
#[cfg(test)]
mod sample;
mod segment;
mod session;
mod ship;
mod snapshot;
mod source;
mod spare;
mod spool;
mod state;
mod store;
mod touched;
mod unpacked;
mod verify;
mod whole;

pub mod disk;

pub use clock::{Clock, SystemClock};
pub use error::{Code, Error, Result};
pub use format::{Origin, PackedRows, Retention, Unsent, unpack_rows};
pub use hash::{HEADER_LEN, page_hash};
pub use image::{Image, WholePiece};
pub use interrupt::{Interrupt, interrupted};
pub use log::{LogRow, Status};
pub use lsn::{Lsn, LsnRange};
pub use maintenance::{Held, Visitor, block_signals};
pub use remotes::{RemoteTurn, RemotesFile, Traffic};
pub use replace::incoming;
pub use session::{Durability, Session};
pub use ship::{Batches, shipped_state};
pub use source::{PageSource, Sources};
pub use state::{Counters, State, lock_page, page_size_of};
pub use store::{Options, Store, random_id, side_folder};
pub use verify::Finding;

use std::sync::OnceLock;

static REPORT: OnceLock<fn(&Error)> = OnceLock::new();

/// Names who is told of errors that no caller can be told of, such as those of the last close.
pub fn report_to(listener: fn(&Error)) {
    // The first one stays.
    REPORT.get_or_init(|| listener);
}

pub(crate) fn report(error: &Error) {
    if let Some(listener) = REPORT.get() {
        listener(error);
    }
}
