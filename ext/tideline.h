/*
** Tideline, linked into a program.
**
** Tideline is a journaled page store for SQLite: a database that is opened through its VFS keeps every commit as an
** entry of a journal, which can be shipped to another machine and replayed there. Ordinary SQL stays what it is.
**
** Linking
** -------
** libtideline.a calls SQLite by name, and brings none: link it with the SQLite that the program uses anyway, 3.34.1
** or newer, thread-safe and compiled without SQLITE_OMIT_COMPILEOPTION_DIAGS, behind it on the command line:
**
**     cc program.c -I. libtideline.a -lsqlite3 -lpthread -ldl -lm
**     cc program.c -I. libtideline.a sqlite3.c -lpthread -ldl -lm
**
** By its name, not as -ltideline: linkers take libtideline.so for that, which only a SQLite can load.
**
** A program must have one SQLite only. If it loads extensions too, it must not load libtideline.so as well.
**
** Use
** ---
** Call an entry point once, with three null pointers, before the first database is opened:
**
**     sqlite3_tideline_init(0, 0, 0);
**     sqlite3_open_v2("file:app.db?vfs=tideline", &db,
**                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0);
**
** From then on every connection of the process has the functions (SELECT tide_version()). A connection that was open
** before gets them by a call with its handle: sqlite3_tideline_init(db, &message, 0).
** sqlite3_auto_extension((void(*)(void))sqlite3_tideline_init) is harmless, but too late for the VFS of the first
** connection that is opened after it.
**
** A database of Tideline's that can't be opened for a reason of its own makes sqlite3_open_v2() fail with
** SQLITE_CANTOPEN, and sqlite3_errmsg() has the reason. sqlite3_close() must still be called, as always.
*/
#ifndef TIDELINE_H
#define TIDELINE_H

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_api_routines;

/*
** Registers the VFS "tideline", and the functions with every connection from now on; with db too, unless it is null.
** api isn't looked at: pass a null pointer.
**
** Returns SQLITE_OK (0). Otherwise SQLITE_ERROR, and if message isn't null, *message is a text that the caller passes
** to sqlite3_free(). May be called from any thread and more than once.
*/
int sqlite3_tideline_init(struct sqlite3 *db, char **message, const struct sqlite3_api_routines *api);

/*
** The same, and makes "tideline" the default VFS: databases that are opened without ?vfs= are Tideline's too. Those of
** other connections that are open already stay what they are. For programs whose SQLite binding can't pass a URI.
*/
int sqlite3_tidelinedefault_init(struct sqlite3 *db, char **message, const struct sqlite3_api_routines *api);

#ifdef __cplusplus
}
#endif

#endif /* TIDELINE_H */
