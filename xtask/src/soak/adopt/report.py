"""Verdicts and times, printed as they come and once more in short at the end."""
import contextlib
import time


class Report:
    def __init__(self):
        self.passed, self.failed, self.times = 0, [], []

    def check(self, what, ok, detail="", quietly=False):
        """A verdict; `quietly` prints only a bad one. A failure doesn't end the run: what follows tells more."""
        if ok:
            self.passed += 1
            if not quietly:
                print(f"  ok    {what}", flush=True)
        else:
            self.failed.append(what)
            print(f"  FAIL  {what}: {str(detail)[:4000]}", flush=True)

    def equal(self, what, one, other):
        self.check(what, one == other, f"{one!r} and {other!r}")

    def note(self, text):
        print(f"        {text}", flush=True)

    @contextlib.contextmanager
    def phase(self, name):
        print(f"\n{name}", flush=True)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.times.append((name, time.perf_counter() - began))

    def close(self):
        print("\ntimes")
        for name, seconds in self.times:
            print(f"  {seconds:8.1f} s  {name}")
        print(f"\n{self.passed} checks passed, {len(self.failed)} failed")
        for what in self.failed:
            print(f"  FAIL  {what}")


def megabytes(count):
    return f"{count / (1 << 20):.1f} MB"
