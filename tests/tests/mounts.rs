//! File systems in trouble, as the system itself makes it: mounted for reading only, remounted so while a database is
//! open, full. They are mounted in a namespace of the test's own, which takes root's rights.

use tideline_tests::{Host, skipped};

/// Runs a script on each host, on the first with all cases, and tells where it had no right to mount anything.
fn each_mounted(script: &str) {
    Host::each(|host, scratch| {
        let cases = if host == Host::System { "all" } else { "few" };
        let output = host.python(scratch, script, &[cases]);
        let printed = output.ok();
        if let Some((_, why)) = printed.split_once("SKIPPED: ") {
            skipped(why.trim());
        }
    });
}

/// A file system that may only be read: a database at rest is read; one whose journal is ahead is refused until it can be
/// recovered.
const READ_ONLY: &str = r#"
from mounts import *
private()
mount("-t", "tmpfs", "none")
# A process keeps a descriptor of a database that it had open for writing.
peer = Peer(NAME)
life = Life(peer)
peer.kill()
remount("ro")
here = Here(NAME)
life.judge(here)
assert "readonly" in fails(lambda: here.execute(insert(1001)))
here.close()
remount("rw")
peer = Peer(NAME)
life.goes_on([peer])
peer.kill()
remount("ro")
for _ in range(2):
    refused("DENIED", lambda: connect(NAME))
remount("rw")
life.goes_on_alone(Here(NAME))
"#;

#[test]
fn where_nothing_may_be_written_what_is_at_rest_is_read() {
    each_mounted(READ_ONLY);
}

/// What was mounted over the folder of an open database can't be written by name, while files that are open still can.
const COVERED: &str = r#"
from mounts import *
private()
mount("-t", "tmpfs", "none")
for state in ["idle", "reading", "writing", "at rest"]:
    clear_place()
    life = Life(Here(NAME))
    here, second, peer = Here(NAME), Here(NAME), Peer(NAME)
    everybody = [here, second, peer]
    life.come_to(state, everybody)
    seen = life.count
    if state == "reading":
        second.execute("BEGIN")
        life.judge(second)
    if state == "writing":
        second.execute("BEGIN")
        second.execute(insert(life.count + 1))
    assert run("mount", "--bind", PLACE, PLACE) and run("mount", "-o", "remount,bind,ro", PLACE)
    trial = Trial(life, errno.EROFS)
    if state == "writing":
        life.count += not trial.fails(lambda: second.execute("COMMIT"))
        if second.db.in_transaction:
            second.execute("ROLLBACK")
    trial.work(here)
    trial.work(peer)
    if state == "reading":
        life.judge(second, seen)
        second.execute("COMMIT")
    life.judge(second)
    assert trial.errors
    unmount()
    life.goes_on(everybody)
    for connection in everybody:
        connection.close()
    peer.kill()
    life.goes_on_alone(Here(NAME))
"#;

#[test]
fn a_folder_that_becomes_read_only_is_written_again_when_it_can_be() {
    each_mounted(COVERED);
}

/// A file system that has found an error, and doesn't write any more: what was acknowledged with synchronous=FULL is
/// found when it has been mounted again.
const ERRORED: &str = r#"
from mounts import *
private()
mount_ext4(48)
for state in ["idle", "reading", "writing", "spilled", "at rest"] if ALL else ["spilled"]:
    peer, second, newcomer = Peer(NAME), Peer(NAME), Peer(NAME)
    life = Life(peer)
    everybody = [second, peer]
    for connection in everybody:
        # Not everywhere the default.
        connection.execute("PRAGMA synchronous = FULL")
        if state == "at rest":
            life.judge(connection)
        else:
            life.commit(connection, 3)
    seen = life.count
    if state == "reading":
        second.execute("BEGIN")
        life.judge(second)
    if state in ["writing", "spilled"]:
        second.execute("PRAGMA cache_size = 10")
        second.execute("BEGIN")
        second.execute(insert(life.count + 1))
        if state == "spilled":
            second.execute("CREATE TABLE u AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                           "WHERE i < 500) SELECT i, randomblob(2000) FROM n")
    has_an_error()
    trial = Trial(life, errno.EROFS)
    if state == "reading":
        life.judge(second, seen)
        second.execute("COMMIT")
    if state in ["writing", "spilled"]:
        assert trial.fails(lambda: second.execute("COMMIT"))
        # SQLite has done so by itself.
        assert "no transaction" in fails(lambda: second.execute("ROLLBACK"))
    for connection in everybody:
        assert trial.fails(lambda: life.commit(connection))
        life.judge(connection)
        for sql in COMMANDS:
            trial.fails(lambda: connection.execute(sql))
        life.judge(connection)
    trial.fails(lambda: newcomer.execute("SELECT count(*) FROM t"))
    for connection in everybody:
        connection.close()
    for process in [peer, second, newcomer]:
        process.kill()
    unmount()
    # 1: it has mended something.
    assert subprocess.run(["fsck.ext4", "-p", "image"], stdout=subprocess.DEVNULL).returncode in [0, 1]
    mount_image()
    last = Peer(NAME)
    found = last.execute("SELECT count(*) FROM t")[0][0]
    # The commit whose fsync failed may be there.
    assert found in [life.count, life.count + 1], (state, found, life.count)
    life.count = found
    life.goes_on_alone(last)
    last.kill()
    clear_place()
unmount()
"#;

#[test]
fn a_file_system_with_an_error_takes_nothing_that_was_on_the_disk() {
    each_mounted(ERRORED);
}

/// A full file system, with more or less room left; what is in memory alone makes room for what was reserved as well.
const FULL: &str = r#"
from mounts import *
private()
mount("-t", "tmpfs", "-o", "size=24m", "none")
peer = Peer(NAME)
for spare in [0, 20_000, 1 << 20, 5 << 20] if ALL else [20_000]:
    for state in ["new", "idle", "reading", "at rest"]:
        clear_place()
        if state == "new":
            fill(spare)
            Trial(None, errno.ENOSPC).fails(lambda: Life(peer))
            peer.close()
            os.remove(f"{PLACE}/filler")
            peer.execute("DROP TABLE IF EXISTS t")
            Life(peer).goes_on_alone(peer)
            continue
        life = Life(Here(NAME))
        here, second = Here(NAME), Here(NAME)
        everybody = [here, second, peer]
        for connection in everybody:
            if state == "at rest":
                life.judge(connection)
            else:
                life.commit(connection, 2)
        seen = life.count
        if state == "reading":
            second.execute("BEGIN")
            life.judge(second)
        fill(spare)
        trial = Trial(life, errno.ENOSPC)
        for connection in [here, peer]:
            trial.work(connection)
            # Much at once, which must be taken back.
            trial.fails(lambda: connection.execute(
                "CREATE TABLE u AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                "WHERE i < 4000) SELECT i, randomblob(2000) FROM n"))
            trial.work(connection)
        if state == "reading":
            life.judge(second, seen)
            second.execute("COMMIT")
        life.judge(second)
        assert trial.errors
        os.remove(f"{PLACE}/filler")
        life.goes_on(everybody)
        for connection in everybody:
            connection.close()
        life.goes_on_alone(Here(NAME))
peer.kill()
"#;

#[test]
fn a_full_file_system_is_told_of_and_nothing_is_lost() {
    each_mounted(FULL);
}

/// A folder that is a remote, on a disk that is full, or is mounted for reading only.
const REMOTE: &str = r#"
from mounts import *
private()
mount("-t", "tmpfs", "-o", "size=4m", "none")
source = connect("source.db")
source.execute("CREATE TABLE t(x)")
folder = os.path.abspath(PLACE)
push = lambda: one(source, "SELECT tide_push()")
told = lambda: one(source, "SELECT last_error FROM tide_remotes")
remount("ro")
refused("DENIED", lambda: one(source, "SELECT tide_remote('origin', ?)", f"file://{folder}"))
refused("DENIED", lambda: one(source, "SELECT tide_remote('origin', ?)", f"file://{folder}/below"))
remount("rw")
one(source, "SELECT tide_remote('origin', ?)", f"file://{folder}/below")
assert push() == 1
source.execute("INSERT INTO t VALUES (randomblob(100000))")
fill(0)
assert "make room" in refused("FULL", push)
assert "FULL" in told()
os.remove(f"{PLACE}/filler")
assert push() == 2
remount("ro")
assert push() == one(source, "SELECT tide_pull()") == 2
source.execute("INSERT INTO t VALUES (1)")
assert "mounted" in refused("DENIED", push)
assert "DENIED" in told()
remount("rw")
assert push() == 3 and told() is None
"#;

#[test]
fn a_remote_whose_disk_is_full_or_read_only_says_so() {
    each_mounted(REMOTE);
}
