//! Loading: both entry points, both files, more than once, into more than one SQLite of a process, into one that is
//! too old; and linked into a program instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use tideline_tests::{Build, Host, Output, Process, SYSTEM_LIBRARIES, Scratch, Shell, refusal, skipped};

/// The ways of a dot command, or of SQL, to make the VFS known.
const PLAIN: [&str; 5] = [
    ".load ./libtideline",
    ".load ./libtideline.so",
    ".load ./libtideline sqlite3_tideline_init",
    "SELECT load_extension('./libtideline');",
    "SELECT load_extension('./libtideline', 'sqlite3_tideline_init');",
];

/// The ways to make it the default as well.
const DEFAULT: [&str; 4] = [
    ".load ./libtideline sqlite3_tidelinedefault_init",
    "SELECT load_extension('./libtideline', 'sqlite3_tidelinedefault_init');",
    // PAGER.md 16: hosts that name no entry point derive one from the file's name.
    ".load ./libtidelinedefault",
    "SELECT load_extension('./libtidelinedefault');",
];

/// Runs a script in a shell of its own, nothing loaded and nothing open.
#[track_caller]
fn bare(host: Host, scratch: &Scratch, script: &str) -> String {
    host.shell(Shell::bare(scratch)).ok(script)
}

#[test]
fn the_one_entry_point_makes_the_vfs_known() {
    for load in PLAIN {
        Host::each(|host, scratch| {
            // PAGER.md 17: what is opened later has the functions too.
            let answer = bare(
                host,
                scratch,
                &format!(
                    "{load}\n.open app.db\nCREATE TABLE t(a); PRAGMA journal_mode;\n\
                     .open 'file:ours.db?vfs=tideline'\nCREATE TABLE t(a); PRAGMA journal_mode; SELECT tide_lsn();\n\
                     ATTACH 'file:other.db?vfs=tideline' AS o; CREATE TABLE o.t(a); SELECT tide_lsn('o');\n\
                     .open app.db\nPRAGMA journal_mode; SELECT tide_version() > '';\n"
                ),
            );
            let answer = without_handles(&answer);
            assert_eq!(answer, "delete\nwal\n1\n1\ndelete\n1\n", "{load}");
            assert!(!scratch.side("app.db").exists() && scratch.side("ours.db").exists(), "{load}");
        });
    }
}

#[test]
fn the_other_entry_point_makes_the_vfs_the_default() {
    // LESSONS.md 8.
    for load in DEFAULT {
        Host::each(|host, scratch| {
            let work = "PRAGMA journal_mode; SELECT count(*) > 0 FROM tide_log; SELECT count(*) FROM t;";
            let answer = bare(
                host,
                scratch,
                &format!(
                    "{load}\n.open app.db\nCREATE TABLE t(a); INSERT INTO t VALUES (1); SELECT tide_lsn();\n\
                     CREATE TEMP TABLE x AS SELECT a FROM t; ATTACH ':memory:' AS m; CREATE TABLE m.y(b); VACUUM;\n\
                     ATTACH 'second.db' AS s; CREATE TABLE s.t(a); SELECT tide_lsn('s');\n\
                     .open 'file:plain.db?vfs=unix'\nCREATE TABLE t(a); PRAGMA journal_mode;\n\
                     .open app.db\n{work}\n.open 'file:app.db?vfs=tideline'\n{work}\n"
                ),
            );
            let answer = without_handles(&answer);
            assert_eq!(answer, "2\n1\ndelete\nwal\n1\n1\nwal\n1\n1\n", "{load}");
            for (name, ours) in [("app.db", true), ("second.db", true), ("plain.db", false)] {
                assert_eq!(scratch.side(name).exists(), ours, "{load}: {name}");
            }
            assert_eq!(host.stock(scratch, "app.db", "SELECT a FROM t; PRAGMA integrity_check;"), "1\nok\n");
        });
    }
}

/// An answer without the empty row that `SELECT load_extension(…)` gives.
fn without_handles(answer: &str) -> String {
    answer.strip_prefix('\n').unwrap_or(answer).into()
}

#[test]
fn an_entry_point_that_is_not_there_harms_nothing() {
    Host::each(|host, scratch| {
        let output = host.shell(Shell::bare(scratch)).going_on().run(
            ".load ./libtideline sqlite3_nonsense_init\n.load ./libtideline\n\
             .open 'file:a.db?vfs=tideline'\nSELECT tide_lsn();\n",
        );
        assert_eq!(output.stdout, "0\n", "{output:#?}");
        assert!(output.stderr.contains("sqlite3_nonsense_init"), "{output:#?}");
    });
}

#[test]
fn python_loads_by_method_and_by_name_of_the_entry_point() {
    Host::each(|host, scratch| {
        let script = r#"
from tide import *
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension("./libtideline")
if sys.version_info >= (3, 12):
    db.load_extension("./libtideline", entrypoint="sqlite3_tidelinedefault_init")
else:
    db.execute("SELECT load_extension('./libtideline', 'sqlite3_tidelinedefault_init')").fetchall()
assert one(db, "SELECT tide_version()")
db.close()
db = sqlite3.connect("app.db")
db.execute("CREATE TABLE t(a)")
assert db.execute("SELECT tide_lsn(), sqlite_version() FROM pragma_journal_mode").fetchone() == (1, sys.argv[1])
assert one(db, "PRAGMA journal_mode") == "wal"
"#;
        let version = bare(host, scratch, "SELECT sqlite_version();");
        host.python(scratch, script, &[version.trim_end()]).ok();
    });
}

#[test]
fn loading_again_in_any_way_is_harmless() {
    let script = r#"
from tide import *
import itertools
ways = {
    "plain": "SELECT load_extension('./libtideline')",
    "default": "SELECT load_extension('./libtideline', 'sqlite3_tidelinedefault_init')",
    "file": "SELECT load_extension('./libtidelinedefault')",
}

def fresh():
    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    return db

def checked(first, second):
    """What a process of its own says of two ways, one after another."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert status == 0, (first, second, status)
        return
    try:
        old, other = fresh(), fresh()
        kept = sqlite3.connect("kept.db")
        kept.execute("CREATE TABLE IF NOT EXISTS t(a)")
        for _ in range(2):
            old.execute(ways[first]).fetchall()
        old.execute(ways[second]).fetchall()
        if "file" in (first, second) and first != second:
            # Two files are two copies, and this connection was there before either.
            refused("DENIED", lambda: other.execute(ways[second]).fetchall())
        else:
            other.execute(ways[second]).fetchall()
            assert one(other, "SELECT tide_version()")
        late = fresh()
        for way in (first, second, first):
            late.execute(ways[way]).fetchall()
            assert one(old, "SELECT tide_version()") == one(late, "SELECT tide_version()")
        for db in (old, other, late):
            db.close()
        name = f"{first}-{second}.db"
        db = sqlite3.connect(name)
        db.execute("CREATE TABLE t(a)")
        ours = one(db, "PRAGMA journal_mode") == "wal"
        assert ours == (first != "plain" or second != "plain"), ours
        named = sqlite3.connect(uri("u-" + name), uri=True)
        named.execute("CREATE TABLE t(a)")
        assert one(named, "SELECT tide_lsn()") == 1
        assert one(kept, "PRAGMA journal_mode") == "delete", "what was open stays what it is"
        for db in (db, named, kept):
            db.close()
        os._exit(0)
    except BaseException as fault:
        print(first, second, repr(fault), file=sys.stderr, flush=True)
        os._exit(1)

for first, second in itertools.product(ways, repeat=2):
    checked(first, second)
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
    });
}

#[test]
fn the_connection_that_loaded_it_may_close_whenever_it_likes() {
    // LESSONS.md 10.
    let script = r#"
from tide import *
loader = sqlite3.connect("file:loader.db", uri=True)
loader.enable_load_extension(True)
loader.load_extension(LIBRARY)
db = sqlite3.connect(uri("a.db"), uri=True, isolation_level=None)
db.execute("CREATE TABLE t(a)")
db.execute("BEGIN")
db.execute("INSERT INTO t VALUES (1)")
loader.close()
db.execute("COMMIT")
later = sqlite3.connect(uri("a.db"), uri=True)
assert later.execute("SELECT a, tide_lsn() FROM t").fetchone() == (1, 2)
db.close()
later.close()
again = sqlite3.connect(uri("a.db"), uri=True)
assert one(again, "SELECT count(*) FROM tide_log") == 2
# The process ends with this one open, in a transaction.
again.execute("INSERT INTO t VALUES (2)")
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*), tide_lsn() FROM t;"), "1|2\n");
    });
}

#[test]
fn threads_that_load_at_once_all_get_it() {
    let script = r#"
from tide import *
import threading
faults = []
start = threading.Barrier(8)

def work(number):
    try:
        start.wait()
        db = sqlite3.connect(":memory:")
        db.enable_load_extension(True)
        db.load_extension(LIBRARY)
        assert one(db, "SELECT tide_version()")
        db.close()
        db = sqlite3.connect(uri("a.db"), uri=True, timeout=60, isolation_level=None)
        db.execute("INSERT INTO t VALUES (?)", (number,))
    except BaseException as fault:
        faults.append(fault)

with sqlite3.connect("a.db") as db:
    db.execute("CREATE TABLE t(a)")
db.close()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not faults, faults
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*), sum(a), tide_lsn() FROM t;"), "8|28|9\n");
    });
}

/// A second SQLite in a Python: the library at `sys.argv[1]`.
const SECOND: &str = r#"
from tide import *
import ctypes
library = ctypes.CDLL(sys.argv[1])
library.sqlite3_errmsg.restype = library.sqlite3_libversion.restype = ctypes.c_char_p
library.sqlite3_errmsg.argtypes = [ctypes.c_void_p]
Row = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p)

class Second:
    """A connection of it."""
    def __init__(self, name):
        self.db = ctypes.c_void_p()
        flags = 2 | 4 | 64  # read and write, create, URI
        code = library.sqlite3_open_v2(name.encode(), ctypes.byref(self.db), flags, None)
        if code:
            raise sqlite3.Error(library.sqlite3_errmsg(self.db).decode())

    def load(self, file):
        library.sqlite3_enable_load_extension(self.db, 1)
        message = ctypes.c_char_p()
        code = library.sqlite3_load_extension(self.db, file.encode(), None, ctypes.byref(message))
        if code:
            raise sqlite3.Error(message.value.decode())

    def execute(self, sql):
        rows = []
        def row(_, count, values, names):
            rows.append(tuple(values[at].decode() for at in range(count)))
            return 0
        message = ctypes.c_char_p()
        if library.sqlite3_exec(self.db, sql.encode(), Row(row), None, ctypes.byref(message)):
            raise sqlite3.Error(message.value.decode())
        return rows

    def close(self):
        assert library.sqlite3_close(self.db) == 0
"#;

/// Runs a script with a second SQLite: the oldest one beside this system's, and this system's beside the oldest one.
fn with_a_second_sqlite(script: &str) {
    let Some(oldest) = Build::Oldest.library_or_skip() else { return };
    let oldest = oldest.join("libsqlite3.so.0");
    let mut pairs = vec![(Host::System, oldest)];
    if let Ok(newest) = Build::Newest.library() {
        pairs.push((Host::Oldest, newest.join("libsqlite3.so.0")));
    }
    for (host, second) in pairs {
        let scratch = Scratch::new();
        let second = second.to_str().expect("a path in text");
        host.python(&scratch, &format!("{SECOND}{script}"), &[second]).ok();
    }
}

#[test]
fn a_second_sqlite_of_the_process_is_refused() {
    // PAGER.md 14.
    with_a_second_sqlite(
        r#"
assert library.sqlite3_libversion().decode() != sqlite3.sqlite_version
db = connect("a.db")
db.execute("CREATE TABLE t(a)")
db.execute("BEGIN")
db.execute("INSERT INTO t VALUES (1)")
second = Second(":memory:")
for _ in range(2):
    assert "another SQLite library" in refused("DENIED", lambda: second.load(LIBRARY))
fails(lambda: second.execute("SELECT tide_version()"), "no such function")
fails(lambda: Second(uri("a.db")), "no such vfs")
# Neither is hurt.
plain = Second("file:plain.db")
plain.execute("CREATE TABLE t(a); INSERT INTO t VALUES (7)")
assert plain.execute("SELECT a FROM t") == [("7",)]
db.execute("COMMIT")
assert connect("a.db").execute("SELECT a, tide_lsn() FROM t").fetchone() == (1, 2)
plain.close(), second.close()
"#,
    );
}

#[test]
fn the_second_sqlite_may_be_the_one_that_loads_first() {
    with_a_second_sqlite(
        r#"
second = Second(":memory:")
second.load(LIBRARY)
second.close()
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
assert "another SQLite library" in refused("DENIED", lambda: db.load_extension(LIBRARY))
fails(lambda: sqlite3.connect(uri("a.db"), uri=True), "no such vfs")
second = Second(uri("a.db"))
second.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
assert second.execute("SELECT a, tide_lsn() FROM t") == [("1", "2")]
second.close()
assert one(sqlite3.connect("a.db"), "SELECT a FROM t") == 1
"#,
    );
}

#[test]
fn two_files_in_two_sqlites_are_as_apart_as_two_processes() {
    // Two copies of the library know nothing of each other, and meet on the files as processes do.
    with_a_second_sqlite(
        r#"
db = connect("a.db", timeout=0)
db.execute("CREATE TABLE t(a)")
loader = Second(":memory:")
loader.load("./libtidelinedefault")
second = Second(uri("a.db"))
second.execute("INSERT INTO t VALUES (1)")
assert one(db, "SELECT a FROM t") == 1
db.execute("BEGIN IMMEDIATE")
fails(lambda: second.execute("INSERT INTO t VALUES (2)"), "locked")
db.execute("COMMIT")
db.execute("INSERT INTO t VALUES (3)")
assert second.execute("SELECT a FROM t") == [("1",), ("3",)]
second.close()
assert db.execute("SELECT sum(a), tide_lsn() FROM t").fetchone() == (4, 3)
second = Second(uri("a.db"))
for n in range(30):
    db.execute("INSERT INTO t VALUES (?)", (n,))
    second.execute(f"INSERT INTO t VALUES ({100 + n})")
assert db.execute("SELECT count(*), tide_lsn() FROM t").fetchone() == (62, 63)
db.close()
second.execute("INSERT INTO t VALUES (200)")
assert second.execute("PRAGMA integrity_check; SELECT count(*), tide_lsn() FROM t") == [("ok",), ("63", "64")]
second.close(), loader.close()
assert one(sqlite3.connect("a.db"), "PRAGMA integrity_check") == "ok"
"#,
    );
}

#[test]
fn a_host_that_is_too_old_is_refused() {
    let scratch = Scratch::new();
    let Some(old) = Build::TooOld.library_or_skip() else { return };
    let run = |script: &str| old_shell(&scratch, &old).run(script);
    assert_eq!(run("SELECT sqlite_version();").ok(), "3.33.0\n");
    for load in PLAIN.iter().chain(&DEFAULT) {
        let output = run(&format!(
            "{load}\n.open app.db\nCREATE TABLE IF NOT EXISTS t(a); PRAGMA journal_mode;\n\
             SELECT tide_version();\n.open 'file:a.db?vfs=tideline'\n"
        ));
        assert_eq!(output.stdout, "delete\n", "{load}");
        let mut complaints = output.stderr.lines();
        let first = complaints.next().expect("a complaint");
        let reason = refusal(first, "FORMAT");
        assert!(reason.contains("3.33.0") && reason.contains("3.34.1"), "{load}: {first}");
        assert!(complaints.next().is_some_and(|line| line.contains("no such function")), "{output:#?}");
        assert!(complaints.next().is_some_and(|line| line.contains("no such vfs")), "{output:#?}");
    }
}

fn old_shell<'a>(scratch: &'a Scratch, library: &Path) -> Shell<'a> {
    Shell::bare(scratch).on(library.into()).going_on()
}

/// Compiles `source`, in the workspace's `ext`, as a user would in the folder that `cargo xtask dist` fills, against a
/// SQLite of the program's own or this system's; and gives the program.
fn linked(scratch: &Scratch, source: &str, sqlite: &[PathBuf], options: &[&str]) -> PathBuf {
    let program = scratch.path("link");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ext").join(source);
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-I."]).args(options).arg("-o").arg(&program).arg(source);
    // By name: `-ltideline` would be the loadable library, which is in the same folder.
    cc.arg("libtideline.a").args(sqlite).args(SYSTEM_LIBRARIES);
    run(&mut cc, scratch).ok();
    program
}

fn run(command: &mut Command, scratch: &Scratch) -> Output {
    // Cargo's own lets programs find what it built, under the same name.
    Process::run(command.current_dir(scratch.folder()).env_remove("LD_LIBRARY_PATH"), "")
}

/// The example, run twice, and what it leaves.
fn example_works(scratch: &Scratch, program: &Path, version: &str) {
    for notes in 1..=2 {
        let output = run(Command::new(program).arg("notes.db"), scratch);
        let lsn = 1 + notes;
        let wanted = format!(
            "Tideline {} on SQLite {version}: {notes} notes at LSN {lsn}, the last of them 'linked, not loaded'\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(output.ok(), wanted);
    }
    let look = "SELECT count(*), tide_lsn() FROM note; SELECT count(*) FROM tide_verify;
                SELECT group_concat(last_lsn || origin) FROM tide_log;";
    assert_eq!(Shell::new(scratch, "notes.db").ok(look), "2|3\n0\n1local,2local,3local\n");
    let copy = Shell::new(scratch, "notes.db-copy").ok(look);
    assert!(copy.starts_with("2|3\n0\n") && copy.ends_with("received\n"), "{copy}");
    assert_eq!(Shell::stock(scratch, "notes.db").ok("SELECT count(*) FROM note;"), "2\n");
}

/// The static library is there, or it is said that it isn't.
fn has_archive(scratch: &Scratch) -> bool {
    let there = scratch.path("libtideline.a").exists() && scratch.path("tideline.h").exists();
    if !there {
        skipped("no static library; `cargo xtask dist` builds it");
    }
    there
}

#[test]
fn a_program_links_it_with_this_systems_sqlite() {
    let scratch = Scratch::new();
    if !has_archive(&scratch) {
        return;
    }
    let found = Command::new("cc").arg("-print-file-name=libsqlite3.so.0").output().expect("a C compiler");
    let library = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim_end());
    if !library.is_absolute() {
        skipped("no shared SQLite library of this system");
        return;
    }
    let Ok(header) = Build::Oldest.source() else { return };
    let include = format!("-I{}", header.display());
    let program = linked(&scratch, "examples/link.c", &[library], &[&include]);
    let version = Shell::bare(&scratch).ok("SELECT sqlite_version();");
    example_works(&scratch, &program, version.trim_end());
}

#[test]
fn a_program_links_it_with_a_sqlite_that_loads_no_extensions() {
    // PAGER.md 15: such a SQLite passes no API table.
    let scratch = Scratch::new();
    if !has_archive(&scratch) {
        return;
    }
    let source = match Build::Oldest.source() {
        Ok(source) => source,
        Err(why) => return skipped(&format!("no SQLite to compile: {why}")),
    };
    let object = scratch.path("sqlite3.o");
    let mut cc = Command::new("cc");
    cc.args(["-O0", "-w", "-c", "-DSQLITE_OMIT_LOAD_EXTENSION", "-o"]).arg(&object);
    run(cc.arg(source.join("sqlite3.c")), &scratch).ok();
    let include = format!("-I{}", source.display());
    let program = linked(&scratch, "examples/link.c", &[object], &[&include]);
    example_works(&scratch, &program, Build::Oldest.version());
}

#[test]
fn the_header_is_c_of_any_age() {
    let scratch = Scratch::new();
    if !has_archive(&scratch) {
        return;
    }
    for standard in ["c89", "c99", "c17"] {
        scratch.write("use.c", "#include \"tideline.h\"\n#include \"tideline.h\"\n");
        let mut cc = Command::new("cc");
        cc.args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I."]);
        run(cc.arg(format!("-std={standard}")).arg("use.c"), &scratch).ok();
    }
}
