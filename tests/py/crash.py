"""Dying at each call that changes files, in turn: `from crash import *`."""
import ctypes
import itertools
import os
import shutil
import sys


def preloaded(library):
    """The functions of crash.c, which has to be there before all else: this process begins anew with it."""
    # Behind what is there already: a sanitizer's library wants to be the first.
    before = os.environ.get("LD_PRELOAD", "").split(":")
    if library not in before:
        os.environ["LD_PRELOAD"] = ":".join(before + [library]).lstrip(":")
        os.execv(sys.executable, sys.orig_argv)
    return ctypes.CDLL(None)


def at_every_call(calls, work):
    """Has a child do `work(n)`, which arms `crash_at(n)`, in a copy of the folder `new`, for n from 1 on until it isn't
    killed any more. Gives each n, in that copy, when the child has gone.
    """
    for n in itertools.count(1):
        shutil.copytree("new", f"run{n}")
        os.chdir(f"run{n}")
        child = os.fork()
        if child == 0:
            try:
                work(n)
                os._exit(0 if calls.crash_disarmed() > 0 else 1)
            except BaseException as fault:
                print(repr(fault), file=sys.stderr, flush=True)
            os._exit(2)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -9), (n, status)
        yield n
        os.chdir("..")
        shutil.rmtree(f"run{n}")
        if status == 0:
            return
