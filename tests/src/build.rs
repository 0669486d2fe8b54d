//! What is compiled for the tests: SQLite libraries, from the source that versions of the crate `libsqlite3-sys` bring,
//! and libraries that let a process die at a chosen system call, or let the call fail.
//!
//! Cargo fetches the source, as it fetches every dependency, and `cc` compiles it; both once, into the folder that the
//! tests were built in. No two versions of that crate fit into one workspace, so each has one of its own there.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;

use crate::library::skipped;

/// One of them. All are without `SECURE_DELETE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Older than what Tideline takes: 3.33.0.
    TooOld,
    /// Nearest to the oldest that Tideline takes: 3.35.4. WAL mode has `synchronous=NORMAL` by default in it, as many
    /// hosts have it.
    Oldest,
    /// The one that `rusqlite` brings.
    Newest,
}

/// What a Python of any version needs, and what the tests use.
const OPTIONS: &[&str] = &[
    "-DHAVE_USLEEP=1",
    "-DSQLITE_THREADSAFE=1",
    "-DSQLITE_ENABLE_COLUMN_METADATA",
    "-DSQLITE_ENABLE_DESERIALIZE",
    "-DSQLITE_ENABLE_FTS5",
    "-DSQLITE_ENABLE_JSON1",
];

/// What a library that is compiled from SQLite's source links to.
pub const SYSTEM_LIBRARIES: &[&str] = &["-lpthread", "-ldl", "-lm"];

impl Build {
    /// Version of the crate that has the source.
    fn crate_version(self) -> &'static str {
        match self {
            Self::TooOld => "0.20.1",
            Self::Oldest => "0.22.0",
            Self::Newest => "0.38.2",
        }
    }

    /// The version of SQLite.
    pub fn version(self) -> &'static str {
        match self {
            Self::TooOld => "3.33.0",
            Self::Oldest => "3.35.4",
            Self::Newest => rusqlite::version(),
        }
    }

    fn options(self) -> Vec<&'static str> {
        let own = (self == Self::Oldest).then_some("-DSQLITE_DEFAULT_WAL_SYNCHRONOUS=1");
        OPTIONS.iter().copied().chain(own).collect()
    }

    /// The folder of `sqlite3.c` and `sqlite3.h`, or why it isn't there.
    pub fn source(self) -> Result<PathBuf, String> {
        let _building = self.alone();
        self.fetched()
    }

    fn fetched(self) -> Result<PathBuf, String> {
        let folder = self.folder();
        let fetched = folder.join("source");
        if !fetched.exists() {
            let found = fetch(&folder, self.crate_version())?;
            // Whoever else does the same finds the same. A link that leads nowhere any more goes.
            let _ = std::fs::remove_file(&fetched);
            let _ = std::os::unix::fs::symlink(&found, &fetched);
        }
        Ok(fetched)
    }

    /// The folder of `libsqlite3.so.0`, or why it isn't there.
    pub fn library(self) -> Result<PathBuf, String> {
        if !cfg!(target_os = "linux") {
            return Err("only tried on Linux".into());
        }
        let _building = self.alone();
        let folder = self.folder();
        let library = folder.join("libsqlite3.so.0");
        if !library.exists() {
            let new = folder.join(format!("new-{}", std::process::id()));
            let mut cc = Command::new("cc");
            // Two SQLite libraries may be in one process: each calls its own functions.
            cc.args(["-O1", "-w", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-Wl,-soname,libsqlite3.so.0"]);
            cc.args(self.options()).arg("-o").arg(&new);
            cc.arg(self.fetched()?.join("sqlite3.c")).args(SYSTEM_LIBRARIES);
            output(&mut cc)?;
            std::fs::rename(&new, &library).map_err(|error| error.to_string())?;
        }
        Ok(folder)
    }

    /// The same, or `None` after saying that what needs it is left out.
    pub fn library_or_skip(self) -> Option<PathBuf> {
        self.library().map_err(|why| skipped(&format!("no SQLite {}: {why}", self.version()))).ok()
    }

    /// No other thread of this process builds the same meanwhile.
    fn alone(self) -> MutexGuard<'static, ()> {
        static BUILDING: [Mutex<()>; 3] = [const { Mutex::new(()) }; 3];
        BUILDING[self as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where all that belongs to it is kept: beside the programs of the tests.
    fn folder(self) -> PathBuf {
        built().join(format!("sqlite-{}-{:016x}", self.version(), hash(self.options())))
    }
}

/// A library that kills its process at a chosen system call (see `crash.c`), or `None` after saying that what needs it
/// is left out.
pub fn crash_library() -> Option<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    preloadable(&BUILT, "crash", include_str!("crash.c"))
}

/// A library that lets chosen system calls of its process fail (see `faults.c`), or `None` likewise.
pub fn faults_library() -> Option<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    preloadable(&BUILT, "faults", include_str!("faults.c"))
}

/// The library that is compiled from `source`, the file of this `name` beside this one.
fn preloadable(
    built_before: &OnceLock<Result<PathBuf, String>>,
    name: &str,
    source: &str,
) -> Option<PathBuf> {
    let build = || {
        let library = built().join(format!("{name}-{:016x}.so", hash(source)));
        if !library.exists() {
            let new = library.with_extension(std::process::id().to_string());
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"]).arg(&new);
            cc.arg(format!("{}/src/{name}.c", env!("CARGO_MANIFEST_DIR"))).arg("-ldl");
            output(&mut cc)?;
            std::fs::rename(&new, &library).map_err(|error| error.to_string())?;
        }
        Ok(library)
    };
    let library = built_before.get_or_init(build).clone();
    library.map_err(|why| skipped(&format!("no {name} at chosen calls: {why}"))).ok()
}

/// The folder that cargo builds in.
fn built() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    program.ancestors().nth(2).expect("the folder that cargo builds in").into()
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Has cargo fetch the crate, and gives the folder of SQLite's source in it.
fn fetch(folder: &Path, version: &str) -> Result<PathBuf, String> {
    let manifest = format!(
        "[workspace]\n[package]\nname = \"source\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [lib]\npath = \"Cargo.toml\"\n\
         [dependencies]\nlibsqlite3-sys = {{ version = \"={version}\", default-features = false }}\n"
    );
    let own = folder.join(format!("fetch-{}", std::process::id()));
    std::fs::create_dir_all(&own).map_err(|error| error.to_string())?;
    std::fs::write(own.join("Cargo.toml"), manifest).map_err(|error| error.to_string())?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(own.join("Cargo.toml"));
    let metadata = output(&mut cargo)?;
    std::fs::remove_dir_all(&own).map_err(|error| error.to_string())?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "libsqlite3-sys");
    let manifest =
        package.and_then(|package| package["manifest_path"].as_str()).ok_or("the crate isn't there")?;
    Ok(Path::new(manifest).with_file_name("sqlite3"))
}

/// Runs a command that should succeed, and gives what it printed.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}
