//! `cargo xtask symbols`: is the shared library what a loadable extension should be?

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::workspace::{Result, headline, output};

/// All that it exports, sorted.
const EXPORTS: [&str; 2] = ["sqlite3_tideline_init", "sqlite3_tidelinedefault_init"];

/// What else it exports: the C interface of `crc-fast`, which `object_store` asks for with all of its features and nobody
/// calls. rustc has no way to leave it out.
const UNUSED: &str = "crc_fast_";

/// Checks the library in `dist` with the tools of binutils.
pub fn check(dist: &Path) -> Result<()> {
    headline("cargo xtask symbols");
    if !cfg!(target_os = "linux") {
        println!("only ELF files are looked into");
        return Ok(());
    }
    let library = dist.join("libtideline.so");
    if !library.exists() {
        return Err(format!("{} isn't there; run `cargo xtask dist`", library.display()).into());
    }
    let mut faults = Vec::new();

    let defined = output(Command::new("nm").args(["-D", "--defined-only"]).arg(&library))?;
    let all: Vec<&str> = defined.lines().filter_map(symbol_of).collect();
    let (unused, exports): (Vec<&str>, Vec<&str>) =
        all.into_iter().partition(|name| name.starts_with(UNUSED));
    println!("exports: {}; {} of {UNUSED}*", exports.join(", "), unused.len());
    if exports != EXPORTS {
        faults.push(format!("it should export {} and nothing else of its own", EXPORTS.join(" and ")));
    }

    let undefined = output(Command::new("nm").args(["-D", "--undefined-only"]).arg(&library))?;
    let wanted: Vec<&str> = undefined.lines().filter_map(symbol_of).collect();
    let of_sqlite: Vec<&str> = wanted.iter().copied().filter(|s| s.starts_with("sqlite3_")).collect();
    println!("wants: {} symbols, {} of them SQLite's", wanted.len(), of_sqlite.len());
    if !of_sqlite.is_empty() {
        faults.push(format!("it takes {} by name, not from its host's table", of_sqlite.join(", ")));
    }

    let dynamic = output(Command::new("readelf").args(["-d", "--wide"]).arg(&library))?;
    let needed: Vec<&str> =
        dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(bracketed).collect();
    println!("links: {}", needed.join(", "));
    if needed.iter().any(|name| name.contains("sqlite")) {
        faults.push("it is linked to a SQLite library".into());
    }

    let versions = output(Command::new("readelf").args(["-V", "--wide"]).arg(&library))?;
    match newest_glibc(&versions) {
        Some((major, minor)) => println!("needs: GLIBC_{major}.{minor}"),
        None => println!("needs: no version of glibc"),
    }

    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}

/// The name in a line of `nm`, without its version.
fn symbol_of(line: &str) -> Option<&str> {
    let name = line.split_whitespace().last()?;
    Some(name.split('@').next().unwrap_or(name))
}

/// What stands in brackets in a line of `readelf -d`.
fn bracketed(line: &str) -> Option<&str> {
    line.split_once('[')?.1.split_once(']').map(|(inside, _)| inside)
}

/// The newest `GLIBC_x.y` that is named.
fn newest_glibc(versions: &str) -> Option<(u32, u32)> {
    let words = versions.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
    let found: BTreeSet<(u32, u32)> = words
        .filter_map(|word| {
            let (major, rest) = word.strip_prefix("GLIBC_")?.split_once('.')?;
            Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
        })
        .collect();
    found.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nm_and_readelf_are_understood() {
        assert_eq!(symbol_of("00000000000011f9 T sqlite3_tideline_init"), Some("sqlite3_tideline_init"));
        assert_eq!(symbol_of("                 U malloc@GLIBC_2.2.5"), Some("malloc"));
        let line = " 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]";
        assert_eq!(bracketed(line), Some("libc.so.6"));
        assert_eq!(newest_glibc("Name: GLIBC_2.9  Name: GLIBC_2.34 (GLIBC_2.2.5)"), Some((2, 34)));
        assert_eq!(newest_glibc("GLIBC_PRIVATE"), None);
    }
}
