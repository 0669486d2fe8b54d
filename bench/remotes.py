#!/usr/bin/env python3
"""What remotes cost: requests, bytes and time, as tide_remotes counts them.

    cargo xtask stores ceph -- python3 bench/remotes.py [--mib 1024] [--write docs/REMOTES.md]

TIDELINE_S3_ENDPOINT, TIDELINE_S3_BUCKET, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say where; the library is that of
`cargo xtask dist`. curl downloads the one file that a restore is compared with."""
import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve()
MIB = 1 << 20
FOLLOWED_FOR = 30


def connect(path):
    return sqlite3.connect(f"file:{path}?vfs=tideline", uri=True, timeout=60, isolation_level=None)


def load(library):
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def place():
    """A place in the bucket that nobody had before."""
    return f"s3://{os.environ['TIDELINE_S3_BUCKET']}/bench-{uuid.uuid4().hex}"


def options(**more):
    return json.dumps({"endpoint": os.environ["TIDELINE_S3_ENDPOINT"], "region": "us-east-1", **more})


def one(db, sql, *values):
    return db.execute(sql, values).fetchone()[0]


class Counted:
    """Requests, bytes and seconds of what is done with a database's remote."""

    def __init__(self, db):
        self.db = db

    def now(self):
        found = self.db.execute("SELECT requests, bytes FROM tide_remotes WHERE name = 'origin'").fetchone()
        return (*(found or (0, 0)), time.perf_counter())

    def __enter__(self):
        self.before = self.now()
        return self

    def __exit__(self, *_):
        after = self.now()
        self.requests, self.bytes, self.seconds = (b - a for a, b in zip(self.before, after))


def size(amount):
    for unit, name in (1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB"):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}"
    return f"{amount} B"


def duration(seconds):
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def row(what, counted):
    print(f"  {what}: {counted.requests} requests, {counted.bytes} bytes, {counted.seconds:.3f} s", file=sys.stderr)
    return f"| {what} | {counted.requests} | {size(counted.bytes)} | {duration(counted.seconds)} |"


def table(db, rows):
    """A table with an index, of so many rows of about 130 bytes."""
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT)")
    db.execute("CREATE INDEX tk ON t(k)")
    db.execute(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
        " INSERT INTO t SELECT n, abs(random()) % 1000000, hex(randomblob(50)) FROM c",
        (rows,),
    )


def pushes(folder):
    """One row committed so many times, then pushed at once."""
    lines = ["| push of | requests | bytes | time |", "|---|---|---|---|"]
    for retain in None, "none":
        db = connect(f"{folder}/push-{retain}.db")
        table(db, 50_000)
        db.execute("SELECT tide_retain('100000 lsns')")
        given = {} if retain is None else {"retain": retain}
        one(db, "SELECT tide_remote('origin', ?, ?)", place(), options(**given))
        one(db, "SELECT tide_push()")
        for count in 1, 100, 10_000:
            for _ in range(count):
                db.execute("INSERT INTO t(k, v) VALUES (abs(random()) % 1000000, hex(randomblob(50)))")
            with Counted(db) as counted:
                one(db, "SELECT tide_push()")
            kept = "each LSN kept" if retain is None else "`retain` 'none'"
            commits = "commit" if count == 1 else "commits"
            lines.append(row(f"{count:,} {commits} of one row, {kept}", counted))
        with Counted(db) as counted:
            one(db, "SELECT tide_push()")
        if retain is None:
            lines.append(row("nothing", counted))
        db.close()
    return lines


def curl(*arguments):
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    begun = time.perf_counter()
    signed = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{key}:{secret}"]
    unsigned = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
    subprocess.run(["curl", "-sS", "--fail", *signed, *unsigned, *arguments], check=True)
    return time.perf_counter() - begun


def restore(memory, folder, mib):
    """A large database: pushed, cloned, read, and hydrated; and its file downloaded as one object."""
    source = f"{folder}/large.db"
    db = connect(source)
    table(db, mib * 6_450)
    url = place()
    one(db, "SELECT tide_remote('origin', ?, ?)", url, options())
    with Counted(db) as counted:
        one(db, "SELECT tide_push()")
    last = one(db, "SELECT max(id) FROM t")
    db.close()
    length = os.path.getsize(source)
    lines = [f"| a database of {size(length)} | requests | bytes | time |", "|---|---|---|---|"]
    lines.append(row("first push", counted))

    clone = f"{folder}/clone.db"
    cache = f"{folder}/cache"
    begun = time.perf_counter()
    one(memory, "SELECT tide_clone(?, ?, ?)", url, clone, options(cache=cache, cache_mib=4096))
    cloned = time.perf_counter() - begun
    db = connect(clone)
    lines.append(f"| clone, before anything is read | | | {duration(cloned)} |")
    with Counted(db) as counted:
        db.execute("SELECT * FROM t WHERE id = ?", (last // 2,)).fetchall()
    share = counted.bytes / length
    lines.append(row(f"first query, by key ({share:.2%} of the file)", counted))
    with Counted(db) as counted:
        db.execute("SELECT * FROM t WHERE id = ?", (last // 3,)).fetchall()
    lines.append(row("second query, by another key", counted))
    with Counted(db) as counted:
        one(db, "SELECT tide_hydrate()")
    lines.append(row("the rest, by tide_hydrate", counted))
    db.execute("SELECT count(*) FROM t").fetchall()
    db.close()

    at = f"{os.environ['TIDELINE_S3_ENDPOINT']}/{os.environ['TIDELINE_S3_BUCKET']}/file-{uuid.uuid4().hex}"
    up = curl("-T", source, at)
    down = curl("-o", f"{folder}/file.db", at)
    lines.append(f"| one file of that size, sent by curl | 1 | {size(length)} | {duration(up)} |")
    lines.append(f"| the same, downloaded | 1 | {size(length)} | {duration(down)} |")
    return lines


def follow(folder, library):
    """Commits are pushed, and pulled by another process, every so often: from a commit to its being read there."""
    kept = "| both every | commits | median | 99 of 100 | requests a minute: writer | replica |"
    lines = [kept, "|---|---|---|---|---|---|"]
    for every in "100ms", "1s", "5s":
        url = place()
        path, copy = f"{folder}/lead-{every}.db", f"{folder}/follow-{every}.db"
        db = connect(path)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, at REAL)")
        one(db, "SELECT tide_remote('origin', ?, ?)", url, options())
        one(db, "SELECT tide_push('origin', json_object('every', ?))", every)
        command = [sys.executable, str(HERE), "--library", library, "--follower", copy, url, every]
        follower = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert follower.stdout.readline() == "ready\n"
        asked = one(db, "SELECT requests FROM tide_remotes")
        begun, count = time.time(), 0
        while time.time() < begun + FOLLOWED_FOR:
            db.execute("INSERT INTO t(at) VALUES (?)", (time.time(),))
            count += 1
            time.sleep(0.037)
        sent = one(db, "SELECT requests FROM tide_remotes") - asked
        minutes = (time.time() - begun) / 60
        answer = json.loads(follower.communicate(f"{count}\n")[0])
        db.close()
        delays = sorted(answer["delays"])
        assert len(delays) == count
        median, late = statistics.median(delays), delays[len(delays) * 99 // 100]
        received = answer["requests"] / answer["minutes"]
        line = f"| {every} | {count} | {duration(median)} | {duration(late)} | {sent / minutes:.0f} | {received:.0f} |"
        print(line, file=sys.stderr)
        lines.append(line)
    return lines


def follower(path, url, every):
    """Pulls, and notes when each row is there."""
    one(sqlite3.connect(":memory:"), "SELECT tide_clone(?, ?, ?)", url, path, options())
    db = connect(path)
    one(db, "SELECT tide_pull('origin', json_object('every', ?))", every)
    print("ready", flush=True)
    os.set_blocking(0, False)
    wanted, seen, delays, begun = None, 0, [], time.time()
    while wanted is None or seen < wanted:
        if wanted is None:
            line = sys.stdin.readline()
            wanted = int(line) if line else None
        for number, at in db.execute("SELECT id, at FROM t WHERE id > ? ORDER BY id", (seen,)).fetchall():
            delays.append(time.time() - at)
            seen = number
        time.sleep(0.005)
    requests = one(db, "SELECT requests FROM tide_remotes")
    print(json.dumps({"delays": delays, "requests": requests, "minutes": (time.time() - begun) / 60}))


def publish(path, text):
    """Writes the figures between the two marks of a document."""
    begin, end = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
    before, rest = Path(path).read_text().split(begin)
    Path(path).write_text(before + begin + text + end + rest.split(end)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--library", default=str(HERE.parent.parent / "target/dist/libtideline.so"))
    parser.add_argument("--mib", type=int, default=1024, help="size of the large database")
    parser.add_argument("--write", metavar="FILE", help="document that gets the figures")
    parser.add_argument("--follower", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    memory = load(given.library)
    if given.follower:
        follower(*given.follower)
        return
    store = os.environ.get("TIDELINE_S3_STORE", "the store")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        parts = [pushes(folder), restore(memory, folder, given.mib), follow(folder, given.library)]
    version = one(memory, "SELECT tide_version()")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE.parent, capture_output=True, text=True
    ).stdout.strip()
    head = f"Version {version}, commit {commit}, on {store}, the store and both processes on one machine of {os.cpu_count()} processors.\n"
    text = "\n".join([head, *("\n".join([*part, ""]) for part in parts)])
    print(text)
    if given.write:
        publish(given.write, "\n" + text + "\n")


if __name__ == "__main__":
    main()
