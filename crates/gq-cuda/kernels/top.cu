// The largest logits of a row.
#include "gq_cuda.h"

// Logits that one block sorts.
#define SORTED 4096

// Block (piece, row): the `keep` largest of a piece of 4096 of values [rows, count], in descending order, of equals the
// smallest id first; ids are given, or places. To values and ids [rows, pieces * keep], with id 2^32 - 1 and -infinity
// where a piece has fewer.
KERNEL(1024) largest_logits(const float* __restrict__ values, const u32* __restrict__ ids, u32 count, u32 keep,
                            float* __restrict__ kept_values, u32* __restrict__ kept_ids) {
    __shared__ u64 keys[SORTED];
    size_t row = (size_t)blockIdx.y * count;
    for (u32 i = threadIdx.x; i < SORTED; i += 1024) {
        u32 at = blockIdx.x * SORTED + i;
        u64 key = (u64)0x007fffffu << 32;
        if (at < count) {
            u32 bits = __float_as_uint(values[row + at]);
            u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
            key = (u64)ordered << 32 | ~(ids ? ids[row + at] : at);
        }
        keys[i] = key;
    }
    __syncthreads();
#pragma unroll 1
    for (u32 size = 2; size <= SORTED; size *= 2) {
#pragma unroll 1
        for (u32 apart = size / 2; apart > 0; apart /= 2) {
#pragma unroll 1
            for (u32 q = threadIdx.x; q < SORTED / 2; q += 1024) {
                u32 i = 2 * q - (q & (apart - 1)), j = i + apart;
                u64 a = keys[i], b = keys[j];
                if ((a < b) == ((i & size) == 0)) keys[i] = b, keys[j] = a;
            }
            __syncthreads();
        }
    }
    for (u32 i = threadIdx.x; i < keep; i += 1024) {
        u32 ordered = (u32)(keys[i] >> 32);
        size_t at = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * keep + i;
        kept_values[at] = __uint_as_float(ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered);
        kept_ids[at] = ~(u32)keys[i];
    }
}
