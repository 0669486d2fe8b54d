"""What test scripts in apsw begin with: `from tide_apsw import *`."""
import os

import apsw

STOCK = os.environ.get("TIDELINE_AGAINST") == "stock"
LIBRARY = os.environ.get("TIDELINE_LIBRARY")
_loaded = False


def load():
    """Loads the library into apsw's SQLite, once."""
    global _loaded
    if not _loaded and not STOCK:
        loader = apsw.Connection(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(LIBRARY)
        loader.close()
    _loaded = True


def connect(name, parameters=""):
    """A connection through Tideline."""
    load()
    asked = "&".join(part for part in ("" if STOCK else "vfs=tideline", parameters) if part)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{name}?{asked}", flags=flags)
    connection.set_busy_timeout(60_000)
    return connection
