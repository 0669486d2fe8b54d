"""The mixed work: transactions of many kinds, in ordinary SQL.

A step is a function of the seed, its number and the database. It can be done again elsewhere, after a crash, and by
stock SQLite, and leads to the same content. It tells whether it committed something or took everything back.

Query plans may differ between connections, by what ANALYZE did when: hence ORDER BY, and NOT INDEXED where triggers
note the rows as they come.
"""
import contextlib
import random
import sqlite3

import database


@contextlib.contextmanager
def transaction(db, begin="BEGIN IMMEDIATE"):
    db.execute(begin)
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def fails(action):
    """Is it refused, as it has to be? For statements that break a constraint."""
    try:
        action()
    except sqlite3.Error:
        return True
    raise AssertionError("a statement that breaks a constraint was carried out")


def sign_up(work, db, rng):
    with transaction(db):
        for key in range(work.next("customer"), work.next("customer") + rng.randint(1, 4)):
            database.add_customer(db, rng, work.words, key)
    return True


def edit(work, db, rng):
    """One statement, committed by itself."""
    key, what = work.customer(rng), rng.choice(("name", "region", "notes", "balance"))
    value = rng.randint(0, 10**6) if what == "balance" else work.words.passage(rng, rng.randint(1, 400))
    db.execute(f"UPDATE customer SET {what} = ? WHERE id = ?", (value, key))
    return True


def trade(work, db, rng):
    """Orders enter the partial index and leave it."""
    with transaction(db, rng.choice(("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"))):
        first = work.some(rng, "orders")
        last, state = first + rng.randint(1, 30), rng.choice(database.STATES)
        change = "UPDATE orders NOT INDEXED SET state = ?, total = total + 1 WHERE id BETWEEN ? AND ?"
        db.execute(change, (state, first, last))
        db.execute("UPDATE line SET quantity = quantity % 9 + 1 WHERE orders BETWEEN ? AND ?", (first, last))
    return True


def leave(work, db, rng):
    """A customer goes, and by ON DELETE CASCADE all that is theirs."""
    db.execute("DELETE FROM customer WHERE id = ?", (work.customer(rng),))
    return True


def replace(work, db, rng):
    """REPLACE by primary key, and REPLACE that removes another row by a unique index; and an upsert."""
    keys = [database.sku(rng.randrange(database.PRODUCTS + 200)) for _ in range(3)]
    with transaction(db):
        # A product that lines refer to can be replaced, as long as it is there again at the end of the statement.
        for key in keys:
            row = (key, work.words.name(rng), rng.randint(1, 999), rng.randint(0, 99))
            db.execute("REPLACE INTO product(sku, title, price, stock) VALUES (?, ?, ?, ?)", row)
        other, here = work.customer(rng), work.customer(rng)
        (email,) = db.execute("SELECT email FROM customer WHERE id = ?", (other,)).fetchone()
        db.execute("UPDATE OR REPLACE customer SET email = ? WHERE id = ?", (email, here))
        upsert = "INSERT INTO product(sku, title) VALUES (?, 'new') ON CONFLICT(sku) DO UPDATE SET stock = stock + 1"
        db.execute(upsert, keys[:1])
    return True


def write(work, db, rng):
    """Documents, whose full text index is kept by triggers."""
    with transaction(db):
        for _ in range(rng.randint(1, 5)):
            key, title = work.some(rng, "document"), work.words.name(rng)
            body = work.words.passage(rng, rng.randint(10, 6000))
            what = rng.randrange(4)
            if what == 0:
                db.execute("INSERT INTO document(title, body) VALUES (?, ?)", (title, body))
            elif what == 1:
                db.execute("DELETE FROM document WHERE id = ?", (key,))
            elif what == 2:
                db.execute("UPDATE document SET title = ? WHERE id = ?", (title, key))
            else:
                db.execute("UPDATE document SET body = ? WHERE id = ?", (body, key))
    return True


def talk(work, db, rng):
    """A full text table that has its content itself; now and then its index is merged."""
    with transaction(db):
        for _ in range(rng.randint(1, 10)):
            row = (work.words.word(rng), work.words.passage(rng, rng.randint(5, 500)))
            db.execute("INSERT INTO message(sender, text) VALUES (?, ?)", row)
        key = work.some(rng, "message", "rowid")
        if rng.random() < 0.5:
            db.execute("DELETE FROM message WHERE rowid = ?", (key,))
        else:
            db.execute("UPDATE message SET text = ? WHERE rowid = ?", (work.words.passage(rng, 100), key))
        if rng.random() < 0.1:
            db.execute("INSERT INTO message(message, rank) VALUES ('merge', 50)")
    return True


def attach(work, db, rng):
    with transaction(db):
        for _ in range(rng.randint(1, 3)):
            row = (work.customer(rng), work.words.word(rng), database.attachment(rng))
            db.execute("INSERT INTO attachment(customer, name, body) VALUES (?, ?, ?)", row)
        if rng.random() < 0.6:
            db.execute("DELETE FROM attachment WHERE id = ?", (work.some(rng, "attachment"),))
    return True


def patch(work, db, rng):
    """Writes into blobs in place, through handles."""
    alone = rng.random() < 0.3
    with contextlib.nullcontext() if alone else transaction(db):
        with db.blobopen("attachment", "body", work.some(rng, "attachment")) as blob:
            for _ in range(rng.randint(1, 6)):
                piece = rng.randbytes(rng.randint(1, min(len(blob), 9000)))
                blob.seek(rng.randint(0, len(blob) - len(piece)))
                blob.write(piece)
    return True


def undo(work, db, rng):
    """A transaction that is rolled back, sometimes after it has spilled the cache."""
    db.execute(rng.choice(("BEGIN", "BEGIN IMMEDIATE")))
    database.add_customer(db, rng, work.words, work.next("customer"))
    rows = rng.choice((10, 100, 5000))
    db.execute("UPDATE customer SET balance = balance + 1, notes = notes || '!' WHERE id <= ?", (rows,))
    db.execute("CREATE TABLE passing(a, b)")
    db.execute("DELETE FROM document WHERE id = ?", (work.some(rng, "document"),))
    db.execute("ROLLBACK")
    return False


def savepoints(work, db, rng):
    with transaction(db):
        edit(work, db, rng)
        for name in ("outer", "inner"):
            db.execute(f"SAVEPOINT {name}_one")
            database.add_customer(db, rng, work.words, work.next("customer"))
            rows = rng.choice((3, 300))
            db.execute("UPDATE orders SET detail = upper(detail) WHERE id % 1000 < ?", (rows // 3,))
            db.execute("UPDATE document SET title = lower(title) WHERE id = ?", (work.some(rng, "document"),))
        for name in ("inner", "outer"):
            if rng.random() < 0.5:
                db.execute(f"ROLLBACK TO {name}_one")
            db.execute(f"RELEASE {name}_one")
        edit(work, db, rng)
    return True


def stumble(work, db, rng):
    """Statements that break a constraint take back themselves alone; the transaction goes on."""
    here, other = work.customer(rng), work.next("customer")
    with transaction(db):
        edit(work, db, rng)
        fails(lambda: db.execute("INSERT INTO customer(id, name) VALUES (?, 'taken')", (here,)))
        fails(lambda: db.execute("UPDATE customer SET name = NULL WHERE id >= ?", (here,)))
        # Refused at the last of its rows: all before it are taken back.
        twice = [(other, "a", "b"), (other + 1, "c", "d"), (here, "e", "f")]
        values = ", ".join(["(?, ?, ?)"] * len(twice))
        flat = [value for row in twice for value in row]
        fails(lambda: db.execute(f"INSERT INTO customer(id, name, email) VALUES {values}", flat))
        fails(lambda: db.execute("INSERT INTO line VALUES (0, 0, 'nothing', 1)"))
        db.execute(f"INSERT OR IGNORE INTO customer(id, name, email) VALUES {values}", flat)
    return True


def fall(work, db, rng):
    """Transactions that end in an error: at COMMIT, by a trigger, or interrupted."""
    how = rng.randrange(3)
    db.execute("BEGIN IMMEDIATE")
    edit(work, db, rng)
    if how == 0:
        db.execute("INSERT INTO attachment(customer, name) VALUES (?, 'nobody')", (work.next("customer") + 9,))
        fails(lambda: db.execute("COMMIT"))
    elif how == 1:
        fails(lambda: db.execute("UPDATE product SET price = -1 WHERE sku >= 'sku-09'"))
    else:
        db.set_progress_handler(lambda: 1, 20_000)
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("UPDATE customer SET notes = notes || '?', balance = balance + 1 WHERE id > 50")
        db.set_progress_handler(None, 0)
    if db.in_transaction:
        db.execute("ROLLBACK")
    return False


def owe(work, db, rng):
    """A deferred foreign key is broken for a while, and mended before COMMIT."""
    with transaction(db):
        key = work.next("customer")
        body = database.attachment(rng)
        db.execute("INSERT INTO attachment(customer, name, body) VALUES (?, 'early', ?)", (key, body))
        database.add_customer(db, rng, work.words, key)
    return True


def bulk(work, db, rng):
    """More changed pages than the cache holds."""
    start = work.customer(rng)
    with transaction(db):
        db.execute(
            "UPDATE customer NOT INDEXED SET balance = balance + 1, notes = substr(notes || ?, 1, 300), region = ? "
            "WHERE id BETWEEN ? AND ?",
            (work.words.passage(rng, 60), f"region {rng.randint(1, 40)}", start, start + 8000),
        )
        order = work.some(rng, "orders")
        db.execute("UPDATE orders NOT INDEXED SET state = 'closed' WHERE id BETWEEN ? AND ?", (order, order + 5000))
    return True


def change_schema(work, db, rng):
    """ALTER, CREATE and DROP, of things that the other kinds of work don't need."""
    has = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
    extra = [row[1] for row in db.execute("PRAGMA table_info(product)") if row[1].startswith("extra")]
    n = rng.randint(1, 3)
    index, table, view = f"made_index_{n}", f"made_table_{n}", f"made_view_{n}"
    what = rng.randrange(6)
    if what == 0 and extra:
        with transaction(db):
            db.execute(f"ALTER TABLE product RENAME COLUMN {extra[0]} TO extra_for_a_while")
            db.execute("ALTER TABLE product DROP COLUMN extra_for_a_while")
    elif what == 0:
        with transaction(db):
            db.execute("ALTER TABLE product ADD COLUMN extra TEXT DEFAULT 'more'")
            db.execute("UPDATE product SET extra = title WHERE stock = 7")
            db.execute("ALTER TABLE product RENAME TO product_for_a_while")
            db.execute("ALTER TABLE product_for_a_while RENAME TO product")
    elif what == 1:
        on = ("customer(region, balance)", "orders(total) WHERE total > 5000", "document(length(body))")[n - 1]
        db.execute(f"DROP INDEX {index}" if index in has else f"CREATE INDEX {index} ON {on}")
    elif what == 2 and table in has:
        db.execute(f"DROP TABLE {table}")
    elif what == 2:
        db.execute(f"CREATE TABLE {table} AS SELECT * FROM orders WHERE id % {n * 7} = 0 ORDER BY id LIMIT 3000")
    elif what == 3:
        db.execute(f"DROP VIEW {view}" if view in has else f"CREATE VIEW {view} AS SELECT max(id) FROM audit")
    elif what == 4 and table in has:
        columns = len(db.execute(f"PRAGMA table_info({table})").fetchall())
        db.execute(f"ALTER TABLE {table} ADD COLUMN c{columns} DEFAULT {n}")
    elif what == 4:
        db.execute(f"CREATE TABLE {table}(a PRIMARY KEY, b UNIQUE) WITHOUT ROWID")
    else:
        db.execute(f"PRAGMA user_version = {rng.randint(1, 10**6)}")
    return True


def shrink(work, db, rng):
    """Free pages go back to the file system."""
    with transaction(db):
        (last,) = db.execute("SELECT max(id) FROM audit").fetchone()
        db.execute("DELETE FROM audit WHERE id < ?", ((last or 0) - 20_000,))
        db.execute("DELETE FROM attachment WHERE id = ?", (work.some(rng, "attachment"),))
    db.execute(f"PRAGMA incremental_vacuum({rng.randint(1, 200)})").fetchall()
    return True


def vacuum(_work, db, _rng):
    db.execute("VACUUM")
    return True


def rewrite(_work, db, _rng):
    """Every row of a large table."""
    db.execute("UPDATE orders SET total = total + 1")
    return True


def purge(work, db, rng):
    """Much goes at once, with all that hangs on it."""
    start = work.customer(rng)
    with transaction(db):
        db.execute("DELETE FROM audit")
        db.execute("DELETE FROM customer NOT INDEXED WHERE id BETWEEN ? AND ?", (start, start + 1000))
        db.execute("DELETE FROM message WHERE rowid % 50 = ?", (rng.randrange(50),))
    return True


def reindex(_work, db, _rng):
    db.execute("REINDEX")
    return True


def analyze(_work, db, _rng):
    db.execute("ANALYZE")
    return True


def drop_column(_work, db, _rng):
    """SQLite writes the whole table anew."""
    with transaction(db):
        db.execute("ALTER TABLE attachment ADD COLUMN gone INTEGER DEFAULT 7")
        db.execute("ALTER TABLE attachment DROP COLUMN gone")
    return True


def checkpoint(_work, db, _rng):
    """Stock SQLite moves its WAL into the database, Tideline its journal."""
    db.execute("PRAGMA wal_checkpoint").fetchall()
    return False


# What is drawn, and how often each.
KINDS = {
    sign_up: 14, edit: 16, trade: 14, leave: 4, replace: 8, write: 10, talk: 8, attach: 7, patch: 7, undo: 3,
    savepoints: 4, stumble: 3, fall: 3, owe: 2, bulk: 1, change_schema: 3, shrink: 1,
}
# What comes a few times, spread over the run, whatever else is drawn.
SELDOM = {vacuum: 2, rewrite: 4, purge: 4, reindex: 2, analyze: 2, drop_column: 2, checkpoint: 16}


class Workload:
    def __init__(self, db, seed, steps):
        self.db, self.seed, self.words = db, seed, database.Words(seed)
        self.seldom = {}
        for kind, times in SELDOM.items():
            for n in range(times):
                at = int(steps * (n + 0.5) / times)
                while at in self.seldom:
                    at += 1
                self.seldom[at] = kind

    def kind(self, step):
        drawn = random.Random(f"kind {self.seed} {step}").choices(list(KINDS), list(KINDS.values()))
        return self.seldom.get(step, drawn[0])

    def step(self, step):
        """Does one; gives its name, and whether it committed."""
        kind = self.kind(step)
        return kind.__name__, kind(self, self.db, random.Random(f"step {self.seed} {step}"))

    def some(self, rng, table, key="id"):
        """A key that is there, whatever has been deleted."""
        (last,) = self.db.execute(f"SELECT max({key}) FROM {table}").fetchone()
        at = rng.randint(1, last)
        query = f"SELECT {key} FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT 1"
        return self.db.execute(query, (at,)).fetchone()[0]

    def customer(self, rng):
        return self.some(rng, "customer")

    def next(self, table):
        return self.db.execute(f"SELECT ifnull(max(id), 0) + 1 FROM {table}").fetchone()[0]
