#define _GNU_SOURCE
#include "life.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#define LIVES 2000u
#define SESSIONS 1900u

static const uint32_t most[] = {[FPS_LIFE_SESSION] = SESSIONS, [FPS_LIFE_MEMBER] = LIVES, [FPS_LIFE_ARENA] = LIVES};

/* `turn` lets one caller in at a time; `guard` protects the mailbox between that caller and the thread. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static struct {
    pthread_mutex_t *life; /* NULL: nothing to do */
    bool takes;
    int error;
    bool running;
    uint32_t held;
} mailbox;
static fps_word32 thread_id; /* of the life thread; 0: there is none */
static _Atomic uint32_t generation;

static int try(pthread_mutex_t *life)
{
    const int error = pthread_mutex_trylock(life);
    if (error != EOWNERDEAD) return error;
    return pthread_mutex_consistent(life);
}

static int take(pthread_mutex_t *life)
{
    const int error = try(life);
    if (error == 0) mailbox.held++;
    return error;
}

static int give(pthread_mutex_t *life)
{
    if (!fps_life_holds(life)) return EPERM;
    mailbox.held--;
    return pthread_mutex_unlock(life);
}

static void *live(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&guard);
    fps_store32_relaxed(&thread_id, (uint32_t)gettid());
    for (;;) {
        while (!mailbox.life) pthread_cond_wait(&posted, &guard);
        mailbox.error = mailbox.takes ? take(mailbox.life) : give(mailbox.life);
        mailbox.life = NULL;
        pthread_cond_signal(&done);
    }
    return NULL;
}

static void before_fork(void)
{
    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&guard);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
}

/* The child has no life thread, and cannot use a condition variable on which a vanished thread waited. */
static void after_fork_in_child(void)
{
    mailbox.running = false;
    mailbox.life = NULL;
    mailbox.held = 0;
    fps_store32_relaxed(&thread_id, 0);
    pthread_cond_init(&posted, NULL);
    pthread_cond_init(&done, NULL);
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
}

/* At load time: a fork needs the handlers even while another thread starts the life thread. */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Signals are left to the threads of the host program. */
static int start(void)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, live, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) return error;
    pthread_detach(thread);
    mailbox.running = true;
    return 0;
}

static int ask(pthread_mutex_t *life, bool takes, uint32_t limit)
{
    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&guard);
    int error = mailbox.running ? 0 : start();
    if (!error && takes && mailbox.held >= limit) error = ENOLCK;
    if (!error) {
        mailbox.life = life;
        mailbox.takes = takes;
        pthread_cond_signal(&posted);
        while (mailbox.life) pthread_cond_wait(&done, &guard);
        error = mailbox.error;
    }
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
    return error;
}

int fps_life_init(pthread_mutex_t *life) { return fps_lock_init(life); }

fps_status fps_life_take(pthread_mutex_t *life, fps_life_kind kind)
{
    const int error = ask(life, true, most[kind]);
    if (error == 0) return FPS_OK;
    if (error == EBUSY) return FPS_BUSY;
    errno = error;
    return error == ENOLCK && kind == FPS_LIFE_SESSION ? FPS_PROCESS_FULL : FPS_SYSTEM;
}

bool fps_life_give(pthread_mutex_t *life) { return fps_life_holds(life) && ask(life, false, 0) == 0; }

bool fps_life_block(pthread_mutex_t *life) { return fps_life_ended(life) && try(life) == 0; }

void fps_life_unblock(pthread_mutex_t *life) { pthread_mutex_unlock(life); }

bool fps_life_holds(const pthread_mutex_t *life)
{
    const uint32_t holder = fps_life_holder(life);
    return holder != 0 && holder == fps_load32_relaxed(&thread_id);
}

uint32_t fps_life_generation(void) { return atomic_load_explicit(&generation, memory_order_relaxed); }
