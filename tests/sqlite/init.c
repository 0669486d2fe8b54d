/*
** Linked into SQLite's `testfixture` and run at the end of every sqlite3_initialize(): loads the extension that
** TIDELINE_LIBRARY names, by the entry point that makes it the default VFS. A test may shut SQLite down and
** start it again, which puts the unix VFS first and forgets all automatic extensions, and the processes that a
** test starts must have it too; hence here, and not in a script.
*/
#include "sqlite3.h"
#include <stdio.h>
#include <stdlib.h>

int tideline_init(const char *unused){
  const char *library = getenv("TIDELINE_LIBRARY");
  sqlite3 *db = 0;
  char *message = 0;
  int rc;
  (void)unused;
  if( library==0 || library[0]==0 ) return SQLITE_OK;
  rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE|SQLITE_OPEN_CREATE|SQLITE_OPEN_MEMORY, "unix");
  if( rc==SQLITE_OK ) rc = sqlite3_enable_load_extension(db, 1);
  if( rc==SQLITE_OK ) rc = sqlite3_load_extension(db, library, "sqlite3_tidelinedefault_init", &message);
  if( rc!=SQLITE_OK ) fprintf(stderr, "%s wasn't loaded: %s\n", library, message ? message : sqlite3_errstr(rc));
  sqlite3_free(message);
  sqlite3_close(db);
  return rc;
}
