"""`cargo xtask soak adopt`: a large database is adopted, worked on, shipped, closed and opened again.

Three processes play two machines: `writer` and `shipper` have the first machine's database open, `replica` the
second's. A fourth does the same work in stock SQLite, which says what the content has to be, and how long it takes
there. This process tells them what to do, and compares.
"""
import sys

if sys.version_info < (3, 11):
    sys.exit("this run needs Python 3.11 or newer")
import sqlite3

if sqlite3.sqlite_version_info < (3, 35):
    sys.exit(f"this run needs SQLite 3.35 or newer; Python's sqlite3 module has {sqlite3.sqlite_version}")

import argparse
import collections
import os
import random
import shutil
import subprocess
import time
import traceback

import checks
from machine import Machine, Refused
from report import Report, megabytes

# More than there will be: the first machine keeps all history, the second what is usual.
ALL_HISTORY = "1000000 lsns"
# A blob of fewer bytes is prepared within a second, however much history there is.
SMALL = 1 << 20


class Run:
    def __init__(self, options):
        self.options, self.report = options, Report()
        self.steps, self.seed = options.transactions, options.seed
        self.rng = random.Random(f"run {self.seed}")
        self.path = {name: os.path.join(options.folder, name, "app.db") for name in ("first", "second", "stock")}
        for path in self.path.values():
            os.makedirs(os.path.dirname(path))
        self.writer = self.shipper = self.replica = self.stock = None
        # What the steps said, here and in stock SQLite; numbers of those that had company; contents by LSN.
        self.done, self.stock_done, self.disturbed, self.remembered = [], [], set(), {}
        # By kind of shipment: blobs, bytes, seconds of preparing and of receiving, the longest preparing.
        self.shipped = collections.defaultdict(lambda: [0, 0, 0.0, 0.0, 0.0])
        self.slowest = 0.0

    def start(self, name, library=True):
        machine = Machine(self.path[name], self.options.library if library else None, self.seed, self.steps)
        machine.ask("open")
        return machine

    # Phases, in their order.

    def generate(self):
        path = self.path["first"]
        Machine(path, None, self.seed, self.steps).die("generate", self.options.megabytes)
        self.report.check("the application died with commits in its WAL", checks.bytes_of(f"{path}-wal") > 0)
        for end in ("", "-wal"):
            shutil.copyfile(path + end, self.path["stock"] + end)
        self.report.note(f"{megabytes(checks.bytes_of(path))}, WAL {megabytes(checks.bytes_of(path + '-wal'))}")
        self.original = checks.stock(self.path["stock"], checks.content)
        self.report.equal("stock SQLite finds it sound", checks.stock(self.path["stock"], checks.faults), [])

    def adopt(self):
        path, report = self.path["first"], self.report
        self.writer = Machine(path, self.options.library, self.seed, self.steps)
        report.note(f"opened in {self.writer.ask('open'):.3f} s")
        report.equal("it has LSN 1", self.writer.ask("lsn"), 1)
        self.same("its content is what stock SQLite had", self.writer.ask("call", "content"), self.original)
        report.equal("stock SQLite's WAL is gone", [e for e in ("-wal", "-shm") if os.path.exists(path + e)], [])
        self.writer.one("SELECT tide_retain(?)", ALL_HISTORY)
        self.shipper = self.start("first")

    def first_shipment(self):
        """The full image, in pieces, to an empty file; the receiving process dies between them, and in one."""
        report = self.report
        self.replica = self.start("second")
        # Some dozens of pieces, whatever the size.
        self.shipper.ask("pieces", 0, min(4 << 20, self.options.megabytes << 14))
        number = size = 0
        while (piece := self.shipper.ask("piece")[0]) is not None:
            number += 1
            size += len(piece)
            if number == 5:
                self.replica.kill()
                self.replica = self.start("second")
            if number == 9:
                self.replica.tell("receive", piece)
                time.sleep(0.005)
                self.replica.kill()
                self.replica = self.start("second")
            reached = self.replica.ask("receive", piece)[0]
        report.note(f"{number} pieces, {megabytes(size)}")
        report.equal("the replica has LSN 1", reached, 1)
        self.compare_heads("after the first shipment")

    def work(self):
        """Stretches of work, each shipped in one of several ways, with incidents between them."""
        incidents = [
            (0.2, self.refusals),
            (0.3, self.remember),
            (0.4, self.writer_dies),
            (0.5, self.remember),
            (0.6, self.all_die),
            (0.7, self.rest_between),
            (0.8, self.fold_and_compact),
            (0.9, self.remember),
        ]
        self.stock = self.start("stock", library=False)
        ways = (self.ship_single, self.ship_whole, self.ship_limited, self.ship_pieces, self.ship_live)
        # Short enough for some stretches between one incident and the next.
        longest = max(5, min(150, self.steps // 20))
        step = stretch = 0
        while step < self.steps:
            if incidents and step >= incidents[0][0] * self.steps:
                incidents.pop(0)[1]()
            held = stretch % 5 == 2
            if held:  # a reader on each side, for as long as the stretch takes
                self.shipper.ask("hold")
                self.replica.ask("hold")
            way = ways[stretch % len(ways)] if stretch < len(ways) else self.rng.choice(ways)
            last = min(self.steps, step + self.rng.randint(5, 20 if way == self.ship_single else longest))
            way(step, last)
            # At about the same time, because a disk isn't equally fast at all times.
            self.stock_done += self.stock.ask("steps_between", step, last)
            if held:
                for side, machine in (("first", self.shipper), ("second", self.replica)):
                    what = f"{side}: a reader kept its snapshot over steps {step} to {last - 1}"
                    self.report.check(what, machine.ask("release"), quietly=True)
            step, stretch = last, stretch + 1
            self.compare_heads(f"after step {step}", quietly=True)
        quick = self.slowest < 1
        self.report.check("no blob below a megabyte took a second to prepare", quick, f"{self.slowest:.2f} s")
        self.report.note(f"{stretch} stretches, each compared by LSN and checksum; snapshots held over every fifth")

    def compare(self):
        report = self.report
        first, second = self.writer.ask("call", "content"), self.replica.ask("call", "content")
        self.same("both have the same rows", first, second)
        self.same("stock SQLite has them too, after the same work", first, self.stock.ask("call", "content"))
        self.stock.leave()
        self.final = first
        for name, machine in (("first", self.writer), ("second", self.replica)):
            report.equal(f"{name}: integrity_check, foreign_key_check, full text", machine.ask("call", "faults"), [])
            report.equal(f"{name}: tide_verify", machine.ask("call", "findings"), [])
        self.compare_heads("at the end")
        logs = [{row[1]: row[5] for row in m.ask("call", "log") if row[5]} for m in (self.writer, self.replica)]
        common = logs[0].keys() & logs[1].keys()
        wrong = [lsn for lsn in common if logs[0][lsn] != logs[1][lsn]]
        report.check(f"{len(common)} LSNs are in both logs with a checksum, and agree", common and not wrong, wrong)
        self.log = self.writer.ask("call", "log")
        report.equal("the log goes from LSN 1 to the head", (self.log[0][0], self.log[-1][1]), (1, self.head()))
        gaps = [b[0] for a, b in zip(self.log, self.log[1:]) if b[0] != a[1] + 1]
        report.equal("without a gap", gaps, [])
        report.note(f"first: {self.writer.ask('status')}")
        report.note(f"second: {self.replica.ask('status')}")
        self.sizes("before they are closed")

    def rest(self):
        """All are closed: both files are plain SQLite, page by page the same."""
        report = self.report
        self.close_all()
        for name in ("first", "second"):
            path = self.path[name]
            report.equal(f"{name}: a plain file, no WAL or journal beside it", checks.not_at_rest(path), [])
            report.equal(f"{name}: the shell finds it sound", self.shell(path, "PRAGMA integrity_check;"), "ok\n")
            report.equal(f"{name}: stock SQLite finds it sound", checks.stock(path, checks.faults), [])
            self.same(f"{name}: it has all that was committed", checks.stock(path, checks.content), self.final)
            # Reading by stock SQLite must have left nothing either.
            report.equal(f"{name}: still plain", checks.not_at_rest(path), [])
        differing = checks.pages_that_differ(self.path["first"], self.path["second"])
        report.check("the two files are the same, page by page", not differing, differing[:20])
        self.sizes("at rest")

    def reopen(self):
        """History is still there, in a process that knows nothing yet."""
        report, path = self.report, self.path["first"]
        count = "SELECT min(first_lsn), max(last_lsn), count(*), tide_lsn() FROM tide_log;"
        expected = f"1|{self.log[-1][1]}|{len(self.log)}|{self.log[-1][1]}\n"
        report.equal("the shell with Tideline finds all of the log", self.shell(path, count, tideline=True), expected)
        self.open_all()
        report.check("the log is the same, row by row", self.writer.ask("call", "log") == self.log)
        for lsn, content in self.remembered.items():
            try:
                self.same(f"content at LSN {lsn}", self.writer.ask("past", lsn), content)
            except Refused as refusal:
                unbuilt = "isn't built yet" in str(refusal)
                report.check(f"content at LSN {lsn}: reading the past isn't built yet", unbuilt, refusal)
        for name, machine in (("first", self.writer), ("second", self.replica)):
            report.equal(f"{name}: tide_verify", machine.ask("call", "findings"), [])
        # Old history can still be shipped.
        lsn = self.log[len(self.log) // 2][1]
        report.check(f"what is behind LSN {lsn} can be prepared", self.shipper.ask("prepare", lsn, 1 << 20)[0])

    def afterwards(self):
        """Life goes on: work, a change by stock SQLite, less history, and back to plain SQLite."""
        report, path = self.report, self.path["first"]
        self.writer.ask("query", "UPDATE customer SET notes = 'later' WHERE id % 7 = 0")
        self.ship(self.writer.ask("prepare", self.replica.ask("lsn")), "afterwards")
        self.compare_heads("after more work")

        plain = os.path.join(self.options.folder, "exported.db")
        report.equal("an export has the head's LSN", self.writer.one("SELECT tide_export(?)", plain), self.head())
        self.same("and its content", checks.stock(plain, checks.content), self.writer.ask("call", "content"))

        before = self.head()
        self.close_all()
        self.shell(path, "UPDATE product SET title = 'by stock SQLite' WHERE stock % 11 = 0;")
        self.open_all()
        report.equal("a change by stock SQLite is one LSN", self.head(), before + 1)
        report.equal("of origin external", self.writer.ask("call", "log")[-1][7], "external")
        self.refused("TRIMMED", "what is before it", self.shipper, "prepare", before)
        self.shipper.ask("pieces", 0, 8 << 20)
        while (made := self.shipper.ask("piece"))[0] is not None:
            self.ship(made, "full again")
        self.compare_heads("after a full image over what was there")

        # Without history to keep, what is in the segment in use goes when the database comes to rest.
        self.writer.ask("query", "UPDATE customer SET notes = notes || '.' WHERE id % 13 = 0")
        self.writer.one("SELECT tide_retain('none')")
        self.close_all()
        self.open_all()
        report.equal("history is given up", self.writer.ask("status")["horizon"], self.head())
        report.equal("first: tide_verify", self.writer.ask("call", "findings"), [])
        content = self.writer.ask("call", "content")
        self.shipper.leave()
        self.writer.one("SELECT tide_detach()")
        self.writer.leave()
        self.replica.leave()
        report.check("detached, its folder is gone", not os.path.exists(f"{path}-tide"), f"{path}-tide")
        self.same("and it has its content", checks.stock(path, checks.content), content)
        report.equal("in a sound file", checks.stock(path, checks.faults), [])

    def ratios(self):
        """How long the kinds of work took here and there."""
        print(f"\n  {'kind':<16}{'times':>6}{'Tideline':>12}{'stock WAL':>12}{'ratio':>8}")
        pairs = collections.defaultdict(list)
        for (number, kind, ours, _), (_, _, theirs, _) in zip(self.done, self.stock_done):
            alone = number not in self.disturbed
            pairs[kind, alone].append((ours, theirs))
            pairs["all of them", alone].append((ours, theirs))
        for (kind, alone), times in sorted(pairs.items(), key=lambda item: (not item[0][1], item[0])):
            # Most kinds come often enough to be judged by those that ran alone.
            if alone or (kind, True) not in pairs:
                ours, theirs = (sum(side) for side in zip(*times))
                line = f"  {kind:<16}{len(times):>6}{ours:>10.2f} s{theirs:>10.2f} s{ours / theirs:>8.2f}"
                print(line if alone else f"{line}   while it was shipped")

    # Ways to ship what steps `first` to `last` - 1 do.

    def ship_single(self, first, last):
        for step in range(first, last):
            self.done += self.writer.ask("steps_between", step, step + 1)
            self.ship_rest("single")

    def ship_whole(self, first, last):
        self.done += self.writer.ask("steps_between", first, last)
        self.ship_rest("whole")

    def ship_limited(self, first, last):
        self.done += self.writer.ask("steps_between", first, last)
        limit = self.rng.choice((1, 64 << 10, 1 << 20))
        while self.ship(self.shipper.ask("prepare", self.replica.ask("lsn"), limit), "limited"):
            pass

    def ship_pieces(self, first, last):
        self.done += self.writer.ask("steps_between", first, last)
        self.shipper.ask("pieces", self.replica.ask("lsn"), self.rng.choice((64 << 10, 1 << 20)))
        while self.ship(self.shipper.ask("piece"), "pieces"):
            pass

    def ship_live(self, first, last):
        """While the work goes on."""
        self.disturbed.update(range(first, last))
        self.writer.tell("steps_between", first, last)
        while not self.writer.ready():
            if not self.ship(self.shipper.ask("prepare", self.replica.ask("lsn"), 4 << 20), "live"):
                time.sleep(0.01)
        self.done += self.writer.answer()
        self.ship_rest("live")

    def ship_rest(self, how):
        """All that the replica hasn't got, in one blob."""
        self.ship(self.shipper.ask("prepare", self.replica.ask("lsn")), how)

    def ship(self, made, how):
        blob, preparing = made
        if blob is None:
            return False
        _, receiving = self.replica.ask("receive", blob)
        totals = self.shipped[how]
        for n, amount in enumerate((1, len(blob), preparing, receiving)):
            totals[n] += amount
        totals[4] = max(totals[4], preparing)
        if len(blob) < SMALL:
            self.slowest = max(self.slowest, preparing)
        return True

    # Incidents.

    def refusals(self):
        """Blobs that can't be applied change nothing; one that has been applied doesn't either."""
        report, lsn = self.report, self.replica.ask("lsn")
        # Two commits that cancel each other out, so that stock SQLite needn't do them too.
        for change in (1, -1):
            self.writer.ask("query", "UPDATE product SET stock = stock + ? WHERE sku < 'sku-01'", (change,))
        blob, later = self.shipper.ask("prepare", lsn)[0], self.shipper.ask("prepare", lsn + 1)[0]
        self.refused("GAP", "a blob behind a gap", self.replica, "receive", later)
        damaged = bytearray(blob)
        damaged[len(damaged) * 2 // 3] ^= 1
        self.refused("DAMAGED", "a damaged blob", self.replica, "receive", bytes(damaged))
        self.refused("DAMAGED", "half a blob", self.replica, "receive", blob[: len(blob) // 2])
        report.equal("nothing of them arrived", self.replica.ask("lsn"), lsn)
        for again in ("is received", "is received twice without harm"):
            report.equal(f"the sound one {again}", self.replica.ask("receive", blob)[0], lsn + 2)
        self.compare_heads("after refusals")

    def remember(self):
        """The content at this LSN, to be found again later."""
        content = self.remembered[self.head()] = self.writer.ask("call", "content")
        for name, machine in (("second", self.replica), ("stock SQLite", self.stock)):
            self.same(f"{name} has the same rows at LSN {self.head()}", content, machine.ask("call", "content"))

    def writer_dies(self):
        """In a large transaction, while another process has the database open."""
        before = self.head()
        self.writer.die("die_writing")
        self.report.equal("the writer died: the head stays", self.shipper.ask("lsn"), before)
        self.writer = self.start("first")
        self.same_as_replica("the writer died: nothing of its transaction is there")

    def all_die(self):
        """Stock SQLite refuses what is left, and the next one who opens it finds every commit."""
        before = self.head()
        self.shipper.kill()
        self.writer.die("die_writing")
        said = self.shell(self.path["first"], "SELECT count(*) FROM sqlite_schema;")
        self.report.check("all died: stock SQLite refuses the file", "file is not a database" in said, said)
        self.writer = self.start("first")
        self.report.equal("all died: the head is found again", self.head(), before)
        self.shipper = self.start("first")
        self.same_as_replica("all died: so is the content")

    def rest_between(self):
        self.close_all()
        for name in ("first", "second"):
            self.report.equal(f"{name}: plain at rest, in between", checks.not_at_rest(self.path[name]), [])
        differing = checks.pages_that_differ(self.path["first"], self.path["second"])
        self.report.check("the two files are the same, in between", not differing, differing[:20])
        self.open_all()

    def fold_and_compact(self):
        """The first machine merges what is between two contents that are to be found again, the second all it can."""
        below, above = sorted(self.remembered)[:2]
        ranges = ((below + 1, above), (None, None))
        for name, machine, merged in zip(("first", "second"), (self.writer, self.replica), ranges):
            began = time.perf_counter()
            self.report.equal(f"{name}: tide_fold reaches the head", machine.one("SELECT tide_fold()"), self.head())
            folded = time.perf_counter()
            freed = machine.one("SELECT tide_compact(?, ?)", *merged)
            self.report.note(
                f"{name}: folded in {folded - began:.2f} s, compacted in {time.perf_counter() - folded:.2f} s, "
                f"{megabytes(freed)} freed"
            )
            self.report.equal(f"{name}: tide_verify", machine.ask("call", "findings"), [])
        self.compare_heads("after tide_compact")

    # What they are made of.

    def head(self):
        return self.writer.ask("lsn")

    def same(self, what, one, other):
        difference = checks.difference(one, other)
        self.report.check(what, not difference, difference)

    def same_as_replica(self, what):
        self.same(what, self.writer.ask("call", "content"), self.replica.ask("call", "content"))

    def compare_heads(self, when, quietly=False):
        """LSN and rolling checksum of both heads."""
        first, second = self.writer.ask("call", "checksum"), self.replica.ask("call", "checksum")
        good = first == second and first[1] is not None
        self.report.check(f"{when}: LSN and checksum are the same", good, (first, second), quietly)

    def refused(self, code, what, machine, *request):
        try:
            machine.ask(*request)
            self.report.check(f"{what} is refused", False, "it was not")
        except Refused as refusal:
            self.report.check(f"{what} is refused: {code}", f"tideline: {code}: " in str(refusal), refusal)

    def open_all(self):
        began = time.perf_counter()
        self.writer = self.start("first")
        self.report.note(f"first opened in {time.perf_counter() - began:.2f} s, with the start of its process")
        self.shipper, self.replica = self.start("first"), self.start("second")

    def close_all(self):
        seconds = [machine.leave() for machine in (self.shipper, self.writer, self.replica)]
        self.report.note(f"closed: first in {seconds[1]:.2f} s, second in {seconds[2]:.2f} s")

    def shell(self, path, sql, tideline=False):
        """What the sqlite3 shell prints, errors included."""
        opening = f".open '{path}'\n"
        if tideline:
            opening = f".load {self.options.library}\n.open 'file:{path}?vfs=tideline'\n"
        # Without the user's own settings.
        environment = {**os.environ, "HOME": self.options.folder}
        ran = subprocess.run(
            ["sqlite3", "-batch"], input=opening + sql + "\n", capture_output=True, text=True, env=environment
        )
        return ran.stdout + ran.stderr

    def sizes(self, when):
        for name in ("first", "second"):
            base, side = checks.bytes_of(self.path[name]), checks.bytes_of(self.path[name] + "-tide")
            self.report.note(f"{when}: {name} {megabytes(base)}, its folder {megabytes(side)}")

    def summary(self):
        self.ratios()
        commits = sum(committed for *_, committed in self.done)
        print(f"\n{len(self.done)} transactions, {commits} of them committed; {self.log[-1][1]} LSNs, "
              f"{len(self.log)} entries at the end of the work; seed {self.seed}")
        print(f"  {'shipped':<16}{'blobs':>6}{'size':>12}{'preparing':>12}{'longest':>12}{'receiving':>12}")
        for how, (count, size, preparing, receiving, longest) in self.shipped.items():
            times = f"{preparing:>10.2f} s{longest:>10.2f} s{receiving:>10.2f} s"
            print(f"  {how:<16}{count:>6}{megabytes(size):>12}{times}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("library")
    parser.add_argument("--megabytes", type=int, required=True)
    parser.add_argument("--transactions", type=int, required=True)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    run = Run(parser.parse_args())
    print(f"seed {run.seed}, in {run.options.folder}")
    phases = [
        ("generating the database with stock SQLite", run.generate),
        ("adopting it", run.adopt),
        ("shipping all of it to the second machine", run.first_shipment),
        ("working and shipping", run.work),
        ("comparing both", run.compare),
        ("closed: plain SQLite", run.rest),
        ("opened again", run.reopen),
        ("afterwards", run.afterwards),
    ]
    try:
        for name, phase in phases:
            with run.report.phase(name):
                phase()
        run.summary()
    except Exception:
        # A request that should have succeeded: what follows has nothing to stand on.
        run.report.check(f"{name} comes to its end", False, traceback.format_exc())
    run.report.close()
    return 1 if run.report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
