#define _GNU_SOURCE
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "life.h"
#include "lock.h"

#define REDO_RESIDUE 3072u
#define PARAMS_RESIDUE 2048u
#define STRIPE_MIN_BYTES (UINT64_C(64) << 10)
#define STRIPE_ONLY_BYTES (UINT64_C(256) << 10)
#define STRIPE_MAX_BYTES (UINT64_C(1) << 20)
#define PARAMS_MAX_BYTES (UINT64_C(1) << 45)
#define CACHED_BYTES (UINT64_C(12) << 20)
#define ALLOCATE_BYTES (UINT64_C(4) << 20)
#define TOTAL_MAX_BYTES (UINT64_C(1) << 46)
#define SMALL_BYTES (UINT64_C(64) << 10)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static uint64_t checksum(const void *layout, size_t length)
{
    const uint8_t *bytes = layout;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t page_up(uint64_t bytes) { return (bytes + FPS_PAGE - 1) / FPS_PAGE * FPS_PAGE; }

static uint64_t huge_up(uint64_t bytes) { return (bytes + FPS_HUGE_PAGE - 1) / FPS_HUGE_PAGE * FPS_HUGE_PAGE; }

/* The next offset at or behind `from` that is `residue` modulo a page. */
static uint64_t residue_up(uint64_t from, uint64_t residue) { return page_up(from - residue) + residue; }

/* An eighth of the shard, so that workers can follow each other closely, within what bench/dense.py found best. */
static uint64_t choose_stripe_bytes(uint64_t params_bytes)
{
    uint64_t bytes = STRIPE_MIN_BYTES;
    if (params_bytes <= STRIPE_ONLY_BYTES) return STRIPE_ONLY_BYTES;
    while (bytes < STRIPE_MAX_BYTES && bytes * 8 < params_bytes) bytes *= 2;
    return bytes;
}

/* A block and its results share the first-level cache. Without slots, against numpy in place at 40 MB: 4 KiB 1.16, 8
 * KiB 1.10, 16 KiB 1.14 (Zen 3), and 1.18, 1.11, 1.07 at 80 MB (Sapphire Rapids). With the seven streams of Adam at 40
 * MB, against torch's fused step: 1 KiB 0.95, 2 KiB 0.93, 4 KiB 1.25, 16 KiB 1.6; at 800 KB 4 KiB is best. */
static uint32_t choose_block_bytes(uint64_t params_bytes, uint32_t n_slots)
{
    if (n_slots > 0) return params_bytes * (2 + n_slots) < CACHED_BYTES ? FPS_BLOCK_BYTES : FPS_BLOCK_BYTES / 2;
    return params_bytes >= UINT64_C(256) << 10 ? 2 * FPS_BLOCK_BYTES : FPS_BLOCK_BYTES;
}

/* Where in a row its streams lie. */
static void plan_row(fps_table *t)
{
    const fps_table_layout *l = &t->layout;
    uint32_t at = t->head_bytes = l->tracked ? 24 : 16;
    for (uint32_t k = 0; k <= l->n_slots; k++) {
        t->at[k] = at;
        t->bytes[k] = l->item_bytes * (k > 0 && (l->row_slots >> (k - 1) & 1) ? 1 : l->dim);
        at += t->bytes[k];
    }
    t->layout.row_bytes = (at + 7) / 8 * 8;
}

uint64_t fps_table_row_bytes(const fps_table_layout *table)
{
    fps_table t = {.layout = *table};
    plan_row(&t);
    return t.layout.row_bytes;
}

/* A table's places from `from` on; answers its end, or 0 when it cannot be. */
static uint64_t plan_table(const fps_table_layout *spec, uint64_t from, uint64_t control_offset, fps_table_layout *out)
{
    fps_table t = {.layout = *spec};
    fps_table_layout *l = &t.layout;
    if (l->dim == 0 || l->dim > FPS_MAX_DIM || (l->item_bytes != 4 && l->item_bytes != 8)) return 0;
    if (l->n_slots > FPS_MAX_SLOTS || l->row_slots >> l->n_slots != 0) return 0;
    if (l->initial > FPS_INITIAL_NORMAL || l->tracked > 1) return 0;
    if (l->max_rows == 0 || l->max_rows > FPS_MAX_ROWS) return 0;
    plan_row(&t);
    l->max_buckets = l->max_rows / 4 + FPS_MIN_BUCKETS;
    l->control_offset = control_offset;
    l->index_offset = huge_up(from);
    l->index_stride = huge_up(l->max_buckets * FPS_BUCKET_BYTES);
    l->rows_offset = l->index_offset + 2 * l->index_stride;
    l->checksum = checksum(l, offsetof(fps_table_layout, checksum));
    *out = *l;
    return huge_up(l->rows_offset + l->max_rows * l->row_bytes);
}

static fps_status plan(const fps_arena_spec *spec, fps_layout *out, fps_table_layout *tables)
{
    uint64_t stripe_bytes = spec->stripe_bytes ? spec->stripe_bytes : choose_stripe_bytes(spec->params_bytes);
    if (spec->n_tables > FPS_MAX_TABLES || (spec->params_bytes == 0 && spec->n_tables == 0)) return FPS_BAD_HEADER;
    if (spec->params_bytes > PARAMS_MAX_BYTES) return FPS_NO_MEMORY;
    if (spec->n_sessions == 0 || spec->n_sessions > FPS_MAX_SESSIONS) return FPS_BAD_HEADER;
    if (spec->n_slots > FPS_MAX_SLOTS || spec->isolation > FPS_ISOLATION_NONE) return FPS_BAD_HEADER;
    if (stripe_bytes < FPS_BLOCK_BYTES || (stripe_bytes & (stripe_bytes - 1)) != 0) return FPS_BAD_HEADER;
    bool rounds = spec->policy.kind == FPS_BSP;
    if (spec->n_members > FPS_MAX_MEMBERS || spec->policy.kind > FPS_BSP || spec->policy.straggler_ns < 0)
        return FPS_BAD_HEADER;
    if (spec->policy.reduce > FPS_REDUCE_PARAMS || spec->policy.unused != 0) return FPS_BAD_HEADER;
    if (rounds && spec->isolation != FPS_ISOLATION_SHARD) return FPS_BAD_HEADER;
    if (rounds) { /* one lock: a round is applied by one process, and nobody else changes anything */
        while (stripe_bytes < spec->params_bytes) stripe_bytes *= 2;
    }
    uint64_t n_stripes = (spec->params_bytes + stripe_bytes - 1) / stripe_bytes;
    if (n_stripes == 0) n_stripes = 1;
    if (n_stripes > UINT32_MAX) return FPS_BAD_HEADER;

    *out = (fps_layout){
        .magic = FPS_MAGIC,
        .format_version = FPS_FORMAT_VERSION,
        .header_bytes = sizeof(fps_header),
        .shard_index = spec->shard_index,
        .shard_count = spec->shard_count,
        .n_sessions = spec->n_sessions,
        .n_stripes = (uint32_t)n_stripes,
        .stripe_bytes = stripe_bytes,
        .mutex_bytes = sizeof(pthread_mutex_t),
        .block_bytes = choose_block_bytes(spec->params_bytes, spec->n_slots),
        .sessions_offset = FPS_PAGE,
        .params_bytes = spec->params_bytes,
        .n_slots = spec->n_slots,
        .isolation = spec->isolation,
        .n_tables = spec->n_tables,
    };
    uint64_t controls_offset = page_up(FPS_PAGE + out->n_tables * sizeof(fps_table_layout));
    if (out->n_tables > 0) out->sessions_offset = controls_offset + out->n_tables * (uint64_t)FPS_PAGE;
    memcpy(out->arena_id, spec->arena_id, sizeof out->arena_id);
    bool cached = spec->n_slots == 0 || spec->params_bytes * (2 + spec->n_slots) < CACHED_BYTES;
    out->ahead_bytes = cached ? 0 : out->block_bytes;
    out->redo_bytes = out->n_slots == 0 ? out->block_bytes : (out->block_bytes + FPS_STREAM_APART) * (1 + out->n_slots);
    for (uint32_t i = 0; i < out->n_tables; i++) { /* a row's new values */
        fps_table t = {.layout = spec->tables[i]};
        if (t.layout.dim > FPS_MAX_DIM || t.layout.n_slots > FPS_MAX_SLOTS || t.layout.item_bytes > 8)
            return FPS_BAD_HEADER;
        plan_row(&t);
        uint64_t bytes = t.layout.row_bytes - t.head_bytes;
        if (out->redo_bytes < bytes) out->redo_bytes = (uint32_t)bytes;
    }
    out->stripes_offset = out->sessions_offset + (uint64_t)out->n_sessions * sizeof(fps_seat);
    out->n_members = spec->n_members;
    out->n_versions = rounds ? FPS_MAX_VERSIONS : 1;
    out->policy = spec->policy;
    out->board_offset = out->stripes_offset + n_stripes * sizeof(fps_stripe);
    uint64_t board_end = out->board_offset + sizeof(fps_board) + out->n_members * sizeof(fps_member);
    if (rounds) board_end += out->n_members * sizeof(fps_row);
    out->redo_offset = residue_up(board_end, REDO_RESIDUE);
    out->params_offset = residue_up(out->redo_offset + (uint64_t)out->n_sessions * out->redo_bytes, PARAMS_RESIDUE);
    out->slot_stride = page_up(out->params_bytes) + FPS_STREAM_APART;
    out->slots_offset = residue_up(out->params_offset + out->params_bytes, PARAMS_RESIDUE + FPS_STREAM_APART);
    out->fixed_bytes = page_up(out->slots_offset + out->n_slots * out->slot_stride);
    out->version_stride = page_up(out->fixed_bytes - out->params_offset);
    out->rows_offset = residue_up(out->fixed_bytes + (out->n_versions - 1) * out->version_stride, PARAMS_RESIDUE);
    out->row_stride = page_up(out->params_bytes);
    out->total_bytes = rounds ? page_up(out->rows_offset + out->n_members * out->row_stride) : out->fixed_bytes;
    for (uint32_t i = 0; i < out->n_tables; i++) {
        uint64_t control = controls_offset + i * (uint64_t)FPS_PAGE;
        uint64_t end = plan_table(&spec->tables[i], out->total_bytes, control, &tables[i]);
        if (end == 0) return FPS_BAD_HEADER;
        if (end > TOTAL_MAX_BYTES) return FPS_NO_MEMORY;
        out->total_bytes = end;
    }
    out->checksum = checksum(out, offsetof(fps_layout, checksum));
    return FPS_OK;
}

uint64_t fps_arena_bytes(const fps_arena_spec *spec)
{
    fps_layout layout;
    fps_table_layout tables[FPS_MAX_TABLES];
    if (plan(spec, &layout, tables) != FPS_OK) return 0;
    if (layout.n_versions == 1) return layout.fixed_bytes;
    uint32_t rows = spec->policy.quorum < spec->n_members ? spec->policy.quorum : spec->n_members;
    return layout.fixed_bytes + layout.version_stride + rows * layout.row_stride;
}

/* The layout is a function of a few of its fields: what differs from that function's answer is not ours to map. */
fps_status fps_layout_parse(const void *bytes, size_t available, uint64_t file_bytes, fps_layout *out,
                            fps_table_layout *tables)
{
    fps_layout found, expected;
    fps_table_layout planned[FPS_MAX_TABLES];
    if (available < sizeof found) return FPS_TRUNCATED;
    memcpy(&found, bytes, sizeof found);
    if (found.magic != FPS_MAGIC) return FPS_BAD_MAGIC;
    if (found.format_version != FPS_FORMAT_VERSION) return FPS_BAD_VERSION;
    if (found.checksum != checksum(&found, offsetof(fps_layout, checksum))) return FPS_BAD_HEADER;
    fps_arena_spec spec = {
        .shard_index = found.shard_index,
        .shard_count = found.shard_count,
        .n_sessions = found.n_sessions,
        .n_slots = found.n_slots,
        .isolation = found.isolation,
        .n_members = found.n_members,
        .policy = found.policy,
        .params_bytes = found.params_bytes,
        .stripe_bytes = found.stripe_bytes,
        .n_tables = found.n_tables,
        .tables = tables,
    };
    memcpy(spec.arena_id, found.arena_id, sizeof spec.arena_id);
    if (found.n_tables > FPS_MAX_TABLES) return FPS_BAD_HEADER;
    size_t tables_bytes = found.n_tables * sizeof *tables;
    if (tables_bytes > 0 && available < FPS_PAGE + tables_bytes) return FPS_BAD_HEADER;
    if (tables_bytes > 0) memcpy(tables, (const uint8_t *)bytes + FPS_PAGE, tables_bytes);
    if (found.stripe_bytes == 0 || plan(&spec, &expected, planned) != FPS_OK) return FPS_BAD_HEADER;
    if (memcmp(&found, &expected, sizeof found) != 0) return FPS_BAD_HEADER;
    if (memcmp(tables, planned, tables_bytes) != 0) return FPS_BAD_HEADER;
    if (file_bytes < found.total_bytes) return FPS_TRUNCATED;
    *out = found;
    return FPS_OK;
}

static void locate_table(const fps_arena *arena, fps_table *t, const fps_table_layout *layout, uint32_t number)
{
    *t = (fps_table){.layout = *layout, .number = number};
    plan_row(t);
    t->control = (fps_control *)(void *)(arena->base + layout->control_offset);
    for (int i = 0; i < 2; i++) t->index[i] = arena->base + layout->index_offset + (uint64_t)i * layout->index_stride;
    t->rows = arena->base + layout->rows_offset;
}

static void locate(fps_arena *arena)
{
    arena->header = (fps_header *)(void *)arena->base;
    arena->seats = (fps_seat *)(void *)(arena->base + arena->layout.sessions_offset);
    arena->stripes = (fps_stripe *)(void *)(arena->base + arena->layout.stripes_offset);
    arena->board = (fps_board *)(void *)(arena->base + arena->layout.board_offset);
    arena->members = (fps_member *)(void *)(arena->board + 1);
    arena->rows = (fps_row *)(void *)(arena->members + arena->layout.n_members);
    arena->redo = arena->base + arena->layout.redo_offset;
    arena->params = arena->base + arena->layout.params_offset;
    arena->slots = arena->base + arena->layout.slots_offset;
}

/* Holes stay holes: only what is allocated is mapped with its pages. */
static fps_status map(fps_arena *arena, const fps_table_layout *tables)
{
    const uint64_t total = arena->layout.total_bytes, fixed = arena->layout.fixed_bytes;
    const int access = PROT_READ | PROT_WRITE;
    void *base = NULL;
    if (arena->layout.n_tables > 0) { /* huge pages need an address that is a multiple of theirs, as the offset is */
        uint8_t *room =
            mmap(NULL, total + FPS_HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return errno == ENOMEM ? FPS_NO_MEMORY : FPS_SYSTEM;
        uint8_t *start = (uint8_t *)huge_up((uint64_t)room), *end = room + total + FPS_HUGE_PAGE;
        if (start > room) munmap(room, (size_t)(start - room));
        if (start + total < end) munmap(start + total, (size_t)(end - (start + total)));
        base = start;
    }
    base = mmap(base, total, access, MAP_SHARED | (base ? MAP_FIXED : 0) | (total == fixed ? MAP_POPULATE : 0),
                arena->fd, 0);
    if (base != MAP_FAILED && total > fixed &&
        mmap(base, fixed, access, MAP_SHARED | MAP_FIXED | MAP_POPULATE, arena->fd, 0) == MAP_FAILED) {
        munmap(base, total);
        base = MAP_FAILED;
    }
    if (base == MAP_FAILED) return errno == ENOMEM ? FPS_NO_MEMORY : FPS_SYSTEM;
    arena->tables = arena->layout.n_tables ? calloc(arena->layout.n_tables, sizeof *arena->tables) : NULL;
    if (arena->layout.n_tables && !arena->tables) {
        munmap(base, total);
        return FPS_NO_MEMORY;
    }
    arena->base = base;
    locate(arena);
    for (uint32_t i = 0; i < arena->layout.n_tables; i++) locate_table(arena, &arena->tables[i], &tables[i], i);
    return FPS_OK;
}

/* In pieces: a signal may undo one that is under way, and a profiler's timer must not undo all of it for ever. */
static fps_status allocate(int fd, uint64_t from, uint64_t bytes)
{
    int error = 0;
    for (uint64_t done = 0, piece; done < bytes && error == 0; done += piece) {
        piece = bytes - done < ALLOCATE_BYTES ? bytes - done : ALLOCATE_BYTES;
        do {
            error = posix_fallocate(fd, (off_t)(from + done), (off_t)piece);
        } while (error == EINTR);
    }
    errno = error;
    return error == 0 ? FPS_OK : error == ENOSPC || error == ENOMEM ? FPS_NO_MEMORY : FPS_SYSTEM;
}

static fps_status back(const fps_arena *arena, const uint8_t *from, uint64_t bytes)
{
    return allocate(arena->fd, (uint64_t)(from - arena->base), bytes);
}

fps_status fps_arena_back_version(const fps_arena *arena, uint32_t version)
{
    const fps_layout *l = &arena->layout;
    if (fps_load32_relaxed(&arena->header->backed) >> version & 1) return FPS_OK;
    uint64_t bytes = l->slots_offset - l->params_offset + l->n_slots * l->slot_stride;
    fps_status status = back(arena, fps_arena_version(arena, version, 0), bytes);
    if (status == FPS_OK) atomic_fetch_or_explicit(&arena->header->backed, 1u << version, memory_order_relaxed);
    return status;
}

fps_status fps_arena_back_row(const fps_arena *arena, uint32_t rank)
{
    if (fps_load32_relaxed(&arena->rows[rank].backed)) return FPS_OK;
    fps_status status = back(arena, fps_arena_row(arena, rank), arena->layout.params_bytes);
    if (status == FPS_OK) fps_store32_relaxed(&arena->rows[rank].backed, 1);
    return status;
}

/* One page of 2 MiB: a part of it must be there before the kernel makes a huge page of the whole. */
static fps_status extend_huge(const fps_arena *arena, uint8_t *page)
{
    fps_status status = back(arena, page, FPS_PAGE);
    if (status != FPS_OK) return status;
    (void)*(volatile uint8_t *)page;
    if (madvise(page, FPS_HUGE_PAGE, MADV_COLLAPSE) == 0) return FPS_OK;
    return back(arena, page, FPS_HUGE_PAGE);
}

fps_status fps_arena_extend(const fps_arena *arena, uint8_t *from, uint64_t bytes, uint64_t *backed)
{
    if (bytes <= *backed) return FPS_OK;
    if (bytes <= FPS_HUGE_PAGE / 2) {
        uint64_t wanted = SMALL_BYTES;
        while (wanted < bytes) wanted *= 2;
        fps_status status = back(arena, from + *backed, wanted - *backed);
        if (status == FPS_OK) *backed = wanted;
        return status;
    }
    /* What is smaller becomes part of a huge page: nobody sees that happen, and it counts until then. */
    for (uint64_t at = *backed - *backed % FPS_HUGE_PAGE; at < bytes;) {
        fps_status status = extend_huge(arena, from + at);
        if (status != FPS_OK) return status;
        *backed = at += FPS_HUGE_PAGE;
    }
    return FPS_OK;
}

void fps_arena_release(const fps_arena *arena, uint8_t *from, uint64_t bytes)
{
    fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(from - arena->base),
              (off_t)huge_up(bytes));
}

static int lock_owner_life(void *argument)
{
    fps_header *header = argument;
    fps_store32_relaxed(&header->owner_pid, (uint32_t)getpid());
    return pthread_mutex_lock(&header->owner_life);
}

static int retire(void *argument)
{
    fps_header *header = argument;
    if (fps_lock_holder(&header->owner_life) != (uint32_t)gettid()) return EPERM; /* a forked child is not the owner */
    fps_store32_release(&header->closed, 1);
    return pthread_mutex_unlock(&header->owner_life);
}

static fps_status initialise(fps_arena *arena)
{
    int error = fps_lock_init(&arena->header->owner_life);
    for (uint32_t i = 0; !error && i < arena->layout.n_sessions; i++) error = fps_lock_init(&arena->seats[i].life);
    for (uint32_t i = 0; !error && i < arena->layout.n_stripes; i++) error = fps_lock_init(&arena->stripes[i].lock);
    if (!error) error = fps_lock_init(&arena->board->lock);
    for (uint32_t i = 0; !error && i < arena->layout.n_members; i++) error = fps_lock_init(&arena->members[i].life);
    bool rounds = arena->layout.n_versions > 1;
    for (uint32_t i = 0; rounds && !error && i < arena->layout.n_members; i++)
        error = fps_lock_init(&arena->rows[i].lock);
    for (uint32_t i = 0; !error && i < FPS_MAX_VERSIONS; i++) error = fps_lock_init(&arena->header->writing[i]);
    for (uint32_t i = 0; !error && i < arena->layout.n_tables; i++) {
        error = fps_lock_init(&arena->tables[i].control->births);
        fps_store_relaxed(&arena->tables[i].control->created_ns, (uint64_t)fps_now_ns());
    }
    fps_store32_relaxed(&arena->header->backed, 1);
    if (!error && fps_life_run(lock_owner_life, arena->header) != 0) error = errno ? errno : EAGAIN;
    if (error) {
        errno = error;
        return FPS_SYSTEM;
    }
    arena->header->layout = arena->layout;
    fps_table_layout *tables = (fps_table_layout *)(void *)(arena->base + FPS_PAGE);
    for (uint32_t i = 0; i < arena->layout.n_tables; i++) tables[i] = arena->tables[i].layout;
    fps_store32_release(&arena->header->ready, FPS_READY); /* SYNC arena-ready */
    return FPS_OK;
}

fps_status fps_arena_create(const fps_arena_spec *spec, fps_arena *out)
{
    fps_arena arena = {.fd = -1};
    fps_table_layout tables[FPS_MAX_TABLES];
    fps_status status = plan(spec, &arena.layout, tables);
    if (status != FPS_OK) return status;
    arena.fd = memfd_create("fastps", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (arena.fd < 0) return FPS_SYSTEM;

    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    status = allocate(arena.fd, 0, arena.layout.fixed_bytes);
    if (status == FPS_OK && ftruncate(arena.fd, (off_t)arena.layout.total_bytes) != 0) status = FPS_SYSTEM;
    if (status == FPS_OK && fcntl(arena.fd, F_ADD_SEALS, seals) != 0) status = FPS_SYSTEM;
    if (status == FPS_OK) status = map(&arena, tables);
    if (status == FPS_OK) status = initialise(&arena);
    arena.owner = status == FPS_OK;
    if (status == FPS_OK && arena.layout.n_versions > 1) status = fps_arena_back_version(&arena, 1);
    if (status != FPS_OK) {
        int error = errno;
        fps_arena_close(&arena);
        errno = error;
        return status;
    }
    *out = arena;
    return FPS_OK;
}

fps_status fps_arena_open(int fd, const uint8_t arena_id[16], fps_arena *out)
{
    fps_arena arena = {.fd = fd};
    struct stat file;
    uint8_t head[FPS_HEAD_BYTES];
    fps_table_layout tables[FPS_MAX_TABLES];
    if (fstat(fd, &file) != 0) return FPS_SYSTEM;
    ssize_t got = pread(fd, head, sizeof head, 0);
    if (got < 0) return FPS_SYSTEM;
    fps_status status = fps_layout_parse(head, (size_t)got, (uint64_t)file.st_size, &arena.layout, tables);
    if (status != FPS_OK) return status;
    if (memcmp(arena.layout.arena_id, arena_id, sizeof arena.layout.arena_id) != 0) return FPS_WRONG_ARENA;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) return FPS_BAD_HEADER; /* it could shrink under us: SIGBUS */
    status = map(&arena, tables);
    if (status != FPS_OK) return status;
    if (fps_load32_acquire(&arena.header->ready) != FPS_READY) { /* SYNC arena-ready */
        munmap(arena.base, arena.layout.total_bytes);
        free(arena.tables);
        return FPS_NOT_READY;
    }
    *out = arena;
    return FPS_OK;
}

void fps_arena_retire(fps_arena *arena)
{
    arena->owner = false;
    if (fps_life_run(retire, arena->header) != 0) return;
    /* Peers may keep the arena mapped for long: its pages go back now. They read zeros, and are told so. */
    uint64_t from = page_up(arena->layout.params_offset), head = from - arena->layout.params_offset;
    memset(arena->params, 0, head < arena->layout.params_bytes ? head : arena->layout.params_bytes);
    if (from < arena->layout.total_bytes)
        fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                  (off_t)(arena->layout.total_bytes - from));
}

void fps_arena_close(fps_arena *arena)
{
    /* A lock that its holder unmaps without unlocking breaks the kernel's list of that thread's robust locks. */
    if (arena->owner) fps_arena_retire(arena);
    if (arena->base) munmap(arena->base, arena->layout.total_bytes);
    if (arena->fd >= 0) close(arena->fd);
    free(arena->tables);
    *arena = (fps_arena){.fd = -1};
}

fps_status fps_arena_state(const fps_arena *arena)
{
    if (fps_load32_relaxed(&arena->header->closed)) return FPS_CLOSED;
    return fps_lock_abandoned(&arena->header->owner_life) ? FPS_OWNER_DIED : FPS_OK;
}
