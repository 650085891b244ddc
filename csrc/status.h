/* What functions of the core return. Zero is success; full, busy and retry are results, not errors.
 * Only fastps/_core/status.pxi turns these codes into exceptions. */
#ifndef FPS_STATUS_H
#define FPS_STATUS_H

typedef enum fps_status {
    FPS_OK = 0,
    FPS_BUSY,          /* it is held, and the caller does not wait */
    FPS_TIMEOUT,       /* the deadline passed during a wait */
    FPS_INTERRUPTED,   /* the caller's `interrupted` callback asked to stop */
    FPS_ALREADY,       /* this push of the session has been applied before */
    FPS_CLOSED,        /* the owner closed the arena */
    FPS_OWNER_DIED,    /* the process that owns the arena is gone */
    FPS_FULL,          /* every session seat, or every rank, is held by a live process */
    FPS_PROCESS_FULL,  /* this process holds as many life locks as the kernel hands over at its death */
    FPS_EXPELLED,      /* this worker was expelled */
    FPS_MIXED,         /* shards are at different rounds: get the newest decision and try again */
    FPS_BAD_DECISION,  /* a message names a rank that does not exist */
    FPS_HELD,          /* every version of the parameters is pinned, or being written */
    FPS_TABLE_FULL,    /* a table has as many rows as it may have */
    FPS_NOT_ABANDONED, /* the session to adopt, or the arena to retire, still has a live owner */
    FPS_NO_MEMORY,     /* the kernel could not allocate the arena */
    FPS_TRUNCATED,     /* the file is smaller than its header says */
    FPS_BAD_MAGIC,     /* not an arena */
    FPS_BAD_VERSION,   /* an arena of another format version */
    FPS_BAD_HEADER,    /* checksum, sizes or offsets do not add up */
    FPS_WRONG_ARENA,   /* another arena than the requested one */
    FPS_NOT_READY,     /* the creator has not finished */
    FPS_BROKEN_LOCK,   /* a lock was left unrecoverable */
    FPS_SYSTEM         /* a system call failed; see errno */
} fps_status;

#endif
