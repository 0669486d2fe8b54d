//! The core of the surface, in the stock `sqlite3` shell, one connection at a time.

use tideline_tests::{Host, Scratch, Shell, refusal};

/// A transaction of a few hundred pages with a cache of ten: it spills.
const SPILLING: &str = "
    PRAGMA cache_size = 10;
    PRAGMA cache_spill = 1;
    BEGIN;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO big SELECT i, printf('%0500d', i) FROM n;
    UPDATE big SET body = printf('%0400d', id + 1) WHERE id % 3 = 0;";

#[test]
fn what_is_committed_is_read_back_after_reopening() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);
           CREATE INDEX by_body ON note(body);
           INSERT INTO note(body) VALUES ('one'), ('two'), ('three');
           UPDATE note SET body = 'zwei' WHERE id = 2;
           DELETE FROM note WHERE id = 1;");
    assert_eq!(db.ok("SELECT * FROM note; PRAGMA integrity_check;"), "2|zwei\n3|three\nok\n");
    assert_eq!(db.ok("SELECT id FROM note WHERE body = 'zwei';"), "2\n");
}

#[test]
fn a_rollback_leaves_nothing_and_takes_no_lsn() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1);");
    let answer = db.ok("
        SELECT tide_lsn();
        BEGIN; INSERT INTO t VALUES (2); UPDATE t SET a = a + 10; CREATE TABLE u(b); SELECT sum(a) FROM t; ROLLBACK;
        SELECT tide_lsn(); SELECT * FROM t; SELECT count(*) FROM sqlite_schema;
        INSERT INTO t VALUES (3); SELECT tide_lsn();");
    assert_eq!(answer, "2\n23\n2\n1\n1\n3\n");
    assert_eq!(db.ok("SELECT a FROM t ORDER BY a; SELECT count(*) FROM tide_log;"), "1\n3\n3\n");
}

#[test]
fn savepoints_roll_back_their_own_part() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a);
           BEGIN;
           INSERT INTO t VALUES (1);
           SAVEPOINT x; INSERT INTO t VALUES (2);
           SAVEPOINT y; INSERT INTO t VALUES (3); ROLLBACK TO y; INSERT INTO t VALUES (4); RELEASE y;
           ROLLBACK TO x; INSERT INTO t VALUES (5); RELEASE x;
           COMMIT;");
    assert_eq!(db.ok("SELECT group_concat(a) FROM t; SELECT tide_lsn();"), "1,5\n2\n");
}

#[test]
fn a_failing_statement_takes_back_only_itself() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db").going_on();
    let output = db.run(
        "
        CREATE TABLE t(a UNIQUE);
        BEGIN;
        INSERT INTO t VALUES (1);
        INSERT INTO t VALUES (2), (3), (1), (4);
        INSERT INTO t VALUES (5);
        COMMIT;",
    );
    assert!(output.stderr.contains("UNIQUE constraint failed"), "{output:#?}");
    assert_eq!(
        db.ok("SELECT group_concat(a) FROM t; SELECT tide_lsn(); PRAGMA integrity_check;"),
        "1,5\n2\nok\n"
    );
}

#[test]
fn a_spilled_transaction_commits_whole() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, body TEXT);");
    db.ok(&format!("{SPILLING} COMMIT;"));
    let sums = "SELECT count(*), sum(CAST(body AS INTEGER)) FROM big;";
    // The sum of 1..=2000, and one more for every third of them.
    assert_eq!(db.ok(sums), format!("2000|{}\n", 2_001_000 + 666));
    assert_eq!(db.ok("PRAGMA integrity_check; SELECT tide_lsn();"), "ok\n2\n");
}

#[test]
fn a_spilled_transaction_rolls_back_whole() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, body TEXT);
           WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
               INSERT INTO big SELECT 10000 + i, printf('%0500d', i) FROM n;");
    let before = db.ok(".sha3sum --schema\nSELECT tide_lsn(); PRAGMA page_count;");
    let inside = db.ok(&format!(
        "{SPILLING} DELETE FROM big WHERE id % 2; SELECT count(*) FROM big; ROLLBACK; PRAGMA integrity_check;
         SELECT count(*) FROM big;"
    ));
    assert_eq!(inside, "1250\nok\n500\n");
    assert_eq!(db.ok(".sha3sum --schema\nSELECT tide_lsn(); PRAGMA page_count;"), before);
}

#[test]
fn savepoints_roll_back_across_a_spill() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, body TEXT); INSERT INTO big VALUES (5000, 'stays');");
    db.ok(&format!(
        "{SPILLING}
         SAVEPOINT x;
         UPDATE big SET body = 'changed';
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO big SELECT 6000 + i, printf('%0900d', i) FROM n;
         ROLLBACK TO x;
         DELETE FROM big WHERE id <= 10;
         COMMIT;"
    ));
    let answer = db.ok("SELECT count(*), min(id), max(id) FROM big; SELECT body FROM big WHERE id = 5000;
                        SELECT count(*) FROM big WHERE body = 'changed'; PRAGMA integrity_check;
                        SELECT tide_lsn();");
    assert_eq!(answer, "1991|11|5000\nstays\n0\nok\n3\n");
}

#[test]
fn the_log_has_the_columns_that_were_promised() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    let answer = db.ok(".headers on\nCREATE TABLE t(a); SELECT * FROM tide_log;");
    let header = answer.lines().next().expect("a header");
    assert_eq!(header, "first_lsn|last_lsn|time|pages|bytes|size_pages|checksum|kind|origin");
}

#[test]
fn the_log_tells_every_commit_in_order() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a, b); INSERT INTO t VALUES (1, zeroblob(20000)); DELETE FROM t;
           BEGIN; INSERT INTO t VALUES (2, 'x'); INSERT INTO t VALUES (3, 'y'); COMMIT;");
    let faults = db.ok("
        SELECT * FROM tide_log WHERE
            last_lsn < first_lsn
            OR typeof(first_lsn) <> 'integer' OR typeof(last_lsn) <> 'integer'
            OR time NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9]Z'
            OR abs(julianday(time) - julianday('now')) > 1
            OR pages < 1 OR bytes < 1 OR size_pages < 2
            OR checksum GLOB '*[^0-9a-f]*'
            OR kind NOT IN ('commit', 'merged', 'full')
            OR origin <> 'local';");
    assert_eq!(faults, "");
    let dense =
        "SELECT count(*), min(first_lsn), max(last_lsn), sum(last_lsn - first_lsn + 1) FROM tide_log;";
    assert_eq!(db.ok(dense), "4|1|4|4\n");
    let sizes = db.ok("SELECT size_pages FROM tide_log; PRAGMA page_count;");
    let sizes: Vec<u32> = sizes.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(sizes[0], 2);
    assert_eq!(sizes[3], sizes[4], "size_pages of the head is the size of the database");
    let order = db.ok("SELECT last_lsn FROM tide_log;");
    assert_eq!(order, "1\n2\n3\n4\n");
}

#[test]
fn the_lsn_counts_commits_that_write() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    let answer = db.ok("
        SELECT tide_lsn();
        CREATE TABLE t(a); SELECT tide_lsn();
        INSERT INTO t VALUES (1); SELECT tide_lsn();
        SELECT count(*) FROM t; SELECT tide_lsn();
        BEGIN IMMEDIATE; COMMIT; SELECT tide_lsn();
        BEGIN; UPDATE t SET a = a + 1; UPDATE t SET a = a - 1; COMMIT; SELECT tide_lsn();
        BEGIN; INSERT INTO t VALUES (2); INSERT INTO t VALUES (3); COMMIT; SELECT tide_lsn();");
    // A transaction that wrote nothing takes none; one that wrote and left what was there before takes one.
    assert_eq!(answer, "0\n1\n2\n1\n2\n2\n3\n4\n");
    assert_eq!(db.ok("SELECT tide_lsn(), tide_lsn('main');"), "4|4\n");
}

#[test]
fn an_empty_database_has_nothing_to_ship() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    let answer = db.ok("SELECT tide_lsn(), tide_prepare(0) IS NULL; SELECT count(*) FROM tide_log;");
    assert_eq!(answer, "0|1\n0\n");
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    assert_eq!(db.ok("SELECT tide_version();"), format!("{}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_status_is_one_object_with_the_keys_that_were_promised() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("PRAGMA page_size = 8192; CREATE TABLE t(a); INSERT INTO t VALUES (1);");
    let text = db.ok("SELECT tide_status();");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let keys = [
        "path",
        "page_size",
        "lineage",
        "head",
        "durable",
        "base",
        "horizon",
        "segments",
        "journal_bytes",
        "readers",
        "remotes",
    ];
    for key in keys {
        assert!(status.get(key).is_some(), "no {key} in {text}");
    }
    assert_eq!(status["page_size"], 8192);
    assert_eq!(status["head"], 2);
    assert!(status["durable"].as_u64().is_some_and(|lsn| lsn <= 2), "{text}");
    assert!(status["base"].as_u64().is_some_and(|lsn| lsn <= 2), "{text}");
    assert!(status["remotes"].as_array().is_some_and(Vec::is_empty), "{text}");
    let lineage = status["lineage"].as_str().expect("a lineage in text");
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(lineage.len() == 32 && lineage.chars().all(hex), "{lineage}");
    let path = status["path"].as_str().expect("a path in text");
    assert_eq!(std::fs::canonicalize(path).ok(), std::fs::canonicalize(scratch.path("a.db")).ok());
    let again: serde_json::Value = serde_json::from_str(&db.ok("SELECT tide_status();")).expect("JSON");
    assert_eq!(again["lineage"], lineage, "a lineage outlives the process");
}

#[test]
fn two_databases_have_two_lineages() {
    let scratch = Scratch::new();
    let lineage = "CREATE TABLE t(a); SELECT json_extract(tide_status(), '$.lineage');";
    let [one, two] = ["a.db", "b.db"].map(|name| Shell::new(&scratch, name).ok(lineage));
    assert_ne!(one, two);
}

#[test]
fn journal_mode_answers_wal_in_every_form() {
    Host::each(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        let forms =
            ["", " = wal", " = delete", " = truncate", " = persist", " = memory", " = off", "('wal')"];
        for form in forms {
            for schema in ["", "main."] {
                let answer = db.ok(&format!(
                "CREATE TABLE IF NOT EXISTS t(a); PRAGMA {schema}journal_mode{form};
                 BEGIN; INSERT INTO t VALUES (1); ROLLBACK; INSERT INTO t VALUES (2); PRAGMA {schema}journal_mode;"
            ));
                assert_eq!(answer, "wal\nwal\n", "PRAGMA {schema}journal_mode{form}");
            }
        }
        let count = 2 * forms.len();
        assert_eq!(db.ok("SELECT count(*), sum(a) FROM t;"), format!("{count}|{}\n", 2 * count));
    });
}

#[test]
fn wal_checkpoint_answers_as_where_there_is_no_wal() {
    Host::each(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        db.ok("CREATE TABLE t(a);");
        for form in ["", "(PASSIVE)", "(FULL)", "(RESTART)", "(TRUNCATE)", " = TRUNCATE"] {
            let answer = db.ok(&format!("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint{form};"));
            assert_eq!(answer, "0|-1|-1\n", "PRAGMA wal_checkpoint{form}");
            let answer = db.ok(&format!("INSERT INTO t VALUES (1); PRAGMA main.wal_checkpoint{form};"));
            assert_eq!(answer, "0|-1|-1\n", "PRAGMA main.wal_checkpoint{form}");
        }
        assert_eq!(db.ok("SELECT count(*) FROM t; PRAGMA integrity_check;"), "12\nok\n");
    });
}

#[test]
fn a_uri_parameter_that_nobody_knows_is_refused_by_name() {
    let scratch = Scratch::new();
    let output = Shell::at(&scratch, &scratch.uri_with("a.db", "frobnicate=1")).going_on().run("");
    assert!(refusal(&output.stderr, "ARGUMENT").contains("frobnicate"), "{output:#?}");
    let known = Shell::at(&scratch, &scratch.uri_with("a.db", "mode=rwc&cache=private"));
    assert_eq!(known.ok("CREATE TABLE t(a); SELECT tide_lsn();"), "1\n");
}

#[test]
fn without_the_vfs_a_database_is_none_of_ours() {
    let scratch = Scratch::new();
    let db = Shell::at(&scratch, "plain.db");
    assert_eq!(
        db.ok("PRAGMA journal_mode = persist; CREATE TABLE t(a); SELECT count(*) FROM t;"),
        "persist\n0\n"
    );
    assert!(!scratch.side("plain.db").exists());
    let complaint = db.error("SELECT tide_lsn();");
    assert!(complaint.contains("tideline: "), "{complaint}");
}

#[test]
fn loading_before_opening_and_loading_twice_are_both_fine() {
    Host::each(|host, scratch| {
        let answer = host.shell(Shell::bare(scratch)).ok(
            ".load ./libtideline\n.load ./libtideline\n.open 'file:a.db?vfs=tideline'\n\
         CREATE TABLE t(a); INSERT INTO t VALUES (7);\n.load ./libtideline\n\
         .open 'file:b.db?vfs=tideline'\nSELECT tide_lsn();\n\
         .open 'file:a.db?vfs=tideline'\nSELECT tide_lsn(), a FROM t;",
        );
        assert_eq!(answer, "0\n2|7\n");
    });
}

#[test]
fn a_schema_of_an_application_does_not_reach_commands() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db").going_on();
    let output = db.run(
        "
        CREATE TABLE t(a);
        CREATE VIEW reading AS SELECT tide_lsn() AS lsn;
        CREATE VIEW commanding AS SELECT tide_receive(NULL) AS lsn;
        PRAGMA trusted_schema = 0;
        SELECT lsn FROM reading;
        SELECT lsn FROM commanding;",
    );
    assert_eq!(output.stdout, "3\n");
    assert!(output.stderr.contains("unsafe use of tide_receive()"), "{output:#?}");
}

#[test]
fn the_temporary_and_the_memory_database_are_none_of_ours() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    let answer = db.ok("
        CREATE TABLE t(a); INSERT INTO t VALUES (1);
        CREATE TEMP TABLE u(b); INSERT INTO u SELECT a FROM t; UPDATE u SET b = 9;
        ATTACH ':memory:' AS m; CREATE TABLE m.v(c); INSERT INTO m.v SELECT b FROM u;
        SELECT a, b, c FROM t, u, v; SELECT tide_lsn();");
    assert_eq!(answer, "1|9|9\n2\n");
    assert_eq!(db.ok("SELECT name FROM sqlite_schema;"), "t\n");
}
