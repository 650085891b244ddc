#define _GNU_SOURCE
#include "life.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* `turn` lets one caller in at a time; `guard` protects the mailbox between that caller and the thread. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct {
    int (*call)(void *argument); /* NULL: nothing to do */
    void *argument;
    int answer;
    int error; /* errno after the call */
    bool running;
} mailbox;
static _Atomic uint32_t generation;

static void *live(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&guard);
    for (;;) {
        while (!mailbox.call) pthread_cond_wait(&posted, &guard);
        errno = 0;
        mailbox.answer = mailbox.call(mailbox.argument);
        mailbox.error = errno;
        mailbox.call = NULL;
        pthread_cond_signal(&answered);
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

/* The child has no life thread, and a condition variable that a vanished thread waited on is of no use to it. */
static void after_fork_in_child(void)
{
    mailbox.running = false;
    mailbox.call = NULL;
    pthread_cond_init(&posted, NULL);
    pthread_cond_init(&answered, NULL);
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
}

/* At load time: a fork must find the handlers even while another thread starts the life thread. */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Signals belong to the threads of the host program. */
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

int fps_life_run(int (*call)(void *argument), void *argument)
{
    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&guard);
    int error = mailbox.running ? 0 : start();
    int answer = -1;
    if (!error) {
        mailbox.call = call;
        mailbox.argument = argument;
        pthread_cond_signal(&posted);
        while (mailbox.call) pthread_cond_wait(&answered, &guard);
        answer = mailbox.answer;
        error = mailbox.error;
    }
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
    errno = error;
    return answer;
}

uint32_t fps_life_generation(void) { return atomic_load_explicit(&generation, memory_order_relaxed); }
