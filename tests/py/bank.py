"""A worker on the bank that tests/bank.rs describes: `bank.py write|read DATABASE NAME SEED`.

It runs until it is killed, or until a file `stop` is there.
"""
import random
from tide import *

ACCOUNTS, TOTAL = 20, 20_000


def write(db, name, dice):
    """Moves money, in transactions of every kind, and acknowledges each commit in a file of its own."""
    seq = 0
    while not os.path.exists("stop"):
        kind = dice.randrange(10)
        try:
            db.execute("BEGIN" if kind < 3 else "BEGIN IMMEDIATE")
            if kind < 2:
                # Looking first: whoever commits in between makes this transaction stale.
                assert one(db, "SELECT sum(balance) FROM account") == TOTAL
            move(db, dice)
            if kind == 4:
                db.execute("ROLLBACK")
                continue
            if kind == 5:
                db.execute("SAVEPOINT s")
                db.execute("UPDATE account SET balance = 0")
                db.execute("DELETE FROM done")
                db.execute("ROLLBACK TO s")
            if kind == 6:
                db.execute("UPDATE ballast SET v = randomblob(length(v)) WHERE id % 7 = ?", (dice.randrange(7),))
            db.execute("INSERT INTO done VALUES (?, ?)", (name, seq + 1))
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            # Stale, or somebody else writes: SQLite doesn't let a transaction that has read wait for that.
            if kind >= 2 or error.sqlite_errorname not in ("SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY"):
                raise
            db.execute("ROLLBACK")
            continue
        seq += 1
        acknowledge(f"acks-{name}", seq)


def move(db, dice):
    """Money from one account to another."""
    giver, taker = dice.sample(range(1, ACCOUNTS + 1), 2)
    amount = dice.randrange(1, 50)
    db.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, giver))
    db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, taker))


def acknowledged():
    """What each writer had acknowledged when we looked."""
    for file in os.listdir("."):
        if file.startswith("acks-"):
            with open(file) as lines:
                whole = lines.read().rpartition("\n")[0]
            if whole:
                yield file.removeprefix("acks-"), int(whole.split("\n")[-1])


def read(db, _name, dice):
    """Looks for anything that no order of whole commits explains."""
    newest = {}
    look = "SELECT writer, count(*), max(seq) FROM done GROUP BY writer ORDER BY writer"
    while not os.path.exists("stop"):
        promised = dict(acknowledged())
        db.execute("BEGIN")
        first = db.execute(look).fetchall()
        seen = {writer: seq for writer, _, seq in first}
        for writer, count, seq in first:
            assert count == seq, f"{writer}: {count} commits, the newest of them {seq}"
        for writer, seq in (promised | newest).items():
            assert seen.get(writer, 0) >= seq, f"{writer}: {seq} was there, now {seen.get(writer)}"
        lsn = one(db, "SELECT tide_lsn()")
        assert one(db, "SELECT sum(balance) FROM account") == TOTAL
        if dice.randrange(10) == 0:
            assert one(db, "PRAGMA integrity_check") == "ok"
        assert db.execute(look).fetchall() == first, "a snapshot changed"
        assert one(db, "SELECT tide_lsn()") == lsn, "a snapshot has another LSN"
        db.execute("COMMIT")
        newest = seen


role, database, name, seed = sys.argv[1:]
connection = connect(database)
if role == "write":
    connection.execute("PRAGMA synchronous = " + ("FULL" if int(seed) % 2 else "NORMAL"))
    connection.execute("PRAGMA cache_size = 20")
    connection.execute("PRAGMA cache_spill = 5")
print("ready", flush=True)
{"write": write, "read": read}[role](connection, name, random.Random(int(seed)))
