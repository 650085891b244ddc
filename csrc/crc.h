/* CRC32C (Castagnoli), as in iSCSI and ext4: the polynomial 0x1EDC6F41, reflected. Finds every error of up to 32
 * consecutive bits. Uses the processor's instruction where there is one. */
#ifndef FPS_CRC_H
#define FPS_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Of n bytes that follow those of which `before` is the checksum; 0 before the first. */
uint32_t fps_crc32c(uint32_t before, const void *bytes, size_t n);

/* The same without that instruction. */
uint32_t fps_crc32c_by_table(uint32_t before, const void *bytes, size_t n);

#endif
