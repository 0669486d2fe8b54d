//! `cargo xtask sqlite-source`: SQLite's own source tree, with the tests and programs that the amalgamation lacks, as
//! Debian packages it.
//!
//! Nothing of the system is changed, and no root is needed: apt is given lists and caches of our own, and the system's
//! entries with `deb` made to `deb-src`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::{Result, Workspace, output};

/// The source package. Its tree is of the oldest SQLite that Debian's stable releases still have, and is used with
/// newer libraries too.
const PACKAGE: &str = "sqlite3";
/// Its version, named because apt otherwise takes the newest that it knows.
pub const VERSION: &str = "3.40.1-2+deb12u2";
/// The archive in it that has the tree, and the folder in that.
const ARCHIVE: &str = "sqlite3_3.40.1.orig.tar.xz";
const TREE: &str = "sqlite3-3.40.1";

/// Fetches and unpacks the tree, unless that was done already; the answer is its folder.
pub fn fetch(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.root().join("target/sqlite-source");
    let tree = folder.join(TREE);
    if tree.join("test/speedtest1.c").exists() {
        return Ok(tree);
    }
    for (program, package) in [("apt-get", "apt"), ("xz", "xz-utils"), ("tar", "tar")] {
        if !tools::answers(program, "--version") {
            return Err(format!(
                "SQLite's source comes from Debian's source packages, which {program} is needed for (package {package}); \
                 or unpack SQLite's source tree as {}",
                tree.display()
            )
            .into());
        }
    }
    fs::create_dir_all(folder.join("lists/partial"))?;
    fs::create_dir_all(folder.join("cache/archives/partial"))?;
    let entries = folder.join("entries");
    if source_entries(&entries)? == 0 {
        return Err(
            "apt has no entries (/etc/apt/sources.list, /etc/apt/sources.list.d) to take sources from".into(),
        );
    }
    // An entry that has no sources makes the update fail, and does no harm: the download tells whether we have ours.
    let updated = output(apt(&folder).args(["-o", "APT::Update::Error-Mode=any", "update"]));
    output(apt(&folder).args(["source", "--download-only", &format!("{PACKAGE}={VERSION}")])).map_err(|error| {
        let update = updated.err().map_or(String::new(), |error| format!("\nbefore that: {error}"));
        format!(
            "no source package {PACKAGE} {VERSION}: no network, or a distribution that doesn't have it.\n{error}{update}"
        )
    })?;
    // Unpacked beside its place, so that half a tree is never taken for one.
    let half = folder.join("half");
    let _ = fs::remove_dir_all(&half);
    fs::create_dir(&half)?;
    output(Command::new("tar").arg("-xJf").arg(folder.join(ARCHIVE)).arg("-C").arg(&half))?;
    let _ = fs::remove_dir_all(&tree);
    fs::rename(half.join(TREE), &tree)?;
    fs::remove_dir_all(&half)?;
    Ok(tree)
}

/// `apt-get` that works in `folder` alone.
fn apt(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    for (option, place) in [
        ("Dir::Etc::SourceList", Path::new("/dev/null")),
        ("Dir::Etc::SourceParts", &folder.join("entries")),
        ("Dir::State::Lists", &folder.join("lists")),
        ("Dir::Cache", &folder.join("cache")),
    ] {
        command.arg("-o").arg(format!("{option}={}", place.display()));
    }
    // The user that apt downloads as can't always write here.
    command.args(["-q", "-o", "APT::Sandbox::User=root"]).current_dir(folder);
    command
}

/// Writes the system's entries into `folder`, for sources; how many files there are.
fn source_entries(folder: &Path) -> Result<usize> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "list" || kind == "sources"));
    let mut written = 0;
    for file in files {
        // One that we can't read, or that isn't there, is none.
        let (Ok(text), Some(name)) = (fs::read_to_string(&file), file.file_name()) else { continue };
        fs::write(folder.join(name), for_sources(&text))?;
        written += 1;
    }
    Ok(written)
}

/// Both styles of entries: a line each (`deb …`), and fields (`Types: deb`).
fn for_sources(text: &str) -> String {
    let line = |line: &str| match line.split_once([' ', '\t']) {
        Some(("deb", rest)) => format!("deb-src {rest}\n"),
        Some(("Types:", _)) => "Types: deb-src\n".to_owned(),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_both_styles_become_entries_for_sources() {
        assert_eq!(for_sources("# deb x\ndeb [arch=a] u s main"), "# deb x\ndeb-src [arch=a] u s main\n");
        assert_eq!(for_sources("Types: deb\nURIs: u"), "Types: deb-src\nURIs: u\n");
        assert_eq!(for_sources("Types: deb deb-src\n"), "Types: deb-src\n");
        assert_eq!(for_sources("deb-src u s main\n"), "deb-src u s main\n");
    }
}
