//! A place in a bucket, and databases that have it as their remote, in this process.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params};

use crate::bucket::Bucket;
use crate::bundled::{bundled, bundled_at};
use crate::scratch::Scratch;

/// How long a request may take where some are never answered: no longer than somebody has to wait for each of those, and
/// no shorter than a machine with much else to do may stand still.
const TIMEOUT: &str = "3s";
/// How long where all are.
const PATIENT: &str = "60s";

/// A place in the bucket, a database that is pushed there, and who looks at what came.
pub struct Site {
    /// Where the databases are.
    pub scratch: Scratch,
    /// Where the place is.
    pub bucket: &'static Bucket,
    /// URL of the place.
    pub url: String,
    /// A connection to `source.db`.
    pub source: Connection,
    /// Nobody's connection, for clones.
    anywhere: Connection,
    clones: usize,
}

impl Site {
    /// With a first push. The source reaches the place by this endpoint.
    pub fn new(bucket: &'static Bucket, endpoint: &str) -> Site {
        let scratch = Scratch::new();
        let source = bundled(&scratch, "source.db");
        source.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").expect("a table");
        let anywhere = bundled_at(":memory:").expect("a connection");
        let site = Site { scratch, bucket, url: bucket.new_place(), source, anywhere, clones: 0 };
        site.add(&site.source, endpoint);
        site.commit();
        site.push();
        site
    }

    /// Options of the place, reached by this endpoint.
    pub fn options(&self, endpoint: &str) -> String {
        // To try the store out each time would take many requests.
        let timeout = if endpoint == self.bucket.endpoint() { PATIENT } else { TIMEOUT };
        let more = format!(r#", "timeout": "{timeout}", "single_writer": true}}"#);
        let options = self.bucket.options(endpoint);
        options.strip_suffix('}').expect("an object").to_owned() + &more
    }

    /// Makes it the remote of a database.
    #[track_caller]
    pub fn add(&self, db: &Connection, endpoint: &str) {
        let sql = "SELECT tide_remote('origin', ?, ?)";
        let added: Result<String, String> = ask(db, sql, (&self.url, self.options(endpoint)));
        added.expect("a remote");
    }

    /// Opens a database that nobody has open, and reaches the place by this endpoint.
    pub fn open(&self, name: &str, endpoint: &str) -> Connection {
        let db = bundled(&self.scratch, name);
        self.add(&db, endpoint);
        db
    }

    /// One commit more; the LSN with it.
    pub fn commit(&self) -> i64 {
        self.source.execute_batch("INSERT INTO t(v) VALUES (hex(randomblob(40)))").expect("a commit");
        lsn(&self.source)
    }

    /// A push that must do well.
    #[track_caller]
    pub fn push(&self) {
        assert_eq!(ask(&self.source, "SELECT tide_push()", ()), Ok(lsn(&self.source)));
    }

    /// A clone of this name, by somebody who reaches the place by this endpoint.
    pub fn clone_to(&self, name: &str, endpoint: &str) -> Result<i64, String> {
        let path = self.scratch.path(name).display().to_string();
        ask(&self.anywhere, "SELECT tide_clone(?, ?, ?)", (&self.url, path, self.options(endpoint)))
    }

    /// A clone by somebody with a good network, under a new name.
    #[track_caller]
    pub fn fresh(&mut self) -> Connection {
        self.clones += 1;
        let name = format!("fresh{}.db", self.clones);
        self.clone_to(&name, self.bucket.endpoint()).expect("a clone");
        bundled(&self.scratch, &name)
    }

    /// Has a copy just what the source has?
    #[track_caller]
    pub fn same(&self, copy: &Connection) {
        assert_eq!(lsn(copy), lsn(&self.source));
        assert_eq!(rows(copy), rows(&self.source));
        assert_eq!(ask(copy, "PRAGMA integrity_check", ()), Ok("ok".to_owned()));
        assert_eq!(ask(copy, "SELECT count(*) FROM tide_verify", ()), Ok(0));
    }
}

/// The single value that a query gives, or the text of the error.
pub fn ask<T: FromSql>(db: &Connection, sql: &str, values: impl Params) -> Result<T, String> {
    db.query_row(sql, values, |row| row.get(0)).map_err(|error| error.to_string())
}

/// The LSN of a database.
pub fn lsn(db: &Connection) -> i64 {
    ask(db, "SELECT tide_lsn()", ()).expect("an LSN")
}

/// All rows of its table.
pub fn rows(db: &Connection) -> String {
    ask(db, "SELECT json_group_array(id || v) FROM (SELECT * FROM t ORDER BY id)", ()).expect("rows")
}
