//! The ways to open a database: URIs, read-only, links, modes, and what SQLite has to finish before it is adopted.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use tideline_tests::{
    Host, SPILL, SUMS, Scratch, Shell, files_below, filled, left_behind, plain_header, python, refusal,
};

#[test]
fn a_database_without_a_name_or_in_memory_is_temporary() {
    Host::each(|host, scratch| {
        for uri in ["file:?vfs=tideline", "file::memory:?vfs=tideline", "file:x.db?vfs=tideline&mode=memory"]
        {
            let answer = host.sql_at(
                scratch,
                uri,
                &format!("{SPILL} {} BEGIN; DELETE FROM t; ROLLBACK; {SUMS}", filled(300)),
            );
            assert_eq!(answer.as_deref(), Ok("300|45150|90000\nok\n"), "{uri}");
        }
        assert!(!scratch.path("x.db").exists());
    });
}

#[test]
fn mode_ro_reads_and_does_not_write() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(50));
        let before = scratch.read("a.db");
        let uri = scratch.uri_with("a.db", "mode=ro");
        let answer =
            host.sql_at(scratch, &uri, &format!("{SUMS} SELECT tide_lsn(); SELECT count(*) FROM tide_log;"));
        assert_eq!(answer.as_deref(), Ok("50|1275|15000\nok\n3\n3\n"));
        for sql in ["DELETE FROM t;", "CREATE TABLE u(a);", "VACUUM;"] {
            let error = host.sql_at(scratch, &uri, sql).expect_err("read-only");
            assert!(error.contains("readonly"), "{sql} {error}");
        }
        assert_eq!(scratch.read("a.db"), before);
        let missing =
            host.sql_at(scratch, &scratch.uri_with("none.db", "mode=ro"), "SELECT 1 FROM sqlite_schema;");
        missing.expect_err("there is no such database");
        let missing =
            host.sql_at(scratch, &scratch.uri_with("none.db", "mode=rw"), "SELECT 1 FROM sqlite_schema;");
        missing.expect_err("there is no such database");
        assert!(!scratch.path("none.db").exists() && !scratch.side("none.db").exists());
    });
}

#[test]
fn who_only_reads_changes_nothing_by_a_command() {
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("CREATE TABLE t(v)")
db.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(20)])
more = connect("more.db")
more.execute("CREATE TABLE t(v)")
one(db, "SELECT tide_remote('origin', ?)", "file://" + os.path.abspath("place"))
COMMANDS = (
    "tide_receive(x'00', {})", "tide_compact(NULL, NULL, {})", "tide_fold({})", "tide_retain('none', {})", "tide_detach({})",
    "tide_remote('other', 'file:///nowhere', NULL, {})", "tide_remote('origin', NULL, NULL, {})", "tide_pull('origin', NULL, {})",
    "tide_hydrate({})",
)
def asked(reader, schema):
    before = json.loads(one(db, "SELECT tide_status()"))
    for command in COMMANDS:
        text = refused("DENIED", lambda: one(reader, "SELECT " + command.format(f"'{schema}'")))
        assert "only reads" in text and command[:command.index("(")] in text, text
    assert json.loads(one(db, "SELECT tide_status()")) == before
    # What only looks, or writes elsewhere, is none of it.
    assert one(reader, f"SELECT tide_lsn('{schema}')") == one(db, "SELECT tide_lsn()")
    assert "lsns" in one(reader, f"SELECT tide_retain(NULL, '{schema}')")
    assert one(reader, f"SELECT tide_prepare(0, NULL, '{schema}')")
    one(reader, f"SELECT tide_export('{uuid.uuid4()}.db', '{schema}')")
for parameters in ({"mode": "ro"}, {"immutable": 1}):
    asked(connect("a.db", **parameters), "main")
    both = connect("more.db")
    both.execute(f"ATTACH '{uri('a.db', **parameters)}' AS x")
    asked(both, "x")
    one(both, "SELECT tide_fold('main')")
careful = connect("a.db")
careful.execute("PRAGMA query_only = 1")
asked(careful, "main")
assert one(connect("a.db", mode="ro"), "SELECT tide_push()") == 21
careful.execute("PRAGMA query_only = 0")
assert one(careful, "SELECT tide_retain('none')") == "none"
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
    });
}

#[test]
fn a_reader_that_may_not_write_follows_a_writer() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1);");
    let mut reader = Shell::at(&scratch, &scratch.uri_with("a.db", "mode=ro")).session();
    let mut writer = Shell::new(&scratch, "a.db").session();
    assert_eq!(reader.sql("BEGIN; SELECT sum(v) FROM t;"), "1\n");
    writer.sql("INSERT INTO t VALUES (2);");
    assert_eq!(reader.sql("SELECT sum(v) FROM t; COMMIT; SELECT sum(v) FROM t;"), "1\n3\n");
}

#[test]
fn in_a_folder_that_may_not_be_written_a_database_is_read_or_refused() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2);");
    Shell::stock(&scratch, "plain.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2);");
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("other permissions");
    };
    open(scratch.folder(), 0o555);
    // Permissions don't bind root: the script becomes nobody where it can.
    let script = r#"
from tide import *
become_nobody()
for name in ("a.db", "plain.db"):
    for parameters in ({}, {"mode": "ro"}):
        try:
            db = connect(name, timeout=1, **parameters)
        except sqlite3.Error as error:
            # Or it is refused, as a WAL database is there, with what to do about it.
            assert "tideline: DENIED: " in str(error) and "; " in str(error), error
            continue
        assert one(db, "SELECT sum(v) FROM t") == 3, name
        fails(lambda: db.execute("INSERT INTO t VALUES (3)"), "readonly")
        assert one(db, "SELECT sum(v) FROM t") == 3, name
        db.close()
fails(lambda: connect("new.db", timeout=1).execute("CREATE TABLE t(a)"))
"#;
    let output = python(&scratch, script, &[]);
    open(scratch.folder(), 0o755);
    output.ok();
    assert_eq!(Shell::new(&scratch, "a.db").ok("INSERT INTO t VALUES (3); SELECT sum(v) FROM t;"), "6\n");
    assert_eq!(Shell::stock(&scratch, "plain.db").ok("SELECT sum(v) FROM t;"), "3\n");
}

#[test]
fn in_a_folder_that_may_not_be_written_one_that_is_not_at_rest_is_refused() {
    let scratch = left_behind();
    let before = (scratch.read("a.db"), files_below(&scratch.side("a.db")));
    let open = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scratch.folder(), permissions.clone()).expect("other permissions");
        std::fs::set_permissions(scratch.side("a.db"), permissions).expect("other permissions");
    };
    open(0o555);
    let script = r#"
from tide import *
become_nobody()
for parameters in ({}, {"mode": "ro"}, {"immutable": 1}):
    refused("DENIED", lambda: one(connect("a.db", timeout=1, **parameters), "SELECT count(*) FROM t"))
"#;
    let output = python(&scratch, script, &[]);
    open(0o755);
    output.ok();
    assert_eq!((scratch.read("a.db"), files_below(&scratch.side("a.db"))), before);
    assert_eq!(Shell::new(&scratch, "a.db").ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,two|2\n");
}

#[test]
fn new_files_take_the_mode_of_the_base() {
    for mode in [0o600, 0o640, 0o664] {
        let scratch = Scratch::new();
        Shell::stock(&scratch, "a.db").ok("CREATE TABLE t(v);");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scratch.path("a.db"), permissions).expect("other permissions");
        Shell::new(&scratch, "a.db").ok("INSERT INTO t VALUES (1);");
        let mode_of = |path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode_of(scratch.path("a.db")), mode);
        let readers = (mode & 0o444) >> 2;
        assert_eq!(mode_of(scratch.side("a.db")), mode | readers, "the folder");
        for entry in std::fs::read_dir(scratch.side("a.db")).expect("the side folder") {
            let path = entry.expect("an entry").path();
            let wanted = if path.is_dir() { mode | readers } else { mode };
            assert_eq!(mode_of(path.clone()), wanted, "{}", path.display());
        }
    }
}

#[test]
fn uris_with_odd_characters_are_understood() {
    Host::each(|host, scratch| {
        for name in [
            "a b.db",
            "per%cent.db",
            "hash#.db",
            "question?.db",
            "amp&ersand=.db",
            "äöü 日本 🌊.db",
            "+plus.db",
            "x",
        ] {
            host.ok(scratch, name, "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
            assert!(scratch.path(name).exists(), "{name}");
            assert_eq!(host.ok(scratch, name, "SELECT v, tide_lsn() FROM t;"), "1|2\n", "{name}");
        }
        let path = scratch.path("abs.db").display().to_string();
        for start in ["file://", "file://localhost"] {
            let answer = host.sql_at(
                scratch,
                &format!("{start}{path}?vfs=tideline"),
                "CREATE TABLE IF NOT EXISTS t(v);
                SELECT tide_lsn();",
            );
            assert_eq!(answer.as_deref(), Ok("1\n"), "{start}");
        }
        // A name that is no text.
        let raw = scratch.path("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
        let uri = format!("file:{}/%ff%fe.db?vfs=tideline", scratch.path("").display());
        for answer in ["1\n", "2\n"] {
            let sql = "CREATE TABLE IF NOT EXISTS t(v); INSERT INTO t VALUES (1); SELECT count(*) FROM t;";
            assert_eq!(host.sql_at(scratch, &uri, sql).as_deref(), Ok(answer));
            assert!(raw.exists(), "{raw:?}");
        }
        host.sql_at(scratch, &format!("file:{path}?vfs=nothing"), "SELECT 1;").expect_err("no such VFS");
        let error =
            host.sql_at(scratch, &scratch.uri_with("a b.db", "tide=high"), "SELECT 1;").expect_err("unknown");
        assert!(refusal(&error, "ARGUMENT").contains("tide"), "{error}");
    });
}

#[test]
fn a_symbolic_link_leads_to_the_same_store() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("real")).expect("a folder");
    Shell::new(&scratch, "real/a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1);");
    symlink(scratch.path("real/a.db"), scratch.path("link.db")).expect("a link");
    let mut direct = Shell::new(&scratch, "real/a.db").session();
    assert_eq!(direct.sql("SELECT v FROM t;"), "1\n");
    let mut linked = Shell::new(&scratch, "link.db").session();
    assert_eq!(linked.sql("INSERT INTO t VALUES (2); SELECT tide_lsn();"), "3\n");
    assert_eq!(direct.sql("SELECT sum(v), tide_lsn() FROM t;"), "3|3\n");
    assert!(!scratch.side("link.db").exists());
}

#[test]
fn the_same_store_twice_at_one_connection() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
        let attach = format!("ATTACH '{}' AS again;", scratch.uri("a.db"));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "{attach} SELECT v FROM main.t; SELECT v FROM again.t;
            INSERT INTO again.t VALUES (2); SELECT sum(v) FROM main.t;"
            ),
        );
        assert_eq!(answer, "1\n1\n3\n");
        let both =
            format!("{attach} BEGIN; INSERT INTO main.t VALUES (3); INSERT INTO again.t VALUES (4); COMMIT;");
        assert!(host.error(scratch, "a.db", &both).contains("locked"));
        assert_eq!(host.ok(scratch, "a.db", "SELECT sum(v) FROM t; PRAGMA integrity_check;"), "3\nok\n");
    });
}

#[test]
fn nolock_is_refused() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v);");
        let error = host
            .sql_at(scratch, &scratch.uri_with("a.db", "nolock=1"), "SELECT * FROM t;")
            .expect_err("refused");
        assert!(refusal(&error, "ARGUMENT").contains("nolock"), "{error}");
    });
}

#[test]
fn immutable_reads_what_was_there_when_it_was_opened() {
    Host::each(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        db.ok(&filled(300));
        let mut immutable =
            host.shell(Shell::at(scratch, &scratch.uri_with("a.db", "immutable=1"))).session();
        assert_eq!(immutable.sql(SUMS), "300|45150|90000\nok\n");
        let mut writer = db.session();
        writer.sql("UPDATE t SET v = 'x'; DELETE FROM t WHERE id > 10; VACUUM; SELECT 1;");
        assert_eq!(immutable.sql(SUMS), "300|45150|90000\nok\n");
        assert!(immutable.sql("DELETE FROM t;").contains("readonly"));
        immutable.end();
        writer.end();
        assert_eq!(db.ok(SUMS), "10|55|10\nok\n");
    });
}

#[test]
fn immutable_is_what_sqlite_takes_for_it() {
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("CREATE TABLE t(v)")
for value in ("0", "00", "-0", "no", "NO", "off", "false", "", "nonsense"):
    other = connect("a.db", immutable=value)
    before = one(other, "SELECT count(*) FROM t")
    db.execute("INSERT INTO t VALUES (1)")
    assert one(other, "SELECT count(*) FROM t") == before + 1, value
    other.execute("INSERT INTO t VALUES (2)")
    assert one(db, "SELECT count(*) FROM t") == before + 2, value
    other.close()
for value in ("1", "2", "yes", "ON", "true"):
    other = connect("a.db", immutable=value)
    before = one(other, "SELECT count(*) FROM t")
    db.execute("INSERT INTO t VALUES (1)")
    assert one(other, "SELECT count(*) FROM t") == before, value
    fails(lambda: other.execute("INSERT INTO t VALUES (2)"), "readonly")
    other.close()
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
    });
}

#[test]
fn a_hot_journal_is_rolled_back_before_the_database_is_adopted() {
    Host::each(|host, scratch| {
        let stock = Shell::stock(scratch, "a.db");
        stock.ok(&filled(1500));
        stock
            .run(&format!(
                "{SPILL} BEGIN; UPDATE t SET v = 'never'; DELETE FROM t WHERE id % 2;\n.shell kill -9 $PPID\n"
            ))
            .killed();
        assert!(std::fs::metadata(scratch.path("a.db-journal")).is_ok_and(|journal| journal.len() > 10_000));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!("{SUMS} SELECT tide_lsn(); DELETE FROM t WHERE id > 5; {SUMS}"),
        );
        assert_eq!(answer, "1500|1125750|450000\nok\n1\n5|15|1500\nok\n");
        assert!(!scratch.path("a.db-journal").exists());
        assert_eq!(Shell::stock(scratch, "a.db").ok(SUMS), "5|15|1500\nok\n");
    });
}

#[test]
fn a_wal_is_brought_in_before_the_database_is_adopted() {
    Host::each(|host, scratch| {
        let stock = Shell::stock(scratch, "a.db");
        stock.ok("PRAGMA journal_mode = wal; CREATE TABLE first(a);");
        stock
            .run(&format!("{} BEGIN; INSERT INTO first VALUES (1);\n.shell kill -9 $PPID\n", filled(500)))
            .killed();
        assert!(std::fs::metadata(scratch.path("a.db-wal")).is_ok_and(|wal| wal.len() > 10_000));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!("{SUMS} SELECT count(*), tide_lsn() FROM first; PRAGMA journal_mode;"),
        );
        assert_eq!(answer, "500|125250|150000\nok\n0|1\nwal\n");
        host.ok(scratch, "a.db", "INSERT INTO first VALUES (2);");
        assert!(!scratch.path("a.db-wal").exists() && !scratch.path("a.db-shm").exists());
        assert!(plain_header(&scratch.path("a.db")));
        assert_eq!(stock.ok(&format!("SELECT a FROM first; {SUMS}")), "2\n500|125250|150000\nok\n");
    });
}

#[test]
fn a_database_that_stock_sqlite_has_open_in_wal_mode_is_not_taken_from_it() {
    let scratch = Scratch::new();
    let mut stock = Shell::stock(&scratch, "a.db").session();
    stock.sql(
        "PRAGMA journal_mode = wal; CREATE TABLE t(v); INSERT INTO t VALUES (1); BEGIN; SELECT v FROM t;",
    );
    let output = Shell::new(&scratch, "a.db").run(".timeout 200\nINSERT INTO t VALUES (2);");
    assert!(!output.stderr.is_empty(), "{output:#?}");
    assert_eq!(
        stock.sql("COMMIT; INSERT INTO t VALUES (3); SELECT sum(v) FROM t; PRAGMA integrity_check;"),
        "4\nok\n"
    );
    stock.end();
    assert_eq!(Shell::new(&scratch, "a.db").ok("SELECT sum(v), tide_lsn() FROM t;"), "4|1\n");
}
