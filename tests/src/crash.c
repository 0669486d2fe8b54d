/*
** Kills its process at a chosen one of the calls that change files: loaded before all else (LD_PRELOAD), armed by
** crash_at(n). The n-th call from then on isn't made any more. crash_left() tells how many were left.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long left = 0;

void crash_at(long n) { atomic_store(&left, n); }

long crash_left(void) { return atomic_load(&left); }

static void called(void) {
  if (atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
}

#define WATCH(type, name, parameters, arguments)                                                                       \
  type name parameters {                                                                                               \
    static type(*real) parameters;                                                                                     \
    if (!real) *(void **)(&real) = dlsym(RTLD_NEXT, #name);                                                            \
    called();                                                                                                          \
    return real arguments;                                                                                             \
  }

WATCH(ssize_t, pwrite, (int file, const void *from, size_t length, off_t at), (file, from, length, at))
WATCH(ssize_t, pwrite64, (int file, const void *from, size_t length, off64_t at), (file, from, length, at))
WATCH(int, fsync, (int file), (file))
WATCH(int, fdatasync, (int file), (file))
WATCH(int, ftruncate, (int file, off_t length), (file, length))
WATCH(int, ftruncate64, (int file, off64_t length), (file, length))
WATCH(int, unlink, (const char *path), (path))
WATCH(int, rename, (const char *from, const char *to), (from, to))
