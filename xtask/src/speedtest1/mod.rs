//! `cargo xtask speedtest1`: SQLite's own speedtest1, stock WAL and Tideline side by side.
//!
//! One program is compiled for both: SQLite's amalgamation, as the benchmarks have it, SQLite's `speedtest1.c`, and
//! `main.c`, which loads Tideline where it is measured. A run has one testset and a new database. The two take turns,
//! and in every second round the other one is first; ratios are computed within each round.

mod figures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;

use crate::workspace::{Result, Workspace, headline, output, run};
use crate::{sqlite_source, tools};
use figures::{Pair, Run, Set};

/// What `--testset` takes. Of SQLite's others, `debug1` measures nothing, and `trigger` fills tables that it doesn't
/// create.
const TESTSETS: [&str; 5] = ["main", "orm", "cte", "fp", "rtree"];

/// As distributions have them, and with what is measured as the default: `synchronous=NORMAL` for both sides. The
/// benchmarks' other switches (API checks, a cache that all connections share) cost both sides the same.
const FLAGS: [&str; 6] = [
    "-O2",
    "-DSQLITE_THREADSAFE=1",
    "-DSQLITE_ENABLE_RTREE",
    "-DSQLITE_DEFAULT_SYNCHRONOUS=1",
    "-DSQLITE_DEFAULT_WAL_SYNCHRONOUS=1",
    "-DSQLITE_USE_URI",
];

/// What is asked for.
#[derive(Args)]
pub struct Options {
    /// Relative size, as speedtest1 has it
    #[arg(long, default_value_t = 100)]
    size: u32,
    /// Rounds that count, after one that doesn't
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this testset; may be repeated [default: all that measure something]
    #[arg(long, value_name = "NAME", value_parser = TESTSETS)]
    testset: Vec<String>,
    /// Counts the processor time of the thread that asks, not the clock's: what others do on the machine isn't in it,
    /// nor is waiting, nor what Tideline's own thread does
    #[arg(long)]
    cpu: bool,
    /// Folder for the databases, which names the file system too [default: the system's temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Writes the tables into this document, between its two marker comments
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Measures, and prints the tables.
pub fn run_all(workspace: &Workspace, options: &Options) -> Result<()> {
    headline("cargo xtask speedtest1");
    let library = workspace.dist().join("libtideline.so");
    if !library.exists() {
        return Err(format!("{} isn't there; run `cargo xtask dist`", library.display()).into());
    }
    let program = build(workspace)?;
    let place = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("tideline-speedtest1-").tempdir_in(place)?;
    let bench = Bench {
        program,
        library,
        size: options.size,
        cpu: options.cpu,
        folder: folder.path().join("databases"),
    };

    let all: Vec<String> = TESTSETS.iter().map(ToString::to_string).collect();
    let wanted = if options.testset.is_empty() { &all } else { &options.testset };
    let mut sets: Vec<Set> =
        wanted.iter().map(|name| Set { name: name.clone(), rounds: Vec::new() }).collect();
    for round in 0..=options.rounds {
        for set in &mut sets {
            eprintln!("round {round} of {}: {}", options.rounds, set.name);
            let pair = bench.pair(&set.name, round % 2 == 1)?;
            if round > 0 {
                set.rounds.push(pair);
            }
        }
    }

    let report = format!("{}\n{}", head(&bench, options)?, figures::report(&sets)?);
    println!("{report}");
    match &options.write {
        Some(document) => figures::publish(document, &report),
        None => Ok(()),
    }
}

/// Compiles the program, unless it is there, made by the same commands.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    tools::c_compiler()?;
    let source = sqlite_source::fetch(workspace)?.join("test/speedtest1.c");
    let amalgamation = amalgamation(workspace)?;
    let folder = workspace.root().join("target/speedtest1");
    fs::create_dir_all(&folder)?;
    let main = workspace.root().join("xtask/src/speedtest1/main.c");
    let parts: [(&str, &Path, &[&str]); 3] = [
        ("sqlite3.o", &amalgamation.join("sqlite3.c"), &[]),
        ("speedtest1.o", &source, &["-Dmain=speedtest1_main"]),
        ("main.o", &main, &[]),
    ];
    let cc = if tools::answers("cc", "--version") { "cc" } else { "gcc" };
    // For a profiler, say: CFLAGS='-g -fno-omit-frame-pointer'.
    let more = std::env::var("CFLAGS").unwrap_or_default();
    let mut link = Command::new(cc);
    for (object, source, own) in parts {
        let object = folder.join(object);
        let mut compile = Command::new(cc);
        compile.args(FLAGS).args(own).args(more.split_whitespace()).arg("-I").arg(&amalgamation);
        compile.arg("-c").arg(source).arg("-o").arg(&object);
        let stamp = object.with_extension("command");
        let command = format!("{compile:?} {:?}", fs::metadata(source)?.modified()?);
        if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == command) && object.exists() {
            link.arg(object);
            continue;
        }
        run(&mut compile)?;
        fs::write(stamp, command)?;
        link.arg(object);
    }
    let program = folder.join("speedtest1");
    run(link.args(["-lm", "-ldl", "-lpthread", "-o"]).arg(&program))?;
    Ok(program)
}

/// The folder of the SQLite that the benchmarks are built with.
fn amalgamation(workspace: &Workspace) -> Result<PathBuf> {
    let metadata = output(workspace.cargo().args(["metadata", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "libsqlite3-sys"))
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata doesn't know libsqlite3-sys")?;
    Ok(Path::new(manifest).with_file_name("sqlite3"))
}

struct Bench {
    program: PathBuf,
    library: PathBuf,
    size: u32,
    cpu: bool,
    /// Emptied before every run.
    folder: PathBuf,
}

impl Bench {
    fn pair(&self, testset: &str, tideline_first: bool) -> Result<Pair> {
        if tideline_first {
            let tideline = self.one(testset, true)?;
            Ok(Pair { stock: self.one(testset, false)?, tideline })
        } else {
            let stock = self.one(testset, false)?;
            Ok(Pair { stock, tideline: self.one(testset, true)? })
        }
    }

    fn one(&self, testset: &str, tideline: bool) -> Result<Run> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir_all(&self.folder)?;
        // What the run before has left to be written is nobody's work here.
        output(Command::new("sync").arg("--file-system").arg(&self.folder))?;
        let mut command = Command::new(&self.program);
        command.args(["--journal", "wal", "--testset", testset, "--size", &self.size.to_string()]);
        command.env_remove("TIDELINE_LIBRARY").env_remove("SPEEDTEST1_CPU");
        if self.cpu {
            command.env("SPEEDTEST1_CPU", "1");
        }
        if tideline {
            command.args(["--vfs", "tideline"]).env("TIDELINE_LIBRARY", &self.library);
        }
        command.arg(self.folder.join("app.db")).stderr(Stdio::inherit());
        let start = Instant::now();
        let printed = output(&mut command)?;
        let mut run = figures::parse(&printed)?;
        run.process = start.elapsed().as_secs_f64();
        Ok(run)
    }
}

/// What the figures were measured with, and on.
fn head(bench: &Bench, options: &Options) -> Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let commit = output(Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]));
    let version = output(Command::new(&bench.program).arg("--help"))?;
    let version = version.split_whitespace().skip_while(|word| *word != "SQLite").nth(1).unwrap_or("unknown");
    let file_system = output(Command::new("df").arg("--output=fstype").arg(&bench.folder))?;
    let file_system = file_system.lines().last().unwrap_or("unknown").trim();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")))
        .map_or(std::env::consts::ARCH, |(_, name)| name);
    Ok(format!(
        "Measured on {} UTC with\n\n    cargo xtask dist && cargo xtask {}\n\n\
         - Tideline: commit {}; SQLite: {version}, `{}`, one program for both\n\
         - machine: {processor}, {} CPUs; file system: {file_system}\n\
         - journal_mode=WAL and synchronous=NORMAL on both sides, everything else SQLite's default; {} rounds, \
         interleaved, after 1 that doesn't count\n{}",
        output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?.trim(),
        arguments.join(" "),
        commit.as_deref().unwrap_or("unknown").trim(),
        FLAGS.join(" "),
        std::thread::available_parallelism().map_or(1, usize::from),
        options.rounds,
        if options.cpu {
            "- processor time of the thread, but for the last column of the first table\n"
        } else {
            ""
        },
    ))
}
