/* Threads of one process on one arena, whose waits end early: at a deadline, or since somebody interrupts them. What
 * they go on with they go on with, and what they give up they have given up: the books say what is applied, to the last
 * element. `stress_waits`; STRESS_SECONDS=15 makes a minute of it. */
#define _GNU_SOURCE
#include "tables.h"
#include "team.h"

#define N_THREADS 8
#define HOLD_US 60000 /* whoever sleeps for a lock asks every 50 ms whether it is interrupted */
#define N_STRIPES 5
#define STRIPE_N 1024u /* elements */
#define KEYS 60u
#define BATCH 8u
#define DIM 5u
#define N_WORKERS 4u /* of a round; the other threads read, and set a slot */
#define ROUND_N 1500u

static int64_t ends_ns; /* of a test */

/* What happens to a thread by chance. */
typedef struct haste {
    uint64_t state;
    uint64_t late, interrupted;
} haste;

static int perhaps(void *state) { return (int)random_below(state, 2); }

static fps_wait hasty(haste *h)
{
    fps_wait wait = {.interrupted = perhaps, .state = &h->state};
    const uint32_t what = random_below(&h->state, 8);
    if (what >= 2) wait.deadline_ns = fps_now_ns() + random_below(&h->state, what < 5 ? 200000 : 20000000);
    if (what >= 6) wait.deadline_ns = fps_now_ns() + LONG_MS * INT64_C(1000000);
    return wait;
}

static bool cut_short(haste *h, fps_status status)
{
    if (status == FPS_OK) return false;
    CHECK(status == FPS_BUSY || status == FPS_TIMEOUT || status == FPS_INTERRUPTED || status == FPS_HELD);
    h->late += status != FPS_INTERRUPTED;
    h->interrupted += status == FPS_INTERRUPTED;
    return true;
}

static bool gives_up(haste *h) { return random_below(&h->state, 6) == 0; }

/* Somebody who holds locks for long, one after the other. */
typedef struct obstacle {
    pthread_mutex_t *locks[8];
    uint32_t n;
    fps_word32 over;
} obstacle;

static void *hold_locks(void *argument)
{
    obstacle *o = argument;
    uint64_t state = 1;
    while (!fps_load32_relaxed(&o->over)) {
        pthread_mutex_t *lock = o->locks[random_below(&state, o->n)];
        const fps_wait wait = wait_ms(LONG_MS);
        bool abandoned;
        CHECK_EQ(fps_lock_acquire(lock, &wait, &abandoned), FPS_OK);
        nap_us(HOLD_US);
        fps_lock_release(lock);
        nap_us(HOLD_US / 3);
    }
    return NULL;
}

/* A thread, and its books. */
typedef struct clerk {
    haste haste;
    const fps_arena *arena;
    uint32_t number;
    fps_session sessions[2];
    float *ones, *values, *out;
    double hyper[FPS_MAX_HYPER]; /* of its own rule, or its own two of a table */
    uint64_t begun;
    float n_set;
    uint64_t pushed[N_STRIPES]; /* arrays: pushes that have changed the stripe */
    float set[N_STRIPES];       /* the last value that it set there */
    float seen[N_STRIPES];
    float sums[KEYS]; /* tables: what was pushed to a row, less what was removed with it */
} clerk;

static _Thread_local const clerk *me;

static void open_clerk(clerk *c, uint64_t n)
{
    for (uint32_t i = 0; i < COUNT(c->sessions); i++) c->sessions[i] = open_session(c->arena);
    c->ones = filled(n, 1);
    c->values = filled(n, 0);
    c->out = filled(n, -1);
    me = c;
}

static void close_clerk(clerk *c)
{
    for (uint32_t i = 0; i < COUNT(c->sessions); i++) fps_session_close(&c->sessions[i]);
    free(c->ones);
    free(c->values);
    free(c->out);
}

/* Its own number, so that nobody else sets the same. */
static float next_value(clerk *c, uint64_t n)
{
    const float value = (float)c->number + N_THREADS * ++c->n_set;
    for (uint64_t i = 0; i < n; i++) c->values[i] = value;
    return value;
}

/* What goes on goes on at once under its number, or under a new one: in the same session or another. */
static fps_session *move_on(clerk *c, fps_session *session, uint64_t *seq)
{
    if (random_below(&c->haste.state, 2)) return session;
    *seq = 0;
    return &c->sessions[random_below(&c->haste.state, COUNT(c->sessions))];
}

/* Runs `body` in all threads until the time is over, beside somebody who is in their way. */
static void run_clerks(const fps_arena *arena, clerk *clerks, void *(*const *bodies)(void *), obstacle *o)
{
    pthread_t threads[N_THREADS], obstructing;
    uint64_t late = 0, interrupted = 0;
    const char *seconds = getenv("STRESS_SECONDS");
    ends_ns = fps_now_ns() + (seconds ? atol(seconds) : 1) * INT64_C(1000000000);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        clerks[i] = (clerk){.arena = arena, .number = i, .haste.state = i + 1};
        CHECK_EQ(pthread_create(&threads[i], NULL, bodies[i], &clerks[i]), 0);
    }
    CHECK_EQ(pthread_create(&obstructing, NULL, hold_locks, o), 0);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        late += clerks[i].haste.late;
        interrupted += clerks[i].haste.interrupted;
    }
    fps_store32_relaxed(&o->over, 1);
    pthread_join(obstructing, NULL);
    printf("  %ju waits ended at their deadline, %ju were interrupted\n", (uintmax_t)late, (uintmax_t)interrupted);
    CHECK(late > 0);
    CHECK_EQ(fps_load_relaxed(&arena->header->recovered_locks), 0);
}

/* Arrays: pushes add to the parameters and the first slot, the second slot is set. */

static uint64_t n_of(const fps_arena *arena) { return arena->layout.params_bytes / 4; }

static uint64_t end_of(const fps_arena *arena, uint32_t stripe)
{
    const uint64_t end = (stripe + UINT64_C(1)) * arena->layout.stripe_bytes / 4;
    return end < n_of(arena) ? end : n_of(arena);
}

static void check_stripes(const fps_arena *arena, const float *out)
{
    for (uint32_t s = 0, from = 0; s < arena->layout.n_stripes; from = (uint32_t)end_of(arena, s++))
        check_all_equal(out + from, end_of(arena, s) - from, out[from]);
}

/* Nobody overtakes: what has come to a stripe has come to those before. */
static void check_pulled(clerk *c)
{
    check_stripes(c->arena, c->out);
    for (uint32_t s = 0; s < c->arena->layout.n_stripes; s++) {
        const float value = c->out[end_of(c->arena, s) - 1];
        CHECK(value >= c->seen[s] && value >= (float)c->pushed[s]);
        CHECK(s == 0 || value <= c->out[end_of(c->arena, s - 1) - 1]);
        c->seen[s] = value;
    }
}

static int32_t prepare_from_own_row(const double *hyper, double step, double *uniforms)
{
    (void)step, (void)uniforms;
    CHECK_EQ(memcmp(hyper, me->hyper, sizeof me->hyper), 0);
    return 0;
}

/* The stripes that it has come through. */
static uint32_t stripes_behind(const clerk *c, const whole *w)
{
    if (w->part.applied) return c->arena->layout.n_stripes;
    CHECK_EQ(w->part.position % c->arena->layout.stripe_bytes, 0);
    return (uint32_t)(w->part.position / c->arena->layout.stripe_bytes);
}

static fps_status run_hastily(clerk *c, whole *w)
{
    for (;;) {
        w->call.wait = hasty(&c->haste);
        const fps_status status = run(w);
        if (!cut_short(&c->haste, status) || gives_up(&c->haste)) return status;
        w->part.session = move_on(c, w->part.session, &w->part.seq);
    }
}

static void push_array(clerk *c, bool pulls)
{
    whole w;
    prepare(&w, &c->sessions[0], c->ones, pulls ? c->out : NULL);
    w.rule = rule_of(add_1_f32, 1);
    w.rule.prepare = prepare_from_own_row;
    w.rule.number = c->number;
    const fps_status status = run_hastily(c, &w);
    const uint32_t behind = stripes_behind(c, &w);
    for (uint32_t s = 0; s < behind; s++) c->pushed[s]++;
    c->begun += behind > 0;
    if (status == FPS_OK) CHECK_EQ(behind, c->arena->layout.n_stripes);
    if (status == FPS_OK && pulls) check_pulled(c);
}

static void set_array(clerk *c)
{
    whole w;
    const float value = next_value(c, n_of(c->arena));
    prepare_stream(&w, &c->sessions[0], 2, c->values, NULL);
    const fps_status status = run_hastily(c, &w);
    const uint32_t behind = stripes_behind(c, &w);
    for (uint32_t s = 0; s < behind; s++) c->set[s] = value;
    if (status == FPS_OK) CHECK_EQ(behind, c->arena->layout.n_stripes);
}

static void read_array(clerk *c, uint32_t stream)
{
    whole w;
    prepare(&w, &c->sessions[0], NULL, c->out);
    if (stream > 0) prepare_stream(&w, &c->sessions[0], stream, NULL, c->out);
    if (run_hastily(c, &w) != FPS_OK) return;
    check_stripes(c->arena, c->out);
    if (stream == 0) check_pulled(c);
}

static void configure_array(clerk *c)
{
    double values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    const uint32_t which = random_below(&c->haste.state, UINT16_MAX);
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = random_below(&c->haste.state, 1000);
    const fps_wait wait = hasty(&c->haste);
    const fps_status status = fps_dense_configure(c->arena, c->number, which, values, &wait);
    for (uint32_t i = 0; i < FPS_MAX_HYPER && !cut_short(&c->haste, status); i++)
        if (which >> i & 1) c->hyper[i] = values[i];
    fps_dense_hyper(c->arena, c->number, got);
    CHECK_EQ(memcmp(got, c->hyper, sizeof got), 0);
}

static void *work_on_arrays(void *argument)
{
    clerk *c = argument;
    open_clerk(c, n_of(c->arena));
    while (fps_now_ns() < ends_ns) {
        const uint32_t what = random_below(&c->haste.state, 8);
        if (what < 3)
            push_array(c, what == 0);
        else if (what < 5)
            read_array(c, 0);
        else if (what == 5)
            read_array(c, 1 + random_below(&c->haste.state, 2));
        else if (what == 6)
            set_array(c);
        else
            configure_array(c);
    }
    close_clerk(c);
    return NULL;
}

static void check_arrays(uint64_t n, uint64_t stripe_bytes)
{
    static clerk clerks[N_THREADS];
    static void *(*const bodies[N_THREADS])(void *) = {work_on_arrays, work_on_arrays, work_on_arrays, work_on_arrays,
                                                       work_on_arrays, work_on_arrays, work_on_arrays, work_on_arrays};
    fps_arena arena = make_arena_with_slots(n * 4, stripe_bytes, 2 * N_THREADS + 1, 2);
    obstacle o = {.n = arena.layout.n_stripes};
    for (uint32_t i = 0; i < o.n; i++) o.locks[i] = &arena.stripes[i].lock;
    run_clerks(&arena, clerks, bodies, &o);

    uint64_t begun = 0;
    fps_session s = open_session(&arena);
    float *streams[3] = {filled(n, -1), filled(n, -1), filled(n, -1)};
    for (uint32_t k = 0; k < 3; k++) CHECK_EQ(pull_stream(&s, k, streams[k]), FPS_OK);
    for (uint32_t i = 0; i < N_THREADS; i++) begun += clerks[i].begun;
    CHECK_EQ(fps_load_relaxed(&arena.header->version), begun);
    for (uint32_t k = 0; k < 3; k++) check_stripes(&arena, streams[k]);
    for (uint32_t stripe = 0; stripe < arena.layout.n_stripes; stripe++) {
        const uint64_t at = end_of(&arena, stripe) - 1;
        uint64_t pushed = 0;
        bool last = false;
        for (uint32_t i = 0; i < N_THREADS; i++) {
            pushed += clerks[i].pushed[stripe];
            last |= streams[2][at] <= clerks[i].set[stripe] && streams[2][at] >= clerks[i].set[stripe];
        }
        CHECK_FLOAT(streams[0][at], (float)pushed);
        CHECK_FLOAT(streams[1][at], 2 * (float)pushed);
        CHECK(last);
        CHECK_EQ(fps_load32_relaxed(&arena.stripes[stripe].writer), 0);
    }
    for (uint32_t k = 0; k < 3; k++) free(streams[k]);
    fps_session_close(&s);
    drop_arena(&arena);
}

static void arrays_of_one_stripe_hold_what_was_applied(void) { check_arrays(STRIPE_N, 4 * STRIPE_N); }
static void arrays_of_many_stripes_hold_what_was_applied(void)
{
    check_arrays((N_STRIPES - 1) * STRIPE_N + 500, 4 * STRIPE_N);
}

/* Tables: the same, by rows, which are also removed. */

static void pick_keys(clerk *c, uint64_t *keys)
{
    const uint32_t from = random_below(&c->haste.state, KEYS), step = 1 + random_below(&c->haste.state, 6);
    for (uint32_t i = 0; i < BATCH; i++) keys[i] = (from + i * step) % KEYS; /* each once */
}

static int32_t prepare_from_pairs(const double *hyper, double step, double *uniforms)
{
    (void)step, (void)uniforms;
    for (uint32_t i = 0; i < N_THREADS; i++) CHECK_FLOAT(hyper[i], hyper[i + N_THREADS]);
    CHECK_FLOAT(hyper[me->number], me->hyper[0]);
    return 0;
}

static void check_row(const float *row) { check_all_equal(row, DIM, row[0]); }

static fps_status run_rows_hastily(clerk *c, errand *e)
{
    for (;;) {
        e->call.wait = hasty(&c->haste);
        const fps_status status = run_rows(e);
        if (!cut_short(&c->haste, status) || gives_up(&c->haste)) return status;
        if (e->part.begun) e->part.session = move_on(c, e->part.session, &e->part.seq);
    }
}

static void push_table(clerk *c, bool pulls)
{
    uint64_t keys[BATCH];
    errand e;
    pick_keys(c, keys);
    prepare_rows(&e, &c->sessions[0], 0, keys, BATCH, c->ones, pulls ? c->out : NULL);
    e.rule.kernel = add_and_keep;
    e.rule.prepare = prepare_from_pairs;
    const fps_status status = run_rows_hastily(c, &e);
    const uint32_t behind = e.part.applied ? BATCH : e.part.begun ? e.part.position : 0;
    for (uint32_t i = 0; i < behind; i++) c->sums[keys[i]]++;
    c->begun += e.part.begun;
    if (status == FPS_OK) CHECK_EQ(behind, BATCH);
    for (uint32_t i = 0; i < BATCH && status == FPS_OK && pulls; i++) check_row(c->out + i * DIM);
    drop_errand(&e);
}

static void pull_table(clerk *c)
{
    uint64_t keys[BATCH];
    errand e;
    pick_keys(c, keys);
    prepare_rows(&e, &c->sessions[0], 0, keys, BATCH, NULL, c->out);
    e.call.create = random_below(&c->haste.state, 2);
    const fps_status status = run_rows_hastily(c, &e);
    for (uint32_t i = 0; i < BATCH && status == FPS_OK; i++) check_row(c->out + i * DIM);
    drop_errand(&e);
}

static void set_table(clerk *c)
{
    uint64_t keys[BATCH];
    errand e;
    next_value(c, (uint64_t)BATCH * DIM);
    const uint8_t *streams[3] = {NULL, NULL, (const uint8_t *)c->values};
    pick_keys(c, keys);
    prepare_rows(&e, &c->sessions[0], 0, keys, BATCH, NULL, NULL);
    e.call.set = streams;
    e.call.kind = FPS_SET;
    run_rows_hastily(c, &e);
    drop_errand(&e);
}

static void remove_from_table(clerk *c)
{
    uint64_t keys[BATCH];
    uint8_t removed[BATCH], *const values[3] = {(uint8_t *)c->out, NULL, NULL};
    uint32_t done = 0;
    fps_status status;
    pick_keys(c, keys);
    do {
        const fps_wait wait = hasty(&c->haste);
        status = fps_table_remove(&c->sessions[0], &c->arena->tables[0], keys, BATCH, UINT32_MAX, values, removed,
                                  &done, &wait);
    } while (cut_short(&c->haste, status) && !gives_up(&c->haste));
    if (status == FPS_OK) CHECK_EQ(done, BATCH);
    for (uint32_t i = 0; i < done; i++) {
        if (!removed[i]) continue;
        check_row(c->out + i * DIM);
        c->sums[keys[i]] -= c->out[i * DIM];
    }
}

static void configure_table(clerk *c)
{
    double values[FPS_MAX_HYPER] = {0}, got[FPS_MAX_HYPER];
    const fps_table *t = &c->arena->tables[0];
    const fps_wait wait = hasty(&c->haste);
    values[c->number] = values[c->number + N_THREADS] = random_below(&c->haste.state, 1000);
    const fps_status status =
        fps_table_configure(c->arena, t, 1u << c->number | 1u << (c->number + N_THREADS), values, &wait);
    if (!cut_short(&c->haste, status)) c->hyper[0] = values[c->number];
    fps_table_hyper(t, got);
    prepare_from_pairs(got, 0, NULL);
}

static void *work_on_a_table(void *argument)
{
    clerk *c = argument;
    open_clerk(c, (uint64_t)BATCH * DIM);
    while (fps_now_ns() < ends_ns) {
        const uint32_t what = random_below(&c->haste.state, 8);
        if (what < 3)
            push_table(c, what == 0);
        else if (what < 5)
            pull_table(c);
        else if (what == 5)
            remove_from_table(c);
        else if (what == 6)
            set_table(c);
        else
            configure_table(c);
    }
    close_clerk(c);
    return NULL;
}

static void a_table_holds_what_was_applied(void)
{
    static clerk clerks[N_THREADS];
    static void *(*const bodies[N_THREADS])(void *) = {work_on_a_table, work_on_a_table, work_on_a_table,
                                                       work_on_a_table, work_on_a_table, work_on_a_table,
                                                       work_on_a_table, work_on_a_table};
    fps_arena arena = make_table(table_of(DIM, 2, KEYS), 2 * N_THREADS + 1);
    const fps_table *t = &arena.tables[0];
    obstacle o = {.locks = {&t->control->lock}, .n = 1};
    run_clerks(&arena, clerks, bodies, &o);

    uint64_t keys[KEYS], begun = 0;
    float rows[KEYS][DIM], slots[KEYS][DIM], set[KEYS][DIM], sums[KEYS] = {0};
    uint8_t *const streams[] = {(uint8_t *)rows, (uint8_t *)slots, (uint8_t *)set};
    for (uint32_t i = 0; i < N_THREADS; i++) {
        begun += clerks[i].begun;
        for (uint32_t k = 0; k < KEYS; k++) sums[k] += clerks[i].sums[k];
    }
    CHECK_EQ(fps_load_relaxed(&t->control->version), begun);
    const uint32_t n = scan_rows(&arena, 0, KEYS, keys, streams);
    for (uint32_t i = 0; i < n; i++) {
        check_all_equal(rows[i], DIM, sums[keys[i]]);
        check_all_equal(slots[i], DIM, 2 * sums[keys[i]]);
        check_row(set[i]);
        sums[keys[i]] = 0;
    }
    for (uint32_t k = 0; k < KEYS; k++) CHECK_FLOAT(sums[k], 0); /* where there is no row */
    check_table(t);
    drop_arena(&arena);
}

/* Rounds: some give to them, and others read, or set the second slot. */

static fps_word stop; /* the round that is not begun any more */
static fps_word32 n_done;

static void begin_hastily(clerk *c, mate *m)
{
    fps_status status;
    do {
        const fps_wait wait = hasty(&c->haste);
        uint64_t clock, progress;
        status = fps_worker_begin(&m->worker, &wait, &clock, &progress);
    } while (cut_short(&c->haste, status));
}

static void give_hastily(clerk *c, mate *m, uint64_t round, uint32_t weight)
{
    fps_status status;
    bool counted;
    do {
        const fps_wait wait = hasty(&c->haste);
        status = fps_worker_give(&m->worker, round, weight, &wait, &counted);
    } while (cut_short(&c->haste, status));
    CHECK(counted);
}

/* Sometimes once more, as when an answer was lost. */
static void lay_down_hastily(clerk *c, mate *m, const fps_decision *d, fps_deposit deposit)
{
    fps_status status;
    do {
        aim(&m->hand, c->ones, NULL);
        m->hand.call.wait = hasty(&c->haste);
        status = run_hand(&m->hand, d, &deposit);
    } while (cut_short(&c->haste, status) || random_below(&c->haste.state, 8) == 0);
}

/* Whoever begins a round has given to the one before, and the others wait for that: nobody is two ahead. */
static void *give_to_rounds(void *argument)
{
    clerk *c = argument;
    mate m;
    open_clerk(c, ROUND_N);
    join_team(&m, c->arena, 1, c->number, 4);
    m.hand.rule.kernel = add_and_keep;
    for (uint64_t round = 0; round < fps_load_acquire(&stop); round++) {
        if (c->number == 0 && fps_load_relaxed(&stop) == UINT64_MAX && fps_now_ns() >= ends_ns)
            fps_store_release(&stop, round + 2);
        const uint32_t weight = 1 + random_below(&c->haste.state, 2);
        begin_hastily(c, &m);
        const fps_decision d = last_decision(&m);
        CHECK_EQ(d.round, round);
        for (uint32_t i = 1; i <= weight; i++) lay_down_hastily(c, &m, &d, next_deposit(&m, &d, i));
        give_hastily(c, &m, round, weight);
        c->pushed[0] += weight;
        c->begun++;
    }
    begin_hastily(c, &m);
    atomic_fetch_add(&n_done, 1);
    while (fps_load32_acquire(&n_done) < N_WORKERS) nap_us(100); /* whoever leaves is no longer waited for */
    leave_team(&m);
    close_clerk(c);
    return NULL;
}

static void read_round(clerk *c, hand *h, const fps_decision *d, uint32_t stream)
{
    void *const outs[] = {c->out};
    fps_status status;
    aim_at_stream(h, stream, NULL, outs);
    h->call.wait = hasty(&c->haste);
    status = run_hand(h, d, NULL);
    if (status == FPS_MIXED || cut_short(&c->haste, status)) return;
    check_all_equal(c->out, ROUND_N, c->out[0]);
    if (stream == 2) return;
    CHECK(c->out[0] >= c->seen[stream]);
    c->seen[stream] = c->out[0];
}

static void set_in_round(clerk *c, hand *h, const fps_decision *d)
{
    const float value = next_value(c, ROUND_N);
    aim_at_stream(h, 2, c->values, NULL);
    h->call.wait = hasty(&c->haste);
    const fps_status status = run_hand(h, d, NULL);
    if (status == FPS_MIXED || cut_short(&c->haste, status)) return;
    c->set[0] = value;
}

static void *look_at_rounds(void *argument)
{
    clerk *c = argument;
    hand h;
    const fps_roster roster = fps_board_roster(c->arena);
    open_clerk(c, ROUND_N);
    open_hand(&h, c->arena, 1, 4);
    h.rule.kernel = add_and_keep;
    while (fps_load32_acquire(&n_done) < N_WORKERS) {
        fps_decision d;
        fps_clock_decision(&roster, &d);
        const uint32_t what = random_below(&c->haste.state, 4);
        const fps_decision *wanted = random_below(&c->haste.state, 2) ? &d : NULL;
        if (what < 3)
            read_round(c, &h, wanted, what);
        else
            set_in_round(c, &h, wanted);
    }
    close_hand(&h);
    close_clerk(c);
    return NULL;
}

static void rounds_hold_what_was_given(void)
{
    static clerk clerks[N_THREADS];
    static void *(*const bodies[N_THREADS])(void *) = {give_to_rounds, give_to_rounds, give_to_rounds, give_to_rounds,
                                                       look_at_rounds, look_at_rounds, look_at_rounds, look_at_rounds};
    fps_arena arena;
    fps_arena_spec spec = spec_of(ROUND_N * 4, 0, 3 * N_THREADS + 1);
    spec.n_slots = 2;
    spec.n_members = N_WORKERS;
    spec.policy = (fps_policy){.kind = FPS_BSP, .quorum = N_WORKERS};
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    fps_store_relaxed(&stop, UINT64_MAX);
    obstacle o = {.locks = {&arena.board->lock, &arena.stripes[0].lock, &arena.trays[1].lock, &arena.header->writing[0],
                            &arena.header->writing[1]},
                  .n = 5};
    run_clerks(&arena, clerks, bodies, &o);

    hand h;
    float given = 0, *outs[3] = {filled(ROUND_N, -1), filled(ROUND_N, -1), filled(ROUND_N, -1)};
    bool last = false;
    const fps_roster roster = fps_board_roster(&arena);
    fps_decision d;
    fps_clock_decision(&roster, &d);
    open_hand(&h, &arena, 1, 4);
    h.rule.kernel = add_and_keep;
    for (uint32_t k = 0; k < 3; k++) CHECK_EQ(read_stream(&h, &d, k, (void *const *)&outs[k]), FPS_OK);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        given += (float)clerks[i].pushed[0];
        last |= outs[2][0] <= clerks[i].set[0] && outs[2][0] >= clerks[i].set[0];
        if (i < N_WORKERS) CHECK_EQ(clerks[i].begun, d.round);
    }
    CHECK_EQ(d.round, fps_load_relaxed(&stop));
    check_all_equal(outs[0], ROUND_N, given);
    check_all_equal(outs[1], ROUND_N, 2 * given);
    check_all_equal(outs[2], ROUND_N, outs[2][0]);
    CHECK(last);
    CHECK_EQ(updates_of(&arena), d.round);
    CHECK_EQ(fps_load_relaxed(&arena.board->expelled), 0);
    CHECK_EQ(fps_load_relaxed(&arena.board->dropped), 0);
    for (uint32_t k = 0; k < 3; k++) free(outs[k]);
    close_hand(&h);
    drop_arena(&arena);
}

int main(void)
{
    static const test tests[] = {
        TEST(arrays_of_one_stripe_hold_what_was_applied),
        TEST(arrays_of_many_stripes_hold_what_was_applied),
        TEST(a_table_holds_what_was_applied),
        TEST(rounds_hold_what_was_given),
    };
    return run_tests(tests, COUNT(tests));
}
