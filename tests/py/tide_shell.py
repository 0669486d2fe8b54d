"""A stand-in for the sqlite3 shell, on whatever SQLite this Python's module has: `tide_shell.py -batch [-bail]`.

It has the dot commands that the tests use, and `writefile` and `readfile`.
"""
import re
import sqlite3
import subprocess
import sys

BAIL = "-bail" in sys.argv
# Each step of it frees a page, and the module takes one step only where there are no columns.
STEPPED = re.compile(r"\s*(PRAGMA\s+incremental_vacuum)(?:\((\d+)\))?\s*;\s*", re.IGNORECASE)
failed = False
connection = None


def write_file(path, blob):
    with open(path, "wb") as file:
        return file.write(blob)


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def close():
    global connection
    if connection is not None:
        connection.close()
        connection = None


def opened(name):
    """A connection in place of the one that was open."""
    global connection
    close()
    connection = sqlite3.connect(name, uri=True, timeout=0, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.enable_load_extension(True)
    connection.create_function("writefile", 2, write_file)
    connection.create_function("readfile", 1, read_file)
    return connection


def current():
    return connection or opened(":memory:")


def rendered(value):
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def statements(text):
    """The statements of a text, one by one."""
    start = 0
    for at, character in enumerate(text):
        if character == ";" and sqlite3.complete_statement(text[start : at + 1]):
            yield text[start : at + 1]
            start = at + 1


def words(line):
    """The words of a dot command, each of them quoted or not."""
    found, rest = [], line.strip()
    while rest:
        if rest[0] in "'\"":
            word, _, rest = rest[1:].partition(rest[0])
        else:
            word, _, rest = rest.partition(" ")
        found.append(word)
        rest = rest.strip()
    return found


def command(line):
    name, *arguments = words(line)
    if name == ".load":
        marks = ", ".join("?" for _ in arguments)
        current().execute(f"SELECT load_extension({marks})", arguments).fetchall()
    elif name == ".open":
        opened(arguments[0])
    elif name == ".timeout":
        current().execute(f"PRAGMA busy_timeout = {int(arguments[0])}").fetchall()
    elif name == ".print":
        print(" ".join(arguments), flush=True)
    elif name == ".shell":
        # By way of a shell, whose parent this process is.
        subprocess.run(line.removeprefix(".shell"), shell=True)
    else:
        raise sqlite3.Error(f"unknown command {name}")


def attempt(action):
    global failed
    try:
        action()
    except sqlite3.Error as error:
        failed = True
        print(f"Error: {error}", file=sys.stderr, flush=True)
        if BAIL:
            close()
            sys.exit(1)


def query(statement):
    stepped = STEPPED.fullmatch(statement)
    if stepped:
        (free,) = current().execute("PRAGMA freelist_count").fetchone()
        current().execute("SAVEPOINT steps")
        for _ in range(min(free, int(stepped[2] or free))):
            current().execute(stepped[1])
        current().execute("RELEASE steps")
        return
    for row in current().execute(statement):
        print("|".join(rendered(value) for value in row), flush=True)


if __name__ == "__main__":
    text = ""
    for line in sys.stdin:
        if not text.strip() and line.startswith("."):
            attempt(lambda: command(line))
            continue
        text += line
        if sqlite3.complete_statement(text):
            for statement in statements(text):
                attempt(lambda: query(statement))
            text = ""
    if text.strip():
        attempt(lambda: query(text))
    close()
    sys.exit(failed)
