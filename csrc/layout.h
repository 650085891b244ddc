/* Every struct that lies in shared memory. An arena is one memfd; the picture, in file order:
 *
 *      0  +------------------------------------------------------------------+
 *         | fps_header   what the arena is (immutable, checksummed)          |
 *         |              its owner's life lock, update count, counters       |
 *         |              fps_hyper[rules], versions of rounds                |
 *   8192  +------------------------------------------------------------------+
 *         | fps_table_layout[n_tables]   what each table is (immutable)      |
 *         | fps_control[n_tables]        the table's lock, index, counters   |
 *         +------------------------------------------------------------------+ a multiple of 4096
 *         | fps_seat[n_sessions]      a session: life lock, record, meters   |
 *         +------------------------------------------------------------------+
 *         | fps_stripe[n_stripes]     a robust lock, and its writer          |
 *         +------------------------------------------------------------------+
 *         | fps_board, fps_member[n_members]    clocks and rounds (shard 0)  |
 *         | fps_tray[n_members]       the record of each worker's tray       |
 *         +------------------------------------------------------------------+ at 3072 mod 4096
 *         | redo[n_sessions][redo_bytes]    results to be copied into place  |
 *         +------------------------------------------------------------------+ at 2048 mod 4096
 *         | params[params_bytes]                                             |
 *         +------------------------------------------------------------------+ at 2304 mod 4096, each next one 256 on
 *         | slots[n_slots][slot_stride]     a rule's per-parameter state     |
 *         | counts[n_leaves]     updates of each array, see csrc/rule.h     |
 *         +------------------------------------------------------------------+ fixed_bytes, a multiple of 4096
 *         | further versions of all since params, version_stride apart       |
 *         | trays[n_members][tray_stride]    a worker's gradient of a round,  |
 *         |              and how many gradients of each array are in it      |
 *         +------------------------------------------------------------------+ a multiple of 2 MiB, as are all that
 * follow | of each table: its index, twice; its rows                        |
 *         +------------------------------------------------------------------+ total_bytes, a multiple of 4096
 *
 * Everything after fixed_bytes is a hole in the file until it is needed. Versions and trays exist only where updates
 * are applied in rounds: the second version is allocated at the beginning, a third one when the one before the last is
 * pinned, a tray for its worker's first gradient. A table has address space for its maximum of rows, so when it grows
 * nothing moves and nothing is mapped again. Its memory comes in pieces of 2 MiB, which can be huge pages
 * (fps_arena_extend).
 *
 * A row of a table:      0  key
 *                        8  FPS_ROW_WORD: its lock and its sequence lock
 *                       16  tick of the last use, number of uses (in a tracked table only)
 *               head_bytes  values[dim], then each slot: dim elements, or one for the row
 *
 * Offsets, never pointers; fixed-width integers; `ready` is written last. The offsets 3072 and 2048 keep the
 * streams (user arrays, which numpy puts at 16, parameters and slots, redo blocks) apart modulo 4096: on some
 * processors a store that is a few bytes ahead of a load modulo 4096 stalls it, and such a copy is twenty times
 * slower.
 *
 * The layout of a pthread mutex is private to glibc: processes that share an arena have the same architecture and
 * generation of glibc; `mutex_bytes` in the header refuses others. */
#ifndef FPS_LAYOUT_H
#define FPS_LAYOUT_H

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "sync.h"

#define FPS_MAGIC UINT64_C(0x00315350545341ff) /* ff 'A' 'S' 'T' 'P' 'S' '1' 00 */
#define FPS_FORMAT_VERSION 11u
#define FPS_PAGE 4096u
#define FPS_HEADER_BYTES (2 * FPS_PAGE)
#define FPS_BLOCK_BYTES 4096u /* one kernel call, the unit that a death leaves whole; layout.block_bytes decides */
#define FPS_BLOCK_MAX_BYTES (2 * FPS_BLOCK_BYTES)
#define FPS_STREAM_APART 256u  /* between streams of one kind, modulo 4096 */
#define FPS_MAX_SESSIONS 2048u /* when a thread dies, the kernel hands over at most this many robust locks */
#define FPS_MAX_SLOTS 15u
#define FPS_MAX_RULES 16u
#define FPS_MAX_HYPER 16u
#define FPS_MAX_MEMBERS 256u
#define FPS_MAX_VERSIONS 16u
#define FPS_MAX_TABLES 64u
#define FPS_HUGE_PAGE (UINT64_C(2) << 20)
#define FPS_MAX_DIM 65536u
#define FPS_TICK_NS INT64_C(62500000) /* the tick of rows: 32 bits are eight years */
#define FPS_MAX_ROWS (UINT64_C(1) << 31)
#define FPS_BUCKET_BYTES 64u /* a bucket of the index: a cache line, 8 slots */
#define FPS_MIN_BUCKETS 64u
#define FPS_READY 0x52454459u

/* `current`: one word, so that readers get both atomically. */
#define FPS_CURRENT(round, version) ((uint64_t)(round) << 8 | (version))
#define FPS_CURRENT_ROUND(current) ((current) >> 8)
#define FPS_CURRENT_VERSION(current) ((uint32_t)(current) & 255u)

/* The word of a table's row, which changes atomically: its writer (seat + 1, 0: none), whether the row is free, the
 * number of writes modulo 2^31, and the table's epoch at the last one. */
#define FPS_ROW_WRITER(word) ((uint32_t)(word) & 0xfffu)
#define FPS_ROW_FREE UINT64_C(0x1000)
#define FPS_ROW_ONCE UINT64_C(0x2000) /* one write */
#define FPS_ROW_EPOCH(word) ((uint32_t)((word) >> 44))
#define FPS_ROW_LAST_EPOCH 0xfffffu
#define FPS_ROW_WORD(epoch, rest) ((uint64_t)(epoch) << 44 | ((rest) & ((UINT64_C(1) << 44) - 1)))

/* `index` of a table: its generation, the number of builds, which selects one of the two places; and its buckets. */
#define FPS_INDEX(generation, buckets) ((uint64_t)(generation) << 32 | (buckets))
#define FPS_INDEX_GENERATION(index) ((index) >> 32)
#define FPS_INDEX_BUCKETS(index) ((uint32_t)(index))

typedef enum fps_isolation {
    FPS_ISOLATION_SHARD = 0, /* an operation sees and leaves a whole number of pushes */
    FPS_ISOLATION_NONE = 1   /* Hogwild: no locks, only elements are atomic */
} fps_isolation;

/* When a worker may begin a step. */
typedef enum fps_consistency {
    FPS_ASYNC = 0, /* at any time */
    FPS_SSP = 1,   /* when the slowest live worker is at most `staleness` clocks behind */
    FPS_BSP = 2    /* when the previous round has closed; updates are applied once a round, out of place */
} fps_consistency;

/* How the gradients of a round are reduced. */
typedef enum fps_reduce {
    FPS_REDUCE_SUM = 0,
    FPS_REDUCE_MEAN = 1,  /* over the gradients, not over the workers */
    FPS_REDUCE_PARAMS = 2 /* trays hold parameters: their mean is the new parameters */
} fps_reduce;

typedef struct fps_policy {
    uint32_t kind;
    uint32_t staleness;
    uint32_t backup; /* a round closes without the last `backup` gradients */
    uint32_t quorum; /* expected workers: until this many have been live at once, progress is 0 and no round closes */
    int64_t straggler_ns; /* a worker that blocks others without a sign of life for this long is expelled; 0: never */
    uint32_t reduce;
    uint32_t unused;
} fps_policy;

/* What an arena is. Written once, checksummed, copied into private memory by fps_layout_parse. */
typedef struct fps_layout {
    uint64_t magic;
    uint32_t format_version;
    uint32_t header_bytes;
    uint64_t total_bytes;
    uint8_t arena_id[16]; /* random; handles identify the arena by it */
    uint32_t shard_index;
    uint32_t shard_count;
    uint32_t n_sessions;
    uint32_t n_stripes;
    uint64_t stripe_bytes;
    uint32_t mutex_bytes;
    uint32_t redo_bytes; /* one session's redo block: a block of each stream */
    uint64_t sessions_offset;
    uint64_t stripes_offset;
    uint64_t redo_offset;
    uint64_t params_offset;
    uint64_t params_bytes;
    uint64_t slots_offset;
    uint64_t slot_stride;
    uint32_t n_slots;
    uint32_t isolation;
    uint32_t block_bytes;
    uint32_t ahead_bytes; /* how far kernels prefetch: one block, or 0 if the caches hold the shard */
    uint32_t n_members;
    uint32_t n_versions; /* of params and slots: 1 where pushes are applied in place */
    fps_policy policy;
    uint64_t board_offset;
    uint64_t fixed_bytes;
    uint64_t version_stride;
    uint64_t trays_offset;
    uint64_t tray_stride;
    uint64_t counts_offset;
    uint32_t n_tables;
    uint32_t n_leaves; /* arrays of the server; 0: pushes are of all arrays */
    uint64_t checksum; /* FNV-1a of the bytes before it */
} fps_layout;

/* How the values of a new row are computed from (seed, key). */
typedef enum fps_initial {
    FPS_INITIAL_CONSTANT = 0, /* first */
    FPS_INITIAL_UNIFORM = 1,  /* in [first, second] */
    FPS_INITIAL_NORMAL = 2    /* of mean `first` and standard deviation `second` */
} fps_initial;

/* What a table is. Written once, checksummed, copied into private memory by fps_layout_parse. */
typedef struct fps_table_layout {
    uint32_t dim;
    uint32_t item_bytes; /* 4 or 8 */
    uint32_t n_slots;
    uint32_t row_slots; /* bit k: slot k has one value for the whole row */
    uint32_t initial;
    uint32_t tracked;    /* rows record when they were last used, and how often */
    uint32_t stored;     /* FPS_BFLOAT16 or FPS_FLOAT16: how rows hold the values of float32; 0: as they are */
    uint32_t stochastic; /* a push rounds them up or down at random, else to nearest */
    uint64_t seed;
    double first, second;
    double slots[FPS_MAX_SLOTS]; /* initial values */
    uint64_t max_rows;
    uint64_t row_bytes;
    uint64_t max_buckets;
    uint64_t control_offset;
    uint64_t index_offset; /* of the first place; the second is index_stride after it */
    uint64_t index_stride;
    uint64_t rows_offset;
    uint64_t checksum; /* FNV-1a of the bytes before it */
} fps_table_layout;

/* Hyper-parameters of a rule: the bits of doubles. A change is made in the set that is not read, and then counted. */
typedef struct fps_hyper {
    fps_word changes; /* modulo 2: which set is read */
    uint8_t pad0[56];
    fps_word sets[2][FPS_MAX_HYPER];
} fps_hyper;

typedef struct fps_header {
    fps_layout layout;
    uint8_t pad0[256 - sizeof(fps_layout)];

    /* 256: read by every operation, written twice in an arena's life */
    pthread_mutex_t owner_life; /* held by the owner for its whole life: the kernel marks the word at its death */
    fps_word32 ready;
    fps_word32 closed;
    fps_word32 owner_pid;
    uint8_t pad1[64 - sizeof(pthread_mutex_t) - 12];

    /* 320: written by every push, under the lock of stripe 0; `current` and `backed` by whoever applies a round */
    fps_word version;         /* the update count: pushes that have entered the shard */
    fps_word current;         /* FPS_CURRENT: the rounds applied, and the version that holds the result */
    fps_word32 backed;        /* bit v: version v is allocated */
    fps_word32 turn;          /* seat + 1 of the session whose turn it is to make the next version; 0: none */
    fps_word partials;        /* of `version`: pushes of some of the arrays */
    fps_word closed_until_ns; /* CLOCK_MONOTONIC; pushes of several shards that have not begun wait: cut.h. 0: no */
    uint8_t pad2[24];

    /* 384: written by recovery and by saves only */
    fps_word recovered_locks;    /* locks found abandoned by a dead process */
    fps_word interrupted_pushes; /* pushes that a death interrupted */
    fps_word interrupted_pid;    /* the last of them: its process, */
    fps_word interrupted_at;     /* and the byte of params where it stopped */
    fps_word saves;              /* of the server, that have ended: those on the node of shard 0 */
    fps_word failed_saves;
    fps_word saved_bytes; /* written by saves on this node */
    uint8_t pad3[8];

    /* 448: changed under the lock of stripe 0, read without a lock */
    fps_hyper hyper[FPS_MAX_RULES];

    /* of the versions, where updates are applied in rounds */
    fps_word updates[FPS_MAX_VERSIONS];        /* rounds with gradients of each; of an array: its counts */
    pthread_mutex_t writing[FPS_MAX_VERSIONS]; /* held by the thread that writes the version */
} fps_header;

/* Counters of a session, written only by it; kept when the seat has a new owner, so that sums only grow. */
typedef struct fps_meters {
    fps_word pulls;
    fps_word pushes;
    fps_word push_pulls;
    fps_word bytes_read;
    fps_word bytes_written;
    fps_word read_retries; /* optimistic reads that met a writer */
    fps_word lock_waits;   /* locks that were not free at the first try */
    fps_word lock_wait_ns;
    fps_word lock_sleeps; /* waits that were longer than spinning */
    fps_word skipped;     /* pushes that were not applied because a gradient was not finite */
    fps_word unused[6];
} fps_meters;

typedef enum fps_seat_state { FPS_SEAT_FREE = 0, FPS_SEAT_LIVE = 1 } fps_seat_state;

/* The seat of a session. It belongs to whoever holds `life`. */
typedef struct fps_seat {
    pthread_mutex_t life;
    fps_word32 state;
    fps_word32 pid;
    fps_word32 elsewhere; /* 1: its push entered this shard first, and may have still to enter others: cut.h */
    uint8_t pad0[64 - sizeof(pthread_mutex_t) - 12];

    /* 64: the record of the push under way */
    fps_word begun_seq;       /* sequence number of the last push begun */
    fps_word applied_seq;     /* sequence number of the last push applied completely */
    fps_word position;        /* progress of the push under way: bytes of params, or rows in the order of its keys */
    fps_word interrupted_seq; /* set by the process that recovers this session's locks */
    fps_word begun_version;   /* update count of the last push begun: a rule's `step` */
    fps_word pins;            /* bit v: this session reads version v, which must not be written meanwhile */
    fps_word redo;            /* the contents of the redo block, and whether they are complete: csrc/redo.h */
    fps_word begun_partials;  /* `partials` of the shard, that push included */

    /* 128 */
    fps_meters meters;
} fps_seat;

typedef struct fps_stripe {
    pthread_mutex_t lock;
    fps_word32 writer; /* seat + 1 of the session that pushes in this stripe; 0: none */
    uint8_t pad0[64 - sizeof(pthread_mutex_t) - 4];

    /* 64: the sequence lock, used only in shards of one stripe */
    fps_word sequence;
    uint8_t pad1[56];
} fps_stripe;

/* A worker that takes part in clocks and rounds. Its index is its rank. */
typedef enum fps_member_state {
    FPS_MEMBER_FREE = 0,
    FPS_MEMBER_HERE = 1, /* on this node: it lives while it holds `life` */
    FPS_MEMBER_AWAY = 2, /* on another node: it lives until `lease_ns` */
    FPS_MEMBER_OUT = 3   /* expelled; it still holds `life`, or died with it */
} fps_member_state;

typedef struct fps_member {
    pthread_mutex_t life;
    fps_word32 state;
    fps_word32 pid;
    uint8_t pad0[64 - sizeof(pthread_mutex_t) - 8];

    /* 64: under the board's lock */
    fps_word clock;      /* steps ended */
    fps_word given[2];   /* FPS_GIVEN, by round modulo 2 */
    fps_word generation; /* number of workers that have had this rank */
    fps_word heard_ns;   /* last sign of life, if the policy needs it; CLOCK_MONOTONIC */
    fps_word lease_ns;
    fps_word left; /* generation of the last worker that has left; may be written without the lock */
    uint8_t pad1[8];
} fps_member;

/* The round, and the number of gradients in the member's tray for it. The previous one remains readable until this
 * round closes. */
#define FPS_GIVEN(round, weight) (((uint64_t)(round) + 1) << 16 | (weight))
#define FPS_GIVEN_MAX 65535u

/* The record of a worker's tray: which gradients it holds, or receives, for a round. */
typedef struct fps_tray {
    pthread_mutex_t lock;
    uint8_t pad0[64 - sizeof(pthread_mutex_t)];

    /* 64: under the lock; readers of the tray rely on the board's decision instead */
    fps_word generation; /* of the rank when it deposited; deposits of an older one are refused */
    fps_word attempt;    /* the last complete one of that generation */
    fps_word round;
    fps_word number; /* of gradients in the tray */
    fps_word32 backed;
    uint8_t pad1[28];
} fps_tray;

typedef struct fps_board {
    pthread_mutex_t lock;
    uint8_t pad0[64 - sizeof(pthread_mutex_t)];

    /* 64: read by waiting workers */
    fps_word progress; /* SSP and async: the clock of the slowest live worker; BSP: rounds closed. Only grows. */
    fps_word32 bell;   /* a futex: changes after progress */
    fps_word32 sleepers;
    uint8_t pad1[48];

    /* 128: under the lock */
    fps_word32 started; /* the quorum of workers have been live at once */
    uint8_t pad2[4];
    fps_word progressed_ns; /* when progress last changed */
    fps_word expelled;      /* workers that died, were stopped, or whose lease ended */
    fps_word dropped;       /* gradients given after their round had closed */
    uint8_t pad3[32];
} fps_board;

/* The words of a table, one page. */
typedef struct fps_control {
    pthread_mutex_t lock; /* held to add or remove rows */
    uint8_t pad0[64 - sizeof(pthread_mutex_t)];

    /* 64: read by every operation, written with the table's lock held */
    fps_word index;           /* FPS_INDEX */
    fps_word live;            /* rows in the index */
    fps_word high;            /* rows [0, high) have been used */
    fps_word free;            /* 1 + the first free row, whose key is 1 + the next one; 0: none */
    fps_word tombstones;      /* of the index, until the next build */
    fps_word index_backed[2]; /* allocated bytes */
    fps_word rows_backed;

    /* 128: counted with the table's lock held */
    fps_word rows_created;
    fps_word rows_removed;
    fps_word rebuilt;
    fps_word created_ns; /* CLOCK_MONOTONIC: the start of the ticks */
    fps_word epoch;      /* how many scans have begun that ask what changed since: see scan.h */
    uint8_t pad1[24];

    /* 192: */
    fps_word version; /* the update count, pushes: a rule's `step` */
    uint8_t pad2[56];

    /* 256: changed with the table's lock held */
    fps_hyper hyper;
    uint8_t pad3[FPS_PAGE - 256 - sizeof(fps_hyper)];
} fps_control;

static_assert(offsetof(fps_layout, total_bytes) == 16, "layout");
static_assert(offsetof(fps_layout, arena_id) == 24, "layout");
static_assert(offsetof(fps_layout, stripe_bytes) == 56, "layout");
static_assert(offsetof(fps_layout, params_bytes) == 104, "layout");
static_assert(offsetof(fps_layout, checksum) == 240 && sizeof(fps_layout) == 248, "layout");
static_assert(offsetof(fps_header, owner_life) == 256, "header");
static_assert(offsetof(fps_header, version) == 320, "header");
static_assert(offsetof(fps_header, recovered_locks) == 384 && offsetof(fps_header, hyper) == 448, "header");
static_assert(offsetof(fps_header, updates) == 5568 && sizeof(fps_header) <= FPS_HEADER_BYTES, "header");
static_assert(offsetof(fps_hyper, sets) == 64 && sizeof(fps_hyper) == 320, "hyper-parameters");
static_assert(offsetof(fps_seat, begun_seq) == 64 && offsetof(fps_seat, meters) == 128, "seat");
static_assert(sizeof(fps_seat) == 256, "seat");
static_assert(sizeof(fps_table_layout) == 240 && offsetof(fps_table_layout, checksum) == 232, "table");
static_assert(offsetof(fps_control, index) == 64 && offsetof(fps_control, version) == 192, "control");
static_assert(offsetof(fps_control, hyper) == 256, "control");
static_assert(sizeof(fps_control) == FPS_PAGE, "control");
static_assert(FPS_MAX_SESSIONS < 0xfffu, "a seat fits a row's word");
static_assert(offsetof(fps_stripe, sequence) == 64 && sizeof(fps_stripe) == 128, "stripe");
static_assert(offsetof(fps_member, clock) == 64 && sizeof(fps_member) == 128, "member");
static_assert(offsetof(fps_tray, generation) == 64 && sizeof(fps_tray) == 128, "tray");
static_assert(FPS_MAX_VERSIONS <= 32, "versions fit the words of bits");
static_assert(offsetof(fps_board, progress) == 64 && offsetof(fps_board, started) == 128, "board");
static_assert(sizeof(fps_board) == 192, "board");

static inline uint64_t fps_page_up(uint64_t bytes) { return (bytes + FPS_PAGE - 1) / FPS_PAGE * FPS_PAGE; }
static inline uint64_t fps_line_up(uint64_t bytes) { return (bytes + 63) / 64 * 64; }
static inline uint64_t fps_huge_up(uint64_t bytes)
{
    return (bytes + FPS_HUGE_PAGE - 1) / FPS_HUGE_PAGE * FPS_HUGE_PAGE;
}

#endif
