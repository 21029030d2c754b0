/* Stands between a process and its files, for tests: logs every write, sync and truncation of a database, and kills
 * the process before the n-th of them.
 *
 * SHIM_DIR      only files in this directory count
 * SHIM_LOG      where operations are logged; nothing is logged without it
 * SHIM_KILL_AT  the process dies before this operation, counted from 1
 * SHIM_TEAR     set: half of that operation is done first
 * SHIM_ERROR    set: that operation fails with this error number instead, once; a full device fails writes only
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 3 };
enum { NONE = -1, DATABASE = 0, LOG = 1, ACKS = 2 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -2;
static long done, kill_at;
static const char *dir;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);

static void begin(void) {
    if (log_fd != -2) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    dir = getenv("SHIM_DIR");
    const char *path = getenv("SHIM_LOG"), *at = getenv("SHIM_KILL_AT");
    kill_at = at ? atol(at) : 0;
    log_fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
}

static int which(int fd) {
    char link[64], path[4096];
    if (!dir) return NONE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return NONE;
    path[length] = 0;
    size_t prefix = strlen(dir);
    if (strncmp(path, dir, prefix) || path[prefix] != '/') return NONE;
    const char *name = path + prefix + 1;
    if (!strcmp(name, "windlass.db")) return DATABASE;
    if (!strcmp(name, "windlass.db-wal")) return LOG;
    if (!strcmp(name, "acks")) return ACKS;
    return NONE;
}

static void note(uint8_t kind, uint8_t file, uint64_t offset, const void *data, uint32_t length) {
    if (log_fd < 0) return;
    uint8_t head[14] = {kind, file};
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &length, 4);
    real_write(log_fd, head, sizeof head);
    if (data && length) real_write(log_fd, data, length);
}

static int is_last(int file) { return file != ACKS && kill_at && ++done == kill_at; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether the operation is to fail, with errno set. */
static int fails(int is_write) {
    const char *number = getenv("SHIM_ERROR");
    if (!number) return 0;
    if (atoi(number) == ENOSPC && !is_write) return 0;
    errno = atoi(number);
    pthread_mutex_unlock(&lock);
    return 1;
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset, int has_offset) {
    pthread_mutex_lock(&lock);
    begin();
    int file = which(fd);
    if (file != NONE) {
        if (is_last(file)) {
            if (fails(1)) return -1;
            if (getenv("SHIM_TEAR")) {
                if (has_offset) real_pwrite(fd, data, size / 2, offset);
                else real_write(fd, data, size / 2);
            }
            if (!getenv("SHIM_ERROR")) die();
        }
        note(WRITE, (uint8_t)file, (uint64_t)offset, data, (uint32_t)size);
    }
    ssize_t answer = has_offset ? real_pwrite(fd, data, size, offset) : real_write(fd, data, size);
    pthread_mutex_unlock(&lock);
    return answer;
}

ssize_t write(int fd, const void *data, size_t size) { return write_at(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset, 1); }

static int sync_with(int fd, int data_only) {
    pthread_mutex_lock(&lock);
    begin();
    int file = which(fd);
    if (file != NONE && is_last(file)) {
        if (fails(0)) return -1;
        if (!getenv("SHIM_ERROR")) die();
    }
    int answer = data_only ? real_fdatasync(fd) : real_fsync(fd);
    /* What a sync covers is certain only once it has returned. */
    if (file != NONE && answer == 0) note(SYNC, (uint8_t)file, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fsync(int fd) { return sync_with(fd, 0); }
int fdatasync(int fd) { return sync_with(fd, 1); }

static int truncate_to(int fd, off_t length) {
    pthread_mutex_lock(&lock);
    begin();
    int file = which(fd);
    if (file != NONE) {
        if (is_last(file)) {
            if (fails(0)) return -1;
            if (!getenv("SHIM_ERROR")) die();
        }
        note(TRUNCATE, (uint8_t)file, (uint64_t)length, 0, 0);
    }
    int answer = real_ftruncate(fd, length);
    pthread_mutex_unlock(&lock);
    return answer;
}

int ftruncate(int fd, off_t length) { return truncate_to(fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_to(fd, length); }
