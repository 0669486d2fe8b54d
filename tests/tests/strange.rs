//! Files that aren't what they were, or never what they should be.

use tideline_tests::{Host, Scratch, Shell, python, refusal};

#[test]
fn a_file_that_was_moved_or_replaced_is_not_written_any_more() {
    let scratch = Scratch::new();
    // SQLite asks at each write, and is told at the latest a moment after the last time.
    let script = r#"
from tide import *
for change in ("renamed", "removed", "replaced"):
    name = change + ".db"
    db = connect(name)
    db.execute("CREATE TABLE t(v)")
    db.execute("INSERT INTO t VALUES (1)")
    time.sleep(0.05)
    if change == "renamed":
        os.rename(name, "elsewhere.db")
    elif change == "removed":
        os.remove(name)
    else:
        stock = sqlite3.connect("other.db")
        stock.execute("CREATE TABLE u(v)")
        stock.commit()
        stock.close()
        os.rename("other.db", name)
    for _ in range(3):
        fails(lambda: db.execute("INSERT INTO t VALUES (2)"), "readonly")
        refused("FOREIGN", lambda: connect(name))
    assert one(db, "SELECT sum(v) FROM t") == 1
    db.close()
stock = sqlite3.connect("elsewhere.db")
assert one(stock, "SELECT sum(v) FROM t") == 1, "what was committed went along"
assert one(sqlite3.connect("replaced.db"), "SELECT count(*) FROM u") == 0
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn rights_that_were_taken_away_count_in_the_same_process() {
    let scratch = Scratch::new();
    // Permissions don't bind root: the script becomes nobody where it can.
    std::fs::set_permissions(scratch.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("other permissions");
    let script = r#"
from tide import *
become_nobody()
db = connect("a.db")
db.execute("CREATE TABLE t(v)")
db.close()
os.chmod("a.db", 0o444)
db = connect("a.db")
fails(lambda: db.execute("INSERT INTO t VALUES (2)"), "readonly")
db.close()
os.chmod("a.db", 0)
fails(lambda: connect("a.db").execute("SELECT * FROM t"), "")
os.chmod("a.db", 0o644)
connect("a.db").execute("INSERT INTO t VALUES (2)")
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn what_is_no_database_gets_sqlites_own_code_and_a_reason() {
    Host::each(|host, scratch| {
        scratch.write("letter.db", "this is a letter, not a database. ".repeat(50));
        let error = host.error(scratch, "letter.db", "SELECT * FROM t;");
        refusal(&error, "FORMAT");
        std::fs::create_dir(scratch.path("folder.db")).expect("a folder");
        refusal(&host.error(scratch, "folder.db", "SELECT * FROM t;"), "FORMAT");
        let attach = format!("ATTACH '{}' AS x;", scratch.uri("letter.db"));
        let error = host.sql(scratch, "a.db", &attach).expect_err("no database");
        assert!(error.contains("file is not a database"), "{error}");
    });
}

#[test]
fn a_path_where_no_database_can_be_is_refused_and_nothing_is_left_there() {
    let scratch = Scratch::new();
    scratch.write("letter.db", "this is a letter, not a database. ".repeat(50));
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("CREATE TABLE t(v)")
there = sorted(os.listdir("."))
fails(lambda: connect("letter.db").execute("SELECT * FROM t"), "FORMAT")
fails(lambda: connect("a.db/b.db").execute("SELECT * FROM t"), "")
fails(lambda: connect("n" * 300).execute("SELECT * FROM t"), "")
fails(lambda: connect("nowhere/b.db").execute("SELECT * FROM t"), "")
assert sorted(os.listdir(".")) == there
for path, code, remedy in (
    ("nowhere/b.db", "MISSING", "make it, or give another path"),
    ("a.db/b.db", "ARGUMENT", "give a path"),
    ("n" * 300, "ARGUMENT", "give a path"),
    (".", "ARGUMENT", "give a path"),
):
    text = refused(code, lambda: one(db, "SELECT tide_export(?)", path))
    assert remedy in text, text
assert sorted(os.listdir(".")) == there
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn who_is_refused_and_who_detaches_takes_nothing_from_those_who_are_opening() {
    let scratch = Scratch::new();
    scratch.write("letter.db", "this is a letter, not a database. ".repeat(50));
    Shell::stock(&scratch, "a.db").ok("CREATE TABLE t(v);");
    let script = r#"
from tide import *
import multiprocessing
def meets(n):
    for _ in range(60):
        fails(lambda: connect("letter.db").execute("SELECT * FROM t"), "FORMAT")
    for _ in range(60):
        try:
            db = connect("a.db", timeout=5)
            db.execute("INSERT INTO t VALUES (1)")
            if n == 0:
                one(db, "SELECT tide_detach()")
            db.close()
        except sqlite3.Error as error:
            # Somebody detaches, or others have it open; it isn't said that anything is lost.
            text = str(error)
            expected = ("BUSY", "locked", "readonly", "tide_detach", "close the database everywhere")
            assert any(part in text for part in expected), text
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(meets, range(4))
    assert not os.path.exists("letter.db-tide")
    assert one(connect("a.db"), "PRAGMA integrity_check") == "ok"
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn what_a_folder_that_cannot_be_written_keeps_from_a_connection_is_told() {
    let scratch = Scratch::new();
    let mode =
        |mode| std::fs::set_permissions(scratch.folder(), std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o777).expect("other permissions");
    Shell::stock(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (7);");
    mode(0o555).expect("other permissions");
    let script = r#"
from tide import *
become_nobody()
db = connect("a.db")
assert one(db, "SELECT v FROM t") == 7
why = one(db, "SELECT tide_last_error()")
assert why.startswith("tideline: DENIED: "), why
fails(lambda: db.execute("INSERT INTO t VALUES (8)"), "readonly")
text = refused("ARGUMENT", lambda: one(db, "SELECT tide_lsn()"))
assert "where its folder can be written" in text, text
"#;
    python(&scratch, script, &[]).ok();
    mode(0o755).expect("other permissions");
}

#[test]
fn a_database_that_may_only_be_read_is_read() {
    let scratch = Scratch::new();
    Shell::stock(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (7);");
    Shell::new(&scratch, "b.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (7);");
    for name in ["a.db", "b.db"] {
        // The write version of a format to come.
        let mut bytes = scratch.read(name);
        bytes[18] = 3;
        scratch.write(name, &bytes);
        let db = Shell::new(&scratch, name);
        assert_eq!(db.ok("SELECT v FROM t;"), "7\n");
        assert!(db.error("INSERT INTO t VALUES (8);").contains("readonly"));
        assert_eq!(scratch.read(name), bytes);
    }
}
