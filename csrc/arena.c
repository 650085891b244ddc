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

#define ALLOCATE_BYTES (UINT64_C(4) << 20)
#define PLACES 100u /* attempts, since other threads may map the address first */
#define SMALL_BYTES (UINT64_C(64) << 10)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static void locate_table(const fps_arena *arena, fps_table *t, const fps_table_layout *layout, uint32_t number)
{
    *t = (fps_table){.layout = *layout, .number = number};
    fps_table_plan_row(t);
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
    arena->trays = (fps_tray *)(void *)(arena->members + arena->layout.n_members);
    arena->redo = arena->base + arena->layout.redo_offset;
    arena->params = arena->base + arena->layout.params_offset;
    arena->slots = arena->base + arena->layout.slots_offset;
}

/* Huge pages need an address that is aligned to them, as the offset is. An aligned address is found with a reservation,
 * which is unmapped before the address is used: if another thread maps it first, there is nothing to undo. */
static void *map_aligned(int fd, uint64_t total)
{
    for (uint32_t tries = 0;; tries++) {
        uint8_t *room =
            mmap(NULL, total + FPS_HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) return MAP_FAILED;
        munmap(room, total + FPS_HUGE_PAGE);
        uint8_t *start = (uint8_t *)fps_huge_up((uint64_t)room);
        uint8_t *base = mmap(start, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
        if (base == start || (base == MAP_FAILED && (errno != EEXIST || tries == PLACES))) return base;
        if (base != MAP_FAILED) munmap(base, total); /* to kernels before 4.17 the address is a hint */
    }
}

/* Holes are not populated: only allocated pages are mapped in advance. */
static fps_status map(fps_arena *arena, const fps_table_layout *tables)
{
    const uint64_t total = arena->layout.total_bytes, fixed = arena->layout.fixed_bytes;
    const int access = PROT_READ | PROT_WRITE;
    void *base = arena->layout.n_tables > 0
                     ? map_aligned(arena->fd, total)
                     : mmap(NULL, total, access, MAP_SHARED | (total == fixed ? MAP_POPULATE : 0), arena->fd, 0);
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

/* In pieces: a signal may undo the piece under way, and a profiler's timer must not undo all of it again and again. */
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
    uint64_t bytes = l->counts_offset + l->n_leaves * sizeof(fps_word) - l->params_offset;
    fps_status status = back(arena, fps_arena_version(arena, version, 0), bytes);
    if (status == FPS_OK) atomic_fetch_or_explicit(&arena->header->backed, 1u << version, memory_order_relaxed);
    return status;
}

fps_status fps_arena_back_tray(const fps_arena *arena, uint32_t rank)
{
    if (fps_load32_relaxed(&arena->trays[rank].backed)) return FPS_OK;
    const uint64_t bytes = fps_line_up(arena->layout.params_bytes) + arena->layout.n_leaves * sizeof(fps_word32);
    fps_status status = back(arena, fps_arena_tray(arena, rank), bytes);
    if (status == FPS_OK) fps_store32_relaxed(&arena->trays[rank].backed, 1);
    return status;
}

/* One page of 2 MiB: the kernel makes a huge page only once a part of it is allocated. */
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
    /* The first huge page may replace smaller pieces, whose contents stay; `backed` counts those until then. */
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
              (off_t)fps_huge_up(bytes));
}

static fps_status initialise(fps_arena *arena)
{
    int error = fps_life_init(&arena->header->owner_life);
    for (uint32_t i = 0; !error && i < arena->layout.n_sessions; i++) error = fps_life_init(&arena->seats[i].life);
    for (uint32_t i = 0; !error && i < arena->layout.n_stripes; i++) error = fps_lock_init(&arena->stripes[i].lock);
    if (!error) error = fps_lock_init(&arena->board->lock);
    for (uint32_t i = 0; !error && i < arena->layout.n_members; i++) error = fps_life_init(&arena->members[i].life);
    bool rounds = arena->layout.n_versions > 1;
    for (uint32_t i = 0; rounds && !error && i < arena->layout.n_members; i++)
        error = fps_lock_init(&arena->trays[i].lock);
    for (uint32_t i = 0; !error && i < FPS_MAX_VERSIONS; i++) error = fps_lock_init(&arena->header->writing[i]);
    for (uint32_t i = 0; !error && i < arena->layout.n_tables; i++) {
        error = fps_lock_init(&arena->tables[i].control->lock);
        fps_store_relaxed(&arena->tables[i].control->created_ns, (uint64_t)fps_now_ns());
    }
    fps_store32_relaxed(&arena->header->backed, 1);
    fps_store32_relaxed(&arena->header->owner_pid, (uint32_t)getpid());
    if (error) {
        errno = error;
        return FPS_SYSTEM;
    }
    const fps_status status = fps_life_take(&arena->header->owner_life, FPS_LIFE_ARENA);
    if (status != FPS_OK) return status;
    arena->header->layout = arena->layout;
    fps_table_layout *tables = (fps_table_layout *)(void *)(arena->base + FPS_HEADER_BYTES);
    for (uint32_t i = 0; i < arena->layout.n_tables; i++) tables[i] = arena->tables[i].layout;
    fps_store32_release(&arena->header->ready, FPS_READY); /* SYNC arena-ready */
    return FPS_OK;
}

fps_status fps_arena_create(const fps_arena_spec *spec, fps_arena *out)
{
    fps_arena arena = {.fd = -1};
    fps_table_layout tables[FPS_MAX_TABLES];
    fps_status status = fps_arena_plan(spec, &arena.layout, tables);
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
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) return FPS_BAD_HEADER; /* without the seal it could shrink: SIGBUS */
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

fps_status fps_arena_retire(const fps_arena *arena)
{
    fps_header *header = arena->header;
    if (!header) return FPS_OK; /* it was closed here */
    const bool mine =
        arena->owner && fps_life_holds(&header->owner_life); /* the latter alone: also for a copied file */
    if (!mine && !fps_life_ended(&header->owner_life)) return FPS_NOT_ABANDONED;
    fps_store32_release(&header->closed, 1);
    if (mine) fps_life_give(&header->owner_life);
    /* Peers may keep the arena mapped for long: its pages are freed now. Peers read zeros, and get FPS_CLOSED. */
    uint64_t from = fps_page_up(arena->layout.params_offset), head = from - arena->layout.params_offset;
    memset(arena->params, 0, head < arena->layout.params_bytes ? head : arena->layout.params_bytes);
    if (from < arena->layout.total_bytes && fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                      (off_t)from, (off_t)(arena->layout.total_bytes - from)) != 0)
        return FPS_SYSTEM;
    return FPS_OK;
}

void fps_arena_close(fps_arena *arena)
{
    /* Unmapping a lock that is held would break the kernel's list of the holder's robust locks. */
    if (arena->owner && fps_life_holds(&arena->header->owner_life)) fps_arena_retire(arena);
    if (arena->base) munmap(arena->base, arena->layout.total_bytes);
    if (arena->fd >= 0) close(arena->fd);
    free(arena->tables);
    *arena = (fps_arena){.fd = -1};
}

fps_status fps_arena_state(const fps_arena *arena) { return fps_header_state(arena->header); }

fps_status fps_arena_lock(const fps_arena *arena, pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned)
{
    fps_wait here = *wait;
    here.header = arena->header;
    return fps_lock_acquire(lock, &here, abandoned);
}
