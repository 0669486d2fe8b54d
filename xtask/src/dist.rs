//! `cargo xtask dist`: what a user takes away.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::Path;
use std::process::Command;

use crate::workspace::{Result, Workspace, headline, run};

/// How much of it is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The loadable library, the static one and its header.
    All,
    /// The loadable library, under both of its names.
    SharedOnly,
}

/// Builds it into `out`.
///
/// The two libraries come from one package, but never from one cargo invocation: the loadable one calls SQLite through
/// the table that its host hands over, the static one by name, and cargo would unite the features of both.
pub fn build(workspace: &Workspace, out: &Path, parts: Parts) -> Result<()> {
    headline("cargo xtask dist");
    std::fs::create_dir_all(out)?;

    let mut shared = release(workspace, "build");
    run(&mut shared)?;
    let library = format!("{DLL_PREFIX}tideline{DLL_SUFFIX}");
    let built = workspace.target().join("release").join(&library);
    put(&built, &out.join(&library))?;
    // Hosts that name no entry point derive one from the file's name: the same library, once more.
    put(&built, &out.join(format!("{DLL_PREFIX}tidelinedefault{DLL_SUFFIX}")))?;

    if parts == Parts::All {
        let target = workspace.target().join("static");
        let mut archive = release(workspace, "rustc");
        archive.args(["--no-default-features", "--features", "static", "--crate-type", "staticlib"]);
        archive.arg("--target-dir").arg(&target);
        run(&mut archive)?;
        let name = if cfg!(windows) { "tideline.lib" } else { "libtideline.a" };
        put(&target.join("release").join(name), &out.join(name))?;
        put(&workspace.root().join("ext/tideline.h"), &out.join("tideline.h"))?;
    }

    let mut names: Vec<_> = std::fs::read_dir(out)?.collect::<std::io::Result<_>>()?;
    names.sort_by_key(|entry| entry.file_name());
    println!("{}:", out.display());
    for entry in names {
        println!("  {:<28} {:>6} KiB", entry.file_name().display(), entry.metadata()?.len().div_ceil(1024));
    }
    Ok(())
}

/// A release build of the extension that doesn't look for this machine's libsqlite3.
fn release(workspace: &Workspace, verb: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([verb, "--release", "--package", "tideline-ext", "--lib"]);
    command.env("SQLITE3_LIB_DIR", "/nonexistent");
    // Names of functions stay, for whoever looks where time goes.
    command.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    command
}

/// Copies a file so that whoever has the old one mapped keeps it.
fn put(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension(format!("new-{}", std::process::id()));
    std::fs::copy(from, &temporary).map_err(|e| format!("{}: {e}", from.display()))?;
    std::fs::rename(&temporary, to)?;
    Ok(())
}
