//! What the fuzz targets of Tideline are made of. README.md says how to run them.
//!
//! ```text
//!   receive ──► replicas ──► blob ─┐
//!   open ─────► shapes ──► damage ─┤
//!                  │               ├─► pages (databases on simulated disks), value, budget
//!   recover ───────┴─► tail, reader┘
//!   index ───────► the journal's probe
//!   parameters ─┐
//!   functions ──┴► place (a folder of real files), SQLite, remotes
//! ```

pub mod blob;
pub mod budget;
mod calls;
pub mod damage;
mod databases;
pub mod functions;
pub mod index;
pub mod layout;
pub mod open;
pub mod pages;
pub mod parameters;
pub mod place;
pub mod reader;
pub mod receive;
pub mod recover;
mod remotes;
pub mod replicas;
pub mod shapes;
pub mod tail;
pub mod value;

#[global_allocator]
static ALLOCATOR: budget::Counting = budget::Counting;
