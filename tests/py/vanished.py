"""A database whose files are moved, removed or replaced while it is open: `from vanished import *`."""
import contextlib
import shutil
import subprocess

from tide import *

# Whether every case is to be tried, or those that depend on SQLite.
ALL = sys.argv[1:] == ["all"]

# What an error may say of it, beside SQLite's own words.
HONEST_WORDS = ["tideline: MISSING: ", "tideline: FOREIGN: "]
HONEST_CODES = ["SQLITE_READONLY_DBMOVED", "SQLITE_IOERR_WRITE", "SQLITE_CANTOPEN"]

# What serves the requests of a Peer: a statement each, answered with its rows or an error.
SERVE = """
from vanished import *
db = None
for line in sys.stdin:
    try:
        sql = json.loads(line)
        if sql is None:
            db and db.close()
            db, rows = None, []
        else:
            db = db or connect(sys.argv[1], timeout=2.0)
            rows = db.execute(sql).fetchall()
        print(json.dumps({"rows": rows}), flush=True)
    except sqlite3.Error as error:
        print(json.dumps({"error": str(error), "name": getattr(error, "sqlite_errorname", "")}), flush=True)
"""


class Told(sqlite3.Error):
    """An error that another process told."""

    def __init__(self, text, name):
        super().__init__(text)
        self.sqlite_errorname = name


@contextlib.contextmanager
def case(*words):
    """Says which one it was that failed."""
    try:
        yield
    except BaseException:
        print(*words, sep=", ", file=sys.stderr)
        raise


class Peer:
    """A connection in a process of its own, which is opened at the first statement, and at the next one after it was
    closed."""

    def __init__(self, name="a.db"):
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-B", "-c", SERVE, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def execute(self, sql):
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise Told(answer["error"], answer["name"])
        return answer["rows"]

    def close(self):
        self.execute(None)

    def kill(self):
        self.process.kill()
        self.process.communicate()


class Here:
    """A connection in this process."""

    def __init__(self, name="a.db"):
        self.db = connect(name, timeout=2.0)

    def execute(self, sql):
        return self.db.execute(sql).fetchall()

    def close(self):
        self.db.close()


def honest(error, action):
    """Does it say what happened? SQLite's own codes have no room for a text."""
    told = any(word in str(error) for word in HONEST_WORDS)
    assert told or error.sqlite_errorname in HONEST_CODES, f"{action}: {error.sqlite_errorname}: {error}"


def refuses(connection, sql):
    """What it says to a statement that must be refused, honestly."""
    try:
        rows = connection.execute(sql)
    except sqlite3.Error as error:
        honest(error, sql)
        return str(error)
    raise AssertionError(f"{sql}: not refused, but {rows!r}")


class Life:
    """A database, and what was acknowledged, by whomever."""

    def __init__(self, connection=None):
        self.count = 0
        connection = connection or Here()
        connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, v)")
        self.commit(connection, 3)
        connection.close()

    def commit(self, connection, rows=1):
        """Rows of a page each, so that no image is written again with the next."""
        for _ in range(rows):
            connection.execute(insert(self.count + 1))
            self.count += 1

    def judge(self, connection, count=None):
        """What it sees: everything, or the first so many rows."""
        count = self.count if count is None else count
        found = connection.execute("SELECT count(*), count(DISTINCT v), coalesce(max(n), 0) FROM t")[0]
        assert tuple(found) == (count,) * 3, f"{found}, but {count} were acknowledged"
        assert connection.execute("PRAGMA integrity_check")[0][0] == "ok"

    def goes_on(self, connections):
        """Each of them reads and writes, and all is sound."""
        for connection in connections:
            self.commit(connection)
        for connection in connections:
            self.judge(connection)
        assert connections[0].execute("SELECT * FROM tide_verify") == []

    def come_to(self, state, connections):
        """Each of them has it open: at rest, or ahead of its base."""
        if state == "at rest":
            for connection in connections:
                self.judge(connection)
        else:
            self.goes_on(connections)

    def goes_on_alone(self, connection):
        self.goes_on([connection])
        connection.close()

    def segment(self, row):
        """The segment that has this row."""
        having = [n for n, content in bytes_below("a.db-tide").items() if n.endswith(".seg") and mark(row) in content]
        assert len(having) == 1, f"{having} have row {row}"
        return os.path.join("a.db-tide", having[0])


def mark(row):
    return f"(row {row})".encode()


def insert(row):
    return f"INSERT INTO t VALUES ({row}, printf('(row {row})%03000d', {row}))"


# What a connection may be asked for beside reading and writing.
COMMANDS = [
    "SELECT tide_fold()", "SELECT tide_compact()", "SELECT tide_retain('20000 lsns')", "SELECT tide_retain()",
    "SELECT * FROM tide_verify", "SELECT count(*) FROM tide_log", "SELECT tide_status()", "SELECT tide_lsn()",
    "SELECT length(tide_prepare(0))", "SELECT count(*) FROM tide_batches(0, 60000)", "PRAGMA wal_checkpoint",
]


def ask_everything(connection, but=""):
    """Each works, or says honestly why it doesn't."""
    for sql in [sql for sql in COMMANDS if sql != but]:
        try:
            connection.execute(sql)
        except sqlite3.Error as error:
            honest(error, sql)


def bytes_below(folder):
    """What is in a folder, by name."""
    found = {}
    for name in os.listdir(folder):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
        except FileNotFoundError:
            pass  # Segments are renamed while the thread works.
    return found


def at_work(processes):
    """True while one of them has the thread that does what commits leave to be done."""
    for process in processes:
        for task in os.listdir(f"/proc/{process}/task"):
            try:
                with open(f"/proc/{process}/task/{task}/comm") as file:
                    if file.read().strip() == "tideline":
                        return True
            except FileNotFoundError:
                pass  # It has just ended.
    return False


def remove(path):
    """A file, or a folder with what is in it."""
    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def clear():
    """Removes what the last attempt has left."""
    for name in os.listdir("."):
        if name in ["away", "elsewhere"] or ".db" in name:
            remove(name)
