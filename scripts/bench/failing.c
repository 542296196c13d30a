/* Preloaded, makes calls that write to one folder fail when told to; scripts/bench/injections.py tells it.
 *
 * cc -shared -fPIC -O2 -o failing.so failing.c -ldl
 *
 * What is told lies in memory that the bench shares with the training, so that it can be told at any moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct orders {
  int64_t calls;   /* so far */
  int64_t fails;   /* which one fails, the first is 1; 0: none */
  int64_t error;   /* with what */
  int64_t lasting; /* whether all later ones fail, too */
  int64_t failed;  /* how many did */
  char first[256]; /* the first one of these */
};

static struct orders *orders;
static char folder[PATH_MAX];

void failing_begin(struct orders *told, const char *where) {
  strncpy(folder, where, sizeof folder - 1);
  orders = told;
}

static int below(const char *path) {
  size_t length = strlen(folder);
  return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int fails(const char *name, const char *path) {
  int64_t call = __atomic_add_fetch(&orders->calls, 1, __ATOMIC_SEQ_CST), first = orders->fails;
  if (!first || call < first || (call > first && !orders->lasting)) return 0;
  if (__atomic_add_fetch(&orders->failed, 1, __ATOMIC_SEQ_CST) == 1)
    snprintf(orders->first, sizeof orders->first, "%s %s", name, path + strlen(folder));
  errno = (int)orders->error;
  return 1;
}

static int fails_at(const char *name, int handle) {
  if (!orders) return 0;
  char link[64], path[PATH_MAX];
  int before = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  if (length <= 0) return 0;
  path[length] = 0;
  return below(path) && fails(name, path);
}

static int fails_to(const char *name, const char *path) { return orders && below(path) && fails(name, path); }

#define NEXT(name) \
  static __typeof__(name) *next; \
  if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
  NEXT(write);
  return fails_at(__func__, handle) ? -1 : next(handle, data, size);
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
  NEXT(writev);
  return fails_at(__func__, handle) ? -1 : next(handle, parts, count);
}

ssize_t pwrite(int handle, const void *data, size_t size, off_t at) {
  NEXT(pwrite);
  return fails_at(__func__, handle) ? -1 : next(handle, data, size, at);
}

ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) {
  NEXT(pwrite64);
  return fails_at(__func__, handle) ? -1 : next(handle, data, size, at);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
  NEXT(fwrite);
  return fails_at(__func__, fileno(stream)) ? 0 : next(data, size, count, stream);
}

int fflush(FILE *stream) {
  NEXT(fflush);
  return stream && fails_at(__func__, fileno(stream)) ? EOF : next(stream);
}

int ftruncate(int handle, off_t size) {
  NEXT(ftruncate);
  return fails_at(__func__, handle) ? -1 : next(handle, size);
}

int ftruncate64(int handle, off64_t size) {
  NEXT(ftruncate64);
  return fails_at(__func__, handle) ? -1 : next(handle, size);
}

int fsync(int handle) {
  NEXT(fsync);
  return fails_at(__func__, handle) ? -1 : next(handle);
}

int fdatasync(int handle) {
  NEXT(fdatasync);
  return fails_at(__func__, handle) ? -1 : next(handle);
}

int rename(const char *from, const char *to) {
  NEXT(rename);
  return fails_to(__func__, to) ? -1 : next(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
  NEXT(renameat);
  return fails_to(__func__, to) ? -1 : next(from_at, from, to_at, to);
}
