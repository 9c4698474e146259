// y = W x for trellis codes (formats/encodings.md, "Trellis codes"): every rate, every number of states by the multiplier.
//
// Codes lie as src/layout/trellis.rs says: strips of 256 rows; of four adjacent columns, word k of segment s (32 rows) of
// column c is word (32 k + 8 c + s) of the block, its first bit the most significant. So a lane's words are 32 apart, and
// the bits before a segment are the last word of the segment before it, in a ring.
//
// The level of a state is book[top 8 bits of (state multiplier mod 2^L)]: with the multiplier shifted to the left by 15 - L,
// bits 7 to 14 of window times multiplier are that index whatever lies above the state. The book is in shared memory, once
// for every bank, at an address that is a multiple of its 32 KiB, so that one OR makes an address of index and bank.
#include "gq_cuda.h"

#define THREADS 256
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

// Levels as f32 or as integers, 256 for each of 32 banks.
template <bool FLOATS> __device__ __forceinline__ u32 fill_table() {
    u32 base = table_base();
    for (u32 at = threadIdx.x; at < 8192; at += THREADS) {
        int level = book_level(at / 32);
        put_shared(base + 4 * at, FLOATS ? __float_as_uint((float)level) : (u32)level);
    }
    __syncthreads();
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

// Where partial sums are laid, so that segments are in different banks.
__device__ __forceinline__ u32 place(u32 segment, u32 row) { return segment * 33 + row; }

// One token. Block (strip, split of columns, slot): warp w takes groups of 32 columns first + w, first + w + 8, ...; lane
// 8 c + s the columns c, c + 4, ... of each, rows 32 s to 32 s + 31: exact sums of integers within a group, joined by a
// fused product with the group's step; then columns c: (0 + 1) + (2 + 3); then warps in order; then the row's factor.
// Parts of y are [splits, slots, rows].
template <int K>
__device__ __forceinline__ void gemv(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,
                                     const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y,
                                     u32 rows, u32 cols, const u32* __restrict__ experts, u32 per) {
    __shared__ float partial[8][8 * 33];
    u32 bank = fill_table<true>();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = cols / 32;
    u32 first = (u32)((u64)groups * blockIdx.y / gridDim.y), end = (u32)((u64)groups * (blockIdx.y + 1) / gridDim.y);
    size_t strip = blockIdx.x, matrix = experts ? experts[blockIdx.z] : 0;
    size_t token = experts ? blockIdx.z / per : 0;
    const u32* words = codes + (matrix * gridDim.x + strip) * cols * 8 * K + lane;
    u32 segment = lane % 8, phase = lane / 8, previous = (lane & 24u) | ((lane - 1) & 7u);
    float sums[32];
#pragma unroll
    for (int row = 0; row < 32; row++) sums[row] = 0.0f;
#pragma unroll 1
    for (u32 group = first + warp; group < end; group += 8) {
        float products[32];
#pragma unroll
        for (int row = 0; row < 32; row++) products[row] = 0.0f;
#pragma unroll 1
        for (u32 j = 0; j < 8; j++) {
            const u32* from = words + (size_t)(group * 8 + j) * (32 * K);
            u32 w[K];
#pragma unroll
            for (int k = 0; k < K; k++) w[k] = __ldg(from + 32 * k);
            u32 before = __shfl_sync(ALL, w[K - 1], previous);
            float x = (float)values[token * cols + group * 32 + 4 * j + phase];
#pragma unroll
            for (int row = 0; row < 32; row++) {
                u32 level = book_entry(window<K>(w, before, row), multiplier, bank);
                products[row] = fmaf(__uint_as_float(level), x, products[row]);
            }
        }
        float step = __ldg(steps + token * groups + group);
#pragma unroll
        for (int row = 0; row < 32; row++) sums[row] = fmaf(step, products[row], sums[row]);
    }
#pragma unroll
    for (int row = 0; row < 32; row++) {
        float sum = sums[row];
        sum += __shfl_xor_sync(ALL, sum, 8);
        sum += __shfl_xor_sync(ALL, sum, 16);
        if (phase == row / 8) partial[warp][place(segment, row)] = sum;
    }
    __syncthreads();
    size_t row = strip * STRIP + threadIdx.x;
    if (row < rows) {
        u32 at = place(threadIdx.x / 32, threadIdx.x % 32);
        float sum = partial[0][at];
#pragma unroll
        for (int other = 1; other < 8; other++) sum += partial[other][at];
        float factor = half_to_float(__ldg(scales + matrix * rows + row)) * 0.03125f;
        y[((size_t)blockIdx.y * gridDim.z + blockIdx.z) * rows + row] = factor * sum;
    }
}

__device__ __forceinline__ void multiply_bytes(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Eight tokens of a tile (block z) by m16n8k32: lane 4 g + t decodes rows 32 g to 32 g + 31 of columns 4 t + q and
// 16 + 4 t + q of a group, which is the fragment of A when rows g and g + 8 of product i are rows 32 g + 2 i and
// 32 g + 2 i + 1. A group is one product; its exact sums are joined as in `gemv`, warps in order. Parts of y are
// [splits, tokens, rows].
template <int K>
__device__ __forceinline__ void gemm(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,
                                     const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y,
                                     u32 rows, u32 cols, u32 tokens) {
    __shared__ float total[8][264];
    u32 bank = fill_table<false>();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, groups = cols / 32;
    u32 first = (u32)((u64)groups * blockIdx.y / gridDim.y), end = (u32)((u64)groups * (blockIdx.y + 1) / gridDim.y);
    u32 token = 8 * blockIdx.z, last = tokens - 1, previous = ((g - 1) & 7u) * 4 + t;
    const u32* words = codes + (size_t)blockIdx.x * cols * 8 * K + g;
    const i8* column = values + (size_t)min(token + g, last) * cols + 4 * t;
    const float* step_0 = steps + (size_t)min(token + 2 * t, last) * groups;
    const float* step_1 = steps + (size_t)min(token + 2 * t + 1, last) * groups;
    float sums[16][4];
#pragma unroll
    for (int i = 0; i < 16; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
#pragma unroll 1
    for (u32 group = first + warp; group < end; group += 8) {
        u32 b0 = __ldg((const u32*)(column + (size_t)group * 32)), b1 = __ldg((const u32*)(column + (size_t)group * 32 + 16));
        float scale_0 = __ldg(step_0 + group), scale_1 = __ldg(step_1 + group);
        u32 w[2][4][K], before[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32* from = words + ((size_t)group * 8 + half * 4 + t) * (32 * K);
#pragma unroll
            for (int q = 0; q < 4; q++) {
#pragma unroll
                for (int k = 0; k < K; k++) w[half][q][k] = __ldg(from + 32 * k + 8 * q);
                before[half][q] = __shfl_sync(ALL, w[half][q][K - 1], previous);
            }
        }
#pragma unroll
        for (int i = 0; i < 16; i++) {
            u32 a[4];
#pragma unroll
            for (int place = 0; place < 4; place++) {
                int half = place / 2, row = 2 * i + place % 2;
                u32 level[4];
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    level[q] = book_entry(window<K>(w[half][q], before[half][q], row), multiplier, bank);
                }
                a[place] = permute(permute(level[0], level[1], 0x0040u), permute(level[2], level[3], 0x0040u), 0x5410u);
            }
            int d[4] = {0, 0, 0, 0};
            multiply_bytes(d, a, b0, b1);
            sums[i][0] = fmaf(scale_0, (float)d[0], sums[i][0]);
            sums[i][1] = fmaf(scale_1, (float)d[1], sums[i][1]);
            sums[i][2] = fmaf(scale_0, (float)d[2], sums[i][2]);
            sums[i][3] = fmaf(scale_1, (float)d[3], sums[i][3]);
        }
    }
#pragma unroll 1
    for (u32 turn = 0; turn < 8; turn++) {
        if (warp == turn) {
#pragma unroll
            for (int i = 0; i < 16; i++) {
#pragma unroll
                for (int place = 0; place < 4; place++) {
                    float* to = &total[g][(2 * i + place / 2) * 8 + 2 * t + place % 2];
                    *to = turn == 0 ? sums[i][place] : *to + sums[i][place];
                }
            }
        }
        __syncthreads();
    }
    size_t row = (size_t)blockIdx.x * STRIP + threadIdx.x;
    if (row < rows) {
        float factor = half_to_float(__ldg(scales + row)) * 0.03125f;
        for (u32 at = 0; at < 8 && token + at < tokens; at++) {
            y[((size_t)blockIdx.y * tokens + token + at) * rows + row] =
                factor * total[threadIdx.x / 32][threadIdx.x % 32 * 8 + at];
        }
    }
}

// Rows ids[token] in the rotated basis, one token a block, one column a thread.
template <int K>
__device__ __forceinline__ void embed(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,
                                      const u32* __restrict__ ids, float* __restrict__ y, u32 cols) {
    u32 id = ids[blockIdx.x], segment = id % STRIP / 32, end = K * (id % 32 + 1), at = (end - 1) / 32, used = end - 32 * at;
    const u32* strip = codes + (size_t)(id / STRIP) * cols * 8 * K;
    float step = half_to_float(scales[id]) * 0.03125f;
    for (u32 col = threadIdx.x; col < cols; col += THREADS) {
        const u32* column = strip + (size_t)(col / 4) * (32 * K) + col % 4 * 8;
        u32 low = column[32 * at + segment];
        u32 high = at ? column[32 * (at - 1) + segment] : column[32 * (K - 1) + ((segment - 1) & 7u)];
        u32 bits = used == 32 ? low : __funnelshift_r(low, high, 32 - used);
        y[(size_t)blockIdx.x * cols + col] = step * (float)book_level((bits * multiplier >> 7) & 255u);
    }
}

#define KERNELS(K)                                                                                                            \
    KERNEL(256) gemv_tt##K(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,                     \
                           const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y, u32 rows,   \
                           u32 cols, const u32* __restrict__ experts, u32 per) {                                              \
        gemv<K>(codes, scales, multiplier, values, steps, y, rows, cols, experts, per);                                       \
    }                                                                                                                         \
    KERNEL(256) gemm_tt##K(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,                     \
                           const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y, u32 rows,   \
                           u32 cols, u32 tokens) {                                                                            \
        gemm<K>(codes, scales, multiplier, values, steps, y, rows, cols, tokens);                                             \
    }                                                                                                                         \
    KERNEL(256) embed_tt##K(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,                    \
                            const u32* __restrict__ ids, float* __restrict__ y, u32 cols) {                                   \
        embed<K>(codes, scales, multiplier, ids, y, cols);                                                                    \
    }
KERNELS(2)
KERNELS(3)
KERNELS(4)
KERNELS(5)
KERNELS(6)
