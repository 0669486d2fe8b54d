//! What the fuzz targets of Tideline's page store are made of. README.md says how to run them.
//!
//! ```text
//!   receive ──► replicas ──► blob ─┐
//!                                  ├─► pages (databases on simulated disks), value, budget
//!   open ─────► shapes ──► damage ─┘
//! ```

pub mod blob;
pub mod budget;
pub mod damage;
pub mod layout;
pub mod open;
pub mod pages;
pub mod receive;
pub mod replicas;
pub mod shapes;
pub mod value;

#[global_allocator]
static ALLOCATOR: budget::Counting = budget::Counting;
