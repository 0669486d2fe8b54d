//! `cargo xtask`: everything around the code that a person or a machine starts by hand.
//!
//! | command | what it does |
//! |---|---|
//! | `dist` | builds what a user takes away into `target/dist/` |
//! | `demo` | shows the main job in the `sqlite3` shell, and checks every step |
//! | `test` | every test, crate by crate, then the black-box tests against `target/dist/` |
//! | `golden` | the golden SQL scripts alone; `--update` rewrites what they expect |
//! | `symbols` | what the shared library exports, wants and links |
//! | `sqlite-tests` | SQLite's own tests, with Tideline as the default VFS |
//! | `soak` | tests that take as long as one lets them; what they tried and found is in `docs/soak` |
//! | `canaries` | breaks the store in many small ways, and sees whether the simulated disk finds each; `docs/soak/CANARIES.md` says how |
//! | `sanitize` | address and thread sanitizers, and miri, over the tests; all by hand; the results are in `docs/soak/SANITIZERS.md` |
//! | `sqlite-source` | SQLite's own source tree, from Debian's source package |
//! | `stores` | object stores that speak S3, each for as long as one command runs |
//! | `speedtest1` | SQLite's speedtest1, stock WAL and Tideline side by side |
//! | `ci` | all that `.ci/run` does |

mod canaries;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod optional;
mod results;
mod sanitize;
mod soak;
mod speedtest1;
mod sqlite_source;
mod sqlite_tests;
mod stores;
mod suite;
mod symbols;
mod tools;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workspace::{Result, Workspace};

/// Tideline's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the libraries and the header that a user takes away
    Dist {
        /// Where they go [default: $TIDELINE_DIST, or target/dist]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Only the loadable library
        #[arg(long)]
        shared_only: bool,
    },
    /// Shows the main job, step by step, and checks each of them
    Demo {
        /// Leaves the folder that it worked in
        #[arg(long)]
        keep: bool,
    },
    /// Runs every test
    Test {
        /// The loadable library alone, and fewer rounds in tests that draw at random
        #[arg(long)]
        quick: bool,
    },
    /// Runs the golden SQL scripts in the sqlite3 shell
    Golden {
        /// Takes what they print for what they should print
        #[arg(long)]
        update: bool,
    },
    /// Checks what the shared library exports, wants and links
    Symbols,
    /// Runs SQLite's own tests, with Tideline as the default VFS
    SqliteTests(sqlite_tests::Arguments),
    /// Runs a test that takes as long as one lets it
    #[command(subcommand)]
    Soak(soak::Soak),
    /// Breaks the store in many small ways, and sees whether the simulated disk finds each
    Canaries {
        /// Those whose names contain this
        #[arg(long)]
        only: Option<String>,
    },
    /// Looks for memory errors, data races and undefined behaviour in what the tests do
    Sanitize {
        /// With one alone [default: with each]
        with: Option<sanitize::With>,
    },
    /// Fetches SQLite's source tree, and prints its folder
    SqliteSource,
    /// Starts an object store that speaks S3, and runs a command beside it
    Stores(stores::Arguments),
    /// Runs SQLite's speedtest1, stock WAL and Tideline side by side
    Speedtest1(speedtest1::Options),
    /// Runs all that .ci/run does
    Ci,
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let done = match command {
        Command::Dist { out, shared_only } => {
            let parts = if shared_only { dist::Parts::SharedOnly } else { dist::Parts::All };
            dist::build(&workspace, &out.unwrap_or_else(|| workspace.dist()), parts)
        }
        Command::Demo { keep } => demo::run(&workspace, keep),
        Command::Test { quick } => suite::run(&workspace, quick),
        Command::Golden { update } => suite::golden(&workspace, update),
        Command::Symbols => symbols::check(&workspace.dist()),
        Command::SqliteTests(arguments) => sqlite_tests::run(&workspace, &arguments),
        Command::Soak(what) => soak::run(&workspace, &what),
        Command::Canaries { only } => canaries::run(&workspace, only.as_deref()),
        Command::Sanitize { with } => sanitize::run_with(&workspace, with),
        Command::SqliteSource => {
            println!("{}", sqlite_source::fetch(&workspace)?.display());
            Ok(())
        }
        Command::Stores(arguments) => return stores::run(&workspace, &arguments),
        Command::Speedtest1(options) => speedtest1::run_all(&workspace, &options),
        Command::Ci => ci::run(&workspace),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
