//! `cargo xtask sanitize`: memory errors, data races and undefined behaviour that happened to go well.
//!
//! | with | what it watches | what it runs |
//! |---|---|---|
//! | `address` | the loaded library and SQLite's code in the tests; at a host's end, memory that the library lost | the black-box tests, in every host |
//! | `thread` | the crates, the standard library and SQLite's code, in one program | the tests of `journal`, and threads on one database |
//! | `miri` | `journal` over the simulated disk, with atomics that may show old values | its tests, as far as miri can run them |
//!
//! Each needs the nightly toolchain. All that is built is below `target/sanitize`. What came of it is written to
//! `docs/soak/SANITIZERS.md`.

mod reports;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use self::reports::Reports;
use crate::optional::{self, Optional};
use crate::workspace::{Result, Verdict, Workspace, headline, output, run, run_tests};
use crate::{fuzz, results, tools};

/// The one system that this has been tried on. A target that is named keeps flags away from what runs while building.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What may watch.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum With {
    /// AddressSanitizer and LeakSanitizer
    Address,
    /// ThreadSanitizer
    Thread,
    /// Miri
    Miri,
}

/// Lets one of them watch, or all.
pub fn run_with(workspace: &Workspace, with: Option<With>) -> Result<()> {
    let all = [With::Address, With::Thread, With::Miri];
    let begun = results::Run::begin()?;
    let mut failed = Vec::new();
    for each in all.into_iter().filter(|&each| with.is_none_or(|with| with == each)) {
        let done = match each {
            With::Address => address(workspace),
            With::Thread => thread(workspace),
            With::Miri => miri(workspace),
        };
        match done {
            Ok(end) => {
                failed.extend(end.failure());
                let head = ["with", "tests that passed", "that failed", "reports", "left out"];
                let keys = ["address", "thread", "miri"];
                // At once: the next one may take an hour.
                begun.write(workspace, "SANITIZERS", "cargo xtask sanitize", head, &keys, &[end.row()])?;
            }
            Err(error) => {
                println!("{error}");
                failed.push(error.to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// Cargo's variable for the flags of C code of the target.
const C_FLAGS: &str = "CFLAGS_x86_64_unknown_linux_gnu";

fn address(workspace: &Workspace) -> Result<End> {
    headline("address sanitizer");
    nightly()?;
    tools::shell()?;
    tools::python()?;
    // Hosts load it before all else; what gcc makes of C calls it as well as what rustc makes of Rust.
    let runtime = runtime("libasan.so")?;
    let optional = optional::all(workspace);
    let reports = Reports::new(&folder(workspace, "reports"), "address")?;
    let flags = "-fsanitize=address -fno-omit-frame-pointer";

    let mut build = cargo(workspace, "build", "address");
    build.args(["--release", "--package", "tideline-ext", "--lib"]);
    build.env("RUSTFLAGS", "-Zsanitizer=address -Cforce-frame-pointers=yes").env(C_FLAGS, flags);
    build.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    run(&mut build)?;
    let built = folder(workspace, "address").join(TARGET).join("release/libtideline.so");
    if !output(Command::new("nm").arg("-D").arg(&built))?.contains(" U __asan_report_load") {
        return Err(format!("{} isn't watched", built.display()).into());
    }
    let dist = folder(workspace, "dist");
    fs::create_dir_all(&dist)?;
    for name in ["libtideline.so", "libtidelinedefault.so"] {
        fs::copy(&built, dist.join(name))?;
    }

    // The tests are hosts themselves, of a SQLite that is watched, too; the runtime must be their first library.
    let first = "-Zpre-link-arg=-Wl,--no-as-needed -Zpre-link-arg=-lasan -Zpre-link-arg=-Wl,--as-needed";
    let mut tests = cargo(workspace, "test", "hosts");
    tests.args(["--no-fail-fast", "--package", "tideline-tests"]).env("RUSTFLAGS", first).env(C_FLAGS, flags);
    tests.env("TIDELINE_DIST", &dist).env("TIDELINE_HOST_PRELOAD", &runtime);
    tests.env("TIDELINE_QUICK", "1").env("TIDELINE_TEST_SECONDS", PATIENCE);
    optional.iter().for_each(|optional| optional.give(&mut tests));
    // An error kills the host, which its test notices. A leak doesn't: hosts have their own.
    let options = "abort_on_error=1:exitcode=0:detect_leaks=1";
    tests.env("ASAN_OPTIONS", format!("{options}:log_path={}", reports.prefix()));
    let mut verdict = run_tests(&mut tests)?;
    verdict.closing.extend(optional.iter().filter_map(Optional::left_out));
    close(vec![verdict], &reports)
}

/// After how many seconds a host is taken for hung: they are slow.
const PATIENCE: &str = "900";

/// What has threads: arguments for cargo. `shuttle`'s are none for the sanitizer, but many stacks of one. Of the tests that
/// link the library, those that begin SQLite in several threads at once are left out: what they race for is SQLite's own
/// (`sqlite3_initialize` looks at a flag before it takes the mutex). So is the one that counts page faults, of which the
/// sanitizer's own memory has more.
const THREADS: [&[&str]; 2] = [
    &[
        "--package=tideline-journal",
        "--lib",
        "--test=threads",
        "--test=store",
        "--",
        "--skip=schedules",
        "--skip=what_reached_the_disk_by_itself",
    ],
    &["--package=tideline-ext", "--no-default-features", "--features=bundled", "--test=threads"],
];

/// How many commits the threads of a test make together.
const COMMITS: &str = "8000";

fn thread(workspace: &Workspace) -> Result<End> {
    headline("thread sanitizer");
    nightly()?;
    // The standard library is built with it, too.
    component("rust-src")?;
    let reports = Reports::new(&folder(workspace, "reports"), "thread")?;
    let mut verdicts = Vec::new();
    for arguments in THREADS {
        let mut tests = cargo(workspace, "test", "thread");
        tests.args(["-Zbuild-std", "--no-fail-fast"]).args(arguments);
        tests.env("RUSTFLAGS", "-Zsanitizer=thread").env("TIDELINE_COMMITS", COMMITS);
        tests.env(C_FLAGS, "-fsanitize=thread -fno-omit-frame-pointer");
        tests.env("TSAN_OPTIONS", format!("exitcode=86:history_size=4:log_path={}", reports.prefix()));
        verdicts.push(run_tests(&mut tests)?);
    }
    close(verdicts, &reports)
}

/// What miri runs: flags for it, and arguments for cargo.
///
/// Left out are the operating system's disk (miri maps no files and has no locks of open files), `shuttle` (it switches
/// stacks), zstd (miri runs no C), and the simulated disk's own tests and those of failed syncs, which are hundreds of
/// outcomes without any `unsafe`.
const INTERPRETED: [(&str, &[&str]); 2] = [
    (
        "-Zmiri-disable-isolation",
        &["--lib", "--", "--skip=disk::real", "--skip=disk::sim", "--skip=schedules", "--skip=durable"],
    ),
    // There is no `unsafe` in what these threads do, but there are orders of it, and atomics that may show old values.
    ("-Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..2", &["--test=threads"]),
];

fn miri(workspace: &Workspace) -> Result<End> {
    headline("miri");
    nightly()?;
    component("miri")?;
    component("rust-src")?;
    let mut verdicts = Vec::new();
    for (flags, arguments) in INTERPRETED {
        let mut tests = rustup_cargo(workspace);
        tests.args(["miri", "test", "--no-fail-fast", "--package=tideline-journal", "--target-dir"]);
        tests.arg(folder(workspace, "miri")).args(arguments);
        // parking_lot makes pointers of numbers.
        tests.env("MIRIFLAGS", format!("-Zmiri-permissive-provenance {flags}"));
        verdicts.push(run_tests(&mut tests)?);
    }
    close(verdicts, &Reports::new(&folder(workspace, "reports"), "miri")?)
}

/// How one ended.
struct End {
    of: &'static str,
    verdicts: Vec<Verdict>,
    reports: usize,
}

/// Says how it ended.
fn close(verdicts: Vec<Verdict>, reports: &Reports) -> Result<End> {
    headline("closing lines");
    verdicts.iter().flat_map(|verdict| &verdict.closing).for_each(|line| println!("{line}"));
    let told = reports.of_ours()?;
    told.iter().for_each(|report| println!("\n{report}"));
    Ok(End { of: reports.of(), verdicts, reports: told.len() })
}

impl End {
    /// What is wrong; nothing if the tests passed and there is no report.
    fn failure(&self) -> Option<String> {
        let failed = self.verdicts.iter().filter(|verdict| !verdict.passed).count();
        let wrong = failed > 0 || self.reports > 0;
        wrong.then(|| format!("{}: {failed} test runs failed, {} reports", self.of, self.reports))
    }

    /// Its row among the results.
    fn row(&self) -> [String; 5] {
        let closing = || self.verdicts.iter().flat_map(|verdict| &verdict.closing);
        let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
        for why in closing().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
            *skipped.entry(why).or_default() += 1;
        }
        let mut skipped: Vec<String> = skipped.iter().map(|(why, times)| format!("{times}: {why}")).collect();
        let sum = |what| closing().map(|line| count(line, what)).sum::<u64>();
        let ignored = sum("ignored");
        if ignored > 0 {
            skipped.push(format!("{ignored}: as `#[ignore]` at the test says"));
        }
        let skipped = if skipped.is_empty() { "nothing".to_owned() } else { skipped.join("; ") };
        let mut failed = sum("failed").to_string();
        // A program that died counts nothing.
        if failed == "0" && self.verdicts.iter().any(|verdict| !verdict.passed) {
            failed = "a program died".to_owned();
        }
        [self.of.to_owned(), sum("passed").to_string(), failed, self.reports.to_string(), skipped]
    }
}

/// How many tests did `what`, as the closing line of a test runner says.
fn count(line: &str, what: &str) -> u64 {
    let words: Vec<&str> =
        line.strip_prefix("test result: ").map_or_else(Vec::new, |counts| counts.split([' ', ';']).collect());
    words.windows(2).find(|pair| pair[1] == what).map_or(0, |pair| pair[0].parse().unwrap_or(0))
}

/// Where the parts are built and left.
fn folder(workspace: &Workspace, part: &str) -> PathBuf {
    workspace.target().join("sanitize").join(part)
}

fn nightly() -> Result<()> {
    fuzz::nightly().map_err(|error| format!("no nightly toolchain: {error}").into())
}

/// Sees to it that the nightly toolchain has a component.
fn component(name: &str) -> Result<()> {
    let add = ["component", "add", "--toolchain", "nightly", name];
    run(Command::new("rustup").args(add)).map_err(|error| format!("no {name}: {error}").into())
}

/// gcc's runtime library of this name.
fn runtime(name: &str) -> Result<PathBuf> {
    tools::c_compiler()?;
    let found = output(Command::new("gcc").arg(format!("-print-file-name={name}")))?;
    let path = PathBuf::from(found.trim_end());
    // Of a file that it doesn't have it prints the name.
    if path.is_absolute() { Ok(path) } else { Err(format!("no {name}: please install gcc's libasan").into()) }
}

/// The nightly toolchain's cargo.
fn rustup_cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).arg("+nightly");
    // Of the cargo that runs us: it would win over the toolchain that is asked for.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command
}

/// The same, for a target that is named: flags then aren't for what runs while building.
fn cargo(workspace: &Workspace, verb: &str, part: &str) -> Command {
    let mut command = rustup_cargo(workspace);
    command.args([verb, "--target", TARGET, "--target-dir"]).arg(folder(workspace, part));
    command
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_program_that_died_is_no_success() {
        let closing = vec!["test result: ok. 2 passed; 0 failed; 3 ignored".to_owned()];
        let end = |passed| super::End {
            of: "miri",
            verdicts: vec![crate::workspace::Verdict { passed, closing: closing.clone() }],
            reports: 0,
        };
        let why = "3: as `#[ignore]` at the test says";
        assert_eq!(end(true).row(), ["miri", "2", "0", "0", why]);
        assert_eq!(end(false).row(), ["miri", "2", "a program died", "0", why]);
    }

    #[test]
    fn closing_lines_are_counted() {
        let line =
            "test result: ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(
            ["passed", "failed", "ignored", "lost"].map(|what| super::count(line, what)),
            [12, 3, 0, 0]
        );
        assert_eq!(super::count("SKIPPED: 4 passed by", "passed"), 0);
    }
}
