/* Makes calls fail that a program makes on its database, where it was loaded before the C library. Only calls that
   change a file or wait for the disk count: they are told apart by the file's name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the test says and is told, in a file that both have in memory. */
struct order {
    /* Which call from now on fails; 0 is none. */
    _Atomic int64_t next;
    /* Afterwards another one does, at most this much later; 0 is none. */
    _Atomic int64_t again;
    /* How many have failed. */
    _Atomic int64_t failed;
};

static struct order *order;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DATABASE_FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *order, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED) order = shared;
}

/* Whether the call on this file is to fail. */
static int fails(int file) {
    if (!order || order->next == 0) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/consign.db")) return 0;
    if (--order->next != 0) return 0;
    int64_t failed = ++order->failed;
    /* Any numbers do, if they are the same each time: the high bits of a multiplicative hash. */
    if (order->again) order->next = 1 + (int64_t)((uint64_t)failed * 0x9e3779b97f4a7c15u >> 33) % order->again;
    errno = EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t count) {
    return fails(file) ? -1 : REAL(write)(file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    return fails(file) ? -1 : REAL(pwrite64)(file, bytes, count, at);
}

int ftruncate64(int file, off64_t length) {
    return fails(file) ? -1 : REAL(ftruncate64)(file, length);
}

int fsync(int file) {
    return fails(file) ? -1 : REAL(fsync)(file);
}

int fdatasync(int file) {
    return fails(file) ? -1 : REAL(fdatasync)(file);
}
