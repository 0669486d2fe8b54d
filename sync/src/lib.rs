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
mod cache;
mod chain;
mod cloning;
mod copies;
mod desk;
mod frame;
mod hex;
mod images;
mod keeper;
mod key;
mod lazy;
mod lease;
mod library;
mod manifest;
mod objects;
mod options;
mod place;
mod point;
mod probe;
mod profile;
mod pull;
mod push;
mod remotes;
mod runs;
mod seal;
mod segment;
mod settings;
mod trim;
mod whole;
mod wire;

pub use address::{Address, Kind};
pub use book::quoted;
pub use cloning::Cloning;
pub use lazy::{RemotePages, store_options};
pub use options::{Options, Unread, options};
pub use point::Point;
pub use remotes::{Listed, ORIGIN, Remotes, Task};
pub use settings::{flag, time};
