/* What a function of the core answers. Zero is success; full, busy and retry are results, not errors.
 * Only fastps/_core/status.pxi turns these codes into exceptions. */
#ifndef FPS_STATUS_H
#define FPS_STATUS_H

typedef enum fps_status {
    FPS_OK = 0,
    FPS_BUSY,          /* the lock is held and the caller did not want to wait */
    FPS_TIMEOUT,       /* the deadline passed while another process held what was needed */
    FPS_INTERRUPTED,   /* the caller's `interrupted` callback asked to stop */
    FPS_ALREADY,       /* this (session, sequence number) has been applied before */
    FPS_CLOSED,        /* the owner closed the arena */
    FPS_OWNER_DIED,    /* the process that owns the arena is gone */
    FPS_FULL,          /* every session seat, or every rank, is held by a live process */
    FPS_PROCESS_FULL,  /* this process holds as many life locks as the kernel would hand over at its death */
    FPS_EXPELLED,      /* the others went on without this worker */
    FPS_MIXED,         /* shards are at different rounds: look again which round has closed */
    FPS_BAD_DECISION,  /* a message names a worker that cannot be */
    FPS_HELD,          /* every version of the parameters is held by somebody */
    FPS_TABLE_FULL,    /* a table has as many rows as it may have */
    FPS_NOT_ABANDONED, /* the session to adopt, or the arena to retire, still has a live owner */
    FPS_NO_MEMORY,     /* the kernel could not allocate the arena */
    FPS_TRUNCATED,     /* the file is smaller than its header says */
    FPS_BAD_MAGIC,     /* not an arena */
    FPS_BAD_VERSION,   /* an arena of another format version */
    FPS_BAD_HEADER,    /* checksum, sizes or offsets do not add up */
    FPS_WRONG_ARENA,   /* an arena, but not the one that was asked for */
    FPS_NOT_READY,     /* the creator has not finished */
    FPS_BROKEN_LOCK,   /* a lock was left unrecoverable */
    FPS_SYSTEM         /* a system call failed; errno says which way */
} fps_status;

#endif
