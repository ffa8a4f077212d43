/*
 * Lets one system call of a process fail: number N of a kind, or has a signal come there.
 *
 * Preloaded (LD_PRELOAD) into the processes of one command. It counts, and does, nothing until
 * `faults_arm` is called: a process arms itself once Python runs (inject/sitecustomize.py).
 * The counts are in a file that all share, so that "the 7th write" is one of the whole command.
 * What Python opens to import modules is left out: its own files are no input of ours.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, MMAP, FORK, NAME, SPACE, SOCKET, MEMORY, QMP, RSP, KINDS };

static const char *const names[KINDS] = {
    "open", "read", "write", "mmap", "fork", "name", "space", "socket", "memory", "qmp", "rsp"
};

/* What one command's processes share; calls.py reads it. */
struct counts {
    atomic_ulong calls[KINDS];
    atomic_ulong failed;
};

enum { FDS = 4096, PREFIXES = 16 };

static struct counts *counts;
static atomic_int armed;
static int kind = -1, error, signal_number;
static unsigned long number;
static atomic_uchar passed_over[FDS];
static const char *prefixes[PREFIXES];

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int number_of(const char *name)
{
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

/* Begin to count in this process. Returns 0, or -1 where there is nowhere to count. */
int faults_arm(void)
{
    const char *path = getenv("FAULTS_COUNTS"), *what = getenv("FAULTS_KIND");
    char *list = getenv("FAULTS_PASS_OVER");
    int fd, i;

    if (!path || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0) return -1;
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (counts == MAP_FAILED) return -1;
    for (i = 0; what && i < KINDS; i++)
        if (!strcmp(what, names[i])) kind = i;
    number = number_of("FAULTS_NUMBER");
    error = number_of("FAULTS_ERRNO");
    signal_number = number_of("FAULTS_SIGNAL");
    for (i = 0, list = list ? strdup(list) : NULL; list && i < PREFIXES - 1; i++)
        prefixes[i] = strsep(&list, ":");
    atomic_store(&armed, 1);
    return 0;
}

/* Count a call; returns whether it is the one that fails, with errno set. */
static int fails(enum kind which)
{
    if (!atomic_load(&armed)) return 0;
    if (atomic_fetch_add(&counts->calls[which], 1) + 1 != number || (int)which != kind) return 0;
    atomic_fetch_add(&counts->failed, 1);
    if (signal_number) {
        kill(getpid(), signal_number);
        return 0;
    }
    errno = error;
    return 1;
}

/* Count a request to QEMU, which is no system call; returns whether it is the one. */
int faults_request(const char *what)
{
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(what, names[i])) return fails(i);
    return 0;
}

static int is_pythons(const char *path)
{
    for (int i = 0; prefixes[i]; i++)
        if (*prefixes[i] && !strncmp(path, prefixes[i], strlen(prefixes[i]))) return 1;
    return 0;
}

static int counted_fd(int fd)
{
    return fd < 0 || fd >= FDS || !atomic_load(&passed_over[fd]);
}

static int opened(int fd, int pythons)
{
    if (fd >= 0 && fd < FDS) atomic_store(&passed_over[fd], (unsigned char)pythons);
    return fd;
}

#define OPENING(name, declared, passed) \
    int name declared \
    { \
        mode_t mode = 0; \
        va_list rest; \
        int pythons = is_pythons(path); \
        REAL(name); \
        va_start(rest, flags); \
        if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (!pythons && fails(OPEN)) return -1; \
        return opened(real passed, pythons); \
    }

OPENING(open, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, (int dir, const char *path, int flags, ...), (dir, path, flags, mode))
OPENING(openat64, (int dir, const char *path, int flags, ...), (dir, path, flags, mode))

/* FALLIBLE: a function of this type and signature fails when a call of `which` does. */
#define FALLIBLE(which, condition, type, failure, name, declared, passed) \
    type name declared \
    { \
        REAL(name); \
        if ((condition) && fails(which)) return failure; \
        return real passed; \
    }

#define READS(name, declared, passed) \
    FALLIBLE(READ, counted_fd(fd), ssize_t, -1, name, declared, passed)
#define WRITES(name, declared, passed) \
    FALLIBLE(WRITE, counted_fd(fd), ssize_t, -1, name, declared, passed)

READS(read, (int fd, void *to, size_t n), (fd, to, n))
READS(readv, (int fd, const struct iovec *to, int n), (fd, to, n))
READS(pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
READS(pread64, (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
READS(recv, (int fd, void *to, size_t n, int flags), (fd, to, n, flags))
WRITES(write, (int fd, const void *from, size_t n), (fd, from, n))
WRITES(writev, (int fd, const struct iovec *from, int n), (fd, from, n))
WRITES(pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
WRITES(pwrite64, (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
/* A single byte is what wakes asyncio's loop, through a pair of sockets of its own. It is never
 * refused for want of space, and a loop that is not woken waits for ever. */
FALLIBLE(WRITE, counted_fd(fd) && n != 1, ssize_t, -1, send,
         (int fd, const void *from, size_t n, int flags), (fd, from, n, flags))

/* Memory without a file is the allocators': there is much of it, and it is a kind of its own. */
#define MAPS(name, offset) \
    void *name(void *at, size_t n, int access, int flags, int fd, offset from) \
    { \
        int plain = (flags & MAP_ANONYMOUS) && !(flags & MAP_SHARED); \
        REAL(name); \
        if ((plain || counted_fd(fd)) && fails(plain ? MEMORY : MMAP)) return MAP_FAILED; \
        return real(at, n, access, flags, fd, from); \
    }

MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

FALLIBLE(NAME, 1, int, -1, rename, (const char *a, const char *b), (a, b))
FALLIBLE(NAME, 1, int, -1, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b))
FALLIBLE(NAME, 1, int, -1, unlink, (const char *a), (a))
FALLIBLE(NAME, 1, int, -1, unlinkat, (int d, const char *a, int flags), (d, a, flags))
FALLIBLE(NAME, 1, int, -1, mkdir, (const char *a, mode_t mode), (a, mode))
FALLIBLE(NAME, 1, int, -1, mkdirat, (int d, const char *a, mode_t mode), (d, a, mode))
FALLIBLE(SPACE, 1, int, -1, ftruncate, (int fd, off_t n), (fd, n))
FALLIBLE(SPACE, 1, int, -1, ftruncate64, (int fd, off64_t n), (fd, n))
FALLIBLE(SPACE, 1, int, -1, fsync, (int fd), (fd))
FALLIBLE(SOCKET, 1, int, -1, socket, (int a, int b, int c), (a, b, c))
FALLIBLE(SOCKET, 1, int, -1, socketpair, (int a, int b, int c, int to[2]), (a, b, c, to))
FALLIBLE(SOCKET, 1, int, -1, pipe2, (int to[2], int flags), (to, flags))
FALLIBLE(SOCKET, 1, int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))

/* This one returns the error instead of setting it. */
int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    REAL(posix_fallocate64);
    return fails(SPACE) ? error : real(fd, at, n);
}

int close(int fd)
{
    REAL(close);
    opened(fd, 0);
    return real(fd);
}

/* A child counts nothing, unless it becomes another Python and arms itself. */
pid_t fork(void)
{
    pid_t child;
    REAL(fork);
    if (fails(FORK)) return -1;
    child = real();
    if (child == 0) atomic_store(&armed, 0);
    return child;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*work)(void *), void *it)
{
    REAL(pthread_create);
    return fails(FORK) ? error : real(thread, how, work, it);
}

/* Cannot be passed on, because it returns twice into a frame that is gone: fork does as well. */
pid_t vfork(void)
{
    return fork();
}
