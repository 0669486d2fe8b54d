"""What is compared and checked, and the verdicts."""
import contextlib
import hashlib
import os
import sqlite3

# Bytes of page 1 that belong to one machine's store: format versions, change counters, schema cookie.
SERVED = [*range(18, 20), *range(24, 28), *range(40, 44), *range(92, 100)]
FULL_TEXT = ("document_text", "message")


def content(db):
    """Of each table the number of rows and a digest of them, in the order of their keys; and of what else is read.

    The tables behind the full text indexes are among them, so equal answers mean equal bytes in every row.
    """
    found = {}

    def add(name, rows):
        hasher, count = hashlib.blake2b(digest_size=12), 0
        for row in rows:
            hasher.update(repr(row).encode())
            count += 1
        found[name] = f"{count} rows, {hasher.hexdigest()}"

    db.execute("BEGIN")
    schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    add("schema", schema)
    for kind, name, _, sql in schema:
        if kind == "table" and not sql.startswith("CREATE VIRTUAL"):
            rowid = "" if "WITHOUT ROWID" in sql.upper() else "rowid, "
            add(name, db.execute(f'SELECT {rowid}* FROM "{name}" NOT INDEXED'))
    add("view", db.execute("SELECT * FROM customer_total ORDER BY region"))
    for table in FULL_TEXT:
        words = "SELECT rowid, rank FROM {0} WHERE {0} MATCH 'ba OR di* NOT (ku mo)' ORDER BY rank, rowid LIMIT 500"
        add(f"{table} search", db.execute(words.format(table)))
    add("user_version", db.execute("PRAGMA user_version"))
    db.execute("COMMIT")
    return found


def glance(db):
    """A quick look at what is changed most, from all over the database."""
    return [
        db.execute(f"SELECT {what}").fetchone()
        for what in (
            "count(*), sum(balance), sum(length(notes)) FROM customer",
            "count(*), sum(total), sum(length(detail)) FROM orders",
            "count(*), max(id) FROM audit",
            "count(*), sum(length(body)) FROM document",
            "count(*) FROM message WHERE message MATCH 'ba'",
        )
    ]


def faults(db):
    """What SQLite itself finds wrong; nothing, one hopes."""
    found = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    found += [f"foreign key: {row}" for row in db.execute("PRAGMA foreign_key_check")]
    # It is an INSERT, which a replica must not commit.
    db.execute("BEGIN")
    for table in FULL_TEXT:
        try:
            db.execute(f"INSERT INTO {table}({table}, rank) VALUES ('integrity-check', 1)")
        except sqlite3.Error as error:
            found.append(f"{table}: {error}")
    db.execute("ROLLBACK")
    return found


def findings(db):
    return db.execute("SELECT * FROM tide_verify").fetchall()


def log(db):
    return db.execute(
        "SELECT first_lsn, last_lsn, time, pages, size_pages, checksum, kind, origin FROM tide_log"
    ).fetchall()


def checksum(db):
    """LSN of the head and the rolling checksum there."""
    return db.execute("SELECT last_lsn, checksum FROM tide_log ORDER BY last_lsn DESC LIMIT 1").fetchone()


def stock(path, check):
    """A check of a file by stock SQLite in this process, which never loads the library."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return check(db)


def difference(one, other):
    """Where two contents differ, as text; empty if they don't."""
    names = sorted(one.keys() | other.keys())
    return ", ".join(f"{n}: {one.get(n)} and {other.get(n)}" for n in names if one.get(n) != other.get(n))


def pages_that_differ(one, other):
    """Numbers of the pages in which two database files differ, but for what belongs to one machine's store."""
    differing = [] if os.path.getsize(one) == os.path.getsize(other) else ["size"]
    with open(one, "rb") as a, open(other, "rb") as b:
        size = int.from_bytes(a.read(18)[16:18], "big")
        size = 65536 if size == 1 else size
        a.seek(0)
        number = 1
        while True:
            here, there = bytearray(a.read(size)), bytearray(b.read(size))
            if not here or not there:
                return differing
            if number == 1:
                for offset in SERVED:
                    here[offset] = there[offset] = 0
            if here != there:
                differing.append(number)
            number += 1


def not_at_rest(path):
    """What keeps a database from being a plain SQLite file that nobody has open; empty if nothing does."""
    found = [path + end for end in ("-wal", "-shm", "-journal") if os.path.exists(path + end)]
    with open(path, "rb") as file:
        header = file.read(20)
    if not header.startswith(b"SQLite format 3\0") or header[18:] != b"\1\1":
        found.append(f"header {header.hex()}")
    return found


def bytes_of(path):
    """Size of a file, or of all in a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.exists(path) else 0
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))
