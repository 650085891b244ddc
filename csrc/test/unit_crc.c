/* CRC32C: known values, and every way to compute it gives the same. */
#define _GNU_SOURCE

#include "check.h"
#include "crc.h"

static void known_values(void)
{
    uint8_t bytes[32];
    CHECK_EQ(fps_crc32c(0, "", 0), 0);
    CHECK_EQ(fps_crc32c(0, "123456789", 9), 0xe3069283u); /* RFC 3720, B.4 */
    memset(bytes, 0, sizeof bytes);
    CHECK_EQ(fps_crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    CHECK_EQ(fps_crc32c(0, bytes, 32), 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++) bytes[i] = i;
    CHECK_EQ(fps_crc32c(0, bytes, 32), 0x46dd794eu);
}

static void every_way_and_every_division_gives_the_same(void)
{
    enum { MOST = 40000 };
    uint8_t *bytes = malloc(MOST + 8);
    uint32_t state = 7;
    CHECK(bytes);
    for (uint32_t i = 0; i < MOST + 8; i++) bytes[i] = (uint8_t)(state = state * 1664525u + 1013904223u);
    for (uint32_t n = 0; n < MOST; n = n * 9 / 7 + 1)
        for (uint32_t from = 0; from < 8; from++) {
            const uint32_t all = fps_crc32c(0, bytes + from, n);
            CHECK_EQ(all, fps_crc32c_by_table(0, bytes + from, n));
            for (uint32_t cut = 0; cut <= n; cut += n / 3 + 1)
                CHECK_EQ(fps_crc32c(fps_crc32c(0, bytes + from, cut), bytes + from + cut, n - cut), all);
        }
    free(bytes);
}

int main(void)
{
    static const test tests[] = {
        TEST(known_values),
        TEST(every_way_and_every_division_gives_the_same),
    };
    return run_tests(tests, COUNT(tests));
}
