#define _GNU_SOURCE
#include "tables.h"

#define MAX_KEYS 3000u
#define MAX_PARTS 8u

static uint64_t keys[MAX_KEYS];

/* Keys of all kinds: spread, few, and those that would lie in one seat. */
static void some_keys(uint64_t *state, uint32_t n, uint32_t kind)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = random_below(state, kind == 1 ? 7 : 2 * n);
        keys[i] = kind == 2 ? key_of_hash((uint64_t)number << 32 | 5) : number * UINT64_C(0x123456789abcdef);
    }
}

static void check_unique(const fps_batch *batch, const uint64_t *given, uint32_t n)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u = 0;
        while (u < known && batch->keys[u] != given[i]) u++;
        if (u == known) {
            CHECK(known < batch->n_unique);
            CHECK_EQ(batch->keys[known], given[i]); /* in the order of their first places */
            CHECK_EQ(batch->hashes[known], fps_hash(given[i]));
            CHECK_EQ(batch->first[known], i);
            known++;
        }
    }
    CHECK_EQ(batch->n_unique, known);
    for (uint32_t u = 0; u < known; u++) {
        uint32_t i = batch->first[u];
        for (uint32_t k = i + 1; k < n; k++) { /* each place of the key, in their order */
            if (given[k] != batch->keys[u]) continue;
            CHECK_EQ(batch->next[i], k);
            i = k;
        }
        CHECK_EQ(batch->next[i], FPS_BATCH_END);
        CHECK_EQ(batch->last[u], i);
    }
}

static void each_key_is_there_once_with_its_places_in_order(void)
{
    uint64_t seed = (uint64_t)time(NULL), state = seed;
    fps_batch batch = {0};
    printf("  seed %ju\n", (uintmax_t)seed);
    for (uint32_t round = 0; round < 60; round++) {
        uint32_t n = round == 0 ? 0 : 1 + random_below(&state, round % 10 == 0 ? MAX_KEYS : 60);
        some_keys(&state, n, round % 3);
        CHECK_EQ(fps_batch_reserve(&batch, n, 8), FPS_OK);
        fps_batch_unique(&batch, keys, n);
        check_unique(&batch, keys, n);
    }
    fps_batch_free(&batch);
}

static void the_batchs_own_keys_may_be_the_ones_given(void)
{
    uint64_t state = 3;
    fps_batch batch = {0};
    for (uint32_t round = 0; round < 30; round++) {
        uint32_t n = 1 + random_below(&state, 300);
        some_keys(&state, n, round % 3);
        CHECK_EQ(fps_batch_reserve(&batch, n, 8), FPS_OK);
        memcpy(batch.keys, keys, n * sizeof *keys);
        fps_batch_unique(&batch, batch.keys, n);
        check_unique(&batch, keys, n);
    }
    fps_batch_free(&batch);
}

static void extreme_keys_are_keys(void)
{
    fps_batch batch = {0};
    const uint64_t extremes[] = {0, UINT64_MAX, 0, 1, UINT64_MAX, INT64_MAX, 0};
    CHECK_EQ(fps_batch_reserve(&batch, COUNT(extremes), 8), FPS_OK);
    fps_batch_unique(&batch, extremes, COUNT(extremes));
    check_unique(&batch, extremes, COUNT(extremes));
    CHECK_EQ(batch.n_unique, 4);
    fps_batch_free(&batch);
}

static void fill_all(fps_batch *batch, uint32_t n)
{
    memset(batch->keys, 1, n * sizeof *batch->keys);
    memset(batch->hashes, 2, n * sizeof *batch->hashes);
    memset(batch->rows, 3, n * sizeof *batch->rows);
    memset(batch->first, 4, n * sizeof *batch->first);
    memset(batch->last, 5, n * sizeof *batch->last);
    memset(batch->next, 6, n * sizeof *batch->next);
    memset(batch->missing, 7, n * sizeof *batch->missing);
    memset(batch->sum, 8, batch->sum_bytes);
}

static void what_a_batch_holds_lies_apart(void)
{
    static const uint32_t sizes[] = {1, 2, 15, 16, 17, 100, 4096};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        fps_batch batch = {0};
        uint32_t n = sizes[i];
        CHECK_EQ(fps_batch_reserve(&batch, n, 100), FPS_OK);
        CHECK_EQ((uintptr_t)batch.sum % 64, 0);
        CHECK(batch.sum_bytes >= 100);
        fill_all(&batch, n);
        for (uint32_t k = 0; k < n; k++) {
            CHECK_EQ(batch.keys[k], UINT64_C(0x0101010101010101));
            CHECK_EQ(batch.hashes[k], UINT64_C(0x0202020202020202));
            CHECK_EQ(batch.rows[k], 0x03030303);
            CHECK_EQ(batch.first[k], 0x04040404);
            CHECK_EQ(batch.last[k], 0x05050505);
            CHECK_EQ(batch.next[k], 0x06060606);
            CHECK_EQ(batch.missing[k], 0x07070707);
        }
        for (uint32_t k = 0; k < batch.sum_bytes; k++) CHECK_EQ(batch.sum[k], 8);
        fps_batch_free(&batch);
    }
}

/* Memory comes once, and there is room for as many keys as ever before. */
static void room_for_keys_only_grows(void)
{
    fps_batch batch = {0};
    CHECK_EQ(fps_batch_reserve(&batch, 100, 8), FPS_OK);
    void *memory = batch.memory;
    CHECK_EQ(fps_batch_reserve(&batch, 100, 8), FPS_OK);
    CHECK_EQ(fps_batch_reserve(&batch, 1, 1), FPS_OK);
    CHECK_EQ(fps_batch_reserve(&batch, 0, 0), FPS_OK);
    CHECK(batch.memory == memory);
    CHECK_EQ(fps_batch_reserve(&batch, 10, 1000), FPS_OK);
    CHECK(batch.room >= 100 && batch.sum_bytes >= 1000);
    fill_all(&batch, 100);
    CHECK_EQ(fps_batch_reserve(&batch, 200, 8), FPS_OK);
    CHECK(batch.room >= 200 && batch.sum_bytes >= 8);
    fill_all(&batch, 200);
    fps_batch_free(&batch);
    fps_batch_free(&batch);
    CHECK_EQ(batch.room, 0);
}

static void check_split(uint32_t n, uint32_t n_shards)
{
    static uint64_t out[MAX_KEYS];
    static uint32_t places[MAX_KEYS];
    uint32_t starts[MAX_PARTS + 2], at = 0;
    memset(starts, 0xee, sizeof starts);
    fps_batch_split(keys, n, n_shards, out, places, starts);
    CHECK_EQ(starts[0], 0);
    CHECK_EQ(starts[n_shards], n);
    CHECK_EQ(starts[n_shards + 1], 0xeeeeeeee);
    for (uint32_t s = 0; s < n_shards; s++) {
        CHECK_EQ(starts[s], at);
        for (uint32_t i = 0; i < n; i++) {
            if (fps_hash_shard(fps_hash(keys[i]), n_shards) != s) continue;
            CHECK_EQ(places[at], i); /* in their order */
            CHECK_EQ(out[at], keys[i]);
            at++;
        }
    }
    CHECK_EQ(at, n);
}

static void keys_are_spread_over_shards_in_their_order(void)
{
    static const uint32_t shards[] = {1, 2, 3, 7, 8};
    uint64_t seed = (uint64_t)time(NULL), state = seed;
    printf("  seed %ju\n", (uintmax_t)seed);
    for (uint32_t round = 0; round < 60; round++) {
        uint32_t n = round < 5 ? round : 1 + random_below(&state, round % 10 == 0 ? MAX_KEYS : 60);
        some_keys(&state, n, round % 3);
        for (size_t i = 0; i < COUNT(shards); i++) check_split(n, shards[i]);
    }
}

static void shards_get_equal_shares_of_consecutive_keys(void)
{
    static const uint32_t shards[] = {2, 3, 8};
    for (size_t i = 0; i < COUNT(shards); i++) {
        uint32_t n[MAX_PARTS] = {0}, all = 80000;
        for (uint64_t key = 0; key < all; key++) n[fps_hash_shard(fps_hash(key), shards[i])]++;
        for (uint32_t s = 0; s < shards[i]; s++) {
            CHECK(n[s] > all / shards[i] * 95 / 100);
            CHECK(n[s] < all / shards[i] * 105 / 100);
        }
    }
}

int main(void)
{
    static const test tests[] = {
        TEST(each_key_is_there_once_with_its_places_in_order),
        TEST(the_batchs_own_keys_may_be_the_ones_given),
        TEST(extreme_keys_are_keys),
        TEST(what_a_batch_holds_lies_apart),
        TEST(room_for_keys_only_grows),
        TEST(keys_are_spread_over_shards_in_their_order),
        TEST(shards_get_equal_shares_of_consecutive_keys),
    };
    return run_tests(tests, COUNT(tests));
}
