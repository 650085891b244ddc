#include "index.h"

/* At most nine of ten slots are used; six of ten after a rebuild: 8 B per slot are 8.9 to 13.3 B per row. Growing by
 * half is cheap, since it goes through memory in order. */
static uint64_t most_rows(uint64_t n_buckets) { return n_buckets * FPS_BUCKET_SLOTS * 9 / 10; }
static uint64_t buckets_for(uint64_t rows) { return rows * 5 / 3 / FPS_BUCKET_SLOTS + FPS_MIN_BUCKETS; }

static const fps_word *bucket_at(const fps_index *index, uint32_t bucket)
{
    return index->slots + (size_t)bucket * FPS_BUCKET_SLOTS;
}

static void look(const fps_index *index, fps_search *search)
{
    uint32_t empty;
    fps_index_match(bucket_at(index, search->bucket), search->tag, &search->matches, &empty);
    search->last = empty != 0;
}

uint32_t fps_index_next(const fps_index *index, fps_search *search)
{
    for (uint32_t looked = 0;;) {
        while (search->matches != 0) {
            uint32_t i = (uint32_t)__builtin_ctz(search->matches);
            search->matches &= search->matches - 1;
            uint64_t slot = fps_load_acquire(bucket_at(index, search->bucket) + i); /* SYNC row-created */
            if (FPS_SLOT_TAG(slot) == search->tag && (uint32_t)slot != 0 && slot != FPS_SLOT_TOMBSTONE)
                return FPS_SLOT_ROW(slot);
        }
        if (search->last || ++looked > index->n_buckets) return FPS_NO_ROW;
        if (++search->bucket == index->n_buckets) search->bucket = 0;
        look(index, search);
    }
}

uint32_t fps_index_first(const fps_index *index, uint32_t tag, fps_search *search)
{
    *search = (fps_search){.tag = tag, .bucket = fps_index_bucket(index, tag), .last = true};
    if (index->n_buckets == 0) return FPS_NO_ROW;
    look(index, search);
    return fps_index_next(index, search);
}

/* Puts a slot into the first bucket that has room; returns whether it replaced a tombstone. */
static bool put(fps_word *slots, uint32_t n_buckets, uint64_t slot)
{
    fps_index index = {.slots = slots, .n_buckets = n_buckets};
    for (uint32_t b = fps_index_bucket(&index, FPS_SLOT_TAG(slot));; b = b + 1 == n_buckets ? 0 : b + 1) {
        for (uint32_t i = 0; i < FPS_BUCKET_SLOTS; i++) {
            fps_word *at = &slots[(size_t)b * FPS_BUCKET_SLOTS + i];
            uint64_t found = fps_load_relaxed(at);
            if (found != FPS_SLOT_EMPTY && found != FPS_SLOT_TOMBSTONE) continue;
            fps_store_release(at, slot); /* SYNC row-created */
            return found == FPS_SLOT_TOMBSTONE;
        }
    }
}

static fps_word *words(const fps_table *t, uint64_t generation) { return (fps_word *)(void *)t->index[generation & 1]; }

/* Builds a new index in the other place. Concurrent searches use the old one. Its memory is freed once the new one is
 * current; a search that then finds nothing checks which index is current. */
static fps_status build(const fps_arena *arena, const fps_table *t, uint64_t n_buckets)
{
    fps_control *control = t->control;
    const uint64_t word = fps_load_relaxed(&control->index), generation = FPS_INDEX_GENERATION(word) + 1;
    const fps_index old = fps_index_of(t, word);
    fps_word *const backed_word = &control->index_backed[generation & 1];
    uint8_t *const place = t->index[generation & 1];

    /* Frees what an interrupted build has left, and pages that a late reader of an earlier index has faulted in. */
    fps_arena_release(arena, place, t->layout.index_stride);
    uint64_t backed = 0;
    fps_status status = fps_arena_extend(arena, place, n_buckets * FPS_BUCKET_BYTES, &backed);
    fps_store_relaxed(backed_word, backed);
    if (status != FPS_OK) {
        fps_arena_release(arena, place, t->layout.index_stride);
        fps_store_relaxed(backed_word, 0);
        return status;
    }
    fps_word *const slots = words(t, generation);
    for (uint64_t i = 0; i < (uint64_t)old.n_buckets * FPS_BUCKET_SLOTS; i++) {
        uint64_t slot = fps_load_relaxed(&old.slots[i]);
        if (slot != FPS_SLOT_EMPTY && slot != FPS_SLOT_TOMBSTONE) put(slots, (uint32_t)n_buckets, slot);
    }
    fps_store_relaxed(&control->tombstones, 0);
    fps_store_release(&control->index, FPS_INDEX(generation, n_buckets)); /* SYNC index-swap */
    fps_count(&control->rebuilt, 1);
    if (old.n_buckets > 0) fps_arena_release(arena, t->index[(generation + 1) & 1], t->layout.index_stride);
    fps_store_relaxed(&control->index_backed[(generation + 1) & 1], 0);
    return FPS_OK;
}

bool fps_index_has_room(const fps_table *t, uint64_t more)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    const uint64_t taken = fps_load_relaxed(&t->control->live) + fps_load_relaxed(&t->control->tombstones);
    return taken + more <= most_rows(index.n_buckets);
}

fps_status fps_index_reserve(const fps_arena *arena, const fps_table *t, uint64_t more)
{
    const uint64_t live = fps_load_relaxed(&t->control->live) + more;
    if (fps_index_has_room(t, more)) return FPS_OK;
    uint64_t n_buckets = buckets_for(live);
    if (n_buckets > t->layout.max_buckets) n_buckets = t->layout.max_buckets;
    if (live > most_rows(n_buckets)) return FPS_TABLE_FULL;
    return build(arena, t, n_buckets);
}

void fps_index_insert(const fps_table *t, uint32_t tag, uint32_t row)
{
    const uint64_t word = fps_load_relaxed(&t->control->index);
    const fps_index index = fps_index_of(t, word);
    if (put(words(t, FPS_INDEX_GENERATION(word)), index.n_buckets, FPS_SLOT(tag, row)))
        fps_store_relaxed(&t->control->tombstones, fps_load_relaxed(&t->control->tombstones) - 1);
}

void fps_index_remove(const fps_table *t, uint32_t tag, uint32_t row)
{
    const uint64_t word = fps_load_relaxed(&t->control->index), wanted = FPS_SLOT(tag, row);
    const fps_index index = fps_index_of(t, word);
    fps_word *slots = words(t, FPS_INDEX_GENERATION(word));
    fps_search search;
    for (uint32_t found = fps_index_first(&index, tag, &search); found != FPS_NO_ROW;
         found = fps_index_next(&index, &search)) {
        if (found != row) continue;
        fps_word *bucket = &slots[(size_t)search.bucket * FPS_BUCKET_SLOTS];
        for (uint32_t i = 0; i < FPS_BUCKET_SLOTS; i++) {
            if (fps_load_relaxed(&bucket[i]) != wanted) continue;
            /* Searches end in a bucket that has an empty slot, so it needs no tombstone. */
            fps_store_release(&bucket[i], search.last ? FPS_SLOT_EMPTY : FPS_SLOT_TOMBSTONE);
            if (!search.last) fps_count(&t->control->tombstones, 1);
            return;
        }
    }
}
