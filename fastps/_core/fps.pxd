"""The declarations of csrc/*.h that the border needs."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint bool_c "bool"


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass


cdef extern from "status.h" nogil:
    ctypedef enum fps_status:
        FPS_OK
        FPS_BUSY
        FPS_TIMEOUT
        FPS_INTERRUPTED
        FPS_ALREADY
        FPS_CLOSED
        FPS_OWNER_DIED
        FPS_FULL
        FPS_PROCESS_FULL
        FPS_TABLE_FULL
        FPS_EXPELLED
        FPS_MIXED
        FPS_BAD_DECISION
        FPS_HELD
        FPS_NOT_ABANDONED
        FPS_NO_MEMORY
        FPS_TRUNCATED
        FPS_BAD_MAGIC
        FPS_BAD_VERSION
        FPS_BAD_HEADER
        FPS_WRONG_ARENA
        FPS_NOT_READY
        FPS_BROKEN_LOCK
        FPS_SYSTEM


cdef extern from "layout.h" nogil:
    ctypedef uint64_t fps_word
    ctypedef uint32_t fps_word32
    int FPS_ISOLATION_SHARD, FPS_ISOLATION_NONE, FPS_FORMAT_VERSION, FPS_SEAT_LIVE, FPS_BLOCK_BYTES
    int FPS_MAX_SLOTS, FPS_MAX_RULES, FPS_MAX_HYPER
    int FPS_MAX_MEMBERS, FPS_MAX_VERSIONS, FPS_MEMBER_FREE, FPS_MEMBER_HERE, FPS_MEMBER_OUT
    uint64_t FPS_CURRENT_ROUND(uint64_t current)
    ctypedef struct fps_policy:
        uint32_t kind, staleness, backup, quorum, reduce
        int64_t straggler_ns
    ctypedef struct fps_member:
        pthread_mutex_t life
        fps_word32 state, pid
        fps_word clock
    ctypedef struct fps_tray:
        pthread_mutex_t lock
    ctypedef struct fps_board:
        fps_word progress, expelled, dropped
        fps_word32 started
    ctypedef struct fps_table_layout:
        uint32_t dim, item_bytes, n_slots, row_slots, initial, tracked, stored, stochastic
        uint64_t seed, max_rows, row_bytes
        double first, second
        double slots[15]
    ctypedef struct fps_control:
        pthread_mutex_t lock
        fps_word live, high, rows_created, rows_removed, rebuilt, version, rows_backed
        fps_word index_backed[2]
    ctypedef struct fps_layout:
        uint32_t n_tables, n_leaves
        uint64_t total_bytes, fixed_bytes, stripe_bytes, params_bytes
        fps_policy policy
        uint32_t n_members, n_versions
        uint32_t n_sessions, n_stripes, n_slots, isolation, shard_index, shard_count
    ctypedef struct fps_header:
        fps_word version, partials, current, recovered_locks, interrupted_pushes, interrupted_pid, interrupted_at
        fps_word saves, failed_saves, saved_bytes, closed_until_ns
        fps_word32 owner_pid, turn
    ctypedef struct fps_meters:
        fps_word pulls, pushes, push_pulls, bytes_read, bytes_written
        fps_word read_retries, lock_waits, lock_wait_ns, lock_sleeps, skipped
    ctypedef struct fps_seat:
        pthread_mutex_t life
        fps_word32 state, pid, elsewhere
        fps_word pins
        fps_meters meters
    ctypedef struct fps_stripe:
        pthread_mutex_t lock


cdef extern from "sync.h" nogil:
    uint64_t fps_load_relaxed(const fps_word *w)
    uint32_t fps_load32_relaxed(const fps_word32 *w)
    void fps_count(fps_word *w, uint64_t by)
    void fps_count_shared(fps_word *w, uint64_t by)


cdef extern from "plan.h" nogil:
    ctypedef struct fps_arena_spec:
        uint8_t arena_id[16]
        uint32_t shard_index, shard_count, n_sessions, n_slots, isolation, n_members
        fps_policy policy
        uint64_t params_bytes, stripe_bytes
        uint32_t n_tables, n_leaves
        const fps_table_layout *tables
    ctypedef struct fps_table:
        fps_table_layout layout
        fps_control *control
        uint8_t *rows
        uint32_t at[16]
        uint32_t bytes[16]
        uint32_t held[16]
    uint64_t fps_table_row_bytes(const fps_table_layout *table)
    uint64_t fps_arena_bytes(const fps_arena_spec *spec)


cdef extern from "arena.h" nogil:
    ctypedef struct fps_arena:
        fps_layout layout
        uint8_t *base
        int fd
        fps_header *header
        fps_seat *seats
        fps_stripe *stripes
        fps_board *board
        fps_member *members
        fps_tray *trays
        uint8_t *params
        fps_table *tables
    ctypedef struct fps_session:
        fps_seat *seat
        uint32_t index
        uint64_t seq
    uint8_t *fps_arena_version(const fps_arena *arena, uint32_t version, uint32_t stream)
    fps_status fps_arena_create(const fps_arena_spec *spec, fps_arena *out)
    fps_status fps_arena_open(int fd, const uint8_t *arena_id, fps_arena *out)
    fps_status fps_arena_retire(const fps_arena *arena)
    void fps_arena_close(fps_arena *arena)
    fps_status fps_arena_state(const fps_arena *arena)


cdef extern from "wait.h" nogil:
    int FPS_NO_WAIT
    int64_t FPS_NEVER
    ctypedef struct fps_wait:
        int64_t deadline_ns
        int (*interrupted)(void *state) noexcept nogil
        void *state
    int64_t fps_now_ns()


cdef extern from "robust.h" nogil:
    uint32_t fps_lock_holder(const pthread_mutex_t *lock)


cdef extern from "life.h" nogil:
    bint fps_life_ended(const pthread_mutex_t *life)
    uint32_t fps_life_generation()


cdef extern from "session.h" nogil:
    fps_status fps_session_open(const fps_arena *arena, const fps_wait *wait, fps_session *out)
    uint32_t fps_session_blocker(const fps_arena *arena)
    void fps_session_close(fps_session *session)


cdef extern from "copy.h" nogil:
    void fps_copy(void *to, const void *source, size_t nbytes)
    void fps_copy_stream(void *to, const void *source, size_t nbytes)
    void fps_copy_drain()


cdef extern from "call.h" nogil:
    uint32_t FPS_NO_STREAM
    int FPS_UNIFORMS
    ctypedef int (*fps_kernel)(
        const void *const *, const void *, void *const *, int64_t, int64_t, const double *) noexcept nogil
    ctypedef int (*fps_prepare)(const double *, double, double *) noexcept nogil
    ctypedef struct fps_rule:
        fps_kernel kernel
        fps_prepare prepare
        uint32_t n_slots, number
    ctypedef struct fps_span:
        uint64_t position, bytes, buffer_offset
        uint32_t buffer, rule, item_bytes, leaf
    ctypedef struct fps_part:
        fps_session *session
        const fps_span *spans
        uint32_t n_spans
        const fps_span *some
        uint32_t n_some
        bool_c done, applied, prepared, varies
        uint64_t position, seq, version, wholes
        double *uniforms
        uint64_t *steps
        uint32_t waited_for
    ctypedef enum fps_kind:
        FPS_REACH
        FPS_PULL
        FPS_PUSH
        FPS_PUSH_PULL
        FPS_GET
        FPS_SET
    bint fps_kind_writes(fps_kind kind)
    ctypedef struct fps_call:
        fps_kind kind
        bool_c partial
        const void *const *grads
        void *const *outs
        const void *const *pulled
        const uint8_t *half_grads
        const uint8_t *half_outs
        const uint8_t *half_pulled
        const uint32_t *streams
        uint32_t n_streams, n_buffers
        const fps_rule *rules
        uint32_t n_rules
        double limit, scale
        fps_part *parts
        uint32_t n_parts, first
        bool_c together
        fps_wait wait


cdef extern from "dense.h" nogil:
    uint64_t FPS_STREAM_BYTES
    fps_status fps_dense_run(fps_call *call, uint32_t *at)
    fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                                   const fps_wait *wait)
    void fps_dense_hyper(const fps_arena *arena, uint32_t rule, double *values)


cdef extern from "queue.h" nogil:
    int FPS_JOB_BEGUN, FPS_JOB_CANCELLED
    ctypedef struct fps_job:
        fps_job *next
        fps_status (*run)(fps_job *job) noexcept
        fps_word32 state
        fps_status status
    ctypedef struct fps_queue:
        fps_job *first
    void fps_queue_open(fps_queue *q)
    void fps_queue_close(fps_queue *q)
    void fps_queue_put(fps_queue *q, fps_job *job)
    bool_c fps_queue_is_empty(fps_queue *q)
    bool_c fps_job_cancel(fps_job *job)
    fps_job *fps_queue_serve(fps_queue *q, int64_t idle_ns)


cdef extern from "fill.h" nogil:
    void fps_fill(const fps_call *call)
    void fps_fill_stream(const fps_arena *arena, const fps_span *span, uint32_t stream, double value)


cdef extern from "crc.h" nogil:
    uint32_t fps_crc32c(uint32_t before, const void *bytes, size_t n)


cdef extern from "hash.h" nogil:
    uint64_t fps_hash(uint64_t key)
    uint64_t fps_hash_bytes(const unsigned char *text, uint64_t n)
    uint32_t fps_hash_shard(uint64_t hash, uint32_t n_shards)


cdef extern from "batch.h" nogil:
    ctypedef struct fps_batch:
        uint32_t n_unique
    void fps_batch_free(fps_batch *batch)
    void fps_batch_split(const uint64_t *keys, uint32_t n, uint32_t n_shards, uint64_t *out, uint32_t *places,
                         uint32_t *starts)


cdef extern from "initial.h" nogil:
    void fps_initial_fill(const fps_table_layout *layout, uint64_t key, void *values)


cdef extern from "row.h" nogil:
    int64_t FPS_TICK_NS
    uint32_t fps_row_now(const fps_table *t)
    const fps_table *fps_row_written(const fps_arena *arena, uint32_t seat)


cdef extern from "table.h" nogil:
    fps_status fps_table_remove(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                                uint32_t since, uint8_t **values, uint8_t *removed, uint32_t *done, const fps_wait *wait)
    fps_status fps_table_configure(const fps_arena *arena, const fps_table *t, uint32_t which, const double *values,
                                    const fps_wait *wait)
    fps_status fps_table_resume(const fps_arena *arena, const fps_table *t, uint64_t version, uint32_t now,
                                const fps_wait *wait)
    void fps_table_use(const fps_table *t, const uint64_t *keys, uint32_t n, const uint32_t *uses)
    void fps_table_hyper(const fps_table *t, double *values)


cdef extern from "sparse.h" nogil:
    ctypedef struct fps_sparse_part:
        fps_session *session
        const uint64_t *keys
        const uint32_t *places
        uint32_t n
        fps_batch *batch
        uint32_t position
        bool_c done, applied, ready, begun
        uint64_t seq, version
    ctypedef struct fps_sparse_call:
        fps_kind kind
        uint32_t table
        const uint8_t *grads
        uint8_t *outs
        uint32_t half_grads, half_outs
        const uint8_t *const *set
        const fps_rule *rule
        double limit, scale
        bint create
        fps_sparse_part *parts
        uint32_t n_parts
        fps_wait wait
    fps_status fps_sparse_run(fps_sparse_call *call, uint32_t *at)


cdef extern from "scan.h" nogil:
    void fps_scan_find(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *rows)
    void fps_scan_seen(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *seen)
    ctypedef struct fps_since:
        uint32_t epoch, tick
    ctypedef struct fps_scan_start:
        uint64_t version, removed
        uint32_t epoch, now
    ctypedef struct fps_others:
        uint64_t *keys
        uint32_t n
    fps_status fps_scan_begin(const fps_arena *arena, const fps_table *t, const fps_wait *wait, fps_scan_start *start)
    fps_status fps_scan_rows(const fps_arena *arena, const fps_table *t, uint64_t *cursor, uint32_t most,
                               fps_since since, uint64_t *keys, uint8_t **streams, uint32_t *seen, fps_others *others,
                               const fps_wait *wait, uint32_t *n)


cdef extern from "gradient.h" nogil:
    double fps_sum_squares(const void *values, size_t n, uint32_t type)
    bint fps_all_finite(const void *values, size_t n, uint32_t type)


cdef extern from "half.h" nogil:
    int FPS_BFLOAT16, FPS_FLOAT16, FPS_FLOAT32, FPS_FLOAT64


cdef extern from "clock.h" nogil:
    ctypedef struct fps_roster:
        fps_policy policy
        uint32_t n_members
        fps_board *board
        fps_member *members
    ctypedef struct fps_decision:
        uint64_t round
        uint32_t n_given
        uint32_t ranks[256]
        uint32_t weights[256]
    bint fps_member_lives(const fps_member *m)
    bint fps_clock_enter(const fps_roster *r, uint32_t rank, int state)
    bint fps_clock_exit(const fps_roster *r, uint32_t rank, int state)
    bint fps_clock_end_step(const fps_roster *r, uint32_t rank)
    void fps_clock_catch_up(const fps_roster *r, uint32_t rank, uint64_t round)
    bint fps_clock_give(const fps_roster *r, uint32_t rank, uint64_t round, uint32_t weight, bool_c *counted)
    uint64_t fps_clock_needs(const fps_policy *policy, uint64_t clock)
    void fps_clock_decision(const fps_roster *r, fps_decision *out)


cdef extern from "member.h" nogil:
    uint32_t FPS_ANY_RANK
    ctypedef struct fps_worker:
        const fps_arena *arena
        fps_roster roster
        uint32_t rank
        uint64_t generation
    fps_status fps_worker_join(const fps_arena *arena, uint32_t rank, int64_t lease_ns, const fps_wait *wait,
                               fps_worker *out)
    void fps_worker_adopt(const fps_arena *arena, uint32_t rank, uint64_t generation, int64_t lease_ns,
                          fps_worker *out)
    void fps_worker_leave(fps_worker *worker)
    fps_status fps_worker_return(const fps_worker *worker, const fps_wait *wait, uint64_t *generation)
    fps_status fps_worker_begin(const fps_worker *worker, const fps_wait *wait, uint64_t *clock, uint64_t *progress)
    fps_status fps_worker_end_step(const fps_worker *worker, uint64_t clock, const fps_wait *wait)
    fps_status fps_worker_give(const fps_worker *worker, uint64_t round, uint32_t weight, const fps_wait *wait,
                               bool_c *counted)
    fps_status fps_worker_catch_up(const fps_worker *worker, uint64_t round, const fps_wait *wait)
    fps_status fps_worker_renew(const fps_worker *worker, const fps_wait *wait)
    uint32_t fps_board_blocker(const fps_roster *r)
    fps_roster fps_board_roster(const fps_arena *arena)


cdef extern from "tray.h" nogil:
    ctypedef struct fps_deposit:
        uint32_t rank, number
        uint64_t generation, attempt, round


cdef extern from "version.h" nogil:
    uint32_t fps_version_of(const fps_arena *arena, uint64_t current)
    uint64_t fps_version_pin(const fps_session *session)
    void fps_version_pin_too(const fps_session *session, uint32_t version)
    void fps_version_unpin(const fps_session *session, uint32_t version)


cdef extern from "rounds.h" nogil:
    fps_status fps_rounds_run(fps_call *call, const fps_decision *decision, const fps_deposit *deposit, uint32_t *at)
