//! Remotes in a bucket: what is asked of it, with which credentials, and who wins where many push at once.
//!
//! `cargo xtask stores ceph -- cargo test -p tideline-tests --test s3` runs them on another store than moto. What is
//! the same in folders is in `remotes.rs`, which runs on both; what a bad network does is in
//! `s3_faults.rs`, and what becomes of processes that are killed in `s3_deaths.rs`.

use std::collections::BTreeSet;

use tideline_tests::proxy::Proxy;
use tideline_tests::{Bucket, Process, Scratch, python, python_start, skipped};

/// Nobody's settings but the script's, and helpers.
const PREPARED: &str = r#"
from tide import *
import itertools
import pathlib
import time

GIVEN = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
load()
anywhere = sqlite3.connect(":memory:", isolation_level=None)

def source(name):
    db = connect(name)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    db.execute("INSERT INTO t VALUES (1, 'one')")
    return db

def add(db, url, **options):
    return one(db, "SELECT tide_remote('origin', ?, ?)", url, json.dumps(options))

def denies(db, code, statement, *values):
    return refused(code, lambda: db.execute(statement, values).fetchall())

def rows(db):
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()

def commit(db):
    db.execute("INSERT INTO t(v) VALUES ('more')")
    return one(db, "SELECT tide_lsn()")
"#;

fn script(lines: &str) -> String {
    format!("{PREPARED}{lines}")
}

/// What each call asks of a store, request by request.
mod budget {
    /// What is new, and the commit. The manifest to go on from was there a moment ago.
    pub const PUSH: &[&str] = &["PUT segment", "PUT manifest"];
    /// That there is no next manifest.
    pub const IDLE_PUSH: &[&str] = &["GET manifest"];
    /// The next manifest, what it names, and that there is none behind it.
    pub const PULL: &[&str] = &["GET manifest", "GET segment", "GET manifest"];
    /// That there is no next manifest.
    pub const IDLE_PULL: &[&str] = &["GET manifest"];
}

#[test]
fn few_requests_are_made_and_none_lists() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let scratch = Scratch::new();
    let lines = r#"
URL, OPTIONS = sys.argv[1:]
db = source("source.db")
add(db, URL, **json.loads(OPTIONS))
one(db, "SELECT tide_push()")
one(anywhere, "SELECT tide_clone(?, ?, ?)", URL, os.path.abspath("copy.db"), OPTIONS)
copy = connect("copy.db")
one(copy, "SELECT tide_remote('origin', ?, ?)", URL, OPTIONS)
requests = "SELECT requests FROM tide_remotes"
def told():
    return one(db, requests) + one(copy, requests)
print(f"began {told()}")
calls = {"commit": lambda: commit(db)}
for call in "push", "pull":
    on = db if call == "push" else copy
    calls[call] = lambda on=on, call=call: one(on, f"SELECT tide_{call}()")
for line in sys.stdin:
    assert calls[line.strip()]() == one(db, "SELECT tide_lsn()"), line
    print(f"done {told()}")
"#;
    let (url, options) = (bucket.new_place(), bucket.options(&proxy.url()));
    let mut host = python_start(&scratch, &script(lines), &[&url, &options]);
    let count =
        |line: String| line.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).expect("a number");
    let mut told = count(host.wait_for("began"));
    let mut asked: Vec<String> = Vec::new();
    let mut ask = |call: &str, expected: &[&str]| {
        asked.extend(words(&proxy, &url));
        proxy.forget();
        host.send(&format!("{call}\n"));
        let now = count(host.wait_for("done"));
        let found = words(&proxy, &url);
        assert_eq!(found, expected, "{call}");
        assert_eq!(now - told, found.len(), "{call}: tide_remotes counts what is asked");
        told = now;
    };
    for _ in 0..2 {
        ask("commit", &[]);
        ask("push", budget::PUSH);
        ask("push", budget::IDLE_PUSH);
        ask("pull", budget::PULL);
        ask("pull", budget::IDLE_PULL);
    }
    host.finish().ok();
    // Also what comes before the first push, and a clone.
    asked.extend(words(&proxy, &url));
    let known = ["GET", "HEAD", "PUT", "DELETE"].map(|method| format!("{method} "));
    let allowed =
        |asked: &&String| known.iter().any(|method| asked.starts_with(method)) || *asked == "POST ?delete";
    let others: BTreeSet<&String> = asked.iter().filter(|asked| !allowed(asked)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// The requests that came: their methods, and the folders of what they are about.
fn words(proxy: &Proxy, url: &str) -> Vec<String> {
    let place = url.strip_prefix("s3:/").expect("a URL of S3");
    let word = |request: tideline_tests::proxy::Request| {
        let inside = request.path.strip_prefix(place).and_then(|path| path.strip_prefix('/'));
        let what = inside.map_or_else(
            || format!("?{}", request.query),
            |path| path.split('/').next().unwrap_or_default().to_owned(),
        );
        format!("{} {what}", request.method)
    };
    proxy.log().into_iter().map(word).collect()
}

#[test]
fn credentials_are_taken_from_where_they_are_set() {
    // A server that lets nobody in, and tells with which key somebody tried.
    let lines = r#"
import http.server
import re
import threading

seen = set()

class Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def refuse(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = re.search(r"Credential=([^/]*)/[0-9]*/([^/]*)/", self.headers.get("Authorization") or "")
        seen.add((*(signed.groups() if signed else (None, None)), self.headers.get("x-amz-security-token")))
        body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = refuse

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
ENDPOINT = f"http://127.0.0.1:{server.server_port}"
pathlib.Path("credentials").write_text("""
[default]
aws_access_key_id = USUAL
aws_secret_access_key = HIDDEN1
[other]
aws_access_key_id = OTHER
aws_secret_access_key = HIDDEN2/+\\=
aws_session_token = TOKEN
region = eu-9
""")
pathlib.Path("config").write_text("[default]\nregion = us-7\n")
db = source("source.db")

def tried(environment, **options):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(environment)
    seen.clear()
    text = denies(db, "DENIED", "SELECT tide_remote('origin', 's3://bucket/app', ?)", json.dumps({"endpoint": ENDPOINT, **options}))
    assert "credentials" in text and "AccessDenied" in text and "HIDDEN" not in text, text
    (found,) = seen
    return found

FILES = {"AWS_SHARED_CREDENTIALS_FILE": os.path.abspath("credentials"), "AWS_CONFIG_FILE": os.path.abspath("config")}
KEYS = {"AWS_ACCESS_KEY_ID": "ENVIRONMENT", "AWS_SECRET_ACCESS_KEY": "HIDDEN3", "AWS_REGION": "ap-5"}
GIVEN_AS_OPTIONS = {"access_key_id": "OPTION", "secret_access_key": "HIDDEN4"}
assert tried(KEYS) == ("ENVIRONMENT", "ap-5", None)
assert tried({**KEYS, "AWS_SESSION_TOKEN": "T"}) == ("ENVIRONMENT", "ap-5", "T")
assert tried({**FILES, **KEYS}) == ("ENVIRONMENT", "ap-5", None)
assert tried(FILES) == ("USUAL", "us-7", None)
assert tried({**FILES, "AWS_PROFILE": "other"}) == ("OTHER", "eu-9", "TOKEN")
assert tried(FILES, profile="other") == ("OTHER", "eu-9", "TOKEN")
assert tried({**FILES, **KEYS}, profile="other") == ("OTHER", "eu-9", "TOKEN")
assert tried({**FILES, **KEYS, "AWS_SESSION_TOKEN": "T"}, profile="default") == ("USUAL", "us-7", None)
assert tried({**FILES, **KEYS}, **GIVEN_AS_OPTIONS) == ("OPTION", "ap-5", None)
assert tried({**FILES, **KEYS, "AWS_SESSION_TOKEN": "T"}, **GIVEN_AS_OPTIONS) == ("OPTION", "ap-5", None)
assert tried({**FILES, "AWS_PROFILE": "other"}, **GIVEN_AS_OPTIONS, session_token="S", region="xx-1") == ("OPTION", "xx-1", "S")
assert tried(KEYS, anonymous=True) == (None, None, None)
# What is refused is tried with what is there by then.
tried({**KEYS, **FILES})
add(db, "s3://bucket/app", endpoint=ENDPOINT, single_writer=True)
for key in "ENVIRONMENT", "CHANGED":
    os.environ["AWS_ACCESS_KEY_ID"] = key
    seen.clear()
    denies(db, "DENIED", "SELECT tide_push()")
    assert seen == {("ENVIRONMENT", "ap-5", None)} or key == "CHANGED" and seen == {("CHANGED", "ap-5", None)}, seen
one(db, "SELECT tide_remote('origin', NULL)")
# The usual file of this user.
os.mkdir(".aws")
os.rename("credentials", ".aws/credentials")
assert tried({}) == ("USUAL", "us-east-1", None)
# A profile that isn't there is no other one.
for environment, options in [({"AWS_PROFILE": "third"}, {}), ({}, {"profile": "third"})]:
    os.environ.update(environment)
    text = denies(db, "ARGUMENT", "SELECT tide_remote('origin', 's3://bucket/app', ?)", json.dumps({"endpoint": ENDPOINT, **options}))
    assert '"third"' in text, text
    os.environ.pop("AWS_PROFILE", None)
assert db.execute("SELECT name FROM tide_remotes").fetchall() == []
# The server's threads outlive the script, and would keep them; whoever looks for leaks would find them.
db.close()
anywhere.close()
"#;
    python(&Scratch::new(), &script(lines), &[]).ok();
}

#[test]
fn credentials_are_given_again_after_it_was_opened_anew() {
    let Some(_) = Bucket::get() else { return };
    let lines = r#"
ENDPOINT = os.environ["TIDELINE_S3_ENDPOINT"]
URL = bucket()[0]
SECRETS = {"access_key_id": GIVEN["AWS_ACCESS_KEY_ID"], "secret_access_key": GIVEN["AWS_SECRET_ACCESS_KEY"]}
def profile(name):
    return f"[{name}]\naws_access_key_id={SECRETS['access_key_id']}\naws_secret_access_key={SECRETS['secret_access_key']}\n"
# Nobody has keys for this machine, and its address isn't tried for long.
os.environ["AWS_METADATA_ENDPOINT"] = "http://127.0.0.1:9"
PLACE = {"endpoint": ENDPOINT, "region": GIVEN["AWS_REGION"], "timeout": "20s"}

# As options: gone when it is closed, and missed.
db = source("source.db")
add(db, URL, **PLACE, **SECRETS)
assert one(db, "SELECT tide_push()") == 2
db.close()
db = connect("source.db")
lsn = commit(db)
text = fails(lambda: db.execute("SELECT tide_push()").fetchall(), "tideline: ")
print(text)
assert "credentials" in text, text
add(db, URL, **PLACE, **SECRETS)
assert one(db, "SELECT tide_push()") == lsn

# In the environment: there for the next time.
os.environ.update(GIVEN)
add(db, URL, **PLACE)
lsn = commit(db)
assert one(db, "SELECT tide_push()") == lsn
db.close()
db = connect("source.db")
lsn = commit(db)
assert one(db, "SELECT tide_push()") == lsn
for name in GIVEN:
    del os.environ[name]

# In files, under the usual name, under the environment's, and under one that is kept with the remote.
for name, environment, options in [("default", {}, {}), ("work", {"AWS_PROFILE": "work"}, {}), ("kept", {}, {"profile": "kept"})]:
    pathlib.Path("credentials").write_text(profile(name))
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.path.abspath("credentials")
    os.environ.update(environment)
    add(db, URL, **PLACE, **options)
    for _ in range(2):
        lsn = commit(db)
        assert one(db, "SELECT tide_push()") == lsn, name
        db.close()
        db = connect("source.db")
    path = os.path.abspath(f"{name}.db")
    assert one(anywhere, "SELECT tide_clone(?, ?, ?)", URL, path, json.dumps({**PLACE, **options})) == lsn
    assert rows(connect(path)) == rows(db), name
    os.environ.pop("AWS_PROFILE", None)
"#;
    println!("{}", python(&Scratch::new(), &script(lines), &[]).ok());
}

#[test]
fn what_is_not_there_or_not_allowed_is_told_apart() {
    let Some(bucket) = Bucket::get() else { return };
    let lines = r#"
os.environ.update(GIVEN)
URL, OPTIONS = bucket()
OPTIONS = json.loads(OPTIONS)
db = source("source.db")
add(db, URL, **OPTIONS)
one(db, "SELECT tide_push()")
path = os.path.abspath("copy.db")

def all_calls(code, url, *parts, **options):
    """What each call says of a place where it can't work. Nothing changes by it."""
    given = json.dumps({**OPTIONS, **options})
    texts = [
        denies(db, code, "SELECT tide_remote('other', ?, ?)", url, given),
        denies(anywhere, code, "SELECT tide_clone(?, ?, ?)", url, path, given),
    ]
    # Without a first look, as after a remote was added.
    one(db, "SELECT tide_remote('late', ?, ?)", url, json.dumps({**OPTIONS, **options, "single_writer": True}))
    for call in "push", "pull":
        texts.append(denies(db, code, f"SELECT tide_{call}('late')"))
    for text in texts:
        for part in (url, *parts):
            assert part in text, (part, text)
    assert not os.path.exists(path) and not os.path.exists(path + "-tide")
    one(db, "SELECT tide_remote('late', NULL)")
    assert [name for (name,) in db.execute("SELECT name FROM tide_remotes")] == ["origin"]

all_calls("MISSING", "s3://tideline-nobody-made-it/app", "bucket", timeout="10s")

begun = time.monotonic()
(nobody,) = [(s.bind(("127.0.0.1", 0)), s)[1] for s in [__import__("socket").socket()]]
all_calls("OFFLINE", URL, "can be reached", endpoint=f"http://127.0.0.1:{nobody.getsockname()[1]}")
# A request is made again a few times, and not for the half minute that one may take.
assert time.monotonic() - begun < 25, time.monotonic() - begun

if sys.argv[1] == "asks":
    secret = OPTIONS["secret_access_key"] = "wrong"
    OPTIONS["access_key_id"] = GIVEN["AWS_ACCESS_KEY_ID"]
    all_calls("DENIED", URL, "credentials", "SignatureDoesNotMatch")
    OPTIONS["access_key_id"] = "NOBODY"
    all_calls("DENIED", URL, "credentials", "InvalidAccessKeyId")
# Nothing of it is in the way of the remote that works.
lsn = commit(db)
assert one(db, "SELECT tide_push()") == lsn
"#;
    let asks = if bucket.asks_for_keys() { "asks" } else { "takes all" };
    python(&Scratch::new(), &script(lines), &[asks]).ok();
    if !bucket.asks_for_keys() {
        skipped("wrong credentials: moto takes all; `cargo xtask stores ceph -- cargo test …` doesn't");
    }
}

#[test]
#[ignore = "cargo xtask stores s3s -- cargo test -p tideline-tests --test s3 -- --ignored lies"]
fn a_store_that_lies_is_for_a_single_writer() {
    let Some(bucket) = Bucket::get().filter(|bucket| bucket.lies()) else {
        return skipped("this store doesn't lie");
    };
    println!("on {}", bucket.endpoint());
    let lines = r#"
os.environ.update(GIVEN)
URL, OPTIONS = bucket()
OPTIONS = json.loads(OPTIONS)
db = source("source.db")
text = denies(db, "DENIED", "SELECT tide_remote('origin', ?, ?)", URL, json.dumps(OPTIONS))
assert "two writers" in text and "single_writer" in text, text
assert db.execute("SELECT name FROM tide_remotes").fetchall() == []
add(db, URL, single_writer=True, **OPTIONS)
assert one(db, "SELECT tide_push()") == 2
path = os.path.abspath("copy.db")
assert one(anywhere, "SELECT tide_clone(?, ?, ?)", URL, path, json.dumps(OPTIONS)) == 2
# A copy follows, and finds out before it pushes.
copy = connect("copy.db")
lsn = commit(db)
assert one(db, "SELECT tide_push()") == lsn == one(copy, "SELECT tide_pull()")
commit(copy)
text = denies(copy, "DENIED", "SELECT tide_push()")
assert "single_writer" in text, text
assert one(db, "SELECT tide_pull()") == lsn
"#;
    python(&Scratch::new(), &script(lines), &[]).ok();
}

/// One of many who push to one place, each with a clone of its own. Who isn't first begins again with a new one.
const WRITER: &str = r#"
NUMBER, URL, OPTIONS = int(sys.argv[1]), *sys.argv[2:]
os.environ.update(GIVEN)
clones, rows_made = itertools.count(1), itertools.count(NUMBER * 1000)

def clone():
    name = f"writer{NUMBER}-{next(clones)}.db"
    one(anywhere, "SELECT tide_clone(?, ?, ?)", URL, os.path.abspath(name), OPTIONS)
    return connect(name)

def attempt():
    global db
    row = next(rows_made)
    db.execute("INSERT INTO t VALUES (?, ?)", (row, NUMBER))
    try:
        lsn = one(db, "SELECT tide_push()")
    except sqlite3.OperationalError as error:
        assert "tideline: DIVERGED: " in str(error), error
        db.close()
        db = clone()
        return False
    acknowledge("acknowledged", f"{lsn} {row} {NUMBER}")
    return True

db = clone()
print("ready", flush=True)
for line in sys.stdin:
    print("won", sum(attempt() for _ in range(int(line))), flush=True)
"#;

#[test]
fn of_eight_who_push_at_once_one_wins_and_nothing_acknowledged_is_lost() {
    const WRITERS: usize = 8;
    let Some(bucket) = Bucket::get() else { return };
    let scratch = Scratch::new();
    let (url, options) = (bucket.new_place(), bucket.options(bucket.endpoint()));
    let begin = r#"
db = source("source.db")
add(db, sys.argv[1], **json.loads(sys.argv[2]))
print(one(db, "SELECT tide_push()"))
"#;
    let first = python(&scratch, &script(begin), &[&url, &options]);
    let base: u64 = first.ok().trim().parse().expect("an LSN");
    let ways = [bucket.endpoint(), bucket.second_endpoint().unwrap_or(bucket.endpoint())];
    let mut writers: Vec<Process> = (1..=WRITERS)
        .map(|number| {
            let options = bucket.options(ways[number % 2]);
            python_start(&scratch, &script(WRITER), &[&number.to_string(), &url, &options])
        })
        .collect();
    writers.iter_mut().for_each(|writer| drop(writer.wait_for("ready")));
    let mut attempts = |each: usize| -> usize {
        writers.iter_mut().for_each(|writer| writer.send(&format!("{each}\n")));
        let won = writers.iter_mut().map(|writer| writer.wait_for("won "));
        won.map(|line| line[4..].parse::<usize>().expect("a number")).sum()
    };
    // All of them go on from the same commit, so one of them is first. The others begin again behind it.
    for _ in 0..2 {
        assert_eq!(attempts(1), 1);
    }
    // As it comes. Whoever is first at a manifest wins it, so not nobody does.
    let won = 2 + attempts(4);
    println!("{won} of {} pushes won", WRITERS * 6);
    for writer in writers {
        writer.finish().ok();
    }

    let acknowledged = std::fs::read_to_string(scratch.path("acknowledged")).expect("what was acknowledged");
    let mut acknowledged: Vec<Vec<u64>> = acknowledged
        .lines()
        .map(|line| line.split(' ').map(|number| number.parse().expect("a number")).collect())
        .collect();
    acknowledged.sort_unstable();
    // Each push brought one commit, and each commit has one winner.
    let lsns: Vec<u64> = acknowledged.iter().map(|push| push[0]).collect();
    assert_eq!(lsns, (base + 1..).take(won).collect::<Vec<_>>());
    let end = r#"
URL, OPTIONS = sys.argv[1:]
one(anywhere, "SELECT tide_clone(?, ?, ?)", URL, os.path.abspath("end.db"), OPTIONS)
db = connect("end.db")
assert one(db, "PRAGMA integrity_check") == "ok" and db.execute("SELECT * FROM tide_verify").fetchall() == []
for row in rows(db)[1:]:
    print(*row)
"#;
    let there = python(&scratch, &script(end), &[&url, &options]);
    let mut rows: Vec<String> =
        acknowledged.iter().map(|push| format!("{} {}\n", push[1], push[2])).collect();
    rows.sort_unstable();
    assert_eq!(there.ok(), rows.concat());
}
