/* What every test of the core shares: assertions, the runner, and small fixtures. A test runs in a process of its own,
 * so that one failure hides no other and every test starts without a life thread. */
#ifndef FPS_CHECK_H
#define FPS_CHECK_H

#ifndef _GNU_SOURCE
#error "a test defines _GNU_SOURCE before its first include"
#endif

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "dense.h"
#include "life.h"
#include "lock.h"
#include "session.h"
#include "status.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define CHECK_EQ(actual, expected)                                                                                     \
    check_equal(__FILE__, __LINE__, #actual, (long long)(actual), #expected, (long long)(expected))
#define CHECK_FLOAT(actual, expected) check_float(__FILE__, __LINE__, #actual, (actual), #expected, (expected))
#define TEST(function) {#function, function}

static inline _Noreturn void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: %s is false\n", file, line, condition);
    _exit(1);
}

static inline void check_equal(const char *file, int line, const char *actual_text, long long actual,
                               const char *expected_text, long long expected)
{
    if (actual == expected) return;
    fprintf(stderr, "%s:%d: %s is %lld, expected %s = %lld\n", file, line, actual_text, actual, expected_text,
            expected);
    _exit(1);
}

static inline void check_float(const char *file, int line, const char *actual_text, double actual,
                               const char *expected_text, double expected)
{
    if (actual <= expected && actual >= expected) return;
    fprintf(stderr, "%s:%d: %s is %g, expected %s = %g\n", file, line, actual_text, actual, expected_text, expected);
    _exit(1);
}

/* How much of the long tests a run does, as the tests in Python have it. */
static inline uint32_t short_or_long(uint32_t brief, uint32_t all)
{
    const char *form = getenv("FASTPS_TEST_LONG");
    return form && *form && strcmp(form, "0") != 0 ? all : brief;
}

static inline int count_open_files(void)
{
    int n = 0;
    DIR *files = opendir("/proc/self/fd");
    CHECK(files != NULL);
    while (readdir(files)) n++;
    closedir(files);
    return n;
}

static inline int count_mapped_arenas(void)
{
    int n = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps)) n += strstr(line, "memfd:fastps") != NULL;
    fclose(maps);
    return n;
}

#ifdef __SANITIZE_THREAD__
/* gcc 12's ThreadSanitizer does not see pthread_mutex_clocklock, and then misses that the lock is held. */
int pthread_mutex_clocklock(pthread_mutex_t *lock, clockid_t clock, const struct timespec *until)
{
    struct timespec now;
    clock_gettime(clock, &now);
    int64_t left = (until->tv_sec - now.tv_sec) * INT64_C(1000000000) + until->tv_nsec - now.tv_nsec;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t end = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + left;
    return pthread_mutex_timedlock(lock, &(struct timespec){end / 1000000000, end % 1000000000});
}
#endif

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

static inline void run_in_this_process(const test *t)
{
    int files = count_open_files();
    alarm(60); /* a test that hangs is a failure with a name */
    t->run();
    CHECK_EQ(count_open_files(), files);
    CHECK_EQ(count_mapped_arenas(), 0);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static inline int run_tests(const test *tests, size_t n)
{
    int failures = 0;
    for (size_t i = 0; i < n; i++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            run_in_this_process(&tests[i]);
            exit(0);
        }
        int status = -1;
        waitpid(pid, &status, 0);
        if (status == 0) continue;
        failures++;
        fprintf(stderr, "FAILED %s (%s %d)\n", tests[i].name, WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    printf("  %zu passed, %d failed\n", n - (size_t)failures, failures);
    return failures != 0;
}

/* Another process. It ends with 0 when `body` returns. */
static inline pid_t start_process(void (*body)(void *), void *argument)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60); /* a forked child inherits no alarm */
        body(argument);
        _exit(0);
    }
    return pid;
}

static inline void expect_success(pid_t pid)
{
    int status = -1;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static inline void expect_killed(pid_t pid)
{
    int status = -1;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGKILL);
}

static inline void kill_process(pid_t pid)
{
    kill(pid, SIGKILL);
    expect_killed(pid);
}

static inline void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Memory that forked processes share, zeroed. */
static inline void *share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static inline void nap_us(long us) { nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL); }

/* Simple numbers whose seed a test prints. */
static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 32) * n >> 32);
}

static inline void await(const fps_word32 *word, uint32_t at_least)
{
    while (fps_load32_acquire(word) < at_least) nap_us(100);
}

static inline fps_wait wait_ms(int64_t ms) { return (fps_wait){.deadline_ns = fps_now_ns() + ms * 1000000}; }

static inline fps_arena_spec spec_of(uint64_t params_bytes, uint64_t stripe_bytes, uint32_t n_sessions)
{
    return (fps_arena_spec){
        .arena_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
        .shard_count = 1,
        .n_sessions = n_sessions,
        .params_bytes = params_bytes,
        .stripe_bytes = stripe_bytes,
    };
}

static inline fps_arena make_arena(uint64_t params_bytes, uint64_t stripe_bytes, uint32_t n_sessions)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(params_bytes, stripe_bytes, n_sessions);
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    return arena;
}

static inline fps_arena make_arena_with_slots(uint64_t params_bytes, uint64_t stripe_bytes, uint32_t n_sessions,
                                              uint32_t n_slots)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(params_bytes, stripe_bytes, n_sessions);
    spec.n_slots = n_slots;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    return arena;
}

static inline void drop_arena(fps_arena *arena)
{
    fps_arena_retire(arena);
    fps_arena_close(arena);
}

static inline fps_status try_session(const fps_arena *arena, fps_session *session)
{
    const fps_wait wait = wait_ms(20000);
    return fps_session_open(arena, &wait, session);
}

static inline fps_status adopt_session(const fps_arena *arena, uint32_t index, fps_session *session)
{
    const fps_wait wait = wait_ms(20000);
    return fps_session_adopt(arena, index, &wait, session);
}

static inline fps_session open_session(const fps_arena *arena)
{
    fps_session session;
    CHECK_EQ(try_session(arena, &session), FPS_OK);
    return session;
}

/* Stream k grows by k + 1 gradients: every stream tells how many pushes it has seen, and none passes for another. */
#define ADDS(name, type, n_streams)                                                                                    \
    static inline int32_t name(const void *const *state, const void *grad, void *const *results, int64_t n,            \
                               int64_t ahead, const double *uniforms)                                                  \
    {                                                                                                                  \
        const type *g = grad;                                                                                          \
        (void)ahead, (void)uniforms;                                                                                   \
        for (int k = 0; k < (n_streams); k++)                                                                          \
            for (int64_t i = 0; i < n; i++)                                                                            \
                ((type *)results[k])[i] = ((const type *)state[k])[i] + (type)(k + 1) * g[i];                          \
        return 0;                                                                                                      \
    }

ADDS(add_f32, float, 1)
ADDS(add_f64, double, 1)
ADDS(add_1_f32, float, 2) /* and one slot */
ADDS(add_1_f64, double, 2)
ADDS(add_2_f32, float, 3)
ADDS(add_2_f64, double, 3)
ADDS(add_15_f32, float, 16)

/* Parameters and the first slot add up what is given; the second slot is carried along, and somebody sets it. */
static inline int32_t add_and_keep(const void *const *state, const void *grad, void *const *results, int64_t n,
                                   int64_t ahead, const double *uniforms)
{
    add_1_f32(state, grad, results, n, ahead, uniforms);
    for (int64_t i = 0; i < n; i++) ((float *)results[2])[i] = ((const float *)state[2])[i];
    return 0;
}

static inline int32_t prepare_nothing(const double *hyper, double step, double *uniforms)
{
    (void)hyper, (void)step, (void)uniforms;
    return 0;
}

static inline fps_rule rule_of(fps_kernel kernel, uint32_t n_slots)
{
    return (fps_rule){.kernel = kernel, .prepare = prepare_nothing, .n_slots = n_slots};
}

static inline fps_kind kind_of(bool pushes, bool pulls)
{
    return pushes && pulls ? FPS_PUSH_PULL : pushes ? FPS_PUSH : pulls ? FPS_PULL : FPS_REACH;
}

/* The rule that adds to all streams of an arena. */
static inline fps_rule adding_rule(const fps_arena *arena)
{
    uint32_t n_slots = arena->layout.n_slots;
    CHECK(n_slots <= 2 || n_slots == FPS_MAX_SLOTS);
    return rule_of(n_slots == 0 ? add_f32 : n_slots == 1 ? add_1_f32 : n_slots == 2 ? add_2_f32 : add_15_f32, n_slots);
}

/* An operation on one shard that is one run of float32. It is filled in place: it points into itself. */
typedef struct whole {
    fps_session *session;
    fps_span span;
    fps_rule rule;
    const void *grads[1];
    void *outs[1];
    uint32_t streams[1];
    double uniforms[FPS_UNIFORMS];
    fps_part part;
    fps_call call;
    uint32_t at;
} whole;

static inline void prepare(whole *w, fps_session *session, const float *grad, float *out)
{
    uint64_t bytes = session->arena->layout.params_bytes;
    *w = (whole){.session = session, .span = {.bytes = bytes, .item_bytes = 4}, .rule = adding_rule(session->arena)};
    w->grads[0] = grad;
    w->outs[0] = out;
    w->part = (fps_part){.session = session, .spans = &w->span, .n_spans = 1, .uniforms = w->uniforms};
    w->call = (fps_call){.kind = kind_of(grad != NULL, out != NULL),
                         .grads = grad ? w->grads : NULL,
                         .outs = out ? w->outs : NULL,
                         .rules = &w->rule,
                         .n_rules = 1,
                         .parts = &w->part,
                         .n_parts = 1,
                         .wait = {.deadline_ns = FPS_NEVER}};
}

/* The operation is about one stream: a pull of it, or a set to what would be the gradients. */
static inline void prepare_stream(whole *w, fps_session *session, uint32_t stream, const float *values, float *out)
{
    prepare(w, session, values, out);
    w->streams[0] = stream;
    w->call.streams = w->streams;
    w->call.n_streams = 1;
    w->call.kind = values ? FPS_SET : FPS_GET;
}

static inline fps_status run(whole *w) { return fps_dense_run(&w->call, &w->at); }

static inline fps_status push(fps_session *session, const float *grad)
{
    whole w;
    prepare(&w, session, grad, NULL);
    return run(&w);
}

static inline fps_status pull(fps_session *session, float *out)
{
    whole w;
    prepare(&w, session, NULL, out);
    return run(&w);
}

static inline fps_status pull_stream(fps_session *session, uint32_t stream, float *out)
{
    whole w;
    prepare_stream(&w, session, stream, NULL, out);
    return run(&w);
}

static inline fps_status set_stream(fps_session *session, uint32_t stream, const float *values)
{
    whole w;
    prepare_stream(&w, session, stream, values, NULL);
    return run(&w);
}

static inline float *filled(size_t n, float value)
{
    float *array = malloc(n * sizeof *array);
    CHECK(array != NULL);
    for (size_t i = 0; i < n; i++) array[i] = value;
    return array;
}

static inline void check_all_equal(const float *array, size_t n, float value)
{
    for (size_t i = 0; i < n; i++) {
        if (array[i] <= value && array[i] >= value) continue;
        fprintf(stderr, "element %zu of %zu: ", i, n);
        CHECK_FLOAT(array[i], value);
    }
}

#endif
