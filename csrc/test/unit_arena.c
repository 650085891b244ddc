#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"

static fps_table_layout tables[FPS_MAX_TABLES];

static uint64_t fnv1a(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static fps_layout layout_of(const fps_arena_spec *spec)
{
    fps_arena arena;
    CHECK_EQ(fps_arena_create(spec, &arena), FPS_OK);
    fps_layout layout = arena.header->layout;
    drop_arena(&arena);
    return layout;
}

static fps_layout some_layout(void)
{
    fps_arena_spec spec = spec_of(98304, 4096, 3);
    spec.n_slots = 2;
    return layout_of(&spec);
}

static fps_status parse(const fps_layout *layout)
{
    fps_layout out;
    return fps_layout_parse(layout, sizeof *layout, layout->total_bytes, &out, tables);
}

static void a_valid_layout_parses_to_itself(void)
{
    fps_layout layout = some_layout(), out;
    memset(&out, 0, sizeof out);
    CHECK_EQ(fps_layout_parse(&layout, sizeof layout, layout.total_bytes, &out, tables), FPS_OK);
    CHECK_EQ(memcmp(&layout, &out, sizeof out), 0);
    CHECK_EQ(layout.checksum, fnv1a(&layout, offsetof(fps_layout, checksum)));
}

static void every_flipped_bit_is_refused(void)
{
    fps_layout layout = some_layout();
    for (size_t i = 0; i < sizeof layout; i++) {
        fps_status expected = i < 8 ? FPS_BAD_MAGIC : i < 12 ? FPS_BAD_VERSION : FPS_BAD_HEADER;
        for (int bit = 0; bit < 8; bit++) {
            fps_layout broken = layout;
            ((uint8_t *)&broken)[i] ^= (uint8_t)(1 << bit);
            CHECK_EQ(parse(&broken), expected);
        }
    }
}

/* A checksum shows accidents only: what adds up wrongly is refused with a right checksum, too. */
static void every_field_that_does_not_add_up_is_refused(void)
{
    fps_layout layout = some_layout();
    for (size_t i = 12; i < offsetof(fps_layout, checksum); i++) {
        bool free = (i >= offsetof(fps_layout, arena_id) && i < offsetof(fps_layout, n_sessions)) ||
                    (i >= offsetof(fps_layout, policy.staleness) && i < offsetof(fps_layout, policy.reduce));
        fps_layout broken = layout;
        ((uint8_t *)&broken)[i] ^= 0x40;
        broken.checksum = fnv1a(&broken, offsetof(fps_layout, checksum));
        CHECK_EQ(parse(&broken), free ? FPS_OK : FPS_BAD_HEADER);
    }
}

static void another_format_version_is_told_apart_from_damage(void)
{
    fps_layout layout = some_layout();
    layout.format_version++;
    layout.checksum = fnv1a(&layout, offsetof(fps_layout, checksum));
    CHECK_EQ(parse(&layout), FPS_BAD_VERSION);
}

static void a_short_file_is_truncated(void)
{
    fps_layout layout = some_layout(), out;
    for (size_t n = 0; n < sizeof layout; n++)
        CHECK_EQ(fps_layout_parse(&layout, n, layout.total_bytes, &out, tables), FPS_TRUNCATED);
    CHECK_EQ(fps_layout_parse(&layout, sizeof layout, layout.total_bytes - 1, &out, tables), FPS_TRUNCATED);
}

static void regions_follow_each_other_at_their_residues(void)
{
    const uint64_t sizes[] = {4, 8, 100, 4095, 4096, 4097, 12288, 131072, 131076, 1000004};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (uint32_t n_slots = 0; n_slots <= FPS_MAX_SLOTS; n_slots += 4) {
            fps_arena_spec spec = spec_of(sizes[i], i % 2 ? 4096 : 0, 1 + (uint32_t)i * 3);
            spec.n_slots = n_slots;
            spec.n_members = n_slots * 17; /* as many as there may be, at most */
            fps_layout l = layout_of(&spec);
            CHECK_EQ(l.total_bytes, fps_arena_bytes(&spec));
            CHECK_EQ(l.sessions_offset, 8192);
            CHECK(l.stripes_offset >= l.sessions_offset + l.n_sessions * sizeof(fps_seat));
            CHECK(l.board_offset >= l.stripes_offset + l.n_stripes * sizeof(fps_stripe));
            CHECK(l.redo_offset >= l.board_offset + sizeof(fps_board) + l.n_members * sizeof(fps_member));
            CHECK(l.params_offset >= l.redo_offset + (uint64_t)l.n_sessions * l.redo_bytes);
            CHECK(l.slots_offset >= l.params_offset + l.params_bytes);
            CHECK(l.slot_stride >= l.params_bytes);
            CHECK(l.total_bytes >= l.slots_offset + l.n_slots * l.slot_stride);
            CHECK_EQ(l.stripes_offset % 64, 0);
            CHECK_EQ(l.board_offset % 64, 0);
            CHECK_EQ(l.n_versions, 1);
            CHECK_EQ(l.total_bytes, l.fixed_bytes);
            CHECK_EQ(l.redo_offset % 4096, 3072);
            CHECK_EQ(l.params_offset % 4096, 2048);
            CHECK_EQ(l.slots_offset % 4096, 2304);
            CHECK_EQ(l.slot_stride % 4096, 256); /* so no stream lies where another one does, modulo a page */
            CHECK_EQ(l.total_bytes % 4096, 0);
            CHECK_EQ(l.redo_bytes, n_slots == 0 ? l.block_bytes : (l.block_bytes + 256) * (1 + n_slots));
            CHECK_EQ(l.block_bytes & (l.block_bytes - 1), 0);
            CHECK(l.block_bytes >= FPS_BLOCK_BYTES / 2 && l.block_bytes <= FPS_BLOCK_MAX_BYTES);
            CHECK(l.ahead_bytes == 0 || l.ahead_bytes == l.block_bytes);
            CHECK_EQ(l.n_stripes, (l.params_bytes + l.stripe_bytes - 1) / l.stripe_bytes);
        }
    }
}

typedef struct range {
    const uint8_t *from;
    uint64_t bytes;
} range;

static void check_apart(const range *ranges, size_t n, const fps_arena *arena)
{
    for (size_t i = 0; i < n; i++) {
        CHECK(ranges[i].from >= arena->base);
        CHECK(ranges[i].from + ranges[i].bytes <= arena->base + arena->layout.total_bytes);
        CHECK_EQ((uintptr_t)ranges[i].from % 8, 0);
        for (size_t j = 0; j < i; j++)
            CHECK(ranges[i].from + ranges[i].bytes <= ranges[j].from ||
                  ranges[j].from + ranges[j].bytes <= ranges[i].from);
    }
}

static void streams_and_redo_blocks_of_all_sessions_lie_apart(void)
{
    static const uint32_t slots[] = {0, 1, 2, 7, FPS_MAX_SLOTS};
    static const uint64_t sizes[] = {4, 4096, 12288, 131076, 1000004};
    for (size_t i = 0; i < COUNT(slots) * COUNT(sizes); i++) {
        uint32_t n_slots = slots[i / COUNT(sizes)], n_sessions = 1 + (uint32_t)i % 4;
        fps_arena arena = make_arena_with_slots(sizes[i % COUNT(sizes)], 4096, n_sessions, n_slots);
        range ranges[3 + 4 * (1 + FPS_MAX_SLOTS) + 1 + FPS_MAX_SLOTS];
        size_t n = 0;
        ranges[n++] = (range){arena.base, sizeof(fps_header)};
        ranges[n++] = (range){(uint8_t *)arena.seats, n_sessions * sizeof(fps_seat)};
        ranges[n++] = (range){(uint8_t *)arena.stripes, arena.layout.n_stripes * sizeof(fps_stripe)};
        for (uint32_t k = 0; k <= n_slots; k++)
            ranges[n++] = (range){fps_arena_stream(&arena, k), arena.layout.params_bytes};
        for (uint32_t seat = 0; seat < n_sessions; seat++) {
            const uint8_t *own = arena.redo + seat * arena.layout.redo_bytes;
            for (uint32_t k = 0; k <= n_slots; k++, n++) {
                ranges[n] = (range){fps_arena_redo(&arena, seat, k), arena.layout.block_bytes};
                CHECK(ranges[n].from >= own);
                CHECK(ranges[n].from + ranges[n].bytes <= own + arena.layout.redo_bytes);
            }
        }
        check_apart(ranges, n, &arena);
        drop_arena(&arena);
    }
}

static void streams_of_a_push_differ_modulo_a_page(void)
{
    fps_arena arena = make_arena_with_slots(1000004, 0, 1, FPS_MAX_SLOTS);
    for (uint32_t a = 0; a <= FPS_MAX_SLOTS; a++) {
        uint64_t residue = (2048 + a * FPS_STREAM_APART) % FPS_PAGE;
        CHECK_EQ((uintptr_t)fps_arena_stream(&arena, a) % FPS_PAGE, residue);
        CHECK_EQ((uintptr_t)fps_arena_redo(&arena, 0, a) % FPS_STREAM_APART, 0);
    }
    drop_arena(&arena);
}

/* Measured: blocks of a shard that no cache holds are half as long when there are slots, and their kernels prefetch. */
static void a_large_shard_with_slots_has_short_blocks_and_prefetches(void)
{
    static const struct {
        uint64_t params_bytes;
        uint32_t n_slots, block_bytes, ahead_bytes;
    } cases[] = {
        {4096, 0, 4096, 0},           {(256 << 10) - 4, 0, 4096, 0},  {256 << 10, 0, 8192, 0},
        {(16 << 20) - 4, 0, 8192, 0}, {16 << 20, 0, 8192, 0},         {4096, 1, 4096, 0},
        {(4 << 20) - 4, 1, 4096, 0},  {4 << 20, 1, 2048, 2048},       {(3 << 20) - 4, 2, 4096, 0},
        {3 << 20, 2, 2048, 2048},     {4096, FPS_MAX_SLOTS, 4096, 0}, {1 << 20, FPS_MAX_SLOTS, 2048, 2048},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        fps_arena_spec spec = spec_of(cases[i].params_bytes, 0, 1);
        spec.n_slots = cases[i].n_slots;
        fps_layout l = layout_of(&spec);
        CHECK_EQ(l.block_bytes, cases[i].block_bytes);
        CHECK_EQ(l.ahead_bytes, cases[i].ahead_bytes);
    }
}

static void the_format_version_is_the_third_word(void)
{
    fps_layout layout = some_layout();
    uint32_t version;
    memcpy(&version, (const uint8_t *)&layout + 8, sizeof version);
    CHECK_EQ(version, FPS_FORMAT_VERSION);
    CHECK_EQ(version, 11); /* 1 had one redo block a session and no hyper-parameters, 2 no members, 3 no trays, 4 no
                             tables, 5 one set of a table's hyper-parameters, 6 one of a shard's, 7 two redo records,
                             8 no update counts of single arrays, 9 no epochs of rows, which held values in float32,
                             10 no cuts */
    for (layout.format_version = 1; layout.format_version < FPS_FORMAT_VERSION; layout.format_version++) {
        layout.checksum = fnv1a(&layout, offsetof(fps_layout, checksum));
        CHECK_EQ(parse(&layout), FPS_BAD_VERSION);
    }
}

static void as_many_slots_as_a_rule_may_have_are_there(void)
{
    fps_arena arena = make_arena_with_slots(4100, 4096, 1, FPS_MAX_SLOTS);
    CHECK_EQ(arena.layout.n_slots, 15);
    for (uint32_t k = 0; k <= FPS_MAX_SLOTS; k++) {
        uint8_t *stream = fps_arena_stream(&arena, k);
        for (uint32_t i = 0; i < 4100; i++) CHECK_EQ(stream[i], 0);
        memset(stream, (int)k + 1, 4100);
    }
    for (uint32_t k = 0; k <= FPS_MAX_SLOTS; k++)
        for (uint32_t i = 0; i < 4100; i++) CHECK_EQ(fps_arena_stream(&arena, k)[i], k + 1);
    drop_arena(&arena);
}

static void the_chosen_stripe_is_a_power_of_two_within_its_limits(void)
{
    for (uint64_t bytes = 4; bytes < (UINT64_C(1) << 24); bytes = bytes * 3 + 4) {
        fps_arena_spec spec = spec_of(bytes, 0, 1);
        uint64_t stripe = layout_of(&spec).stripe_bytes;
        CHECK(stripe >= 64 << 10 && stripe <= 1 << 20);
        CHECK_EQ(stripe & (stripe - 1), 0);
    }
}

static void nonsense_is_refused_and_has_no_size(void)
{
    fps_arena_spec specs[12];
    for (size_t i = 0; i < COUNT(specs); i++) specs[i] = spec_of(4096, 4096, 1);
    specs[0].params_bytes = 0;
    specs[1].params_bytes = UINT64_MAX;
    specs[2].params_bytes = (UINT64_C(1) << 46) + 1;
    specs[3].n_sessions = 0;
    specs[4].n_sessions = FPS_MAX_SESSIONS + 1;
    specs[5].n_slots = FPS_MAX_SLOTS + 1;
    specs[6].isolation = 2;
    specs[7].stripe_bytes = 2048;
    specs[8].stripe_bytes = 4097;
    specs[9].stripe_bytes = 12288;
    specs[10].stripe_bytes = UINT64_MAX;
    specs[11].params_bytes = UINT64_C(1) << 45; /* more stripes than 32 bits count */
    for (size_t i = 0; i < COUNT(specs); i++) {
        fps_arena arena;
        CHECK_EQ(fps_arena_bytes(&specs[i]), 0);
        bool too_large = specs[i].params_bytes > UINT64_C(1) << 46;
        CHECK_EQ(fps_arena_create(&specs[i], &arena), too_large ? FPS_NO_MEMORY : FPS_BAD_HEADER);
    }
}

static void a_new_arena_is_zeroed_and_open(void)
{
    fps_arena arena = make_arena(40000, 4096, 2);
    for (uint64_t i = 0; i < 40000; i++) CHECK_EQ(arena.params[i], 0);
    CHECK_EQ(fps_arena_state(&arena), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&arena.header->version), 0);
    CHECK_EQ(fps_load32_relaxed(&arena.header->owner_pid), getpid());
    for (uint32_t rule = 0; rule < FPS_MAX_RULES; rule++) {
        double values[FPS_MAX_HYPER];
        fps_dense_hyper(&arena, rule, values);
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(values[i], 0.0);
    }
    drop_arena(&arena);
}

static void an_opened_arena_is_the_same_memory(void)
{
    fps_arena owner = make_arena(40000, 4096, 2), peer;
    CHECK_EQ(fps_arena_open(dup(owner.fd), owner.layout.arena_id, &peer), FPS_OK);
    CHECK(peer.base != owner.base);
    owner.params[39999] = 7;
    CHECK_EQ(peer.params[39999], 7);
    CHECK_EQ(memcmp(&peer.layout, &owner.layout, sizeof peer.layout), 0);
    CHECK_EQ(fps_arena_state(&peer), FPS_OK);
    drop_arena(&owner);
    CHECK_EQ(fps_arena_state(&peer), FPS_CLOSED);
    fps_arena_close(&peer);
    fps_arena_close(&peer); /* a second close is harmless */
}

static void an_arena_with_another_id_is_the_wrong_one(void)
{
    fps_arena owner = make_arena(4096, 4096, 1), peer;
    uint8_t id[16];
    for (size_t i = 0; i < sizeof id; i++) {
        memcpy(id, owner.layout.arena_id, sizeof id);
        id[i] ^= 1;
        CHECK_EQ(fps_arena_open(owner.fd, id, &peer), FPS_WRONG_ARENA);
    }
    drop_arena(&owner);
}

/* Opens a file of `bytes` bytes that starts with `layout`. The file stays ours when it is refused. */
static fps_status open_forged(const fps_layout *layout, uint64_t bytes, unsigned seals)
{
    fps_arena peer;
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, layout, sizeof *layout, 0), sizeof *layout);
    CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    fps_status status = fps_arena_open(fd, layout->arena_id, &peer);
    CHECK(status != FPS_OK);
    CHECK_EQ(close(fd), 0);
    return status;
}

static void a_file_that_may_shrink_is_refused(void)
{
    fps_layout layout = some_layout();
    CHECK_EQ(open_forged(&layout, layout.total_bytes, 0), FPS_BAD_HEADER);
    CHECK_EQ(open_forged(&layout, layout.total_bytes, F_SEAL_GROW), FPS_BAD_HEADER);
}

static void an_arena_whose_creator_has_not_finished_is_not_ready(void)
{
    fps_layout layout = some_layout();
    CHECK_EQ(open_forged(&layout, layout.total_bytes, F_SEAL_SHRINK), FPS_NOT_READY);
}

static void a_file_is_checked_before_it_is_mapped(void)
{
    fps_layout layout = some_layout(), other = layout;
    CHECK_EQ(open_forged(&layout, 0, F_SEAL_SHRINK), FPS_TRUNCATED);
    CHECK_EQ(open_forged(&layout, 100, F_SEAL_SHRINK), FPS_TRUNCATED);
    CHECK_EQ(open_forged(&layout, layout.total_bytes - 1, F_SEAL_SHRINK), FPS_TRUNCATED);
    other.magic++;
    CHECK_EQ(open_forged(&other, layout.total_bytes, F_SEAL_SHRINK), FPS_BAD_MAGIC);
    other = layout;
    other.format_version++;
    CHECK_EQ(open_forged(&other, layout.total_bytes, F_SEAL_SHRINK), FPS_BAD_VERSION);
}

static void a_descriptor_that_is_no_file_is_a_system_error(void)
{
    fps_arena peer;
    uint8_t id[16] = {0};
    CHECK_EQ(fps_arena_open(-1, id, &peer), FPS_SYSTEM);
    CHECK_EQ(errno, EBADF);
}

static void create_without_room_for_the_file(void *unused)
{
    (void)unused;
    fps_arena arena;
    fps_arena_spec spec = spec_of(1 << 20, 0, 1);
    struct rlimit limit = {.rlim_cur = 1 << 16, .rlim_max = 1 << 16};
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int files = count_open_files();
    fps_status status = fps_arena_create(&spec, &arena);
    CHECK_EQ(errno, EFBIG);
    CHECK_EQ(status, FPS_SYSTEM);
    CHECK_EQ(count_open_files(), files);
    CHECK_EQ(count_mapped_arenas(), 0);
}

static void create_without_address_space(void *unused)
{
    (void)unused;
    fps_arena arena;
    fps_arena_spec spec = spec_of(64 << 20, 0, 1);
    struct rlimit limit = {.rlim_cur = 64 << 20, .rlim_max = RLIM_INFINITY};
    int files = count_open_files();
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    fps_status status = fps_arena_create(&spec, &arena);
    limit.rlim_cur = RLIM_INFINITY;
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(status, FPS_NO_MEMORY);
    CHECK_EQ(count_open_files(), files);
    CHECK_EQ(count_mapped_arenas(), 0);
}

static void create_without_descriptors(void *unused)
{
    (void)unused;
    fps_arena arena;
    fps_arena_spec spec = spec_of(4096, 0, 1);
    struct rlimit limit = {.rlim_cur = 3, .rlim_max = 3};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    fps_status status = fps_arena_create(&spec, &arena);
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(status, FPS_SYSTEM);
}

static void a_failed_create_leaves_nothing_behind(void)
{
    expect_success(start_process(create_without_room_for_the_file, NULL));
    expect_success(start_process(create_without_address_space, NULL));
    expect_success(start_process(create_without_descriptors, NULL));
}

static uint64_t mapped_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    CHECK_EQ(fscanf(file, "%llu", &pages), 1);
    fclose(file);
    return pages * FPS_PAGE;
}

/* The file looks like an arena, but its seals let nobody write. */
static int copy_that_cannot_be_mapped(const fps_arena *arena)
{
    int fd = memfd_create("fastps", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, arena->base, FPS_HEAD_BYTES, 0), FPS_HEAD_BYTES);
    CHECK_EQ(ftruncate(fd, (off_t)arena->layout.total_bytes), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE), 0);
    return fd;
}

static void a_failed_open_leaves_nothing_behind(void)
{
    fps_table_layout table = {.dim = 4, .item_bytes = 4, .max_rows = 1 << 24};
    fps_arena_spec spec = spec_of(4096, 0, 1);
    for (spec.tables = &table; spec.n_tables < 2; spec.n_tables++) {
        fps_arena arena, peer;
        CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
        int fd = copy_that_cannot_be_mapped(&arena);
        const uint64_t before = mapped_bytes();
        const int maps = count_mapped_arenas();
        for (int i = 0; i < 10; i++) CHECK_EQ(fps_arena_open(fd, arena.layout.arena_id, &peer), FPS_SYSTEM);
        CHECK_EQ(errno, EPERM);
        CHECK(mapped_bytes() < before + arena.layout.total_bytes);
        CHECK_EQ(count_mapped_arenas(), maps);
        CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC); /* it stays the caller's */
        close(fd);
        drop_arena(&arena);
    }
}

static void retire_and_close(void *argument)
{
    fps_arena *arena = argument;
    CHECK_EQ(fps_arena_retire(arena), FPS_NOT_ABANDONED);
    CHECK_EQ(fps_arena_state(arena), FPS_OK);
    fps_arena_close(arena);
}

static void a_forked_child_cannot_retire_its_parents_arena(void)
{
    fps_arena arena = make_arena(4096, 4096, 1);
    expect_success(start_process(retire_and_close, &arena));
    CHECK_EQ(fps_arena_state(&arena), FPS_OK);
    drop_arena(&arena);
}

static void open_and_retire(void *argument)
{
    const fps_arena *arena = argument;
    fps_arena peer;
    CHECK_EQ(fps_arena_open(dup(arena->fd), arena->layout.arena_id, &peer), FPS_OK);
    CHECK_EQ(fps_arena_retire(&peer), FPS_NOT_ABANDONED);
    CHECK_EQ(fps_arena_state(&peer), FPS_OK);
    fps_arena_close(&peer);
}

static void a_peer_cannot_retire_the_arena_of_a_live_owner(void)
{
    fps_arena arena = make_arena(4096, 4096, 1);
    arena.params[4095] = 7;
    expect_success(start_process(open_and_retire, &arena));
    CHECK_EQ(fps_arena_state(&arena), FPS_OK);
    CHECK_EQ(arena.params[4095], 7);
    drop_arena(&arena);
}

/* Its life lock says that this process's life thread holds it. */
static void a_copy_of_an_owners_file_is_not_its_own(void)
{
    fps_arena arena = make_arena(4096, 4096, 1), copy;
    int fd = memfd_create("fastps", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQ(write(fd, arena.base, arena.layout.total_bytes), (ssize_t)arena.layout.total_bytes);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    CHECK_EQ(fps_arena_open(fd, arena.layout.arena_id, &copy), FPS_OK);
    CHECK_EQ(fps_arena_retire(&copy), FPS_NOT_ABANDONED);
    fps_arena_close(&copy);
    fps_arena more = make_arena(4096, 4096, 1); /* the thread's list of locks is as it was */
    drop_arena(&more);
    CHECK_EQ(fps_arena_state(&arena), FPS_OK);
    drop_arena(&arena);
}

static void *retire_often(void *arena)
{
    for (int i = 0; i < 100; i++) CHECK_EQ(fps_arena_retire(arena), FPS_OK);
    return NULL;
}

static void an_arena_is_retired_by_any_thread_and_more_than_once(void)
{
    fps_arena arena = make_arena(1 << 20, 0, 1);
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, retire_often, &arena), 0);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    CHECK_EQ(fps_arena_state(&arena), FPS_CLOSED);
    fps_arena_close(&arena);
    CHECK_EQ(fps_arena_retire(&arena), FPS_OK);
    fps_arena_close(&arena);
}

static void a_retired_arena_gives_its_memory_back(void)
{
    fps_arena arena = make_arena(1 << 20, 0, 1), peer;
    struct stat before, after;
    CHECK_EQ(fps_arena_open(dup(arena.fd), arena.layout.arena_id, &peer), FPS_OK);
    memset(arena.params, 1, 1 << 20);
    CHECK_EQ(fstat(peer.fd, &before), 0);
    drop_arena(&arena);
    CHECK_EQ(fstat(peer.fd, &after), 0);
    CHECK_EQ(after.st_size, before.st_size);
    CHECK((before.st_blocks - after.st_blocks) * 512 >= 1 << 20);
    CHECK_EQ(peer.params[FPS_PAGE], 0); /* still mapped: nobody gets a SIGBUS */
    fps_arena_close(&peer);
}

static void a_retired_arena_gives_the_memory_of_its_slots_back(void)
{
    fps_arena arena = make_arena_with_slots(1 << 20, 0, 1, 2), peer;
    struct stat before, after;
    CHECK_EQ(fps_arena_open(dup(arena.fd), arena.layout.arena_id, &peer), FPS_OK);
    for (uint32_t k = 0; k < 3; k++) memset(fps_arena_stream(&arena, k), 1, 1 << 20);
    CHECK_EQ(fstat(peer.fd, &before), 0);
    drop_arena(&arena);
    CHECK_EQ(fstat(peer.fd, &after), 0);
    CHECK((before.st_blocks - after.st_blocks) * 512 >= 3 << 20);
    for (uint32_t k = 0; k < 3; k++)
        for (uint32_t i = 0; i < 1 << 20; i++) CHECK_EQ(fps_arena_stream(&peer, k)[i], 0);
    fps_arena_close(&peer);
}

static fps_arena_spec spec_of_rounds(uint64_t params_bytes, uint32_t n_members, uint32_t n_slots)
{
    fps_arena_spec spec = spec_of(params_bytes, 4096, 3);
    spec.n_members = n_members;
    spec.n_slots = n_slots;
    spec.policy = (fps_policy){.kind = FPS_BSP, .backup = 1, .quorum = 2, .straggler_ns = 1000};
    return spec;
}

static uint64_t page_up(uint64_t bytes) { return (bytes + FPS_PAGE - 1) / FPS_PAGE * FPS_PAGE; }

static void an_arena_of_rounds_has_one_stripe_and_room_for_versions_and_rows(void)
{
    static const uint64_t sizes[] = {4, 4096, 12288, 131076, 1000004};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (uint32_t n_members = 0; n_members <= 256; n_members = n_members * 4 + 1) {
            fps_arena_spec spec = spec_of_rounds(sizes[i], n_members, (uint32_t)i % 3);
            fps_layout l = layout_of(&spec);
            CHECK_EQ(l.n_stripes, 1);
            CHECK(l.stripe_bytes >= l.params_bytes);
            CHECK_EQ(l.n_versions, 16);
            CHECK_EQ(l.n_members, n_members);
            CHECK_EQ(memcmp(&l.policy, &spec.policy, sizeof l.policy), 0);
            uint64_t board_bytes = sizeof(fps_board) + n_members * (sizeof(fps_member) + sizeof(fps_tray));
            CHECK(l.redo_offset >= l.board_offset + board_bytes);
            CHECK(l.version_stride >= l.slots_offset - l.params_offset + l.n_slots * l.slot_stride);
            CHECK_EQ(l.trays_offset, page_up(l.fixed_bytes + 15 * l.version_stride - 2048) + 2048);
            CHECK_EQ(l.total_bytes, page_up(l.trays_offset + n_members * l.tray_stride));
            CHECK(l.tray_stride >= l.params_bytes);
            CHECK(l.fixed_bytes < l.total_bytes);
            CHECK_EQ(l.fixed_bytes % FPS_PAGE, 0);
            CHECK_EQ(l.total_bytes % FPS_PAGE, 0);
            CHECK_EQ(l.version_stride % FPS_PAGE, 0); /* so a stream keeps its residue in every version */
            CHECK_EQ(l.trays_offset % FPS_PAGE, 2048);
            CHECK_EQ(l.tray_stride % FPS_PAGE, 0);
        }
    }
}

/* Its fixed part, the version that has memory from the beginning, and a tray for each worker that it waits for. */
static void an_arena_of_rounds_counts_the_rows_of_its_quorum(void)
{
    static const uint32_t quorums[] = {0, 1, 2, 7, 8, 9, UINT32_MAX};
    for (size_t i = 0; i < COUNT(quorums); i++) {
        fps_arena_spec spec = spec_of_rounds(131076, 8, (uint32_t)i % 3);
        spec.policy.quorum = quorums[i];
        fps_layout l = layout_of(&spec);
        uint64_t trays = quorums[i] < 8 ? quorums[i] : 8;
        CHECK_EQ(fps_arena_bytes(&spec), l.fixed_bytes + l.version_stride + trays * l.tray_stride);
        spec.policy.kind = FPS_SSP;
        CHECK_EQ(fps_arena_bytes(&spec), layout_of(&spec).fixed_bytes);
    }
}

static void versions_and_rows_lie_apart(void)
{
    static const uint64_t sizes[] = {4, 2044, 2048, 2052, 4096, 12288, 131076, 1000004};
    for (size_t i = 0; i < COUNT(sizes) * 3; i++) {
        uint32_t n_slots = (uint32_t)i % 3, n_members = 5;
        fps_arena_spec spec = spec_of_rounds(sizes[i / 3], n_members, n_slots);
        fps_arena arena;
        CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
        const fps_layout *l = &arena.layout;
        range ranges[7 + FPS_MAX_VERSIONS * 3 + 5];
        size_t n = 0;
        ranges[n++] = (range){arena.base, sizeof(fps_header)};
        ranges[n++] = (range){(uint8_t *)arena.seats, l->n_sessions * sizeof(fps_seat)};
        ranges[n++] = (range){(uint8_t *)arena.stripes, sizeof(fps_stripe)};
        ranges[n++] = (range){(uint8_t *)arena.board, sizeof(fps_board)};
        ranges[n++] = (range){(uint8_t *)arena.members, n_members * sizeof(fps_member)};
        ranges[n++] = (range){(uint8_t *)arena.trays, n_members * sizeof(fps_tray)};
        CHECK_EQ((uintptr_t)arena.trays % 64, 0);
        ranges[n++] = (range){arena.redo, (uint64_t)l->n_sessions * l->redo_bytes};
        for (uint32_t version = 0; version < l->n_versions; version++) {
            for (uint32_t k = 0; k <= n_slots; k++, n++) {
                ranges[n] = (range){fps_arena_version(&arena, version, k), l->params_bytes};
                CHECK(ranges[n].from == fps_arena_stream(&arena, k) + version * l->version_stride);
                bool fixed = ranges[n].from + ranges[n].bytes <= arena.base + l->fixed_bytes;
                CHECK_EQ(fixed, version == 0);
                CHECK(fixed || ranges[n].from >= arena.base + l->fixed_bytes);
            }
        }
        for (uint32_t rank = 0; rank < n_members; rank++, n++) {
            ranges[n] = (range){fps_arena_tray(&arena, rank), l->params_bytes};
            CHECK(ranges[n].from >= arena.base + l->fixed_bytes);
        }
        CHECK_EQ(n, 7 + l->n_versions * (1 + n_slots) + n_members);
        check_apart(ranges, n, &arena);
        for (size_t k = 7; k < n; k++) memset((uint8_t *)(uintptr_t)ranges[k].from, (int)k, ranges[k].bytes);
        for (size_t k = 7; k < n; k++) {
            CHECK_EQ(ranges[k].from[0], k);
            CHECK_EQ(ranges[k].from[ranges[k].bytes - 1], k);
        }
        drop_arena(&arena);
    }
}

static fps_status parse_again(fps_layout layout)
{
    layout.checksum = fnv1a(&layout, offsetof(fps_layout, checksum));
    return parse(&layout);
}

static void a_layout_of_rounds_parses_and_one_that_was_tampered_with_does_not(void)
{
    fps_arena_spec spec = spec_of_rounds(98304, 3, 2);
    const fps_layout layout = layout_of(&spec);
    CHECK_EQ(parse(&layout), FPS_OK);
    CHECK_EQ(parse_again(layout), FPS_OK);

    fps_layout broken[26];
    size_t n = 0;
    for (; n < COUNT(broken); n++) broken[n] = layout;
    n = 0;
    broken[n++].n_leaves = 1000;
    broken[n++].n_leaves = UINT32_MAX;
    broken[n++].counts_offset += 64;
    broken[n++].n_members = 0;
    broken[n++].n_members = 2;
    broken[n++].n_members = 4;
    broken[n++].n_members = FPS_MAX_MEMBERS + 1;
    broken[n++].n_members = UINT32_MAX;
    broken[n++].policy.kind = FPS_ASYNC;
    broken[n++].policy.kind = FPS_SSP;
    broken[n++].policy.kind = FPS_BSP + 1;
    broken[n++].policy.straggler_ns = -1;
    broken[n++].policy.reduce = FPS_REDUCE_PARAMS + 1;
    broken[n++].policy.reduce = UINT32_MAX;
    broken[n++].policy.unused = 1;
    broken[n++].n_versions = 0;
    broken[n++].n_versions = 1;
    broken[n++].n_versions = FPS_MAX_VERSIONS - 1;
    broken[n++].n_versions = FPS_MAX_VERSIONS + 1;
    broken[n++].isolation = FPS_ISOLATION_NONE;
    broken[n++].version_stride += FPS_PAGE;
    broken[n++].trays_offset -= FPS_PAGE;
    broken[n++].tray_stride -= FPS_PAGE;
    broken[n++].fixed_bytes = layout.total_bytes;
    broken[n++].stripe_bytes = 4096;
    broken[n++].total_bytes += FPS_PAGE;
    CHECK_EQ(n, COUNT(broken));
    while (n-- > 0) CHECK_EQ(parse_again(broken[n]), FPS_BAD_HEADER);

    fps_layout other = layout; /* what decides about waiting only is free */
    other.policy = (fps_policy){.kind = FPS_BSP, .staleness = 9, .backup = 9, .quorum = 9, .straggler_ns = 9};
    CHECK_EQ(parse_again(other), FPS_OK);
    for (; other.policy.reduce <= FPS_REDUCE_PARAMS; other.policy.reduce++) CHECK_EQ(parse_again(other), FPS_OK);
}

static int64_t memory_of(const fps_arena *arena)
{
    struct stat file;
    CHECK_EQ(fstat(arena->fd, &file), 0);
    CHECK_EQ(file.st_size, (int64_t)arena->layout.total_bytes);
    return file.st_blocks * 512;
}

/* Off by the pages that two regions share, and those that the kernel counts beside them. */
static void check_memory(const fps_arena *arena, uint64_t expected)
{
    int64_t memory = memory_of(arena);
    CHECK(memory >= (int64_t)expected && memory < (int64_t)expected + (1 << 20));
}

/* What rounds need beyond two versions takes memory only when it is asked for. */
static void an_arena_of_rounds_takes_memory_for_two_versions_only(void)
{
    fps_arena_spec spec = spec_of_rounds(4 << 20, 4, 1);
    fps_arena arena, peer;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    CHECK_EQ(fps_arena_open(dup(arena.fd), arena.layout.arena_id, &peer), FPS_OK);
    uint64_t fixed = arena.layout.fixed_bytes, stride = arena.layout.version_stride, tray = arena.layout.tray_stride;
    CHECK(arena.layout.total_bytes > 8 * (fixed + stride));
    CHECK_EQ(fps_load32_relaxed(&arena.header->backed), 3);
    check_memory(&arena, fixed + stride);
    for (uint32_t k = 0; k <= 1; k++) memset(fps_arena_version(&arena, 1, k), 5, 4 << 20);
    check_memory(&arena, fixed + stride); /* it was there */
    for (int twice = 0; twice < 2; twice++) {
        CHECK_EQ(fps_arena_back_version(&peer, 0), FPS_OK);
        CHECK_EQ(fps_arena_back_version(&peer, 1), FPS_OK);
        CHECK_EQ(fps_arena_back_tray(&peer, 3), FPS_OK);
        CHECK_EQ(fps_arena_back_tray(&peer, 0), FPS_OK);
    }
    check_memory(&arena, fps_arena_bytes(&spec));
    check_memory(&arena, fixed + stride + 2 * tray);
    for (uint32_t rank = 0; rank < 4; rank++)
        CHECK_EQ(fps_load32_relaxed(&arena.trays[rank].backed), rank == 0 || rank == 3);
    CHECK_EQ(fps_arena_back_version(&peer, 15), FPS_OK);
    CHECK_EQ(fps_load32_relaxed(&arena.header->backed), 0x8003);
    check_memory(&arena, fixed + 2 * stride + 2 * tray);
    memset(fps_arena_tray(&arena, 3), 5, 4 << 20);
    for (uint32_t k = 0; k <= 1; k++) memset(fps_arena_version(&arena, 15, k), 5, 4 << 20);
    check_memory(&arena, fixed + 2 * stride + 2 * tray);
    CHECK_EQ(fps_arena_tray(&peer, 3)[(4 << 20) - 1], 5);
    CHECK_EQ(fps_arena_tray(&peer, 2)[(4 << 20) - 1], 0);
    CHECK_EQ(fps_arena_version(&peer, 15, 1)[(4 << 20) - 1], 5);
    drop_arena(&arena);
    CHECK(memory_of(&peer) < 1 << 20);
    fps_arena_close(&peer);
}

static void rounds_of_nonsense_are_refused(void)
{
    fps_arena arena;
    fps_arena_spec specs[6];
    for (size_t i = 0; i < COUNT(specs); i++) specs[i] = spec_of_rounds(4096, 2, 0);
    specs[0].isolation = FPS_ISOLATION_NONE;
    specs[1].n_members = FPS_MAX_MEMBERS + 1;
    specs[2].policy.kind = FPS_BSP + 1;
    specs[3].policy.straggler_ns = -1;
    specs[4].policy.reduce = FPS_REDUCE_PARAMS + 1;
    specs[5].policy.unused = 1;
    for (size_t i = 0; i < COUNT(specs); i++) {
        CHECK_EQ(fps_arena_bytes(&specs[i]), 0);
        CHECK_EQ(fps_arena_create(&specs[i], &arena), FPS_BAD_HEADER);
    }
}

typedef struct owned {
    fps_word32 fd;
    fps_word32 ready;
} owned;

static void own_an_arena(void *argument)
{
    owned *shared = argument;
    fps_arena arena = make_arena(4096, 4096, 1);
    fps_store32_relaxed(&shared->fd, (uint32_t)arena.fd);
    fps_store32_release(&shared->ready, 1);
    for (;;) pause();
}

static void the_death_of_the_owner_is_seen(void)
{
    owned *shared = share(sizeof *shared);
    fps_arena peer;
    fps_arena_spec spec = spec_of(4096, 4096, 1);
    char path[64];
    pid_t pid = start_process(own_an_arena, shared);
    await(&shared->ready, 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%u", pid, fps_load32_relaxed(&shared->fd));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(fps_arena_open(fd, spec.arena_id, &peer), FPS_OK);
    CHECK_EQ(fps_arena_state(&peer), FPS_OK);
    kill_process(pid);
    CHECK_EQ(fps_arena_state(&peer), FPS_OWNER_DIED);
    fps_arena_close(&peer);
    munmap(shared, sizeof *shared);
}

static void own_a_large_arena(void *argument)
{
    owned *shared = argument;
    fps_table_layout table = {.dim = 64, .item_bytes = 4, .max_rows = 1 << 16};
    fps_arena_spec spec = spec_of(1 << 20, 0, 1);
    spec.n_slots = 1;
    spec.tables = &table;
    spec.n_tables = 1;
    fps_arena arena;
    uint64_t backed = 0;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    CHECK_EQ(fps_arena_extend(&arena, arena.tables[0].rows, 1 << 20, &backed), FPS_OK);
    for (uint32_t k = 0; k < 2; k++) memset(fps_arena_stream(&arena, k), 1, 1 << 20);
    memset(arena.tables[0].rows, 1, 1 << 20);
    fps_store32_relaxed(&shared->fd, (uint32_t)arena.fd);
    fps_store32_release(&shared->ready, 1);
    for (;;) pause();
}

static void expect_to_retire(void *peer)
{
    for (int i = 0; i < 20; i++) CHECK_EQ(fps_arena_retire(peer), FPS_OK);
}

static void anybody_gives_the_memory_of_a_dead_owners_arena_back(void)
{
    owned *shared = share(sizeof *shared);
    fps_arena peer;
    struct stat before, after;
    char path[64];
    pid_t pid = start_process(own_a_large_arena, shared), retiring[3];
    await(&shared->ready, 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%u", pid, fps_load32_relaxed(&shared->fd));
    fps_arena_spec spec = spec_of(4096, 4096, 1);
    CHECK_EQ(fps_arena_open(open(path, O_RDWR | O_CLOEXEC), spec.arena_id, &peer), FPS_OK);
    CHECK_EQ(fps_arena_retire(&peer), FPS_NOT_ABANDONED);
    CHECK_EQ(peer.params[0], 1);
    kill_process(pid);
    CHECK_EQ(fstat(peer.fd, &before), 0);
    for (size_t i = 0; i < COUNT(retiring); i++) retiring[i] = start_process(expect_to_retire, &peer);
    CHECK_EQ(fps_arena_retire(&peer), FPS_OK);
    for (size_t i = 0; i < COUNT(retiring); i++) expect_success(retiring[i]);
    CHECK_EQ(fps_arena_state(&peer), FPS_CLOSED);
    CHECK_EQ(fstat(peer.fd, &after), 0);
    CHECK((before.st_blocks - after.st_blocks) * 512 >= 3 << 20);
    CHECK((uint64_t)after.st_blocks * 512 <= fps_page_up(peer.layout.params_offset));
    for (uint32_t i = 0; i < 1 << 20; i++) CHECK_EQ(peer.params[i] | peer.tables[0].rows[i], 0);
    fps_arena_close(&peer);
    munmap(shared, sizeof *shared);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_valid_layout_parses_to_itself),
        TEST(every_flipped_bit_is_refused),
        TEST(every_field_that_does_not_add_up_is_refused),
        TEST(another_format_version_is_told_apart_from_damage),
        TEST(a_short_file_is_truncated),
        TEST(regions_follow_each_other_at_their_residues),
        TEST(streams_and_redo_blocks_of_all_sessions_lie_apart),
        TEST(streams_of_a_push_differ_modulo_a_page),
        TEST(a_large_shard_with_slots_has_short_blocks_and_prefetches),
        TEST(the_format_version_is_the_third_word),
        TEST(as_many_slots_as_a_rule_may_have_are_there),
        TEST(the_chosen_stripe_is_a_power_of_two_within_its_limits),
        TEST(nonsense_is_refused_and_has_no_size),
        TEST(a_new_arena_is_zeroed_and_open),
        TEST(an_opened_arena_is_the_same_memory),
        TEST(an_arena_with_another_id_is_the_wrong_one),
        TEST(a_file_that_may_shrink_is_refused),
        TEST(an_arena_whose_creator_has_not_finished_is_not_ready),
        TEST(a_file_is_checked_before_it_is_mapped),
        TEST(a_descriptor_that_is_no_file_is_a_system_error),
        TEST(a_failed_create_leaves_nothing_behind),
        TEST(a_failed_open_leaves_nothing_behind),
        TEST(a_forked_child_cannot_retire_its_parents_arena),
        TEST(a_peer_cannot_retire_the_arena_of_a_live_owner),
        TEST(a_copy_of_an_owners_file_is_not_its_own),
        TEST(an_arena_is_retired_by_any_thread_and_more_than_once),
        TEST(a_retired_arena_gives_its_memory_back),
        TEST(a_retired_arena_gives_the_memory_of_its_slots_back),
        TEST(an_arena_of_rounds_has_one_stripe_and_room_for_versions_and_rows),
        TEST(an_arena_of_rounds_counts_the_rows_of_its_quorum),
        TEST(versions_and_rows_lie_apart),
        TEST(a_layout_of_rounds_parses_and_one_that_was_tampered_with_does_not),
        TEST(an_arena_of_rounds_takes_memory_for_two_versions_only),
        TEST(rounds_of_nonsense_are_refused),
        TEST(the_death_of_the_owner_is_seen),
        TEST(anybody_gives_the_memory_of_a_dead_owners_arena_back),
    };
    return run_tests(tests, COUNT(tests));
}
