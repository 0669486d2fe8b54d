/*
** speedtest1 with Tideline. Its main() is renamed when it is compiled; this one loads the library that $TIDELINE_LIBRARY
** names, if it names one, so that `--vfs tideline` is there, and goes on. Stock SQLite is measured in the same program.
** With $SPEEDTEST1_CPU the clock that it looks at, the default VFS's, is the processor time of this thread.
*/
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "sqlite3.h"

int speedtest1_main(int argc, char **argv);

static int processor_time(sqlite3_vfs *vfs, sqlite3_int64 *milliseconds){
  struct timespec t;
  (void)vfs;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  *milliseconds = (sqlite3_int64)t.tv_sec*1000 + t.tv_nsec/1000000;
  return SQLITE_OK;
}

int main(int argc, char **argv){
  const char *library = getenv("TIDELINE_LIBRARY");
  if( library ){
    sqlite3 *db = 0;
    char *error = 0;
    int rc = sqlite3_open(":memory:", &db);
    if( rc==SQLITE_OK ) rc = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if( rc==SQLITE_OK ) rc = sqlite3_load_extension(db, library, 0, &error);
    if( rc!=SQLITE_OK ){
      fprintf(stderr, "%s: %s\n", library, error ? error : sqlite3_errstr(rc));
      return 1;
    }
    /* The library stays loaded, and its VFS registered. */
    sqlite3_close(db);
  }
  if( getenv("SPEEDTEST1_CPU") ){
    sqlite3_initialize();
    sqlite3_vfs_find(0)->xCurrentTimeInt64 = processor_time;
  }
  return speedtest1_main(argc, argv);
}
