"""The database that the run begins with: made by stock SQLite, from a seed, of about the size that is asked for."""
import random
import sqlite3

# Expression, partial and unique indexes, tables without rowid, foreign keys: each in a table that the work changes.
TABLES = """
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT, region TEXT, balance INTEGER NOT NULL
  DEFAULT 0, notes TEXT, size INTEGER GENERATED ALWAYS AS (length(notes)) VIRTUAL);
CREATE UNIQUE INDEX customer_email ON customer(email);
CREATE INDEX customer_lower ON customer(lower(name), region);
CREATE TABLE product(sku TEXT PRIMARY KEY, title TEXT, price INTEGER, stock INTEGER) WITHOUT ROWID;
CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, customer INTEGER NOT NULL REFERENCES customer(id)
  ON DELETE CASCADE, state TEXT, total INTEGER, placed TEXT, detail TEXT);
CREATE INDEX orders_customer ON orders(customer);
CREATE INDEX orders_open ON orders(placed, customer) WHERE state = 'open';
CREATE TABLE line(orders INTEGER REFERENCES orders(id) ON DELETE CASCADE, number INTEGER, sku TEXT NOT NULL
  REFERENCES product(sku), quantity INTEGER, PRIMARY KEY(orders, number)) WITHOUT ROWID;
CREATE INDEX line_sku ON line(sku);
CREATE TABLE attachment(id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer(id) ON DELETE CASCADE
  DEFERRABLE INITIALLY DEFERRED, name TEXT, body BLOB);
CREATE INDEX attachment_customer ON attachment(customer);
CREATE TABLE document(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT, row, before, after);
CREATE VIRTUAL TABLE document_text USING fts5(title, body, content='document', content_rowid='id');
CREATE VIRTUAL TABLE message USING fts5(sender, text, prefix='2');
CREATE VIEW customer_total AS SELECT region, count(*) AS customers, sum(balance) AS balance, max(size) AS longest
  FROM customer GROUP BY region;
"""

# They come behind the bulk of the rows, which would take twice as long with them.
TRIGGERS = """
INSERT INTO document_text(document_text) VALUES ('rebuild');
CREATE TRIGGER document_inserted AFTER INSERT ON document BEGIN
  INSERT INTO document_text(rowid, title, body) VALUES (new.id, new.title, new.body); END;
CREATE TRIGGER document_deleted AFTER DELETE ON document BEGIN
  INSERT INTO document_text(document_text, rowid, title, body) VALUES ('delete', old.id, old.title, old.body); END;
CREATE TRIGGER document_updated AFTER UPDATE ON document BEGIN
  INSERT INTO document_text(document_text, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO document_text(rowid, title, body) VALUES (new.id, new.title, new.body); END;
CREATE TRIGGER customer_updated AFTER UPDATE OF name, email, balance ON customer BEGIN
  INSERT INTO audit(what, row, before, after)
  VALUES ('customer', old.id, old.name || ' ' || old.balance, new.name || ' ' || new.balance); END;
CREATE TRIGGER customer_deleted AFTER DELETE ON customer BEGIN
  INSERT INTO audit(what, row, before) VALUES ('customer', old.id, old.email); END;
CREATE TRIGGER order_inserted AFTER INSERT ON orders BEGIN
  INSERT INTO audit(what, row, after) VALUES ('order', new.id, new.state); END;
CREATE TRIGGER order_updated AFTER UPDATE OF state ON orders WHEN old.state <> new.state BEGIN
  INSERT INTO audit(what, row, before, after) VALUES ('order', old.id, old.state, new.state); END;
CREATE TRIGGER product_priced BEFORE UPDATE OF price ON product WHEN new.price < 0 BEGIN
  SELECT RAISE(ROLLBACK, 'no price is below zero'); END;
CREATE TRIGGER product_deleted AFTER DELETE ON product BEGIN
  INSERT INTO audit(what, row, before) VALUES ('product', old.sku, old.price); END;
"""

PRODUCTS = 5000
STATES = ("open", "paid", "sent", "closed")
# What a round adds: with its share of the indexes it comes to somewhat less than a megabyte.
CUSTOMERS, DOCUMENTS, MESSAGES, ATTACHMENTS = 300, 50, 100, 12


class Words:
    """Text, the same for the same seed in every process."""

    def __init__(self, seed):
        rng = random.Random(f"words {seed}")
        syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"] + ["an", "er", "is", "on", "ul"]
        self.words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(5000)]
        # Frequent words and rare ones, as in a language.
        self.weights = [1 / (n + 3) for n in range(len(self.words))]
        self.long = " ".join(rng.choices(self.words, self.weights, k=200_000))

    def word(self, rng):
        return rng.choice(self.words)

    def name(self, rng):
        return f"{rng.choice(self.words).title()} {rng.choice(self.words).title()}"

    def passage(self, rng, length):
        """About `length` characters; a slice, because choosing each word takes too long for megabytes."""
        start = rng.randrange(len(self.long) - length)
        return self.long[start : start + length]


def day(rng):
    return f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def attachment(rng):
    """Most are some pages long, a few are long chains of overflow pages, some fit into a cell."""
    largest = rng.choice((200, 3000, 10_000, 20_000, 100_000))
    return rng.randbytes(rng.randint(1, largest))


def add_customer(db, rng, words, key):
    """One customer with orders and their lines."""
    db.execute(
        "INSERT INTO customer(id, name, email, region, balance, notes) VALUES (?, ?, ?, ?, ?, ?)",
        (
            key,
            words.name(rng),
            f"{words.word(rng)}.{key}@{words.word(rng)}.example",
            f"region {rng.randint(1, 40)}",
            rng.randint(-1000, 100_000),
            words.passage(rng, rng.randint(10, 300)),
        ),
    )
    for _ in range(rng.randint(0, 5)):
        order = db.execute(
            "INSERT INTO orders(customer, state, total, placed, detail) VALUES (?, ?, ?, ?, ?)",
            (key, rng.choice(STATES), rng.randint(1, 9999), day(rng), words.passage(rng, rng.randint(0, 120))),
        ).lastrowid
        db.executemany(
            "INSERT INTO line VALUES (?, ?, ?, ?)",
            [(order, n, sku(rng.randrange(PRODUCTS)), rng.randint(1, 9)) for n in range(rng.randint(1, 5))],
        )


def sku(number):
    return f"sku-{number * 7919 % 100_003:06}"


def size(db):
    (pages,), (page_size,) = db.execute("PRAGMA page_count"), db.execute("PRAGMA page_size")
    return pages[0] * page_size[0]


def generate(path, megabytes, seed):
    """Makes the database, in WAL mode, and gives the connection that is still open on it.

    Some commits are in the WAL alone: whoever lets the process die leaves a database as a crashed application does.
    """
    rng, words = random.Random(f"generate {seed}"), Words(seed)
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
    db.executescript(TABLES)
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO product VALUES (?, ?, ?, ?)",
        [(sku(n), words.name(rng), rng.randint(1, 999), rng.randint(0, 99)) for n in range(PRODUCTS)],
    )
    db.execute("COMMIT")
    customer = 0
    while size(db) < megabytes << 20:
        db.execute("BEGIN")
        for _ in range(CUSTOMERS):
            customer += 1
            add_customer(db, rng, words, customer)
        for _ in range(DOCUMENTS):
            row = (words.name(rng), words.passage(rng, rng.randint(100, 4000)))
            db.execute("INSERT INTO document(title, body) VALUES (?, ?)", row)
        for _ in range(MESSAGES):
            row = (words.word(rng), words.passage(rng, rng.randint(20, 300)))
            db.execute("INSERT INTO message(sender, text) VALUES (?, ?)", row)
        for _ in range(ATTACHMENTS):
            row = (rng.randint(1, customer), words.word(rng), attachment(rng))
            db.execute("INSERT INTO attachment(customer, name, body) VALUES (?, ?, ?)", row)
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.executescript(f"BEGIN; {TRIGGERS} COMMIT;")
    db.execute("UPDATE customer SET balance = balance + 1 WHERE id % 50 = 0")
    return db
