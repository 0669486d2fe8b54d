"""Runs the SQL of standard input as the sqlite3 shell would: argument 1 is what it opens, 2 the library."""
import sqlite3
import sys

name, library = sys.argv[1:]


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def write_file(path, blob):
    with open(path, "wb") as file:
        return file.write(blob)


if "vfs=tideline" in name:
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(library)
connection = sqlite3.connect(name, uri=True, isolation_level=None)
connection.create_function("readfile", 1, read_file)
connection.create_function("writefile", 2, write_file)
statement = ""
for line in sys.stdin:
    statement += line
    if sqlite3.complete_statement(statement):
        for row in connection.execute(statement):
            print("|".join("" if value is None else str(value) for value in row))
        statement = ""
connection.close()
