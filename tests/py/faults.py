"""Work on a database while calls of the operating system fail, one kind at a time: `from faults import *`.

Each attempt is a child that works on a copy of a prepared folder. The n-th call of one kind fails, for n from 1 on until
there are fewer. Whatever happens, what is read is what was acknowledged, errors are SQLite's own codes for what went
wrong, and work goes on once the cause is gone: at the same connection, or, where that says so, when everybody has closed
the database.
"""
import ctypes
import errno
import hashlib
import itertools
import random
import re
import shutil
import signal
import traceback

from crash import preloaded
from tide import *

SHORT, TORN = -1, -2

# What may be wrong with each kind of call. That it was interrupted happens once; the others may last.
KINDS = {
    "open": [errno.EIO, errno.EMFILE, errno.EACCES],
    "open_write": [errno.EIO, errno.EMFILE, errno.EROFS],
    "create": [errno.EIO, errno.ENFILE, errno.EROFS, errno.ENOSPC],
    "pread": [errno.EIO, errno.EINTR, SHORT],
    "pwrite": [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINTR, SHORT, TORN],
    "fsync": [errno.EIO, errno.ENOSPC, errno.EINTR],
    "sync_range": [errno.EIO],
    "ftruncate": [errno.EIO, errno.EINTR],
    "fallocate": [errno.ENOSPC, errno.EIO, errno.EINTR, errno.EOPNOTSUPP],
    "rename": [errno.EIO, errno.ENOSPC, errno.EACCES],
    "unlink": [errno.EIO, errno.EROFS],
    "mkdir": [errno.EIO, errno.ENOSPC, errno.EROFS],
    "mmap": [errno.ENOMEM],
    "lock": [errno.ENOLCK, errno.EIO],
    "stat": [errno.EIO, errno.EACCES],
    "opendir": [errno.EIO, errno.EMFILE],
    "chmod": [errno.EPERM, errno.EIO],
    "memory": [errno.ENOMEM],
}
# Those that a caller makes up for, so that nobody hears of them.
UNHEARD = {errno.EINTR, SHORT, errno.EOPNOTSUPP}

# Those that say that nothing may be written.
READ_ONLY = {errno.EROFS, errno.EACCES}

HONEST = {"SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_NOMEM"}
HONEST_WORDS = {"IO", "FULL", "DENIED", "MISSING", "POISONED", "BUSY"}


def faulty(library):
    """The functions of faults.c, in this process; the library is loaded."""
    calls = preloaded(library)
    sqlite = ctypes.CDLL("libsqlite3.so.0")
    # It was initialized when Python's module was imported.
    sqlite.sqlite3_shutdown()
    assert calls.fault_memory(sqlite.sqlite3_config) == 0
    load()
    return calls


def name_of(fault):
    return {SHORT: "short", TORN: "torn"}.get(fault) or errno.errorcode[fault]


def content_of(row, number, length):
    """Bytes that nobody else wrote."""
    block = hashlib.sha256(f"{row} {number}".encode()).digest()
    return (block * (length // 32 + 1))[:length]


def honest(error, fault):
    """Is it one of SQLite's codes for a system that fails, and does it say nothing else?"""
    code = getattr(error, "sqlite_errorname", "")
    text = str(error)
    if isinstance(error, MemoryError) or code.startswith("SQLITE_NOMEM"):
        return fault == errno.ENOMEM
    word = re.search(r"tideline: ([A-Z]+): .+; .+", text)
    if fault in READ_ONLY and re.search("no schema main|no such (function|table|module): tide_", text):
        # Opened as a plain file: see Work.recover.
        return True
    if word and word[1] not in HONEST_WORDS:
        return False
    family = "_".join(code.split("_")[:2])
    if family in HONEST and code != "SQLITE_IOERR_DATA":
        return True
    # What a function of ours reports has no better code.
    return code == "SQLITE_ERROR" and word is not None


class Work:
    """A connection, what was acknowledged through it, and a commit that may count."""

    def __init__(self, calls, seed, fault):
        self.calls, self.fault = calls, fault
        self.dice = random.Random(seed)
        self.db = None
        self.acknowledged = {}
        self.possible = None
        self.number = 0
        self.others = 0
        self.errors = 0

    # The database as it should be, and as it is.

    def found(self):
        if not one(self.db, "SELECT count(*) FROM sqlite_master WHERE name = 't'"):
            return {}
        rows = self.db.execute("SELECT id, n, v FROM t ORDER BY id").fetchall()
        for row, number, value in rows:
            assert value == content_of(row, number, len(value)), f"row {row} is none that was written"
        assert one(self.db, "SELECT count(*) FROM t INDEXED BY u WHERE n >= 0") == len(rows), "the index has others"
        return {row: (number, len(value)) for row, number, value in rows}

    def judge(self, reopened):
        found = self.found()
        if reopened and self.possible is not None and found == self.possible:
            self.acknowledged = found
        self.possible = None if reopened else self.possible
        assert found == self.acknowledged, f"{len(found)} rows of {len(self.acknowledged)}: {self.differences(found)}"

    def differences(self, found):
        pairs = itertools.chain(found.items() ^ self.acknowledged.items())
        return sorted(pairs)[:6]

    # What is done.

    def open(self):
        self.db = connect("a.db", timeout=2.0)
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA cache_spill = 1")
        self.db.execute("PRAGMA page_size = 16384")

    def close(self):
        db, self.db = self.db, None
        if db is not None:
            db.close()

    def commit(self, rows, length, level="FULL", back=False):
        """A transaction that changes so many rows."""
        self.db.execute(f"PRAGMA synchronous = {level}")
        self.number += 1
        after = dict(self.acknowledged)
        self.db.execute("BEGIN")
        self.db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n, v)")
        self.db.execute("CREATE INDEX IF NOT EXISTS u ON t(n)")
        for _ in range(rows):
            row, size = self.dice.randrange(200), self.dice.randrange(length // 2, length)
            value = content_of(row, self.number, size)
            self.db.execute("REPLACE INTO t VALUES (?, ?, ?)", (row, self.number, value))
            after[row] = (self.number, size)
        if back:
            self.db.execute("ROLLBACK")
            return
        self.possible = after
        self.db.execute("COMMIT")
        self.acknowledged, self.possible = after, None

    def spill(self, back=False):
        self.db.execute("PRAGMA cache_size = 10")
        self.commit(60, 3000, back=back)
        self.db.execute("PRAGMA cache_size = -2000")

    def function(self, sql):
        self.db.execute(sql).fetchall()

    def savepoint(self):
        self.db.execute("BEGIN")
        self.db.execute("SAVEPOINT s")
        self.db.execute("DELETE FROM t")
        self.db.execute("ROLLBACK TO s")
        self.db.execute("COMMIT")

    def beside_a_reader(self):
        reader = connect("a.db", timeout=2.0)
        try:
            reader.execute("BEGIN")
            before = one(reader, "SELECT count(*) FROM t")
            self.commit(3, 3000)
            assert one(reader, "SELECT count(*) FROM t") == before
        finally:
            reader.close()

    def cut(self):
        """Fewer pages than before."""
        after = {row: value for row, value in self.acknowledged.items() if row % 3 == 0}
        self.db.execute("BEGIN")
        self.db.execute("DELETE FROM t WHERE id % 3")
        self.possible = after
        self.db.execute("COMMIT")
        self.acknowledged, self.possible = after, None
        self.db.execute("VACUUM")

    def ship(self):
        """Gives another database everything, at once and in pieces."""
        blob = one(self.db, "SELECT tide_prepare(0)")
        pieces = [blob for _, blob in self.db.execute("SELECT * FROM tide_batches(0, 60000)")]
        assert blob and pieces
        for given in [[blob], pieces]:
            self.others += 1
            other = connect(f"b{self.others}.db", timeout=2.0)
            try:
                for blob in given:
                    other.execute("SELECT tide_receive(?)", (blob,)).fetchall()
                assert one(other, "SELECT count(*) FROM t") == len(self.acknowledged)
            finally:
                other.close()

    def together(self):
        """A commit over two databases."""
        if any(row[1] == "c" for row in self.db.execute("PRAGMA database_list")):
            self.db.execute("DETACH c")
        self.db.execute("ATTACH 'file:c.db?vfs=tideline' AS c")
        try:
            self.db.execute("CREATE TABLE IF NOT EXISTS c.w(n)")
            self.db.execute("BEGIN")
            self.number += 1
            self.db.execute("INSERT INTO c.w VALUES (?)", (self.number,))
            row = self.number % 200
            value = content_of(row, self.number, 500)
            self.db.execute("REPLACE INTO main.t VALUES (?, ?, ?)", (row, self.number, value))
            self.possible = {**self.acknowledged, row: (self.number, 500)}
            self.db.execute("COMMIT")
            self.acknowledged, self.possible = self.possible, None
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self.db.execute("DETACH c")

    def reopen(self):
        self.close()
        self.open()
        self.judge(True)

    def export(self):
        self.others += 1
        self.function(f"SELECT tide_export('plain{self.others}.db')")
        plain = sqlite3.connect(f"plain{self.others}.db")
        assert one(plain, "SELECT count(*) FROM t") == len(self.acknowledged)
        plain.close()

    def verify(self):
        findings = self.db.execute("SELECT * FROM tide_verify").fetchall()
        if self.calls.fault_struck():
            # What can't be read is a finding, and no error.
            findings = [row for row in findings if f"(os error {self.fault})" not in row[-1]]
        assert not findings, findings

    def steps(self):
        """All of it, each with a name."""
        small = lambda level: lambda: self.commit(2, 3000, level)
        large = lambda: self.commit(4, 400_000, "NORMAL")
        yield "open", self.open
        for level in ["FULL", "FULL", "NORMAL", "NORMAL", "FULL"]:
            yield f"commit at {level}", small(level)
        yield "spill", self.spill
        yield "spill and roll back", lambda: self.spill(True)
        yield "savepoint", self.savepoint
        yield "fold", lambda: self.function("SELECT tide_fold()")
        yield "commit beside a reader", self.beside_a_reader
        yield "commit over two databases", self.together
        for _ in range(6):
            yield "large commit", large
        yield "commit at FULL", small("FULL")
        yield "retain", lambda: self.function("SELECT tide_retain('3 lsns')")
        for _ in range(5):
            yield "large commit", large
        yield "fold", lambda: self.function("SELECT tide_fold()")
        yield "compact", lambda: self.function("SELECT tide_compact()")
        yield "vacuum", self.cut
        yield "ship", self.ship
        yield "export", self.export
        yield "verify", self.verify
        yield "reopen", self.reopen
        yield "commit at FULL", small("FULL")
        yield "retain", lambda: self.function("SELECT tide_retain('none')")
        yield "commit at FULL", small("FULL")
        yield "reopen", self.reopen
        yield "commit at NORMAL", small("NORMAL")
        yield "close", self.close

    # What becomes of errors.

    def attempt(self, what, step):
        """Does it; false if it failed, as it may while calls fail."""
        try:
            step()
            return True
        except (sqlite3.Error, MemoryError) as error:
            struck = self.calls.fault_struck()
            assert struck > 0, f"{what}: {error!r}, although no call failed"
            assert self.fault not in UNHEARD, f"{what}: {error!r}"
            code = getattr(error, "sqlite_errorname", "")
            assert honest(error, self.fault), f"{what}: {code}: {error}"
            self.errors += 1
            if self.db is not None and self.db.in_transaction:
                try:
                    self.db.execute("ROLLBACK")
                except (sqlite3.Error, MemoryError) as error:
                    assert honest(error, self.fault), f"{what}, rolling back: {error!r}"
            return False

    def recover(self, what, step):
        """The cause is gone, and the step is done."""
        if self.db is not None and self.db.in_transaction:
            # Not even that could be asked for.
            self.db.execute("ROLLBACK")
        try:
            if self.db is None:
                self.open()
                self.judge(True)
            else:
                self.judge(False)
            return step()
        except sqlite3.Error as error:
            text = f"{error} {one(self.db, 'SELECT tide_last_error()')}"
            # Where nothing could be written, the database was opened as the plain file that it is.
            plain = self.fault in READ_ONLY and getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY"
            assert plain or "POISONED" in text, f"{what}, again: {error!r}: {text}"
        self.errors += 1
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.reopen()
        step()

    def run(self, lasts):
        for what, step in self.steps():
            try:
                if self.attempt(what, step):
                    continue
                # Where it lasts, nothing else gets through either, and nothing wrong.
                if lasts:
                    for level in ["FULL", "NORMAL"]:
                        again = lambda: self.commit(2, 3000, level)
                        if self.db is not None:
                            self.attempt(f"{what}, then a commit", again)
                self.calls.fault_disarm()
                self.recover(what, step if step not in (self.reopen, self.close) else lambda: None)
            except AssertionError as failure:
                raise AssertionError(f"{what}: {failure}") from failure
        self.calls.fault_disarm()
        self.close()
        self.end()

    def end(self):
        """Everything that was acknowledged is there, and sound; in the end for stock SQLite, too."""
        self.open()
        self.judge(True)
        self.verify()
        assert one(self.db, "PRAGMA integrity_check") == "ok"
        self.close()
        plain = sqlite3.connect("a.db")
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert one(plain, "SELECT count(*) FROM t") == len(self.acknowledged)
        plain.close()


def begin(state, calls, seed):
    """Prepares the folder `new`, and gives what was committed in it."""
    os.mkdir("new")
    if state == "nothing":
        return {}
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir("new")
        work = Work(calls, seed, 0)
        work.open()
        work.commit(40, 3000)
        work.commit(5, 3000, "NORMAL")
        if state == "rest":
            work.close()
        os.write(tell, json.dumps(list(work.acknowledged.items())).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(tell)
    with open(told) as pipe:
        start = json.load(pipe)
    os.waitpid(child, 0)
    return {row: tuple(value) for row, value in start}


def attempt(calls, seed, start, kind, fault, lasts, n, part):
    """Has a child work while the n-th call of a kind fails. Gives how many there were, how many failed, and of how many
    errors the child heard.
    """
    what = f"{kind} {name_of(fault)}{' and on' if lasts else ''}, call {n} on {part}, seed {seed}"
    shutil.copytree("new", "run")
    os.chdir("run")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            work = Work(calls, seed, fault)
            work.acknowledged, work.number = dict(start), 100
            calls.fault_arm(kind.encode(), part.encode(), n, fault, int(lasts))
            work.run(lasts)
            os.write(tell, f"{calls.fault_disarm()} {calls.fault_struck()} {work.errors}".encode())
            code = 0
        except BaseException:
            print(f"{what}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(code)
    os.close(tell)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(told) as pipe:
        text = pipe.read()
    os.chdir("..")
    assert status == 0, f"{what}: the process ended with {status}"
    shutil.rmtree("run")
    made, struck, errors = map(int, text.split())
    return made, struck, errors


def sweep(calls, seed, attempts):
    """Attempts that the seed draws: of each kind as many. Prints what was tried."""
    dice = random.Random(seed)
    state = dice.choice(["nothing", "rest", "left"])
    start = begin(state, calls, seed)
    tried = struck = heard = 0
    for kind in KINDS:
        made, _, _ = attempt(calls, seed, start, kind, errno.EIO, False, 0, ".db")
        for _ in range(attempts if made else 0):
            fault = dice.choice(KINDS[kind])
            lasts = fault not in UNHEARD | {TORN} and dice.random() < 0.3
            _, failed, errors = attempt(calls, seed, start, kind, fault, lasts, dice.randint(1, made), ".db")
            tried, struck, heard = tried + 1, struck + min(failed, 1), heard + errors
    assert struck and heard
    print(f"tried: faults={struck} of_runs={tried} errors={heard}")
