/* Deaths at a chosen instruction: a child is traced, runs one instruction at a time, and is killed. */
#ifndef FPS_STEP_H
#define FPS_STEP_H

#include <sys/ptrace.h>

#include "check.h"

#define LOOKS 5u /* instructions between two looks */

/* In the child: from here on its parent counts instructions. */
static inline void be_stepped(void)
{
    CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
    kill(getpid(), SIGSTOP);
}

/* Runs `act` in a child until it was stepped so often, and kills it there. Answers how many steps there were, if it
 * came to its end. `between` looks at what everybody can see. */
static inline uint64_t step_and_kill(void (*act)(void *), void *argument, uint64_t steps, void (*between)(void *))
{
    int status;
    pid_t pid = start_process(act, argument);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    for (uint64_t step = 0; step < steps; step++) {
        if (between && step % LOOKS == 0) between(argument);
        CHECK_EQ(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            CHECK_EQ(WEXITSTATUS(status), 0);
            return step;
        }
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    }
    kill_process(pid);
    return steps;
}

#endif
