/* Processes that die, or are stopped, while they run rounds. `kill_rounds [seed]`. */
#define _GNU_SOURCE
#include "stripe.h"
#include "team.h"

#define N (5 * 1024 - 100)
#define N_SHARDS 2
#define N_SLOTS 2
#define MAX_ROUNDS 65536
#define GUARDED_N 1024 /* of a gradient, in front of memory that nobody may touch */

static uint32_t seed;
static const fps_arena *deadly_arena; /* a kernel that writes this block of it kills its process */
static uint64_t deadly_at;
static uint32_t turns; /* of a kernel's busy loop per element */

/* The version that is written is in memory of its own: where its results are tells which shard and block it is. */
static int32_t add_or_die(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    if (deadly_arena) {
        const uint8_t *at = results[0], *params = deadly_arena->params;
        uint64_t total = deadly_arena->layout.total_bytes - deadly_arena->layout.params_offset;
        uint64_t offset = (uint64_t)(at - params);
        bool here = at >= params && offset < total && offset % deadly_arena->layout.version_stride == deadly_at;
        if (here) { /* in the middle of the block */
            add_2_f32(state, grad, results, n / 2, ahead, uniforms);
            die();
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (volatile uint32_t t = 0; t < turns; t++) {
        }
    return add_2_f32(state, grad, results, n, ahead, uniforms);
}

static void die_of_signal(int signal_number)
{
    (void)signal_number;
    die();
}

static void make_shards(fps_arena *arenas, uint32_t n_members, fps_policy policy)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) arenas[i] = make_shard(i, N * 4, N_SLOTS, n_members, policy);
}

static void drop_shards(fps_arena *arenas)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) drop_arena(&arenas[i]);
}

static void join_as(mate *m, const fps_arena *arenas, uint32_t rank)
{
    join_team(m, arenas, N_SHARDS, rank, 4);
    m->hand.rule.kernel = add_or_die;
}

static void give(mate *m, const float *grad, uint32_t weight)
{
    fps_decision d = last_decision(m);
    bool counted = false;
    for (uint32_t i = 1; i <= weight; i++) CHECK_EQ(lay_down(&m->hand, &d, next_deposit(m, &d, i), grad), FPS_OK);
    CHECK_EQ(give_round(m, weight, &counted), FPS_OK);
    CHECK(counted);
}

/* Every stream of every shard is at this round, and equal in all its elements. */
static void check_shards(mate *m, uint64_t round, float sum)
{
    float *outs[N_SHARDS] = {filled(N, -1), filled(N, -1)};
    fps_decision d = last_decision(m);
    for (uint32_t k = 0; k <= N_SLOTS; k++) {
        CHECK_EQ(read_stream(&m->hand, &d, k, (void *const *)outs), FPS_OK);
        for (uint32_t i = 0; i < N_SHARDS; i++) {
            CHECK_EQ(m->hand.parts[i].version, round);
            check_all_equal(outs[i], N, (float)(k + 1) * sum);
        }
    }
    for (uint32_t i = 0; i < N_SHARDS; i++) free(outs[i]);
}

/* What a scripted death is about. */
typedef struct death {
    const fps_arena *arenas;
    uint32_t shard, block;
    uint32_t number; /* of the deposit in which it dies */
    fps_word32 *go;
} death;

static void give_apply_and_die(void *argument)
{
    death *d = argument;
    mate m;
    join_as(&m, d->arenas, 1);
    float *tens = filled(N, 10);
    await(d->go, 1);
    give(&m, tens, 1);
    fps_decision decision = last_decision(&m);
    deadly_arena = &d->arenas[d->shard];
    deadly_at = (uint64_t)d->block * deadly_arena->layout.block_bytes;
    reach_round(&m.hand, &decision);
    fprintf(stderr, "it survived its death in block %u of shard %u\n", d->block, d->shard);
}

/* It gave to the round, closed it, and died while it applied it: what it gave counts, once, on every shard. */
static void who_dies_while_it_applies_a_round_has_done_nothing_and_still_counts(void)
{
    uint32_t n_blocks = 0;
    for (uint32_t i = 0; i == 0 || i < 2 * n_blocks; i++) {
        fps_arena arenas[N_SHARDS];
        mate m;
        make_shards(arenas, 2, (fps_policy){.quorum = 2});
        n_blocks = (N * 4 + arenas[0].layout.block_bytes - 1) / arenas[0].layout.block_bytes;
        death d = {.arenas = arenas, .shard = i / n_blocks, .block = i % n_blocks, .go = share(sizeof *d.go)};
        join_as(&m, arenas, 0);
        float *ones = filled(N, 1);
        pid_t pid = start_process(give_apply_and_die, &d);
        while (fps_load32_acquire(&arenas[0].board->started) == 0) nap_us(100);
        give(&m, ones, 1);
        fps_store32_release(d.go, 1);
        expect_killed(pid);
        CHECK_EQ(round_of(&arenas[0]), d.shard == 1);
        CHECK_EQ(round_of(&arenas[1]), 0);
        CHECK(fps_lock_abandoned(&arenas[d.shard].header->writing[1]));
        check_shards(&m, 1, 11);
        CHECK_EQ(version_of(&arenas[d.shard]), 1); /* what the dead one had begun to write */
        CHECK_EQ(fps_load_relaxed(&arenas[d.shard].header->recovered_locks), 0); /* nothing is repaired */
        CHECK_EQ(fps_load_relaxed(&arenas[d.shard].header->updates[1]), 1);
        CHECK_EQ(begin_round(&m, LONG_MS), FPS_OK);
        for (uint32_t round = 2; round <= 4; round++) {
            give(&m, ones, 1);
            CHECK_EQ(begin_round(&m, LONG_MS), FPS_OK); /* puts the dead one out */
            check_shards(&m, round, 10 + (float)round);
        }
        leave_team(&m);
        drop_shards(arenas);
        free(ones);
        munmap(d.go, sizeof *d.go);
    }
}

/* The end of it cannot be read: whoever copies it dies half-way. */
static float *guarded(float value)
{
    uint64_t page = FPS_PAGE, bytes = (GUARDED_N * 4 + page - 1) / page * page;
    uint8_t *memory = mmap(NULL, bytes + page * 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    float *values = (float *)(void *)memory;
    for (uint32_t i = 0; i < GUARDED_N; i++) values[i] = value;
    CHECK(N * 4 <= page * 32);
    CHECK_EQ(mprotect(memory + bytes, page * 32, PROT_NONE), 0);
    signal(SIGSEGV, die_of_signal);
    signal(SIGBUS, die_of_signal);
    return values;
}

static void deposit_and_die(void *argument)
{
    death *d = argument;
    mate m;
    join_as(&m, d->arenas, 1);
    float *tens = filled(N, 10), *deadly = guarded(100);
    fps_store32_release(d->go, 1);
    await(d->go, 2);
    fps_decision decision = last_decision(&m);
    for (uint32_t number = 1; number < d->number; number++)
        CHECK_EQ(lay_down(&m.hand, &decision, next_deposit(&m, &decision, number), tens), FPS_OK);
    fps_deposit deposit = next_deposit(&m, &decision, d->number);
    aim(&m.hand, tens, NULL);
    m.hand.grads[d->shard] = deadly;
    run_hand(&m.hand, &decision, &deposit);
    fprintf(stderr, "a deposit survived its death in shard %u\n", d->shard);
}

static void who_dies_in_the_middle_of_a_deposit_counts_for_nothing(void)
{
    for (uint32_t i = 0; i < 3 * N_SHARDS; i++) {
        fps_arena arenas[N_SHARDS];
        mate m, next;
        make_shards(arenas, 2, (fps_policy){.quorum = 2});
        death d = {.arenas = arenas, .shard = i % N_SHARDS, .number = 1 + i / N_SHARDS, .go = share(sizeof *d.go)};
        join_as(&m, arenas, 0);
        float *ones = filled(N, 1);
        pid_t pid = start_process(deposit_and_die, &d);
        await(d.go, 1);
        fps_store32_release(d.go, 2);
        expect_killed(pid);
        const fps_tray *tray = &arenas[d.shard].trays[1];
        CHECK(fps_lock_abandoned(&tray->lock));
        CHECK_EQ(fps_load_relaxed(&tray->number), 0); /* there is half a gradient in it, and nothing to go on from */
        CHECK_EQ(fps_load_relaxed(&tray->attempt), d.number - 1);
        if (d.shard == 1) CHECK_EQ(fps_load_relaxed(&arenas[0].trays[1].number), d.number);

        /* Under its name, from another node: only a whole one does. */
        fps_deposit late = {.rank = 1,
                            .number = d.number + 1,
                            .generation = fps_load_relaxed(&tray->generation),
                            .attempt = d.number + 1};
        CHECK_EQ(lay_down(&m.hand, NULL, late, ones), FPS_EXPELLED);
        CHECK_EQ(m.hand.at, d.shard);
        CHECK(!fps_lock_abandoned(&tray->lock));

        give(&m, ones, 1);
        CHECK_EQ(begin_round(&m, LONG_MS), FPS_OK); /* puts the dead one out, and so the round closes */
        check_shards(&m, 1, 1);
        join_as(&next, arenas, 1);
        CHECK(next.worker.generation > late.generation);
        give(&next, ones, 2);
        give(&m, ones, 1);
        check_shards(&m, 2, 4);
        late.attempt += 10;
        CHECK_EQ(lay_down(&m.hand, NULL, late, ones), FPS_EXPELLED);
        leave_team(&next);
        leave_team(&m);
        drop_shards(arenas);
        free(ones);
        munmap(d.go, sizeof *d.go);
    }
}

static void set_and_die(void *argument)
{
    death *d = argument;
    hand h;
    float *nines = filled(N, 9), *deadly = guarded(9);
    open_hand(&h, d->arenas, N_SHARDS, 4);
    aim_at_stream(&h, 2, nines, NULL);
    h.grads[d->shard] = deadly;
    run_hand(&h, NULL, NULL);
    fprintf(stderr, "a set survived its death in shard %u\n", d->shard);
}

static void who_dies_while_it_sets_a_slot_has_set_nothing_of_that_shard(void)
{
    for (uint32_t shard = 0; shard < N_SHARDS; shard++) {
        fps_arena arenas[N_SHARDS];
        mate m;
        make_shards(arenas, 1, (fps_policy){0});
        death d = {.arenas = arenas, .shard = shard};
        join_as(&m, arenas, 0);
        float *ones = filled(N, 1), *outs[N_SHARDS] = {filled(N, -1), filled(N, -1)};
        give(&m, ones, 1);
        check_shards(&m, 1, 1);
        expect_killed(start_process(set_and_die, &d));
        for (uint32_t k = 0; k <= N_SLOTS; k++) {
            CHECK_EQ(read_stream(&m.hand, NULL, k, (void *const *)outs), FPS_OK);
            for (uint32_t i = 0; i < N_SHARDS; i++)
                check_all_equal(outs[i], N, k == 2 && i < shard ? 9 : (float)(k + 1));
        }
        CHECK_EQ(write_stream(&m.hand, NULL, 2, ones), FPS_OK);
        CHECK_EQ(read_stream(&m.hand, NULL, 2, (void *const *)outs), FPS_OK);
        for (uint32_t i = 0; i < N_SHARDS; i++) check_all_equal(outs[i], N, 1);
        leave_team(&m);
        drop_shards(arenas);
        for (uint32_t i = 0; i < N_SHARDS; i++) free(outs[i]);
        free(ones);
    }
}

/* Workers that give to every round, until they are told to stop, die, or are stopped for a while. */
#define N_WORKERS 3

/* What each round adds, by the board's decisions. A round closes only when all who gave to it knew the one before: its
 * entry is written before anybody needs it. */
typedef struct ledger {
    fps_word32 stop;
    fps_word32 ready[N_WORKERS];
    fps_word operations[N_WORKERS]; /* reads that were checked */
    fps_word longest_ns[N_WORKERS];
    fps_word expelled;
    fps_word late;
    fps_word added[MAX_ROUNDS]; /* of all rounds up to this one, and one; 0: not known yet */
} ledger;

typedef struct crowd {
    fps_arena arenas[N_SHARDS];
    ledger *ledger;
    uint32_t rank;
    bool slow;
} crowd;

/* What a worker puts into a gradient. Small integers: sums of all rounds are exact. */
static uint32_t value_of(uint32_t rank, uint64_t round) { return 1 + (uint32_t)((round * 5 + rank * 3) % 8); }
static uint32_t weight_of(uint32_t rank, uint64_t round)
{
    static const uint32_t weights[] = {1, 1, 2, 1, 0, 1, 3};
    return weights[(round + rank) % COUNT(weights)];
}

static uint64_t added_up_to(ledger *l, uint64_t round)
{
    CHECK(round < MAX_ROUNDS);
    uint64_t entry = round == 0 ? 1 : fps_load_acquire(&l->added[round]);
    CHECK(entry > 0);
    return entry - 1;
}

static void enter_decision(ledger *l, const fps_decision *d)
{
    if (d->round == 0) return;
    uint64_t sum = added_up_to(l, d->round - 1);
    for (uint32_t i = 0; i < d->n_given; i++) {
        CHECK(d->weights[i] == 0 || d->weights[i] == weight_of(d->ranks[i], d->round - 1));
        sum += d->weights[i] * value_of(d->ranks[i], d->round - 1);
    }
    uint64_t before = 0;
    if (!atomic_compare_exchange_strong(&l->added[d->round], &before, sum + 1)) CHECK_EQ(before, sum + 1);
}

/* The last decision, which whoever acts by it has entered. */
static fps_decision look(crowd *c, const mate *m)
{
    fps_decision d = last_decision(m);
    enter_decision(c->ledger, &d);
    return d;
}

/* Others may close round after round while one that was expelled tries to read. */
static void check_read(crowd *c, mate *m, uint32_t stream, float *const *outs, uint64_t *last)
{
    fps_status status = FPS_MIXED;
    while (status == FPS_MIXED) {
        fps_decision d = look(c, m);
        status = read_stream(&m->hand, &d, stream, (void *const *)outs);
    }
    CHECK_EQ(status, FPS_OK);
    uint64_t round = m->hand.parts[0].version;
    CHECK_EQ(m->hand.parts[1].version, round);
    CHECK(round >= *last);
    *last = round;
    for (uint32_t i = 0; i < N_SHARDS; i++)
        check_all_equal(outs[i], N, (float)((stream + 1) * added_up_to(c->ledger, round)));
}

static void come_back(crowd *c, mate *m)
{
    fps_wait wait = wait_ms(LONG_MS);
    fps_count(&c->ledger->expelled, 1);
    CHECK_EQ(fps_worker_return(&m->worker, &wait, &m->worker.generation), FPS_OK);
}

/* One gradient; FPS_EXPELLED when the others went on without it. */
static fps_status take_part(crowd *c, mate *m, uint64_t round_read, const float *const *grads)
{
    fps_wait wait = wait_ms(LONG_MS);
    fps_status status = fps_worker_catch_up(&m->worker, round_read, &wait);
    if (status == FPS_OK) status = begin_round(m, LONG_MS);
    if (status != FPS_OK) return status;
    fps_decision d = look(c, m);
    uint32_t weight = weight_of(m->worker.rank, d.round);
    bool counted = true;
    if (weight == 0) status = reach_round(&m->hand, &d);
    for (uint32_t i = 1; i <= weight && status == FPS_OK; i++)
        status = lay_down(&m->hand, &d, next_deposit(m, &d, i), grads[value_of(m->worker.rank, d.round)]);
    if (status == FPS_OK) status = give_round(m, weight, &counted);
    if (!counted) fps_count(&c->ledger->late, 1);
    return status;
}

static void work_until_told(void *argument)
{
    crowd *c = argument;
    ledger *l = c->ledger;
    mate m;
    uint64_t last = 0;
    float *grads[9], *outs[N_SHARDS] = {filled(N, -1), filled(N, -1)};
    for (uint32_t i = 0; i < 9; i++) grads[i] = filled(N, (float)i);
    turns = c->slow ? 10 : 0;
    join_as(&m, c->arenas, c->rank);
    fps_store32_release(&l->ready[c->rank], 1);
    while (!fps_load32_acquire(&l->stop)) {
        if (last > MAX_ROUNDS / 2) nap_us(1000); /* the ledger ends, and somebody may be slow to come */
        int64_t start = fps_now_ns();
        fps_status status = take_part(c, &m, last, (const float *const *)grads);
        if (status == FPS_EXPELLED) come_back(c, &m);
        if (status != FPS_EXPELLED) CHECK_EQ(status, FPS_OK);
        check_read(c, &m, (uint32_t)(last % (N_SLOTS + 1)), outs, &last);
        uint64_t took = (uint64_t)(fps_now_ns() - start);
        if (took > fps_load_relaxed(&l->longest_ns[c->rank])) fps_store_relaxed(&l->longest_ns[c->rank], took);
        fps_store_release(&l->operations[c->rank], fps_load_relaxed(&l->operations[c->rank]) + 1);
    }
    leave_team(&m);
}

static void await_operations(const ledger *l, uint32_t rank, uint64_t more)
{
    uint64_t until = fps_load_acquire(&l->operations[rank]) + more;
    while (fps_load_acquire(&l->operations[rank]) < until) nap_us(100);
}

static pid_t start_worker(crowd *c, uint32_t rank)
{
    c->rank = rank;
    fps_store32_release(&c->ledger->ready[rank], 0);
    return start_process(work_until_told, c);
}

static void check_at_rest(crowd *c)
{
    hand h;
    fps_roster roster = fps_board_roster(&c->arenas[0]);
    fps_decision d;
    float *outs[N_SHARDS] = {filled(N, -1), filled(N, -1)};
    fps_clock_decision(&roster, &d);
    enter_decision(c->ledger, &d);
    open_hand(&h, c->arenas, N_SHARDS, 4);
    for (uint32_t k = 0; k <= N_SLOTS; k++) {
        CHECK_EQ(read_stream(&h, &d, k, (void *const *)outs), FPS_OK);
        CHECK_EQ(h.parts[0].version, d.round);
        for (uint32_t i = 0; i < N_SHARDS; i++)
            check_all_equal(outs[i], N, (float)((k + 1) * added_up_to(c->ledger, d.round)));
    }
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        CHECK_EQ(fps_lock_holder(&c->arenas[i].stripes[0].lock), 0);
        CHECK(!fps_lock_abandoned(&c->arenas[i].stripes[0].lock));
        free(outs[i]);
    }
    close_hand(&h);
}

/* Stopped for longer than the others wait for it, but not with the board's lock, or that of hyper-parameters: those are
 * waited for. */
static void stop_for_a_while(crowd *c, const pid_t *pids, uint32_t victim)
{
    int status = 0;
    CHECK_EQ(kill(pids[victim], SIGSTOP), 0);
    CHECK_EQ(waitpid(pids[victim], &status, WUNTRACED), pids[victim]);
    CHECK(WIFSTOPPED(status));
    bool holds = fps_lock_holder(&c->arenas[0].board->lock) == (uint32_t)pids[victim];
    for (uint32_t i = 0; i < N_SHARDS; i++)
        holds |= fps_lock_holder(&c->arenas[i].stripes[0].lock) == (uint32_t)pids[victim];
    for (uint32_t i = 1; i < N_WORKERS && !holds; i++) await_operations(c->ledger, (victim + i) % N_WORKERS, 2);
    CHECK_EQ(kill(pids[victim], SIGCONT), 0);
    await_operations(c->ledger, victim, 1);
}

static void run_crowd(uint32_t scenes, uint32_t blows, fps_policy policy, bool stops)
{
    uint64_t rounds = 0, longest = 0, expelled = 0, late = 0;
    uint32_t deaths = 0;
    for (uint32_t scene = 0; scene < scenes; scene++) {
        crowd c = {.ledger = share(sizeof *c.ledger), .slow = scene % 2};
        pid_t pids[N_WORKERS];
        make_shards(c.arenas, N_WORKERS, policy);
        for (uint32_t i = 0; i < N_WORKERS; i++) pids[i] = start_worker(&c, i);
        for (uint32_t i = 0; i < N_WORKERS; i++) await(&c.ledger->ready[i], 1);
        for (uint32_t blow = 0; blow < blows; blow++) {
            uint32_t victim = (uint32_t)random() % N_WORKERS;
            nap_us(random() % 3000);
            if (stops && blow % 2) {
                stop_for_a_while(&c, pids, victim);
                continue;
            }
            kill_process(pids[victim]);
            deaths++;
            for (uint32_t i = 1; i < N_WORKERS; i++) await_operations(c.ledger, (victim + i) % N_WORKERS, 2);
            pids[victim] = start_worker(&c, victim);
            if (blow % 4 < 2) await(&c.ledger->ready[victim], 1); /* else it may die while it comes */
        }
        fps_store32_release(&c.ledger->stop, 1);
        for (uint32_t i = 0; i < N_WORKERS; i++) {
            expect_success(pids[i]);
            if (fps_load_relaxed(&c.ledger->longest_ns[i]) > longest)
                longest = fps_load_relaxed(&c.ledger->longest_ns[i]);
        }
        check_at_rest(&c);
        rounds += round_of(&c.arenas[0]);
        expelled += fps_load_relaxed(&c.ledger->expelled);
        late += fps_load_relaxed(&c.ledger->late);
        drop_shards(c.arenas);
        munmap(c.ledger, sizeof *c.ledger);
    }
    printf("  seed %u: %u deaths, %ju rounds, %ju times expelled, %ju gradients late; the longest step took %.1f ms\n",
           seed, deaths, (uintmax_t)rounds, (uintmax_t)expelled, (uintmax_t)late, (double)longest / 1e6);
    CHECK(longest < 10000000000); /* no limit on speed: what nobody recovers is never free again */
}

static void random_deaths_leave_whole_rounds(void)
{
    srandom(seed);
    run_crowd(12, 12, (fps_policy){.quorum = N_WORKERS}, false);
}

static void random_deaths_with_backups_leave_whole_rounds(void)
{
    srandom(seed + 1);
    run_crowd(8, 12, (fps_policy){.quorum = N_WORKERS, .backup = 1}, false);
}

static void workers_that_are_stopped_for_a_while_leave_whole_rounds(void)
{
    srandom(seed + 2);
    run_crowd(4, 8, (fps_policy){.quorum = N_WORKERS, .straggler_ns = INT64_C(20) * 1000000}, true);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(who_dies_while_it_applies_a_round_has_done_nothing_and_still_counts),
        TEST(who_dies_in_the_middle_of_a_deposit_counts_for_nothing),
        TEST(who_dies_while_it_sets_a_slot_has_set_nothing_of_that_shard),
        TEST(random_deaths_leave_whole_rounds),
        TEST(random_deaths_with_backups_leave_whole_rounds),
        TEST(workers_that_are_stopped_for_a_while_leave_whole_rounds),
    };
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("  seed %u\n", seed);
    return run_tests(tests, COUNT(tests));
}
