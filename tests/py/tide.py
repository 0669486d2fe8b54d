"""What test scripts in Python begin with: `from tide import *`."""
import json
import os
import sqlite3
import sys
import time
import uuid

STOCK = os.environ.get("TIDELINE_AGAINST") == "stock"
LIBRARY = os.environ.get("TIDELINE_LIBRARY")
_loaded = False


def load():
    """Loads the library into this process, once."""
    global _loaded
    if not _loaded and not STOCK:
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(LIBRARY)
        loader.close()
    _loaded = True


def uri(name, **parameters):
    """The URI of a database in the test's folder."""
    if not STOCK:
        parameters = {"vfs": "tideline", **parameters}
    asked = "&".join(f"{key}={value}" for key, value in parameters.items())
    return f"file:{name}?{asked}" if asked else f"file:{name}"


def connect(name, timeout=60.0, **parameters):
    """A connection through Tideline, in autocommit mode: transactions are the script's own affair."""
    load()
    return sqlite3.connect(
        uri(name, **parameters), uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )


def become_nobody():
    """Gives up root's rights where the script has them: permissions don't bind root."""
    load()
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def one(connection, sql, *arguments):
    """The single value that a query gives."""
    return connection.execute(sql, arguments).fetchone()[0]


def fails(action, *parts):
    """Runs something that SQLite must refuse with a text that has these parts, and gives the text."""
    try:
        result = action()
    except sqlite3.Error as error:
        for part in parts:
            assert part in str(error), f"no {part!r} in {error!s}"
        return str(error)
    raise AssertionError(f"not refused, but {result!r}")


def refused(code, action):
    """Runs something that Tideline must refuse with this code, a cause and a remedy, and gives the text."""
    text = fails(action, f"tideline: {code}: ")
    cause, separator, remedy = text.split(f"tideline: {code}: ", 1)[1].partition("; ")
    assert cause and separator and remedy, text
    return text


def bucket(endpoint=None):
    """URL of a place in the harness's bucket that nobody had before, and the options of a remote there, as JSON. The
    harness must have one; the keys are in the environment. A proxy's endpoint, or the second one, may be named."""
    options = {
        "endpoint": endpoint or os.environ["TIDELINE_S3_ENDPOINT"],
        "region": os.environ.get("AWS_REGION", "us-east-1"),
    }
    name = os.environ.get("TIDELINE_S3_BUCKET", "tideline")
    return f"s3://{name}/test-{uuid.uuid4().hex}", json.dumps(options)


def acknowledge(path, text):
    """Appends a line to a file in one system call, so that it outlives this process."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)
