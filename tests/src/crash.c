/*
** Kills its process at a chosen one of the calls that change files: loaded before all else (LD_PRELOAD), armed by
** crash_at(n). The n-th call from then on isn't made any more, by whichever thread, nor is any after it.
** crash_disarmed() tells how many were left, and doesn't return if there were none.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

/* Calls that may still be made, and one; 0 when not armed, and DYING from the call on that isn't made. */
static atomic_long left = 0;
#define DYING (-1)

static void die(void) {
  kill(getpid(), SIGKILL);
  /* The signal may reach another thread first. */
  for (;;) pause();
}

void crash_at(long n) { atomic_store(&left, n); }

long crash_disarmed(void) {
  long before = atomic_load(&left);
  do {
    if (before == DYING) die();
  } while (!atomic_compare_exchange_weak(&left, &before, 0));
  return before;
}

static void called(void) {
  long before = atomic_load(&left);
  do {
    if (before == 0) return;
    if (before == DYING) die();
  } while (!atomic_compare_exchange_weak(&left, &before, before == 1 ? DYING : before - 1));
  if (before == 1) die();
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
WATCH(int, link, (const char *from, const char *to), (from, to))
WATCH(int, linkat, (int in, const char *from, int into, const char *to, int flags), (in, from, into, to, flags))
