/*
** Lets a chosen call of a process fail: loaded before all else (LD_PRELOAD), armed by fault_arm(). From then on calls
** of one kind on files whose paths have a part in common are counted, by whichever thread they are made; the n-th of
** them fails, and those behind it too if it is to last. fault_disarm() tells how many there were, fault_struck() how many
** failed. fault_memory() lets SQLite's own allocations be calls of the kind "memory".
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a failing call does instead of returning an error. */
#define SHORT (-1) /* It moves one byte less than it was asked to, once; of one byte, none less. */
#define TORN (-2)  /* A write moves half of its bytes, and the next on that kind finds no space. */

static char kind[16];
static char part[256];
static long wanted;
static int fault;
static int lasts;
static atomic_int armed;
static atomic_long calls;
static atomic_long struck;
/* The errors are the library's own business while it asks for a name. */
static __thread int inside;

/* Calls of `of` on paths that contain `on`, from the `n`-th on: it fails with `error`, and all behind it if `keeps`. */
void fault_arm(const char *of, const char *on, long n, int error, int keeps) {
  atomic_store(&armed, 0);
  snprintf(kind, sizeof kind, "%s", of);
  snprintf(part, sizeof part, "%s", on);
  wanted = n;
  fault = error;
  lasts = keeps;
  atomic_store(&calls, 0);
  atomic_store(&struck, 0);
  atomic_store(&armed, 1);
}

long fault_disarm(void) {
  atomic_store(&armed, 0);
  return atomic_load(&calls);
}

long fault_struck(void) { return atomic_load(&struck); }

/* Counts a call that concerns us; true if it is to fail. */
static int counted(void) {
  long n = atomic_fetch_add(&calls, 1) + 1;
  int strikes = lasts ? n >= wanted : n == wanted || (fault == TORN && wanted > 0 && n == wanted + 1);
  if (strikes) atomic_fetch_add(&struck, 1);
  return strikes;
}

static int concerns(const char *of) { return atomic_load(&armed) && !inside && strcmp(kind, of) == 0; }

/* The same for what the symbolic link `link` leads to. */
static int strikes_link(const char *link) {
  char path[4096];
  inside = 1;
  ssize_t length = readlink(link, path, sizeof path - 1);
  inside = 0;
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, part) ? counted() : 0;
}

static int strikes_path(const char *of, const char *path) {
  if (!concerns(of)) return 0;
  if (strncmp(path, "/proc/self/fd/", 14) == 0) return strikes_link(path);
  return strstr(path, part) ? counted() : 0;
}

static int strikes_file(const char *of, int file) {
  if (!concerns(of)) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  return strikes_link(link);
}

static int refused(void) {
  errno = fault == TORN ? ENOSPC : fault;
  return -1;
}

#define REAL(type, name, parameters)                                                                                   \
  static type(*real) parameters;                                                                                       \
  if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, #name)

#define WATCH(type, name, of, strikes, what, parameters, arguments, refusal)                                           \
  type name parameters {                                                                                               \
    REAL(type, name, parameters);                                                                                      \
    if (strikes(of, what)) return refusal;                                                                             \
    return real arguments;                                                                                             \
  }

#define WATCH_MOVE(name, of, buffer, offset)                                                                           \
  ssize_t name(int file, buffer bytes, size_t length, offset at) {                                                     \
    REAL(ssize_t, name, (int, buffer, size_t, offset));                                                                \
    if (!strikes_file(of, file)) return real(file, bytes, length, at);                                                 \
    if (fault == SHORT) return real(file, bytes, length > 1 ? length - 1 : length, at);                                \
    if (fault == TORN && atomic_load(&calls) == wanted && length > 1) return real(file, bytes, length / 2, at);        \
    return refused();                                                                                                  \
  }

WATCH_MOVE(pread, "pread", void *, off_t)
WATCH_MOVE(pread64, "pread", void *, off64_t)
WATCH_MOVE(pwrite, "pwrite", const void *, off_t)
WATCH_MOVE(pwrite64, "pwrite", const void *, off64_t)

WATCH(int, fsync, "fsync", strikes_file, file, (int file), (file), refused())
WATCH(int, fdatasync, "fsync", strikes_file, file, (int file), (file), refused())
WATCH(int, sync_file_range, "sync_range", strikes_file, file, (int file, off64_t at, off64_t length, unsigned flags),
      (file, at, length, flags), refused())
WATCH(int, ftruncate, "ftruncate", strikes_file, file, (int file, off_t length), (file, length), refused())
WATCH(int, ftruncate64, "ftruncate", strikes_file, file, (int file, off64_t length), (file, length), refused())
WATCH(int, fallocate, "fallocate", strikes_file, file, (int file, int mode, off_t at, off_t length),
      (file, mode, at, length), refused())
WATCH(int, fallocate64, "fallocate", strikes_file, file, (int file, int mode, off64_t at, off64_t length),
      (file, mode, at, length), refused())
WATCH(void *, mmap, "mmap", strikes_file, file, (void *to, size_t length, int may, int flags, int file, off_t at),
      (to, length, may, flags, file, at), (refused(), MAP_FAILED))
WATCH(void *, mmap64, "mmap", strikes_file, file, (void *to, size_t length, int may, int flags, int file, off64_t at),
      (to, length, may, flags, file, at), (refused(), MAP_FAILED))
WATCH(int, fstat, "stat", strikes_file, file, (int file, struct stat *to), (file, to), refused())
WATCH(int, fstat64, "stat", strikes_file, file, (int file, struct stat64 *to), (file, to), refused())
WATCH(int, stat, "stat", strikes_path, path, (const char *path, struct stat *to), (path, to), refused())
WATCH(int, stat64, "stat", strikes_path, path, (const char *path, struct stat64 *to), (path, to), refused())
WATCH(int, unlink, "unlink", strikes_path, path, (const char *path), (path), refused())
WATCH(int, rmdir, "unlink", strikes_path, path, (const char *path), (path), refused())
WATCH(int, rename, "rename", strikes_path, to, (const char *from, const char *to), (from, to), refused())
WATCH(int, mkdir, "mkdir", strikes_path, path, (const char *path, mode_t mode), (path, mode), refused())
WATCH(int, chmod, "chmod", strikes_path, path, (const char *path, mode_t mode), (path, mode), refused())
WATCH(DIR *, opendir, "opendir", strikes_path, path, (const char *path), (path), (refused(), NULL))

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to) {
  REAL(int, statx, (int, const char *, int, unsigned, struct statx *));
  /* Without a path the caller only asks whether there is such a call; the header says that nobody does. */
  const char *volatile given = path;
  int strikes = given && (given[0] ? strikes_path("stat", given) : strikes_file("stat", folder));
  return strikes ? refused() : real(folder, path, flags, mask, to);
}

#define WATCH_OPEN(name)                                                                                               \
  int name(const char *path, int flags, ...) {                                                                         \
    REAL(int, name, (const char *, int, ...));                                                                         \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                          \
    va_end(rest);                                                                                                      \
    const char *of = flags & O_CREAT ? "create" : (flags & O_ACCMODE) == O_RDONLY ? "open" : "open_write";             \
    return strikes_path(of, path) ? refused() : real(path, flags, mode);                                               \
  }

WATCH_OPEN(open)
WATCH_OPEN(open64)

#define WATCH_FCNTL(name)                                                                                              \
  int name(int file, int what, ...) {                                                                                  \
    REAL(int, name, (int, int, ...));                                                                                  \
    va_list rest;                                                                                                      \
    va_start(rest, what);                                                                                              \
    void *argument = va_arg(rest, void *);                                                                             \
    va_end(rest);                                                                                                      \
    int locks = what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW ||                  \
                what == F_GETLK || what == F_OFD_GETLK;                                                                \
    return locks && strikes_file("lock", file) ? refused() : real(file, what, argument);                               \
  }

WATCH_FCNTL(fcntl)
WATCH_FCNTL(fcntl64)

/* The methods of SQLite's allocator; see sqlite3_mem_methods. */
struct allocator {
  void *(*give)(int);
  void (*take)(void *);
  void *(*change)(void *, int);
  int (*size)(void *);
  int (*round)(int);
  int (*begin)(void *);
  void (*end)(void *);
  void *data;
};

static struct allocator own;

static void *give(int bytes) { return concerns("memory") && counted() ? NULL : own.give(bytes); }

static void *change(void *old, int bytes) { return concerns("memory") && counted() ? NULL : own.change(old, bytes); }

/* Stands between a SQLite that isn't initialized, or not any more, and its allocator; `config` is its sqlite3_config(). */
int fault_memory(int (*config)(int, ...)) {
  enum { MALLOC = 4, GETMALLOC = 5 };
  int code = config(GETMALLOC, &own);
  if (code != 0) return code;
  static struct allocator failing;
  failing = own;
  failing.give = give;
  failing.change = change;
  return config(MALLOC, &failing);
}
