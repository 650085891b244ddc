/* Loaded into a program by LD_PRELOAD: counts its calls that make, write, sync, rename or remove something below one
 * directory, and does something at a chosen one: the process dies before or behind it, stops, or the call fails.
 *
 * The counter lies in a file that all processes map and that the environment names (FASTPS_TEST_CRASH_POINTS), so a
 * call has one number among those of all of them. `crash_points.py` writes that file; its layout is there, too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NOTHING, DIE_BEFORE, DIE_BEHIND, DIE_HALFWAY, STOP_BEFORE, FAIL, FILL, WRITE_LITTLE, FULL };
enum { PATH_BYTES = 488, MOST_CALLS = 4096 };

typedef struct call {
    int32_t pid;
    char name[20];
    char path[PATH_BYTES];
} call;

typedef struct control {
    _Atomic int64_t count; /* of calls so far */
    int64_t at;            /* the number of the call, from 1 */
    int32_t how;
    int32_t error;  /* of a call that fails */
    int32_t victim; /* who dies or is stopped; 0: who calls */
    int32_t ready;  /* what is below `root` is counted */
    char root[PATH_BYTES];
    call calls[MOST_CALLS];
} control;

static control *shared;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FASTPS_TEST_CRASH_POINTS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) shared = mapped;
    syscall(SYS_close, fd);
}

static void send(int signal_number)
{
    bool own = shared->victim == 0;
    syscall(SYS_kill, own ? getpid() : shared->victim, signal_number);
    while (own && signal_number == SIGKILL) syscall(SYS_pause);
}

static bool is_counted(const char *path)
{
    size_t length = strlen(shared->root);
    return strncmp(path, shared->root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The path of a descriptor, or of a name in a directory that has one. */
static const char *path_of(char *buffer, int fd, const char *name)
{
    if (name && (name[0] == '/' || fd == AT_FDCWD)) return name;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_BYTES - 1);
    buffer[n < 0 ? 0 : n] = 0;
    if (name && n >= 0 && (size_t)n + strlen(name) + 2 < PATH_BYTES) strcat(strcat(buffer, "/"), name);
    return buffer;
}

/* What happens at this call; before it, it happens here. */
static int enter(const char *name, int fd, const char *file)
{
    if (!shared || !shared->ready) return NOTHING;
    int before = errno;
    char buffer[PATH_BYTES];
    const char *path = path_of(buffer, fd, file);
    errno = before;
    if (!is_counted(path)) return NOTHING;
    int64_t number = atomic_fetch_add(&shared->count, 1) + 1;
    if (number <= MOST_CALLS) {
        call *c = &shared->calls[number - 1];
        c->pid = getpid();
        snprintf(c->name, sizeof c->name, "%s", name);
        snprintf(c->path, sizeof c->path, "%s", path);
    }
    if (shared->how == FILL && number > shared->at) return FULL;
    if (number != shared->at) return NOTHING;
    if (shared->how == DIE_BEFORE) send(SIGKILL);
    if (shared->how == STOP_BEFORE) send(SIGSTOP);
    return shared->how;
}

static void leave(int happens)
{
    int result = errno;
    if (happens == DIE_BEHIND || happens == DIE_HALFWAY) send(SIGKILL);
    errno = result;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A call, where `fills` says whether it needs space: one on a disk that is full fails from some moment on. */
#define CALL(type, name, fd, file, fills, ...)                              \
    do {                                                                    \
        int happens = enter(#name, fd, file);                               \
        if (happens == FAIL || ((fills) && (happens == FILL || happens == FULL))) { \
            errno = shared->error;                                          \
            return -1;                                                      \
        }                                                                   \
        type result = NEXT(name)(__VA_ARGS__);                              \
        leave(happens);                                                     \
        return result;                                                      \
    } while (0)

#define MODE(flags, mode)                                        \
    mode_t mode = 0;                                             \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                       \
        va_list arguments;                                       \
        va_start(arguments, flags);                              \
        mode = va_arg(arguments, mode_t);                        \
        va_end(arguments);                                       \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    CALL(int, open, AT_FDCWD, path, flags & O_CREAT, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    CALL(int, open64, AT_FDCWD, path, flags & O_CREAT, path, flags, mode);
}

int openat(int fd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    CALL(int, openat, fd, path, flags & O_CREAT, fd, path, flags, mode);
}

int openat64(int fd, const char *path, int flags, ...)
{
    MODE(flags, mode)
    CALL(int, openat64, fd, path, flags & O_CREAT, fd, path, flags, mode);
}

/* The call at which a disk becomes full writes half of its bytes. */
ssize_t write(int fd, const void *data, size_t n)
{
    int happens = enter("write", fd, NULL);
    if (happens == FAIL || happens == FULL) {
        errno = shared->error;
        return -1;
    }
    if (happens == DIE_HALFWAY || happens == WRITE_LITTLE || happens == FILL) n = (n + 1) / 2;
    ssize_t written = NEXT(write)(fd, data, n);
    leave(happens);
    return written;
}

int fsync(int fd) { CALL(int, fsync, fd, NULL, false, fd); }
int fdatasync(int fd) { CALL(int, fdatasync, fd, NULL, false, fd); }
int close(int fd) { CALL(int, close, fd, NULL, false, fd); }
int ftruncate(int fd, off_t n) { CALL(int, ftruncate, fd, NULL, true, fd, n); }
int rename(const char *from, const char *to) { CALL(int, rename, AT_FDCWD, from, false, from, to); }
int link(const char *from, const char *to) { CALL(int, link, AT_FDCWD, to, true, from, to); }
int mkdir(const char *path, mode_t mode) { CALL(int, mkdir, AT_FDCWD, path, true, path, mode); }
int rmdir(const char *path) { CALL(int, rmdir, AT_FDCWD, path, false, path); }
int unlink(const char *path) { CALL(int, unlink, AT_FDCWD, path, false, path); }
int unlinkat(int fd, const char *path, int flags) { CALL(int, unlinkat, fd, path, false, fd, path, flags); }

int linkat(int from_fd, const char *from, int fd, const char *to, int flags)
{
    CALL(int, linkat, fd, to, true, from_fd, from, fd, to, flags);
}
