//! The journal behind the base: folding, retention, compaction, export, verification, and the way back to plain SQLite.

use std::fs::{File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tideline_tests::{
    Host, Scratch, Shell, behind, bundled, bundled_stock, content, files_below, plain_header, plain_store,
    python, refusal, status,
};

#[test]
fn history_stays_when_the_database_is_at_rest() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');");
    let copy = Shell::new(&scratch, "copy.db");
    db.ok("SELECT writefile('full.tide', tide_prepare(0)) > 0;");
    assert_eq!(copy.ok("SELECT tide_receive(readfile('full.tide'));"), "2\n");
    for n in 2..8 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'v'); UPDATE t SET v = v || '!';"));
    }
    assert_eq!(db.ok("SELECT count(*), min(first_lsn), max(last_lsn) FROM tide_log;"), "14|1|14\n");
    assert_eq!(db.ok("SELECT json_extract(tide_status(), '$.horizon') <= 1;"), "1\n");
    db.ok("SELECT writefile('next.tide', tide_prepare(2)) > 0;");
    assert_eq!(copy.ok("SELECT tide_receive(readfile('next.tide')); SELECT count(*) FROM t;"), "14\n7\n");
    assert_eq!(content(&bundled_stock(&scratch, "copy.db")), content(&bundled_stock(&scratch, "a.db")));
}

#[test]
fn tide_fold_goes_as_far_as_readers_allow() {
    let scratch = plain_store();
    let (mut reader, mut writer) = behind(&Shell::new(&scratch, "a.db"));
    assert_eq!(writer.sql("INSERT INTO t VALUES (3, 'three'); SELECT tide_fold();"), "1\n");
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "1|1\nok\n");
    assert_eq!(reader.sql("COMMIT; SELECT count(*) FROM t;"), "3\n");
    assert_eq!(
        writer.sql("SELECT tide_fold(), json_extract(tide_status(), '$.base'), tide_lsn();"),
        "3|3|3\n"
    );
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "3|3\nok\n");
    assert_eq!(writer.sql("SELECT count(*) FROM tide_log;"), "3\n", "history stays");
    let answer = writer.sql("BEGIN; INSERT INTO t VALUES (4, 'x'); SELECT tide_fold();");
    assert!(answer.contains("tideline: "), "{answer}");
    assert_eq!(writer.sql("ROLLBACK; SELECT count(*) FROM t;"), "3\n");
}

#[test]
fn a_snapshot_outlives_folds_and_compactions() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    writer.sql("INSERT INTO t SELECT value, hex(zeroblob(400)) FROM generate_series(2, 800);");
    let look = "SELECT count(*), sum(length(v)), tide_lsn() FROM t; PRAGMA integrity_check;";
    let before = reader.sql(&format!("BEGIN; {look}"));
    for n in 0..30 {
        writer.sql(&format!("UPDATE t SET v = hex(randomblob(200 + {n})) WHERE id % 3 = {n} % 3;"));
        if n % 5 == 4 {
            let answer = writer.sql("SELECT tide_fold() >= 1, tide_compact() >= 0;");
            assert_eq!(answer, "1|1\n");
        }
        assert_eq!(reader.sql(look), before, "after {n} changes");
    }
    writer.sql("DELETE FROM t WHERE id > 5; VACUUM; SELECT tide_fold();");
    assert_eq!(reader.sql(look), before);
    assert_eq!(reader.sql("COMMIT; SELECT count(*) FROM t; PRAGMA integrity_check;"), "5\nok\n");
}

#[test]
fn compaction_merges_entries_and_changes_no_content() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT writefile('one.tide', tide_prepare(0)) > 0;");
    for n in 0..5 {
        db.ok(&format!(
            "INSERT INTO t SELECT value, hex(zeroblob(900)) FROM generate_series({n} * 100 + 10, {n} * 100 + 100);
             UPDATE t SET v = 'v{n}' WHERE id % 7 = {n}; DELETE FROM t WHERE id % 11 = {n};"
        ));
    }
    let before = content(&bundled_stock(&scratch, "a.db"));
    let checksum = db.ok("SELECT checksum FROM tide_log WHERE last_lsn = 16;");
    let freed = db.ok("SELECT tide_compact();");
    assert!(freed.trim_end().parse::<i64>().is_ok_and(|bytes| bytes >= 0), "{freed}");
    assert_eq!(content(&bundled(&scratch, "a.db")), before);
    let answer = db.ok("SELECT max(last_lsn), count(*) <= 16 FROM tide_log; SELECT tide_lsn();
        SELECT count(*) FROM tide_log WHERE first_lsn < last_lsn AND kind = 'commit';
        SELECT count(*) FROM tide_verify; PRAGMA integrity_check;");
    assert_eq!(answer, "16|1\n16\n0\n0\nok\n");
    assert_eq!(db.ok("SELECT checksum FROM tide_log WHERE last_lsn = 16;"), checksum);
    db.ok("SELECT writefile('rest.tide', tide_prepare(1)) > 0;");
    let copy = Shell::new(&scratch, "copy.db");
    let answer =
        copy.ok("SELECT tide_receive(readfile('one.tide')); SELECT tide_receive(readfile('rest.tide'));");
    assert_eq!(answer, "1\n16\n");
    assert_eq!(content(&bundled_stock(&scratch, "copy.db")), before);
}

#[test]
fn compaction_of_a_part_leaves_the_rest_as_it_was() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    for n in 2..=20 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n')"));
    }
    db.ok("SELECT tide_compact(5, 12);");
    let outside =
        "SELECT count(*) FROM tide_log WHERE first_lsn = last_lsn AND (last_lsn < 5 OR last_lsn > 12);";
    assert_eq!(db.ok(outside), "12\n");
    assert_eq!(db.ok("SELECT first_lsn, last_lsn, kind FROM tide_log WHERE last_lsn = 12;"), "5|12|merged\n");
    assert_eq!(db.ok("SELECT count(*), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"), "20|20\n0\n");
    for arguments in ["12, 5", "0, 3", "15, 99", "'x', 3"] {
        refusal(&db.error(&format!("SELECT tide_compact({arguments});")), "ARGUMENT");
    }
}

#[test]
fn tide_retain_keeps_what_it_is_told_with_the_store() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    let default = db.ok("SELECT typeof(tide_retain()), length(tide_retain()) > 0;");
    assert_eq!(default, "text|1\n");
    for what in ["7 days", "1 GB", "10000 lsns", "none", "2 MB", "3 days"] {
        db.ok(&format!("SELECT tide_retain('{what}');"));
        let answer = db.ok("SELECT tide_retain();");
        assert!(answer.contains(what), "{what}: {answer}");
    }
    for what in ["", "much", "-3 days", "3 parsecs", "lsns"] {
        refusal(&db.error(&format!("SELECT tide_retain('{what}');")), "ARGUMENT");
    }
    refusal(&db.error("SELECT tide_retain(7);"), "ARGUMENT");
    assert!(db.ok("SELECT tide_retain();").contains("3 days"), "a refusal changes nothing");
}

#[test]
fn with_retention_none_history_goes_when_it_is_folded() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT tide_retain('none');");
    for n in 2..12 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n');"));
    }
    assert_eq!(status(&scratch, "horizon"), "11");
    assert_eq!(db.ok("SELECT count(*) <= 1 FROM tide_log;"), "1\n");
    refusal(&db.error("SELECT tide_prepare(3);"), "TRIMMED");
    assert_eq!(db.ok("SELECT length(tide_prepare(0)) > 0, tide_prepare(11) IS NULL;"), "1|1\n");
    assert_eq!(db.ok("SELECT count(*), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"), "11|11\n0\n");
}

#[test]
fn retention_of_so_many_lsns_keeps_them_readable() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT tide_retain('5 lsns');");
    for n in 2..=40 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n');"));
    }
    let horizon: u32 = status(&scratch, "horizon").parse().expect("a number");
    assert!(horizon <= 36, "{horizon}");
    assert_eq!(db.ok("SELECT length(tide_prepare(36)) > 0, tide_lsn();"), "1|40\n");
}

/// What the files below a folder take on disk.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let sizes = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let metadata = std::fs::symlink_metadata(&path).expect("its metadata");
        if metadata.is_dir() { disk_bytes(&path) } else { metadata.blocks() * 512 }
    });
    sizes.sum()
}

#[test]
fn a_journal_that_nobody_folds_stays_within_bounds() {
    let scratch = plain_store();
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("PRAGMA synchronous = OFF")
db.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB)")
db.execute("INSERT INTO big VALUES (1, zeroblob(1000000))")
most = 0
for n in range(400):
    db.execute("UPDATE big SET v = randomblob(1000000)")
    most = max(most, json.loads(one(db, "SELECT tide_status()"))["journal_bytes"])
print(most)
"#;
    let printed = python(&scratch, script, &[]).ok().to_string();
    let most: u64 = printed.trim_end().parse().expect("a number");
    // 400 MB went through a journal of which 64 MiB are kept.
    assert!(most < 200 << 20, "the journal grew to {most} bytes");
    let side = disk_bytes(&scratch.side("a.db"));
    assert!(side < 200 << 20, "{side} bytes beside a database at rest");
    assert_eq!(
        Shell::stock(&scratch, "a.db").ok("SELECT length(v) FROM big; PRAGMA integrity_check;"),
        "1000000\nok\n"
    );
}

#[test]
fn an_export_is_a_plain_database_of_its_own() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');",
        );
        let path = scratch.path("export.db");
        let export = format!("SELECT tide_export('{}');", path.display());
        assert_eq!(host.ok(scratch, "a.db", &format!("INSERT INTO t VALUES (2, 'two'); {export}")), "3\n");
        assert!(plain_header(&path));
        assert!(!scratch.side("export.db").exists());
        assert_eq!(content(&bundled_stock(scratch, "export.db")), content(&bundled(scratch, "a.db")));
        assert_eq!(Shell::stock(scratch, "export.db").ok("PRAGMA integrity_check;"), "ok\n");
        let before = scratch.read("export.db");
        refusal(&host.error(scratch, "a.db", &export), "ARGUMENT");
        assert_eq!(scratch.read("export.db"), before, "what is there is left alone");
        host.error(scratch, "a.db", "SELECT tide_export('/nowhere/at/all/x.db');");
    });
}

#[test]
fn a_sound_store_verifies_in_every_state() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    let verify = "SELECT * FROM tide_verify;";
    assert_eq!(db.ok(verify), "", "adopted");
    let (mut reader, mut writer) = behind(&db);
    assert_eq!(writer.sql(verify), "", "behind");
    writer.sql("SELECT tide_fold();");
    assert_eq!(writer.sql(verify), "", "folded in part");
    assert_eq!(reader.sql(verify), "", "in a reader's transaction");
    reader.kill();
    writer.kill();
    assert_eq!(db.ok(verify), "", "recovered");
    db.ok("INSERT INTO t SELECT value, hex(zeroblob(800)) FROM generate_series(10, 600);
           DELETE FROM t WHERE id > 20; VACUUM; SELECT tide_compact();");
    assert_eq!(db.ok(verify), "", "compacted");
    let header = db.ok(".headers on\nSELECT * FROM tide_verify UNION ALL SELECT 1, 2, 3, 4, 5, 6, 7;");
    assert_eq!(header.lines().next(), Some("severity|file|offset|lsn|page|object|message"));
}

/// Changes a byte of every place where `text` stands in a file, and leaves its times as they were.
fn damage(file: &Path, text: &[u8]) -> usize {
    let mut bytes = std::fs::read(file).expect("the file");
    let places: Vec<usize> =
        bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text).map(|(n, _)| n).collect();
    for place in &places {
        bytes[*place] ^= 1;
    }
    if !places.is_empty() {
        let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified()).expect("its time");
        std::fs::write(file, bytes).expect("the damage");
        let times = FileTimes::new().set_modified(modified);
        File::options()
            .write(true)
            .open(file)
            .and_then(|file| file.set_times(times))
            .expect("its time again");
    }
    places.len()
}

#[test]
fn a_rotten_byte_in_the_base_is_an_error_and_never_a_wrong_row() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE m(v); INSERT INTO m VALUES ('MARKER-of-this-test');
            CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');
            SELECT tide_retain('none');",
        );
        host.ok(scratch, "a.db", "INSERT INTO t VALUES (2, 'two'); SELECT tide_fold();");
        assert_eq!(damage(&scratch.path("a.db"), b"MARKER-of-this-test"), 1);
        match host.sql(scratch, "a.db", "SELECT v FROM m;") {
            Err(error) => println!("{error}"),
            Ok(answer) => panic!("a rotten page was read: {answer}"),
        }
        let found = host.ok(scratch, "a.db", "SELECT count(*) > 0 FROM tide_verify;");
        assert_eq!(found, "1\n");
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*) FROM t;"), "2\n", "other pages are read");
    });
}

#[test]
fn a_rotten_byte_in_the_journal_is_an_error_and_never_a_wrong_row() {
    let scratch = plain_store();
    let (reader, mut writer) = behind(&Shell::new(&scratch, "a.db"));
    writer.sql("CREATE TABLE m(v); INSERT INTO m VALUES ('MARKER-of-this-test');");
    for n in 3..10 {
        writer.sql(&format!("INSERT INTO t VALUES ({n}, 'later');"));
    }
    reader.kill();
    writer.kill();
    let damaged: usize =
        files_below(&scratch.side("a.db")).iter().map(|file| damage(file, b"MARKER-of-this-test")).sum();
    assert!(damaged > 0, "the row should be in the journal");
    let db = Shell::new(&scratch, "a.db").going_on();
    let output = db.run("SELECT v FROM m;");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "a rotten page was read: {output:#?}");
    let output = db.run("SELECT count(*) > 0 FROM tide_verify;");
    assert!(output.stdout == "1\n" || output.stderr.contains("tideline: DAMAGED: "), "{output:#?}");
}

#[test]
fn tide_detach_leaves_a_plain_database_and_nothing_else() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);");
        host.ok(scratch, "a.db", "SELECT tide_detach(); SELECT sum(a) FROM t;");
        assert!(!scratch.side("a.db").exists());
        assert!(plain_header(&scratch.path("a.db")));
        let stock = Shell::stock(scratch, "a.db");
        assert_eq!(
            stock.ok("INSERT INTO t VALUES (3); SELECT sum(a) FROM t; PRAGMA integrity_check;"),
            "6\nok\n"
        );
        assert_eq!(host.ok(scratch, "a.db", "SELECT sum(a), tide_lsn() FROM t;"), "6|1\n");
    });
}

#[test]
fn after_tide_detach_the_connection_reads_and_does_not_write() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    let mut session = db.session();
    session.sql("INSERT INTO t VALUES (2, 'two'); SELECT tide_detach();");
    assert_eq!(session.sql("SELECT group_concat(v) FROM t;"), "one,two\n");
    let answer = session.sql("INSERT INTO t VALUES (3, 'three');");
    assert!(!answer.is_empty(), "it has to be reopened to write");
    assert_eq!(session.sql("SELECT group_concat(v) FROM t;"), "one,two\n");
    assert_eq!(
        session.sql(".open 'file:a.db?vfs=tideline'\nINSERT INTO t VALUES (3, 'three'); SELECT tide_lsn();"),
        "2\n"
    );
}

#[test]
fn after_tide_detach_nobody_changes_what_the_connection_still_reads() {
    let lines = r#"
from tide import *
import subprocess
reader = connect("a.db")
reader.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
reader.executemany("INSERT INTO t(v) VALUES (?)", [("old" * 300,)] * 300)
one(reader, "SELECT tide_detach()")
LOOK = "SELECT count(*), sum(v = 'new') FROM t"
assert reader.execute("BEGIN").execute(LOOK).fetchone() == (300, 0)
CHANGE = "from tide import *; connect('a.db').execute(\"UPDATE t SET v = 'new'\")"
def elsewhere():
    done = subprocess.run([sys.executable, "-c", CHANGE], capture_output=True, text=True)
    if done.returncode:
        raise sqlite3.OperationalError(done.stderr.strip().splitlines()[-1].partition(": ")[2])
for change in (lambda: connect("a.db")), elsewhere:
    text = refused("MISSING", change)
    assert "tide_detach()" in text, text
    assert reader.execute(LOOK).fetchone() == (300, 0)
reader.execute("COMMIT")
refused("MISSING", elsewhere)
assert reader.execute(LOOK).fetchone() == (300, 0)
# In its own process it gives way, as where a variable gets another connection.
other = connect("a.db")
for _ in range(2):
    fails(lambda: reader.execute(LOOK), "unable to open database file")
    why = one(other, "SELECT tide_last_error()")
    assert why.startswith("tideline: MISSING: ") and "close this connection" in why, why
    other.execute("UPDATE t SET v = 'new'")
elsewhere()
reader.close()
elsewhere()
assert connect("a.db").execute(LOOK).fetchone() == (300, 300)
"#;
    python(&Scratch::new(), lines, &[]).ok();
}

#[test]
fn tide_detach_removes_nothing_where_something_is_not_ours() {
    let scratch = plain_store();
    let mut session = Shell::new(&scratch, "a.db").session();
    session.sql("INSERT INTO t VALUES (2, 'two');");
    let mine = scratch.side("a.db").join("notes.txt");
    std::fs::write(&mine, "mine").expect("a file");
    let answer = session.sql("SELECT tide_detach();");
    refusal(&answer, "DENIED");
    assert!(answer.contains("notes.txt"), "{answer}");
    assert_eq!(session.sql("INSERT INTO t VALUES (3, 'three'); SELECT count(*) FROM tide_log;"), "3\n");
    std::fs::remove_file(&mine).expect("moved away");
    assert_eq!(session.sql("SELECT tide_detach();"), "3\n");
    assert!(!scratch.side("a.db").exists());
}

#[test]
fn tide_detach_is_refused_while_somebody_else_needs_it() {
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    let (mut one, mut two) = (db.session(), db.session());
    assert_eq!(two.sql("SELECT count(*) FROM t;"), "1\n");
    let answer = one.sql("SELECT tide_detach();");
    refusal(&answer, "BUSY");
    assert!(scratch.side("a.db").exists());
    assert_eq!(two.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    let answer = one.sql("BEGIN; SELECT tide_detach();");
    assert!(answer.contains("tideline: "), "{answer}");
    assert_eq!(one.sql("ROLLBACK;"), "");
    two.end();
    let answer = one.sql("SELECT tide_detach();");
    assert!(!answer.contains("tideline: "), "{answer}");
    assert!(!scratch.side("a.db").exists());
}
