//! The golden scripts: SQL through the real shell, and all that it says. `UPDATE_GOLDEN=1` rewrites what is expected.

use std::path::{Path, PathBuf};
use std::process::Command;

use tideline_tests::{Process, Scratch, at_home};

#[test]
fn every_script_prints_what_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());

    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for script in &scripts {
        let printed = run(script);
        let expected = script.with_extension("out");
        if update {
            std::fs::write(&expected, &printed).expect("the expectation written");
        } else if std::fs::read_to_string(&expected).ok().as_ref() != Some(&printed) {
            wrong.push(format!("{} printed\n{printed}", script.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} scripts", scripts.len());
}

/// Runs one in a new folder. What the shell complains of comes between what it prints, in order, and without the
/// beginning that differs between its versions.
fn run(script: &Path) -> String {
    let scratch = Scratch::new();
    let mut command = Command::new("sh");
    command.args(["-c", "exec stdbuf -oL sqlite3 -batch 2>&1"]);
    at_home(&mut command, scratch.folder());
    let sql = std::fs::read_to_string(script).expect("the script");
    let output = Process::run(&mut command, &format!(".echo on\n{sql}"));
    let folder = scratch.folder().display().to_string();
    output.stdout.lines().map(|line| without_ids(&plain(line).replace(&folder, "FOLDER")) + "\n").collect()
}

/// `Runtime error near line 7: tideline: …` as `error: tideline: …`.
fn plain(line: &str) -> String {
    for kind in ["Runtime error", "Parse error", "Error"] {
        let rest = line.strip_prefix(kind).and_then(|rest| rest.strip_prefix(" near line "));
        if let Some((_, text)) = rest.and_then(|rest| rest.split_once(": ")) {
            return format!("error: {text}");
        }
    }
    line.to_string()
}

/// The line with each long hexadecimal word, such as the id of a lineage, shown as `HEX`.
fn without_ids(line: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric();
    let mut shown = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(word) {
        let end = rest[start..].find(|c| !word(c)).map_or(rest.len(), |length| start + length);
        let found = &rest[start..end];
        let id = found.len() >= 16 && found.chars().all(|c| c.is_ascii_hexdigit());
        shown += &rest[..start];
        shown += if id { "HEX" } else { found };
        rest = &rest[end..];
    }
    shown + rest
}

#[test]
fn what_differs_from_run_to_run_is_masked() {
    assert_eq!(plain("Runtime error near line 7: tideline: GAP: x"), "error: tideline: GAP: x");
    assert_eq!(
        without_ids("lineage 0123456789abcdef0123456789abcdef, not beef; go"),
        "lineage HEX, not beef; go"
    );
}
