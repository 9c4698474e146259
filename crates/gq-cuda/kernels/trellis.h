// Trellis codes (formats/encodings.md, "Trellis codes"): windows of bits, and the book of levels in shared memory.
//
// Codes lie as src/layout/trellis.rs says: strips of 256 rows; of four adjacent columns, word k of segment s (32 rows) of
// column c is word (32 k + 8 c + s) of the block, its first bit the most significant. So a lane's words are 32 apart, and
// the bits before a segment are the last word of the segment before it, in a ring.
//
// The level of a state is book[top 8 bits of (state multiplier mod 2^L)]: with the multiplier shifted to the left by 15 - L,
// bits 7 to 14 of window times multiplier are that index whatever lies above the state. The book is in shared memory, once
// for every bank, at an address that is a multiple of its 32 KiB, so that one OR makes an address of index and bank.
#pragma once
#include "gq_cuda.h"

#define STRIP 256

__constant__ i8 BOOK[128] = {
    0,  1,  1,  2,  2,  2,  3,  3,  4,  4,  5,  5,  5,  6,  6,  7,  7,  8,  8,  8,  9,  9,  10, 10, 11, 11,
    12, 12, 12, 13, 13, 14, 14, 15, 15, 16, 16, 17, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23,
    24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 31, 31, 32, 32, 33, 33, 34, 34, 35, 36, 36, 37, 37,
    38, 39, 39, 40, 41, 41, 42, 43, 43, 44, 45, 46, 46, 47, 48, 49, 49, 50, 51, 52, 53, 54, 55, 56, 57, 57,
    59, 60, 61, 62, 63, 64, 65, 67, 68, 70, 71, 73, 75, 77, 79, 81, 83, 86, 89, 93, 97, 103, 111, 127};

__device__ __forceinline__ int book_level(u32 index) {
    return index >= 128 ? (int)BOOK[index - 128] : -(int)BOOK[127 - index];
}

// Shared address of the table.
__device__ __forceinline__ u32 table_base() {
    extern __shared__ u32 dynamic[];
    return ((u32)__cvta_generic_to_shared(dynamic) + 32767u) & ~32767u;
}

__device__ __forceinline__ void put_shared(u32 address, u32 value) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value));
}

__device__ __forceinline__ u32 get_shared(u32 address) {
    u32 value;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(address));
    return value;
}

// Levels as f32 or as integers, 256 for each of 32 banks. A barrier follows before they are read.
template <bool FLOATS> __device__ __forceinline__ u32 fill_table() {
    u32 base = table_base();
    for (u32 at = threadIdx.x; at < 8192; at += 256) {
        int level = book_level(at / 32);
        put_shared(base + 4 * at, FLOATS ? __float_as_uint((float)level) : (u32)level);
    }
    return base | threadIdx.x % 32 * 4;
}

// The bits that end with row R of a segment, the last one least significant.
template <int K> __device__ __forceinline__ u32 window(const u32 (&words)[K], u32 before, int row) {
    int end = K * (row + 1), at = (end - 1) / 32, used = end - 32 * at;
    u32 low = words[at], high = at ? words[at - 1] : before;
    return used == 32 ? low : __funnelshift_r(low, high, 32 - used);
}

__device__ __forceinline__ u32 book_entry(u32 window, u32 multiplier, u32 bank) {
    return get_shared((window * multiplier & 0x7f80u) | bank);
}
