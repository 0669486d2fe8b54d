/*
** Tideline in a C program, through the static library. From the folder that `cargo xtask dist` fills:
**
**     cc -Wall -I. -o link ../../ext/examples/link.c libtideline.a -lsqlite3 -lpthread -ldl -lm
**
** or with a SQLite of the program's own, sqlite3.c in place of -lsqlite3. Then:
**
**     ./link notes.db
**
** It writes a database, ships what it holds to a copy beside it (notes.db-copy), and reads it there.
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "tideline.h"

static void stop(sqlite3 *db, const char *what) {
  fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : "out of memory");
  sqlite3_close(db);
  exit(1);
}

static sqlite3 *open_database(const char *path, const char *suffix) {
  sqlite3 *db = 0;
  char *uri = sqlite3_mprintf("file:%s%s?vfs=tideline", path, suffix);
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
  if (!uri || sqlite3_open_v2(uri, &db, flags, 0) != SQLITE_OK) stop(db, "opening the database");
  sqlite3_free(uri);
  return db;
}

static void run(sqlite3 *db, const char *sql) {
  if (sqlite3_exec(db, sql, 0, 0, 0) != SQLITE_OK) stop(db, sql);
}

static sqlite3_stmt *first_row(sqlite3 *db, const char *sql, sqlite3_value *argument) {
  sqlite3_stmt *statement = 0;
  if (sqlite3_prepare_v2(db, sql, -1, &statement, 0) != SQLITE_OK) stop(db, sql);
  if (argument) sqlite3_bind_value(statement, 1, argument);
  if (sqlite3_step(statement) != SQLITE_ROW) stop(db, sql);
  return statement;
}

int main(int count, char **arguments) {
  const char *path = count > 1 ? arguments[1] : "notes.db";
  sqlite3 *db, *copy;
  sqlite3_stmt *prepared, *received, *rows;

  if (sqlite3_tideline_init(0, 0, 0) != SQLITE_OK) stop(0, "registering Tideline");
  db = open_database(path, "");
  run(db, "CREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, body TEXT);"
          "INSERT INTO note(body) VALUES ('linked, not loaded')");

  copy = open_database(path, "-copy");
  prepared = first_row(db, "SELECT tide_prepare(0)", 0);
  received = first_row(copy, "SELECT tide_receive(?)", sqlite3_column_value(prepared, 0));
  rows = first_row(copy, "SELECT tide_version(), count(*), max(body) FROM note", 0);
  printf("Tideline %s on SQLite %s: %d notes at LSN %lld, the last of them '%s'\n",
         (const char *)sqlite3_column_text(rows, 0), sqlite3_libversion(), sqlite3_column_int(rows, 1),
         (long long)sqlite3_column_int64(received, 0), (const char *)sqlite3_column_text(rows, 2));

  sqlite3_finalize(prepared);
  sqlite3_finalize(received);
  sqlite3_finalize(rows);
  sqlite3_close(copy);
  sqlite3_close(db);
  return 0;
}
