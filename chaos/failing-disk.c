/*
 * Loaded into the server under test by LD_PRELOAD: makes its system calls fail as a broken disk and a used-up quota do.
 * Only files below CHAOS_FOLDER fail. What fails stands in the four bytes of the file CHAOS_DISK, which is mapped:
 *   0  the errno of reads, 0 for none
 *   1  the errno of writes, 0 for none
 *   2  'b' for blobs and spools alone, 'm' for the metadata alone, anything else for both
 *   3  how many calls succeed before one fails
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile unsigned char *control;
static const char *folder;
static atomic_uint calls;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CHAOS_DISK");
  folder = getenv("CHAOS_FOLDER");
  if (!path || !folder) return;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, 4, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) control = mapped;
}

static int concerns(const char *path) {
  if (!folder || strncmp(path, folder, strlen(folder)) != 0) return 0;
  int metadata = strstr(path, "/meta.db") != NULL;
  int blobs = strstr(path, "/blobs/") != NULL || strstr(path, "/spool/") != NULL;
  if (control[2] == 'b') return blobs;
  if (control[2] == 'm') return metadata;
  return blobs || metadata;
}

/* The errno with which a call about this path fails now; 0 when it succeeds. */
static int failure(int which, const char *path) {
  if (!control || control[which] == 0 || !concerns(path)) return 0;
  if (atomic_fetch_add(&calls, 1) % (control[3] + 1u) != control[3]) return 0;
  return control[which];
}

static int failure_of(int which, int file) {
  char link[64], path[4096];
  if (!control || control[which] == 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return failure(which, path);
}

#define FAILING(type, name, which, file, parameters, arguments)  \
  type name parameters {                                         \
    static type(*real) parameters;                               \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
    int code = failure_of(which, file);                          \
    if (code) {                                                  \
      errno = code;                                              \
      return -1;                                                 \
    }                                                            \
    return real arguments;                                       \
  }

FAILING(ssize_t, read, 0, file, (int file, void *bytes, size_t size), (file, bytes, size))
FAILING(ssize_t, pread64, 0, file, (int file, void *bytes, size_t size, off64_t at), (file, bytes, size, at))
FAILING(ssize_t, readv, 0, file, (int file, const struct iovec *parts, int count), (file, parts, count))
FAILING(ssize_t, preadv64, 0, file, (int file, const struct iovec *parts, int count, off64_t at), (file, parts, count, at))
FAILING(ssize_t, write, 1, file, (int file, const void *bytes, size_t size), (file, bytes, size))
FAILING(ssize_t, pwrite64, 1, file, (int file, const void *bytes, size_t size, off64_t at), (file, bytes, size, at))
FAILING(ssize_t, writev, 1, file, (int file, const struct iovec *parts, int count), (file, parts, count))
FAILING(ssize_t, pwritev64, 1, file, (int file, const struct iovec *parts, int count, off64_t at), (file, parts, count, at))
FAILING(int, fsync, 1, file, (int file), (file))
FAILING(int, fdatasync, 1, file, (int file), (file))
FAILING(int, ftruncate64, 1, file, (int file, off64_t size), (file, size))

/* Only creating a file needs space. */
#define OPENING(name)                                                              \
  int name(const char *path, int flags, ...) {                                     \
    static int (*real)(const char *, int, ...);                                    \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);    \
    va_list more;                                                                  \
    va_start(more, flags);                                                         \
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;                      \
    va_end(more);                                                                  \
    int code = flags & O_CREAT && access(path, F_OK) != 0 ? failure(1, path) : 0;  \
    if (code) {                                                                    \
      errno = code;                                                                \
      return -1;                                                                   \
    }                                                                              \
    return real(path, flags, mode);                                                \
  }

OPENING(open)
OPENING(open64)
