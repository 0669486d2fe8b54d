"""A process with one database: how the run asks it, and what it does.

The databases are on different machines, so each is opened by processes of its own. The run's main process never loads
the library: what it reads, it reads as stock SQLite does.
"""
import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
import traceback

import checks
import database
from workload import Workload


class Refused(Exception):
    """SQLite's or Tideline's answer to a request was an error; its text."""


class Machine:
    """The run's side: `machine.ask("method", …)` calls a method of [`Host`] over there."""

    def __init__(self, *host):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, host), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, method, *arguments):
        """Asks, but doesn't wait; `answer` does."""
        self.pipe.send((method, arguments))

    def ready(self):
        return self.pipe.poll()

    def answer(self):
        how, result = self.pipe.recv()
        if how == "refused":
            raise Refused(result)
        if how == "failed":
            raise RuntimeError(result)
        return result

    def ask(self, method, *arguments):
        self.tell(method, *arguments)
        return self.answer()

    def one(self, sql, *arguments):
        return self.ask("query", sql, arguments)[0][0]

    def kill(self):
        self.process.kill()
        self.process.join()

    def die(self, method, *arguments):
        """Asks for something that the process doesn't survive."""
        self.tell(method, *arguments)
        self.process.join()

    def leave(self):
        """Closes the database and ends the process; how long the closing took."""
        seconds = self.ask("close")
        self.pipe.close()
        self.process.join()
        return seconds


def serve(pipe, host):
    """What the process does."""
    host = Host(*host)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            reply = ("done", getattr(host, method)(*arguments))
        except sqlite3.Error as error:
            reply = ("refused", f"{error}\n{traceback.format_exc()}")
        except Exception:  # whatever it is, the run has to hear of it
            reply = ("failed", traceback.format_exc())
        pipe.send(reply)


class Host:
    """The process's side. Without a library it is stock SQLite in WAL mode."""

    def __init__(self, path, library, seed, steps):
        self.path, self.library, self.seed, self.steps = path, library, seed, steps
        self.db = self.held = self.coming = self.work = None

    def connect(self, **parameters):
        if self.library:
            parameters = {"vfs": "tideline", **parameters}
        asked = "&".join(f"{key}={value}" for key, value in parameters.items())
        return sqlite3.connect(f"file:{self.path}?{asked}", uri=True, timeout=60, isolation_level=None)

    def open(self):
        if self.library:
            loader = sqlite3.connect(":memory:")
            loader.enable_load_extension(True)
            loader.load_extension(self.library)
            loader.close()
        began = time.perf_counter()
        self.db = self.connect()
        if not self.library:
            self.db.execute("PRAGMA journal_mode = WAL")
        # The same for both, whatever the host was compiled with: FULL waits for the disk at every commit.
        self.db.executescript(
            "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON; PRAGMA synchronous = FULL; "
            "SELECT count(*) FROM sqlite_schema;"
        )
        self.work = Workload(self.db, self.seed, self.steps)
        return time.perf_counter() - began

    def close(self):
        began = time.perf_counter()
        if self.db:
            self.db.close()
        return time.perf_counter() - began

    def generate(self, megabytes):
        """Makes the database, and dies with commits in its WAL."""
        database.generate(self.path, megabytes, self.seed)
        os.kill(os.getpid(), signal.SIGKILL)

    def steps_between(self, first, last):
        """Does steps `first` to `last - 1`; of each its number, kind, seconds, and whether it committed.

        With Tideline a commit raises the LSN, and anything else doesn't.
        """
        done = []
        for step in range(first, last):
            before = self.lsn()
            began = time.perf_counter()
            kind, committed = self.work.step(step)
            seconds = time.perf_counter() - began
            after = self.lsn()
            if self.library and (after > before) != committed:
                raise AssertionError(f"step {step} ({kind}): LSN {before} became {after}")
            done.append((step, kind, seconds, committed))
        return done

    def lsn(self):
        return self.db.execute("SELECT tide_lsn()").fetchone()[0] if self.library else 0

    def query(self, sql, arguments=()):
        return self.db.execute(sql, arguments).fetchall()

    def status(self):
        return json.loads(self.db.execute("SELECT tide_status()").fetchone()[0])

    def prepare(self, after, max_bytes=None):
        """A blob, and how long it took."""
        began = time.perf_counter()
        (blob,) = self.db.execute("SELECT tide_prepare(?, ?)", (after, max_bytes)).fetchone()
        return blob, time.perf_counter() - began

    def pieces(self, after, max_bytes):
        """Begins to make pieces; each is asked for by `piece`."""
        self.coming = self.db.execute("SELECT blob FROM tide_batches(?, ?)", (after, max_bytes))

    def piece(self):
        began = time.perf_counter()
        row = self.coming.fetchone()
        return row and row[0], time.perf_counter() - began

    def receive(self, blob):
        """The LSN reached, and how long it took."""
        began = time.perf_counter()
        (lsn,) = self.db.execute("SELECT tide_receive(?)", (blob,)).fetchone()
        return lsn, time.perf_counter() - began

    def call(self, check, *arguments):
        """A function of `checks` that takes a connection."""
        return getattr(checks, check)(self.db, *arguments)

    def hold(self):
        """Begins to read in a connection of its own; `release` sees whether it still reads the same."""
        reader = self.connect()
        reader.execute("BEGIN")
        self.held = reader, checks.glance(reader)
        return self.held[1]

    def release(self):
        reader, seen = self.held
        same = checks.glance(reader) == seen
        reader.close()
        return same

    def past(self, lsn):
        """Content at an earlier LSN."""
        with contextlib.closing(self.connect(at=lsn)) as reader:
            return checks.content(reader)

    def die_writing(self):
        """Dies in a transaction that has spilled the cache."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("UPDATE customer SET balance = balance + 1000, notes = 'never committed'")
        os.kill(os.getpid(), signal.SIGKILL)
