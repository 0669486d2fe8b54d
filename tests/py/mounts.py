"""File systems that are mounted for a test, in a namespace of its own: `from mounts import *`."""
import ctypes
import errno

from vanished import *

from faults import honest  # of calls that fail, not of files that go

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000

# Where they are mounted, and what the database in them is called.
PLACE = "place"
NAME = f"{PLACE}/a.db"


def skip(why):
    """Ends the script; the harness tells."""
    print(f"SKIPPED: {why}")
    sys.exit(0)


def private():
    """From here on mounts are this process's own, and gone with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        skip(f"no mounts of its own: {os.strerror(ctypes.get_errno())}")
    os.makedirs(PLACE, exist_ok=True)


def run(*command):
    """True if it did well."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).returncode == 0


def mount(*arguments):
    """Mounts at the place."""
    if not run("mount", *arguments, PLACE):
        skip(f"no right to mount {' '.join(arguments)}")


def remount(how):
    assert run("mount", "-o", f"remount,{how}", PLACE), how


def clear_place():
    """Removes what is there."""
    for name in os.listdir(PLACE):
        remove(os.path.join(PLACE, name))


def unmount():
    assert run("umount", PLACE)


class Trial:
    """What connections are asked for while a file system is in trouble: it works, or says honestly why it doesn't."""

    def __init__(self, life, fault):
        self.life, self.fault = life, fault
        self.errors = 0

    def fails(self, action):
        """True if it did, with what SQLite and we say of such a fault."""
        try:
            action()
            return False
        except sqlite3.Error as error:
            assert honest(error, self.fault), f"{error.sqlite_errorname}: {error}"
            self.errors += 1
            return True

    def work(self, connection):
        """Everything that can be asked for. What was acknowledged counts."""
        for level in ["FULL", "NORMAL"]:
            connection.execute(f"PRAGMA synchronous = {level}")
            for _ in range(3):
                self.fails(lambda: self.life.commit(connection))
        for sql in COMMANDS:
            self.fails(lambda: connection.execute(sql))
        self.life.judge(connection)


def mount_ext4(megabytes):
    """An ext4 in a file, which is remounted read-only at the first error; gives its name in /sys/fs/ext4."""
    with open("image", "wb") as image:
        image.truncate(megabytes << 20)
    if not run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "image"):
        skip("no mkfs.ext4")
    mount_image()


def mount_image():
    mount("-o", "loop,errors=remount-ro", "image")


def has_an_error():
    """What ext4 makes of damaged metadata: everything is read-only from now on, whoever has it open."""
    device = subprocess.run(["findmnt", "-n", "-o", "SOURCE", PLACE], stdout=subprocess.PIPE, text=True).stdout.strip()
    trigger = f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error"
    if not os.path.exists(trigger):
        skip("no loop device, or a kernel without trigger_fs_error")
    with open(trigger, "w") as file:
        file.write("an error")


def fill(spare):
    """Fills the place up, but for so many bytes."""
    filler = os.open(f"{PLACE}/filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for piece in [1 << 20, 1 << 12]:
        try:
            while True:
                os.write(filler, bytes(piece))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    os.ftruncate(filler, max(0, os.fstat(filler).st_size - spare))
    os.close(filler)
