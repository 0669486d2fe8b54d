//! `cargo xtask sqlite-tests`: SQLite's own tests, with Tideline as the default VFS.

mod exceptions;
mod fixture;
mod tally;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::exceptions::Exceptions;
use self::fixture::Variant;
use self::tally::Tally;
use self::trial::{Bench, Vfs};
use crate::workspace::{Result, Workspace, headline};
use crate::{dist, sqlite_source};

/// The suite whose results are written down; `full` has all files.
const SUITE: &str = "veryquick";

/// How long a file may take where nobody says, in seconds.
const LIMIT: u64 = 120;

/// What one can choose.
#[derive(Args)]
pub struct Arguments {
    /// Only the files that `tests/sqlite/quick.txt` names
    #[arg(long)]
    quick: bool,
    /// Only this file, such as `trans.test`; may be given again
    #[arg(long, value_name = "NAME")]
    file: Vec<String>,
    /// With a SQLite that has SECURE_DELETE, as Debian's has
    #[arg(long)]
    secure_delete: bool,
    /// Which of SQLite's suites
    #[arg(long, default_value = SUITE)]
    suite: String,
    /// How long a file may take, in seconds
    #[arg(long, default_value_t = LIMIT)]
    limit: u64,
}

/// Runs the quick ones, as a step of `ci`. `Ok(Some(reason))` says why they were left out.
pub fn smoke(workspace: &Workspace) -> Result<Option<String>> {
    headline("SQLite's own tests");
    let arguments =
        Arguments { quick: true, file: Vec::new(), secure_delete: false, suite: String::new(), limit: LIMIT };
    match Tools::get(workspace, Variant::Plain) {
        Ok(tools) => play(workspace, &arguments, tools).map(|()| None),
        Err(missing) => Ok(Some(missing.to_string())),
    }
}

/// Runs them, and fails if a test failed that nothing excepts.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    headline("SQLite's own tests");
    let variant = if arguments.secure_delete { Variant::SecureDelete } else { Variant::Plain };
    play(workspace, arguments, Tools::get(workspace, variant)?)
}

/// What this machine may lack.
struct Tools {
    variant: Variant,
    source: PathBuf,
    program: PathBuf,
}

impl Tools {
    fn get(workspace: &Workspace, variant: Variant) -> Result<Tools> {
        let source = sqlite_source::fetch(workspace)?;
        let program = fixture::build(workspace, &source, variant)?;
        Ok(Tools { variant, source, program })
    }
}

fn play(workspace: &Workspace, arguments: &Arguments, tools: Tools) -> Result<()> {
    let Tools { variant, source, program } = tools;
    let lists = workspace.root().join("tests/sqlite");
    let exceptions = Exceptions::read(&lists.join("exceptions.txt"))?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)?;

    let folder = tempfile::Builder::new().prefix("tideline-sqlite-").tempdir_in(memory())?;
    open_to_all(folder.path())?;
    let output = workspace.root().join("target/sqlite-tests").join(variant.name()).join("output");
    std::fs::create_dir_all(&output)?;
    let bench = Bench {
        program,
        scripts: lists.clone(),
        source,
        library: workspace.dist().join(library()),
        folder: folder.path().to_owned(),
        output,
        limit: Duration::from_secs(arguments.limit),
    };
    let files = chosen(&bench, arguments, &lists)?;
    let version = bench.version()?;
    headline(&format!("Tideline {version}: {} files, {}", files.len(), variant.title().to_lowercase()));
    let mut tally = Tally::default();
    for file in &files {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        let own = bench.trial(Vfs::Tideline, file)?;
        let stock = bench.trial(Vfs::Stock, file)?;
        let unexpected = tally.add(&name, &own, &stock, &exceptions);
        println!(
            "{name:<28} {:>6} tests, {:>4} failed, {:>6.2} s ({:.2} s)",
            own.tests,
            own.failed.len(),
            own.seconds,
            stock.seconds
        );
        for failure in unexpected {
            println!("  FAILED {failure}");
        }
    }
    for line in &tally.stale {
        println!("exceptions.txt, {line}: no test needs it");
    }
    let whole = !arguments.quick && arguments.file.is_empty() && arguments.suite == SUITE;
    if whole {
        let command = shown(arguments);
        tally.write(&lists.join("RESULTS.md"), variant, &command, &exceptions)?;
    }
    if tally.failures.is_empty() {
        println!("{} files: nothing failed that isn't excepted", tally.files);
        return Ok(());
    }
    println!("What the files printed is in {}.", bench.output.display());
    Err(format!("{} of SQLite's tests failed", tally.failures.len()).into())
}

/// The files to run.
fn chosen(bench: &Bench, arguments: &Arguments, lists: &Path) -> Result<Vec<String>> {
    if !arguments.file.is_empty() {
        return Ok(arguments.file.clone());
    }
    if arguments.quick {
        let text = std::fs::read_to_string(lists.join("quick.txt"))?;
        let names = text.split('\n').map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        return Ok(names.map(str::to_owned).collect());
    }
    bench.suite(&arguments.suite)
}

/// The command, as it stands in the results.
fn shown(arguments: &Arguments) -> String {
    let mut command = String::from("cargo xtask sqlite-tests");
    if arguments.secure_delete {
        command += " --secure-delete";
    }
    command
}

/// Name of the loadable library.
fn library() -> String {
    format!("{}tideline{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Where files cost no disk: the tests write many, and sync them.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// The tests run as somebody else if we are root, who must reach his folder.
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?)
}
