//! `cargo xtask demo`: the main job, in the `sqlite3` shell, each step shown and checked.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::{Result, Workspace, headline};
use crate::{dist, tools};

/// What runs the SQL.
#[derive(Clone, Copy)]
enum Host {
    /// The `sqlite3` shell.
    Shell,
    /// Python's `sqlite3` module, where there is no shell.
    Python,
}

/// One step: what it is for, the SQL that does it, and what has to come out.
struct Step {
    says: &'static str,
    /// The argument of `.open`.
    opens: &'static str,
    /// FOLDER stands for where all this is.
    sql: &'static str,
    prints: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        says: "A database whose commits go through Tideline's journal. The SQL is ordinary SQL.",
        opens: "file:notes.db?vfs=tideline",
        sql: "CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);\n\
              INSERT INTO note(body) VALUES ('buy bread'), ('call Ada');\n\
              UPDATE note SET body = 'buy rye bread' WHERE id = 1;\n\
              SELECT * FROM note;",
        prints: "1|buy rye bread\n2|call Ada\n",
    },
    Step {
        says: "Each commit has a number on its lineage, the LSN.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT first_lsn, last_lsn, origin FROM tide_log;",
        prints: "1|1|local\n2|2|local\n3|3|local\n",
    },
    Step {
        says: "Everything after LSN 0 in one blob, to be sent anywhere.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT writefile('delta.tide', tide_prepare(0)) > 0;",
        prints: "1\n",
    },
    Step {
        says: "Elsewhere it is received: the same pages, the same LSN.",
        opens: "file:copy.db?vfs=tideline",
        sql: "SELECT tide_receive(readfile('delta.tide'));\nSELECT * FROM note;",
        prints: "3\n1|buy rye bread\n2|call Ada\n",
    },
    Step {
        says: "Later, only what is new travels.",
        opens: "file:notes.db?vfs=tideline",
        sql: "INSERT INTO note(body) VALUES ('water the fern');\n\
              SELECT writefile('later.tide', tide_prepare(3)) > 0;",
        prints: "1\n",
    },
    Step {
        says: "It fits behind what the copy has.",
        opens: "file:copy.db?vfs=tideline",
        sql: "SELECT tide_receive(readfile('later.tide'));\nSELECT * FROM note;",
        prints: "4\n1|buy rye bread\n2|call Ada\n3|water the fern\n",
    },
    Step {
        says: "Or a remote carries it, as in git: here a folder. What it doesn't have is pushed.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT tide_remote('origin', 'file://FOLDER/remote');\nSELECT tide_push();",
        prints: "origin\n4\n",
    },
    Step {
        says: "Somebody else clones it.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT tide_clone('file://FOLDER/remote', 'clone.db');",
        prints: "4\n",
    },
    Step {
        says: "What is committed there is pushed back.",
        opens: "file:clone.db?vfs=tideline",
        sql: "INSERT INTO note(body) VALUES ('feed the cat');\nSELECT tide_push();",
        prints: "5\n",
    },
    Step {
        says: "And pulled.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT tide_pull();\nSELECT name, head, behind, ahead FROM tide_remotes;\nSELECT * FROM note;",
        prints: "5\norigin|5|0|0\n1|buy rye bread\n2|call Ada\n3|water the fern\n4|feed the cat\n",
    },
    Step {
        says: "Closed, notes.db is a plain SQLite file again. Here SQLite reads it without Tideline.",
        opens: "notes.db",
        sql: "PRAGMA integrity_check;\nSELECT * FROM note;",
        prints: "ok\n1|buy rye bread\n2|call Ada\n3|water the fern\n4|feed the cat\n",
    },
    Step {
        says: "And its history is still there for the next one who opens it through Tideline.",
        opens: "file:notes.db?vfs=tideline",
        sql: "SELECT count(*), max(last_lsn) FROM tide_log;",
        prints: "5|5\n",
    },
];

/// Shows them all, and fails at the first that isn't as it should be.
pub fn run(workspace: &Workspace, keep: bool) -> Result<()> {
    let host = host()?;
    let out = workspace.dist();
    dist::build(workspace, &out, dist::Parts::SharedOnly)?;

    let folder = tempfile::Builder::new().prefix("tideline-demo-").tempdir()?;
    headline(&format!("the main job, in {}", folder.path().display()));
    for (number, step) in (1..).zip(STEPS) {
        println!("\n{number}. {}", step.says);
        show(step, &out, folder.path());
        let printed = perform(host, step, &out, folder.path()).map_err(|e| format!("step {number}: {e}"))?;
        print!("{printed}");
        if printed != step.prints {
            return Err(format!("step {number} should have printed\n{}", step.prints).into());
        }
    }
    plain_header(&folder.path().join("notes.db"))?;
    println!("\nAll {} steps did what they should.", STEPS.len());
    if keep {
        println!("The files are in {}.", folder.keep().display());
    }
    Ok(())
}

/// The shell, or else Python.
fn host() -> Result<Host> {
    let Err(error) = tools::shell() else { return Ok(Host::Shell) };
    println!("no sqlite3 shell ({error}); Python's sqlite3 module takes its place");
    tools::python().map(|()| Host::Python).map_err(|e| format!("{error}; {e}").into())
}

/// Prints a step as one would type it.
fn show(step: &Step, dist: &Path, folder: &Path) {
    if through_tideline(step) {
        println!("   sqlite> .load {}", dist.join("libtideline").display());
    }
    println!("   sqlite> .open '{}'", step.opens);
    for line in sql(step, folder).lines() {
        println!("   sqlite> {line}");
    }
}

fn sql(step: &Step, folder: &Path) -> String {
    step.sql.replace("FOLDER", &folder.to_string_lossy())
}

fn through_tideline(step: &Step) -> bool {
    step.opens.contains("vfs=tideline")
}

/// Runs a step, in a process of its own, and gives what it printed.
fn perform(host: Host, step: &Step, dist: &Path, folder: &Path) -> Result<String> {
    let library = dist.join("libtideline");
    let mut input = String::new();
    let mut command = match host {
        Host::Shell => {
            if through_tideline(step) {
                input += &format!(".load {}\n", library.display());
            }
            input += &format!(".open '{}'\n", step.opens);
            let mut command = Command::new("sqlite3");
            command.args(["-batch", "-bail"]);
            command
        }
        Host::Python => {
            let mut command = Command::new(tools::PYTHON);
            command.args(["-c", include_str!("demo.py"), step.opens]).arg(&library);
            command
        }
    };
    input += &sql(step, folder);
    input.push('\n');

    command.current_dir(folder).env("HOME", folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no pipe to the host")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(
            format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()).into()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Does the file say itself that it is an ordinary SQLite database, in rollback mode?
fn plain_header(database: &Path) -> Result<()> {
    let bytes = std::fs::read(database)?;
    if bytes.starts_with(b"SQLite format 3\0") && bytes.get(18..20) == Some(&[1, 1]) {
        Ok(())
    } else {
        Err(format!("{} doesn't begin as a plain SQLite file does", database.display()).into())
    }
}
