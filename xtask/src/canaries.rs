//! `cargo xtask canaries`: does the simulated disk find what it is there to find?
//!
//! Each canary is the store with one thing left out or done in another order, in a copy of the sources. The tests that
//! cut the power, kill and let calls fail, or let several processes work on one store, must fail with it. One that
//! survives is a sync that isn't needed, or a test that is missing. What they said of each is written to
//! `docs/soak/CANARIES.md`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::results;
use crate::workspace::{Result, Workspace, headline, panics};

/// A change of the sources that breaks a promise.
struct Canary {
    /// What is wrong with it.
    name: &'static str,
    /// In `journal/src`.
    file: &'static str,
    /// Texts that are there once each, and what they become.
    changes: &'static [(&'static str, &'static str)],
}

const ALL: &[Canary] = &[
    Canary {
        name: "a commit that should wait for the disk doesn't",
        file: "durable.rs",
        changes: &[("            segment.sync()?;\n", "            let _ = segment;\n")],
    },
    Canary {
        name: "the base isn't synced before the superblock says that it was folded",
        file: "fold.rs",
        changes: &[("            self.base.sync().at(here)?;\n", "")],
    },
    Canary {
        name: "images are replaced in the base before the superblock promises their entries",
        file: "fold.rs",
        changes: &[("            self.promise(job.target.lsn, None, None)?;\n", "")],
    },
    Canary {
        name: "entries are promised to be on the disk before they are",
        file: "fold.rs",
        changes: &[("            self.make_just_durable(horizon)?;\n", "")],
    },
    Canary {
        name: "the horizon moves behind a seal that isn't on the disk",
        file: "fold.rs",
        changes: &[("            self.make_seal_durable(&index, horizon)?;\n", "")],
    },
    Canary {
        name: "history is given up before the base has what replaces it: images aren't kept",
        file: "fold.rs",
        changes: &[("                self.keep_replaced(&job.target, &job.pages, &job.view.index)?;\n", "")],
    },
    Canary {
        name: "a compaction's superblock comes before the name of its segment",
        file: "compact.rs",
        changes: &[
            ("        self.sync_side()?;\n        let number", "        let number"),
            (
                "        self.read_anew(&mut self.tail.lock())?;\n        // From here",
                "        self.sync_side()?;\n        self.read_anew(&mut self.tail.lock())?;\n        // From here",
            ),
        ],
    },
    Canary {
        name: "what was merged isn't synced before the superblock names it",
        file: "merge.rs",
        changes: &[("        self.segment.sync()\n", "        Ok(())\n")],
    },
    Canary {
        name: "a segment's name isn't on the disk before a seal leads to it",
        file: "spare.rs",
        changes: &[("                self.sync_side()?;\n                made\n", "                made\n")],
    },
    Canary {
        name: "the superblock isn't synced",
        file: "store/superblock.rs",
        changes: &[(
            "            return file.sync().inspect_err(|_| unsynced());\n",
            "            return Ok(());\n",
        )],
    },
    Canary {
        name: "the mark of the base isn't on the disk before commits are",
        file: "store/mark.rs",
        changes: &[(
            "        let written = self.base.write_at(&header, 0).and_then(|()| self.base.sync());\n",
            "        let written = self.base.write_at(&header, 0);\n",
        )],
    },
    Canary {
        name: "a prepared transaction isn't on the disk before the super-journal goes",
        file: "session/commit.rs",
        changes: &[("        sync(&overlay.segment)\n    }\n", "        Ok(())\n    }\n")],
    },
    Canary {
        name: "images aren't compared with their hashes when an entry is recovered",
        file: "store/tail.rs",
        changes: &[(
            "        if !tail.index.segment(ordinal).image_is_sound(&row, page_size)? {\n",
            "        if !tail.index.segment(ordinal).image_is_sound(&row, page_size)? && page_size == 0 {\n",
        )],
    },
    Canary {
        name: "a commit record isn't compared",
        file: "segment.rs",
        changes: &[(
            "        let whole = is(&expected, &record) && rows_are_right(&header, &table);\n",
            "        let _ = (is, record);\n        let whole = rows_are_right(&header, &table);\n",
        )],
    },
    Canary {
        name: "an entry of an earlier life of a segment is taken for one of this",
        file: "segment.rs",
        changes: &[("        if header.prev != prev || header", "        let _ = prev;\n        if header")],
    },
    Canary {
        name: "a base that was changed at rest is adopted into a segment that is there",
        file: "recover.rs",
        changes: &[(
            "        block.first_segment = 1 + self.largest()?;\n",
            "        block.first_segment = self.largest()?.max(1);\n",
        )],
    },
    Canary {
        name: "whoever moves the horizon trusts an index that others have overtaken",
        file: "store/tail.rs",
        changes: &[(
            "        if !tail.index.whole || self.first_segment.load(Ordering::Relaxed) != first {\n",
            "        let _ = first;\n        if !tail.index.whole {\n",
        )],
    },
    Canary {
        name: "a lazy clone says that pages are here before they are on the disk",
        file: "hydrate.rs",
        changes: &[("        self.base.sync().at(here)?;\n        let hashes", "        let hashes")],
    },
    Canary {
        name: "a lazy clone's base moves before it is on the disk which pages are here",
        file: "present.rs",
        changes: &[(
            "        // Also what another wrote that died before it synced.\n        self.file.sync().at(|| self.here())",
            "        Ok(())",
        )],
    },
    Canary {
        name: "a lazy clone's files go before the superblock says that it is none any more",
        file: "hydrate.rs",
        changes: &[(
            "            block.lazy = false;\n",
            "            self.remove_all([Name::Source, Name::Present].map(|n| self.file_path(n)).to_vec())?;\n            \
             block.lazy = false;\n",
        )],
    },
    Canary {
        name: "a fold of a lazy clone that didn't get to its end is forgotten",
        file: "store/opening.rs",
        changes: &[("base.max(self.block.history)", "base")],
    },
    Canary {
        name: "what a dead process hasn't synced is built upon",
        file: "recover.rs",
        changes: &[(
            "        if settled && head <= block.durable {\n",
            "        if head <= block.durable {\n",
        )],
    },
    Canary {
        name: "a mark that a dead process hasn't synced is taken for another one",
        file: "store/mark.rs",
        changes: &[(
            "        if !(has_mark(&header) && block.marked.marks(&Mark::of(&header))) {\n",
            "        {\n",
        )],
    },
    Canary {
        name: "the way to entries whose sync failed isn't written again",
        file: "recover.rs",
        changes: &[(
            "index.seals().filter(|(_, next)| next.header.first > durable)",
            "index.seals().take(0)",
        )],
    },
    Canary {
        name: "a super-journal is taken for gone before that is on the disk",
        file: "prepared.rs",
        changes: &[("        let folder = super_journal.parent()", "        let folder = None::<&Path>")],
    },
    Canary {
        name: "the folder of a new store is used before its name is on the disk",
        file: "store/opening.rs",
        changes: &[("        sync_name(self.disk, self.side)?;\n", "")],
    },
];

/// Builds each, and sees whether it is found. With `only`, those whose names contain that.
pub fn run(workspace: &Workspace, only: Option<&str>) -> Result<()> {
    headline("cargo xtask canaries");
    let copy = tempfile::Builder::new().prefix("tideline-canaries-").tempdir()?;
    let sources = copy.path();
    copy_sources(workspace.root(), sources)?;
    if !fails(workspace, sources)?.is_empty() {
        return Err("the tests fail without any canary".into());
    }
    let begun = results::Run::begin()?;
    let (mut told, mut survivors) = (Vec::new(), Vec::new());
    for canary in ALL.iter().filter(|canary| only.is_none_or(|part| canary.name.contains(part))) {
        let path = sources.join("journal/src").join(canary.file);
        let whole = fs::read_to_string(&path)?;
        let mut changed = whole.clone();
        for (from, to) in canary.changes {
            if changed.matches(from).count() != 1 {
                return Err(format!("{}: not there once any more: {from}", canary.file).into());
            }
            changed = changed.replace(from, to);
        }
        fs::write(&path, changed)?;
        let found = fails(workspace, sources)?;
        fs::write(&path, whole)?;
        let how = match found.into_iter().next() {
            Some(how) => {
                println!("found     {}\n          {how}", canary.name);
                how
            }
            None => {
                println!("SURVIVED  {}", canary.name);
                survivors.push(canary.name);
                "NOTHING".to_owned()
            }
        };
        told.push([canary.name.to_owned(), how]);
    }
    println!("tried: canaries={} survived={}", told.len(), survivors.len());
    let names: Vec<&str> = ALL.iter().map(|canary| canary.name).collect();
    let head = ["what is broken", "what the tests said first"];
    begun.write(workspace, "CANARIES", "cargo xtask canaries", head, &names, &told)?;
    if survivors.is_empty() { Ok(()) } else { Err(format!("not found: {}", survivors.join("; ")).into()) }
}

/// The manifests, and what `journal` is made of, as a workspace of its own.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    let manifest = fs::read_to_string(from.join("Cargo.toml"))?;
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members"));
    let lines = lines.map(|line| if line.starts_with("members") { "members = [\"journal\"]" } else { line });
    fs::write(to.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n"))?;
    for file in ["Cargo.lock", "FORMAT.md"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    copy_folder(&from.join("journal"), &to.join("journal"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What the tests say is wrong with the sources; nothing if they pass.
///
/// # Errors
/// If the sources can't be compiled.
fn fails(workspace: &Workspace, sources: &Path) -> Result<Vec<String>> {
    let test = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.current_dir(sources).env("CARGO_TARGET_DIR", workspace.target().join("canaries"));
        command.env("TIDELINE_SCRIPTS", "10").env("RUST_BACKTRACE", "0").env_remove("RUSTFLAGS");
        command.args(["test", "--release", "--quiet", "--package", "tideline-journal"]);
        command
            .args(["--test", "power", "--test", "machine", "--test", "lazy_power", "--test", "recovery"])
            .args(["--test", "store"])
            .args(arguments);
        command.stdin(Stdio::null()).output()
    };
    let built = test(&["--no-run"])?;
    if !built.status.success() {
        return Err(format!("a canary can't be compiled:\n{}", String::from_utf8_lossy(&built.stderr)).into());
    }
    let output = test(&["--no-fail-fast"])?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told: Vec<String> = panics(&text).map(|line| line.chars().take(160).collect()).collect();
    Ok(if told.is_empty() { vec!["the tests failed".to_owned()] } else { told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_there_to_be_made() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../journal/src");
        for canary in ALL {
            let whole = fs::read_to_string(sources.join(canary.file)).unwrap();
            for (from, to) in canary.changes {
                assert!(from != to && whole.matches(from).count() == 1, "{}: {from}", canary.name);
            }
        }
    }
}
