//! What the figures were measured on, and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rusqlite::Connection;
use serde::Serialize;

use crate::config::{Plan, Scale, Settings};

/// Head of every report.
#[derive(Serialize)]
pub struct Header {
    /// When, UTC.
    pub date: String,
    /// The command that makes this report again.
    pub command: String,
    /// Of this workspace, where git knows it.
    pub commit: Option<String>,
    /// What `tide_version()` says.
    pub tideline: Option<String>,
    /// Why there is no Tideline, when there should be.
    pub without_tideline: Option<String>,
    /// SQLite's version.
    pub sqlite: String,
    /// SQLite's source id.
    pub sqlite_source: String,
    /// `PRAGMA compile_options`.
    pub compile_options: Vec<String>,
    /// True for a build whose figures mean nothing.
    pub debug_build: bool,
    /// Model and count.
    pub cpu: String,
    /// In MiB.
    pub memory_mib: Option<u64>,
    /// Name and release.
    pub kernel: String,
    /// Type, device and options of the file system with the databases.
    pub filesystem: String,
    /// Its folder.
    pub dir: String,
    /// Page size, caches, mmap.
    pub settings: Settings,
    /// Sizes.
    pub scale: Scale,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds that don't.
    pub warmup: usize,
}

impl Header {
    /// Asks the machine and SQLite.
    pub fn collect(plan: &Plan) -> Result<Self> {
        let sqlite = Connection::open_in_memory()?;
        let text = |sql: &str| sqlite.query_row(sql, [], |row| row.get::<_, String>(0));
        let compile_options = sqlite
            .prepare("PRAGMA compile_options")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            date: text("SELECT strftime('%Y-%m-%d %H:%M', 'now')")?,
            command: command(plan),
            commit: commit(),
            tideline: plan.tideline_version.clone(),
            without_tideline: plan.without_tideline.clone(),
            sqlite: rusqlite::version().to_owned(),
            sqlite_source: text("SELECT sqlite_source_id()")?,
            compile_options,
            debug_build: cfg!(debug_assertions),
            cpu: cpu(),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .and_then(|value| value.split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib / 1024),
            kernel: format!(
                "{} {}",
                std::env::consts::OS,
                fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()
            ),
            filesystem: filesystem(&plan.dir).unwrap_or_else(|| "unknown".to_owned()),
            dir: plan.dir.display().to_string(),
            settings: plan.settings.clone(),
            scale: plan.scale,
            rounds: plan.rounds,
            warmup: plan.warmup,
        })
    }

    /// What a reader should know about the SQLite build, if anything.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.debug_build {
            warnings.push(
                "debug build: SQLite isn't optimised, the figures mean nothing; use --release".to_owned(),
            );
        }
        if self.compile_options.iter().any(|option| option == "ENABLE_MEMORY_MANAGEMENT") {
            warnings.push(
                "this SQLite has ENABLE_MEMORY_MANAGEMENT (rusqlite's default): one page cache for the process, with a \
                 mutex around each page, for every engine; LIBSQLITE3_FLAGS=-USQLITE_ENABLE_MEMORY_MANAGEMENT builds it \
                 as distributions do"
                    .to_owned(),
            );
        }
        if self.filesystem.starts_with("tmpfs") {
            warnings.push(
                "the databases are on tmpfs, where no commit waits for a disk; --dir names another"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// What was typed, with what has to be built before, and the environment that counts.
fn command(plan: &Plan) -> String {
    let mut command = String::new();
    if let Ok(folder) = std::env::var("TIDELINE_DIST") {
        command += &format!("TIDELINE_DIST={} ", quote(&folder));
    } else if plan.tideline_version.is_some() {
        command += "cargo xtask dist && ";
    }
    if let Some(flags) = option_env!("LIBSQLITE3_FLAGS") {
        command += &format!("LIBSQLITE3_FLAGS={} ", quote(flags));
    }
    command += "cargo run --release -p tideline-bench --";
    for argument in std::env::args().skip(1) {
        command += " ";
        command += &quote(&argument);
    }
    command
}

/// An argument as the shell takes it.
fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn cpu() -> String {
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {count} CPUs")
}

/// The first `name: value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Type, device and options of the mount with the longest path above `dir`.
fn filesystem(dir: &Path) -> Option<String> {
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, dir)
}

fn find_mount(mounts: &str, dir: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(4);
            let (point, options) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, device) = (right.next()?, right.next()?);
            dir.starts_with(point).then(|| (point.len(), format!("{kind} on {device} ({options})")))
        })
        // Of two mounts at one place, the later one covers the earlier.
        .max_by_key(|(length, _)| *length)
        .map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_latest_mount_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                      2 1 8:2 / /data rw,noatime shared:1 - xfs /dev/b rw\n\
                      3 1 8:3 / /data ro - tmpfs none rw";
        assert_eq!(find_mount(mounts, Path::new("/data/x")).unwrap(), "tmpfs on none (ro)");
        assert_eq!(find_mount(mounts, Path::new("/database")).unwrap(), "ext4 on /dev/a (rw)");
    }

    #[test]
    fn arguments_are_quoted_for_the_shell() {
        assert_eq!(quote("--dir=/a-b"), "--dir=/a-b");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
