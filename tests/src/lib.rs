//! Harness of the black-box tests: they use the built library as its users do, from outside.
//!
//! The library is the one in `$TIDELINE_DIST`, or else in `target/dist` of the workspace, where `cargo xtask dist`
//! leaves it. Nothing here depends on the crates that it is made of. The hosts that load it are
//!
//! | host | SQLite | module |
//! |---|---|---|
//! | the `sqlite3` shell | this system's (Debian builds it with `SECURE_DELETE`) | [`Shell`], [`Session`] |
//! | `/usr/bin/python3`, module `sqlite3` | this system's | [`python`] |
//! | a Python with `apsw` | a far newer one of its own | [`apsw`] |
//! | `rusqlite` in this process, and in the programs `worker` and `recorder` | a newer one, bundled, without `SECURE_DELETE` | [`bundled`] |
//! | `/usr/bin/python3`, and a stand-in for the shell in it | an old one, and the bundled one, compiled here | [`Build`] |
//!
//! [`Host`] runs one test on several of them.
//!
//! Tests of remotes in object stores have a [`Bucket`], a place in it with databases ([`site`]), and a
//! [`proxy`](proxy::Proxy) that makes its network a bad one.
//!
//! With `TIDELINE_AGAINST=stock` everything runs on SQLite's own VFS and nothing is loaded: what a test expects of
//! plain SQL can be checked against SQLite itself. Other variables: `TIDELINE_APSW_PYTHON` (a Python that has apsw),
//! `TIDELINE_MOTO_PYTHON` (one that has moto), `TIDELINE_S3_ENDPOINT` and those that go with it (see [`Bucket`]),
//! `TIDELINE_QUICK` (fewer rounds), `TIDELINE_SEED` (see [`Dice`]), `TIDELINE_TEST_SECONDS` (when a process is taken
//! for hung), `TIDELINE_HOST_PRELOAD` (a library that the shell and Python load before all else, such as a
//! sanitizer's).

mod bucket;
mod build;
mod bundled;
mod content;
mod dice;
pub mod differential;
pub mod history;
mod host;
mod library;
mod process;
pub mod proxy;
mod pyhost;
mod scratch;
mod shell;
pub mod site;
mod sql;
mod states;

pub use bucket::Bucket;
pub use build::{Build, SYSTEM_LIBRARIES, crash_library, faults_library};
pub use bundled::{bundled, bundled_at, bundled_stock, render, script};
pub use content::{content, plain_header};
pub use dice::{Dice, rounds};
pub use host::Host;
pub use library::{against_stock, library, skipped};
pub use process::{Output, Process, patience};
pub use pyhost::{apsw, python, python_start};
pub use scratch::{Scratch, files_below};
pub use shell::{Session, Shell, at_home};
pub use sql::{LOCKED, NOT_A_DATABASE, SPILL, SUMS, filled, numbers};
pub use states::{behind, each_plain_store, left_behind, plain_store, status};

/// Asserts that `text` has a refusal `tideline: CODE: cause; remedy` of this code, and gives `cause; remedy`.
pub fn refusal<'a>(text: &'a str, code: &str) -> &'a str {
    let start = format!("tideline: {code}: ");
    let Some((_, reason)) = text.split_once(start.as_str()) else {
        panic!("no `{start}…` in {text:?}");
    };
    let reason = reason.lines().next().unwrap_or_default();
    match reason.split_once("; ") {
        Some((cause, remedy)) if !cause.trim().is_empty() && !remedy.trim().is_empty() => reason,
        _ => panic!("neither cause nor remedy in {reason:?}"),
    }
}
