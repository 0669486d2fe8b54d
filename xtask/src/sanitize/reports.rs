//! What sanitizers report, in files: the test of a host that was to be killed, or whose end nobody asked for, would not
//! tell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::workspace::Result;

/// The reports of one run.
pub struct Reports {
    folder: PathBuf,
    of: &'static str,
}

impl Reports {
    /// None yet, below `folder`.
    pub fn new(folder: &Path, of: &'static str) -> Result<Self> {
        let folder = folder.join(of);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        // Some hosts give up their rights.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777))?;
        Ok(Self { folder, of })
    }

    /// Whose they are.
    pub fn of(&self) -> &'static str {
        self.of
    }

    /// How the names of their files begin.
    pub fn prefix(&self) -> String {
        self.folder.join("report").display().to_string()
    }

    /// Those that tell something of us.
    pub fn of_ours(&self) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let text = String::from_utf8_lossy(&fs::read(entry?.path())?).into_owned();
            told.extend(of_ours(&text));
        }
        told.sort();
        told.dedup();
        Ok(told)
    }
}

/// The part of a report that tells something of us: of leaks those that the library allocated, and of anything else all.
fn of_ours(report: &str) -> Option<String> {
    if !report.contains("ERROR: LeakSanitizer: detected memory leaks")
        || report.contains("ERROR: AddressSanitizer")
    {
        return Some(report.to_string());
    }
    let ours: Vec<&str> = report.split("\n\n").filter(|leak| leak.contains("libtideline")).collect();
    if ours.is_empty() { None } else { Some(ours.join("\n\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "Direct leak of 24 byte(s) in 1 object(s) allocated from:\n    #0 in malloc\n    #1 (/usr/bin/python3.11)";
    const OURS: &str = "Direct leak of 8 byte(s) in 1 object(s) allocated from:\n    #0 in malloc\n    #1 (/x/libtideline.so)";

    #[test]
    fn leaks_of_the_host_are_not_ours() {
        let start = "==7==ERROR: LeakSanitizer: detected memory leaks";
        let end = "SUMMARY: AddressSanitizer: 32 byte(s) leaked in 2 allocation(s).";
        assert_eq!(of_ours(&[start, HOSTS, end].join("\n\n")), None);
        assert_eq!(of_ours(&[start, HOSTS, OURS, end].join("\n\n")).as_deref(), Some(OURS));
    }

    #[test]
    fn errors_and_races_are_ours_wherever_they_are() {
        for report in
            ["==7==ERROR: AddressSanitizer: heap-use-after-free", "WARNING: ThreadSanitizer: data race"]
        {
            assert_eq!(of_ours(report).as_deref(), Some(report));
        }
        let both = format!(
            "==7==ERROR: AddressSanitizer: x\n\n==7==ERROR: LeakSanitizer: detected memory leaks\n\n{HOSTS}"
        );
        assert_eq!(of_ours(&both), Some(both));
    }
}
