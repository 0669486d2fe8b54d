//! Files that somebody moves, removes or replaces while the database is open: the side folder, each file in it, and the
//! database itself. Nothing that was acknowledged goes missing while it is still there, nothing is acknowledged into
//! files that nobody will find again, and no two processes ever commit without seeing each other.

use tideline_tests::Host;

/// Runs a script on each host: on the first with all cases, on the others with those that depend on SQLite.
fn each(script: &str) {
    Host::each(|host, scratch| {
        let cases = if host == Host::System { "all" } else { "few" };
        host.python(scratch, script, &[cases]).ok();
    });
}

/// The side folder goes while connections of two processes are in different states; it is put back while they are open,
/// or when they are closed.
const FOLDER: &str = r#"
from vanished import *
SIDE = "a.db-tide"

def change(how):
    if how == "removed":
        shutil.rmtree(SIDE)
        return
    os.rename(SIDE, "away")
    if how == "emptied":
        os.mkdir(SIDE)
    elif how == "another's":
        os.rename("b.db-tide", SIDE)

def put_back(how):
    if how == "another's":
        os.rename(SIDE, "b.db-tide")
    elif how == "emptied":
        # Whoever was refused may have made a control file.
        shutil.rmtree(SIDE)
    os.rename("away", SIDE)

peer, newcomer = Peer(), Peer()

def attempt(state, how, closed_before):
    clear()
    life = Life()
    if how == "another's":
        other = connect("b.db")
        other.execute("CREATE TABLE u(v)")
        other.executemany("INSERT INTO u VALUES (?)", [(n,) for n in range(30)])
        other.close()
        others = bytes_below("b.db-tide")
    here, second = Here(), Here()
    everybody = [here, second, peer]
    life.come_to(state, everybody)
    if state == "reading":
        here.execute("BEGIN")
        life.judge(here)
    if state == "writing":
        second.execute("BEGIN")
        second.execute(insert(1000))
    change(how)
    # A look at the names is good for 10 ms.
    time.sleep(0.02)

    for connection in [here, peer]:
        life.judge(connection)
    if state == "writing":
        refuses(second, "COMMIT")
        if second.db.in_transaction:
            second.execute("ROLLBACK")
    if state == "reading":
        here.execute("COMMIT")
    refuses(newcomer, "SELECT count(*) FROM t")
    newcomer.close()
    for level in ["FULL", "NORMAL"]:
        for connection in everybody:
            connection.execute(f"PRAGMA synchronous = {level}")
            refuses(connection, insert(1001))
            try:
                connection.execute("BEGIN IMMEDIATE")
                refuses(connection, insert(1002))
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                honest(error, "BEGIN IMMEDIATE")
    for connection in everybody:
        ask_everything(connection)
        life.judge(connection)
    # What is there can be taken away.
    second.execute("SELECT tide_export('plain.db')")
    plain = sqlite3.connect("plain.db")
    assert one(plain, "SELECT count(*) FROM t") == life.count
    plain.close()

    if not closed_before and how != "removed":
        put_back(how)
        life.goes_on(everybody)
    for connection in everybody:
        connection.close()
    if closed_before and how != "removed":
        put_back(how)
    if how == "another's":
        now = bytes_below("b.db-tide")
        changed = [name for name in now.keys() | others.keys() if now.get(name) != others.get(name)]
        assert not changed, f"written in another's folder: {changed}"
        other = connect("b.db")
        assert one(other, "SELECT sum(v) FROM u") == 435
        other.close()
    if how == "removed" and state != "at rest":
        text = refuses(newcomer, "SELECT count(*) FROM t")
        assert "a.db-tide, which is gone" in text, text
    else:
        life.goes_on([newcomer])
    newcomer.close()

for state in ["at rest", "ahead", "reading", "writing"] if ALL else ["writing"]:
    for how in ["moved", "emptied", "another's", "removed"]:
        # Nothing more depends on the transaction that was under way.
        for closed_before in [False, True] if state == "ahead" else [how == "moved"]:
            with case(state, how, f"closed before it is put back: {closed_before}"):
                attempt(state, how, closed_before)
peer.kill()
newcomer.kill()
"#;

#[test]
fn a_side_folder_that_goes_while_it_is_in_use_is_missed() {
    each(FOLDER);
}

/// One file of the side folder goes, and comes back while the database is open, or when it is closed, or never.
const FILES: &str = r#"
from vanished import *
peer, newcomer = Peer(), Peer()

def path_of(what, life):
    if what in ["control", "store"]:
        return os.path.join("a.db-tide", what)
    return life.segment(life.count if what == "active segment" else 4)

def attempt(what, back):
    clear()
    life = Life()
    here = Here()
    everybody = [here, peer]
    life.goes_on(everybody)
    if what == "segment before":
        # Longer than a segment.
        here.execute("CREATE TABLE u AS SELECT zeroblob(5000000)")
        life.goes_on(everybody)
    path = path_of(what, life)
    os.rename(path, "away")
    time.sleep(0.02)

    life.judge(here)
    life.judge(peer)
    refuses(newcomer, "SELECT count(*) FROM t")
    newcomer.close()
    if what == "segment before":
        # It is missed when the journal goes on in the next one.
        here.execute("BEGIN")
        here.execute("INSERT INTO u VALUES (zeroblob(5000000))")
        here.execute("COMMIT")
        findings = here.execute("SELECT severity, file FROM tide_verify")
        assert findings == [("error", path)], findings
    for connection in everybody:
        refuses(connection, insert(1001))
    for connection in everybody:
        # A compaction writes anew what is in the segment, for whoever has that open.
        ask_everything(connection, but="SELECT tide_compact()" if back == "never" else "")
        life.judge(connection)

    if back == "open":
        os.replace("away", path)
        life.goes_on(everybody)
    # Last the one that has read all of the journal, and has it open.
    for connection in [peer, here]:
        connection.close()
    if back == "closed":
        os.replace("away", path)
    if back == "never" and what != "control":
        refuses(newcomer, insert(1001))
        if "segment" in what:
            # It was open still, and all that was in it was folded: only history is lost.
            newcomer.close()
            shutil.rmtree("a.db-tide")
            life.goes_on([newcomer])
        newcomer.close()
    else:
        life.goes_on_alone(newcomer)

for what in ["control", "store", "active segment", "segment before"]:
    for back in ["open", "closed", "never"] if ALL else ["open"]:
        with case(what, f"comes back: {back}"):
            attempt(what, back)
peer.kill()
newcomer.kill()
"#;

#[test]
fn a_file_of_the_side_folder_that_goes_is_missed() {
    each(FILES);
}

/// The database itself goes, alone: somebody opens what is at its name then.
const BASE: &str = r#"
from vanished import *
peer, newcomer = Peer(), Peer()

def change(how):
    os.link("a.db", "away")
    if how == "copied over":
        # What the copy is marked with is what it should be, and so is all that it says of itself.
        shutil.copy("a.db", "c.db")
        os.replace("c.db", "a.db")
    else:
        os.remove("a.db")
    if how == "an empty one":
        open("a.db", "w").close()
    if how == "another's":
        stock = sqlite3.connect("a.db")
        stock.execute("CREATE TABLE u(v)")
        stock.close()

def attempt(state, how, back):
    clear()
    life = Life()
    here = Here()
    everybody = [here, peer]
    if state == "ahead":
        life.goes_on(everybody)
    for connection in everybody:
        life.judge(connection)
    change(how)
    there = os.path.exists("a.db") and open("a.db", "rb").read()
    time.sleep(0.02)

    refuses(newcomer, "SELECT count(*) FROM t")
    newcomer.close()
    for connection in everybody:
        refuses(connection, insert(1001))
        ask_everything(connection)
        life.judge(connection)
    now = os.path.exists("a.db") and open("a.db", "rb").read()
    assert now == there, "what came in its place was written"

    if back == "open":
        os.replace("away", "a.db")
        life.goes_on(everybody)
    for connection in everybody:
        connection.close()
    if back == "closed":
        os.replace("away", "a.db")
    if back != "never":
        life.goes_on_alone(newcomer)
        return
    # What was committed is in the file that was open.
    stock = sqlite3.connect("away")
    assert one(stock, "SELECT count(*) FROM t") == life.count
    stock.close()
    if how == "copied over" and state == "ahead":
        refuses(newcomer, "SELECT n, v FROM t")
    newcomer.close()

for state in ["at rest", "ahead"] if ALL else ["at rest"]:
    for how in ["removed", "an empty one", "another's", "copied over"]:
        for back in ["open", "closed", "never"] if state == "ahead" else ["closed"]:
            with case(state, how, f"comes back: {back}"):
                attempt(state, how, back)
peer.kill()
newcomer.kill()
"#;

#[test]
fn a_database_that_goes_is_missed() {
    each(BASE);
}

/// A database that was moved with its side folder, and another that began where it was; one with two names.
const ELSEWHERE: &str = r#"
from vanished import *
life = Life()
here, peer, moved = Here(), Peer(), Peer("elsewhere/a.db")
life.goes_on([here])
os.mkdir("elsewhere")
for name in ["a.db", "a.db-tide"]:
    os.rename(name, f"elsewhere/{name}")
time.sleep(0.02)
peer.execute("CREATE TABLE u(v)")
peer.execute("INSERT INTO u VALUES (7)")
before = bytes_below("a.db-tide"), open("a.db", "rb").read()
refuses(here, insert(1001))
# Who has it open where it is now shares words and files with who has it open from before.
life.goes_on([moved])
life.judge(here)
ask_everything(here)
here.close()
assert before == (bytes_below("a.db-tide"), open("a.db", "rb").read()), "another database was written"
assert peer.execute("SELECT * FROM u") == [[7]]
for other in [peer, moved]:
    other.close()
life.goes_on([moved])
moved.close()

# Two names of one file have side folders of their own, and must not be open at once.
clear()
life = Life()
here, other = Here(), Peer("b.db")
os.link("a.db", "b.db")
for state in ["at rest", "ahead"]:
    refuses(other, "SELECT count(*) FROM t")
    other.close()
    refused("MISSING", lambda: connect("b.db"))
    life.goes_on([here])
here.close()
life.goes_on([other])
for process in [peer, other, moved]:
    process.kill()
"#;

#[test]
fn a_database_that_was_moved_whole_leaves_its_place_to_another() {
    each(ELSEWHERE);
}

/// What nobody needs may go at any time: segments to be written again, those that are ready, hashes of the base.
const NEEDLESS: &str = r#"
from vanished import *
life = Life()
here, peer = Here(), Peer()
here.execute("SELECT tide_retain('none')")
here.execute("CREATE TABLE u(v)")
for connection in [here, peer]:
    connection.execute("PRAGMA synchronous = NORMAL")

def work():
    for n in range(6):
        here.execute("DELETE FROM u")
        here.execute("INSERT INTO u VALUES (zeroblob(3000000))")
        life.commit([here, peer][n % 2])

for _ in range(2):
    work()
    # The thread makes files that are needed as well, and ends when it has nothing more to do.
    while at_work([os.getpid(), peer.process.pid]):
        time.sleep(0.02)
    gone = []
    for name, content in bytes_below("a.db-tide").items():
        # A segment that is ready has no header, or that of its earlier life.
        ready = name.endswith(".seg") and int.from_bytes(content[32:40], "little") != int(name[:8], 16)
        if ready or name.endswith(".spare") or name == "hashes":
            os.remove(f"a.db-tide/{name}")
            gone.append(name)
    assert any(name.endswith(".seg") for name in gone), gone
    work()
life.goes_on([here, peer])
here.close()
peer.close()
life.goes_on_alone(peer)
peer.kill()
"#;

#[test]
fn what_nobody_needs_may_go() {
    each(NEEDLESS);
}

/// What isn't committed by SQLite alone: an entry that is received, and a transaction over two databases.
const TOGETHER: &str = r#"
from vanished import *
SIDE = "a.db-tide"
life = Life()
here, replica = Here(), Here("r.db")
give = lambda blob: here.db.execute("SELECT tide_receive(?)", (blob,)).fetchall()
replica.db.execute("SELECT tide_receive(?)", here.execute("SELECT tide_prepare(0)")[0]).fetchall()
after = one(here.db, "SELECT tide_lsn()")
replica.execute(insert(life.count + 1))
whole = replica.execute(f"SELECT tide_prepare({after})")[0][0]
pieces = [blob for _, blob in replica.execute(f"SELECT * FROM tide_batches({after}, 600)")]
os.rename(SIDE, "away")
for blob in [whole, *pieces]:
    refused("MISSING", lambda: give(blob))
assert not os.path.exists(SIDE)
os.rename("away", SIDE)
for blob in pieces:
    give(blob)
life.count += 1
life.judge(here)

here.execute("ATTACH 'file:b.db?vfs=tideline' AS b")
here.execute("CREATE TABLE b.u(v)")
for side in [SIDE, "b.db-tide"]:
    here.execute("BEGIN")
    here.execute(insert(life.count + 1))
    here.execute("INSERT INTO u VALUES (1)")
    os.rename(side, "away")
    time.sleep(0.02)
    refuses(here, "COMMIT")
    if here.db.in_transaction:
        here.execute("ROLLBACK")
    os.rename("away", side)
    life.judge(here)
    assert one(here.db, "SELECT count(*) FROM u") == 0
here.execute("BEGIN")
life.commit(here)
here.execute("INSERT INTO u VALUES (1)")
here.execute("COMMIT")
here.close()
life.goes_on_alone(Here())
"#;

#[test]
fn what_is_received_or_committed_together_needs_the_side_folder_too() {
    each(TOGETHER);
}
