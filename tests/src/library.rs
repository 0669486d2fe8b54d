//! The library that is tested.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::io::Write;
use std::path::PathBuf;

/// The loadable library; a test without it makes no sense.
pub fn library() -> PathBuf {
    let path = dist().join(format!("{DLL_PREFIX}tideline{DLL_SUFFIX}"));
    assert!(path.exists(), "{} isn't there: run `cargo xtask dist`", path.display());
    path
}

/// The folder that `cargo xtask dist` fills.
pub(crate) fn dist() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = std::env::var_os("TIDELINE_DIST").map_or_else(|| workspace.join("target/dist"), PathBuf::from);
    std::path::absolute(path).expect("a path that can be made absolute")
}

/// Is the harness told to leave the library out, and to use SQLite's own VFS?
pub fn against_stock() -> bool {
    std::env::var("TIDELINE_AGAINST").is_ok_and(|value| value == "stock")
}

/// Says that a test is left out, past the test runner, which keeps what tests print to itself.
pub fn skipped(why: &str) {
    writeln!(std::io::stdout(), "SKIPPED: {why}").expect("standard output");
}
