//! Remotes: journals in object stores, pushed to, pulled from and cloned.
//!
//! ```text
//!   Remotes ── push, pull, sync, clone ──► Chain: numbered manifests, created if absent
//!      │                                     │        └─► Segment: shipped entries under the hash of their bytes
//!      └─► Book: what a store keeps          └─► Objects: requests, one after another
//!                                                    └─► Address: the object store behind a URL
//! ```
//! There is no SQLite in it. FORMAT.md has what lies in an object store, ARCHITECTURE.md why.

mod address;
mod book;
mod chain;
mod hex;
mod manifest;
mod objects;
mod probe;
mod pull;
mod push;
mod remotes;
mod segment;

pub use address::Address;
pub use objects::Objects;
pub use remotes::{Listed, ORIGIN, Remotes, clone_into};
