// y = W x for trellis codes and up to 8 tokens: every rate, every number of states by the multiplier; rows of tables.
#include "trellis.h"

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
    __syncthreads();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = cols / 32;
    u32 first = (u32)((u64)groups * blockIdx.y / gridDim.y), end = (u32)((u64)groups * (blockIdx.y + 1) / gridDim.y);
    size_t strip = blockIdx.x, matrix = experts ? experts[blockIdx.z] : 0;
    size_t token = experts ? blockIdx.z / per : 0;
    const u32* words = codes + (matrix * gridDim.x + strip) * cols * 8 * K + lane;
    u32 segment = lane % 8, phase = lane / 8;
    const u32* lasts = words + 32 * (K - 1) - lane + ((lane & 24u) | ((lane - 1) & 7u));
    const i8* column = values + token * cols + phase;
    float sums[32];
#pragma unroll
    for (int row = 0; row < 32; row++) sums[row] = 0.0f;
#pragma unroll 1
    for (u32 group = first + warp; group < end; group += 8) {
        float products[32];
        const u32* from = words + (size_t)group * (256 * K);
        const u32* last = lasts + (size_t)group * (256 * K);
        const i8* x_group = column + (size_t)group * 32;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            u32 w[K];
#pragma unroll
            for (int k = 0; k < K; k++) w[k] = __ldg(from + 32 * (K * j + k));
            // The bits before the segment: the last word of the one before it, which the neighbor has loaded.
            u32 before = __ldg(last + 32 * K * j);
            float x = (float)x_group[4 * j];
#pragma unroll
            for (int row = 0; row < 32; row++) {
                float level = __uint_as_float(book_entry(window<K>(w, before, row), multiplier, bank));
                products[row] = j == 0 ? level * x : fmaf(level, x, products[row]);
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

// Up to eight tokens by m16n8k32: lane 4 g + t decodes rows 32 g to 32 g + 31 of columns 4 t + q and
// 16 + 4 t + q of a group, which is the fragment of A when rows g and g + 8 of product i are rows 32 g + 2 i and
// 32 g + 2 i + 1. A group is one product; its exact sums are joined as in `gemv`, warps in order. Parts of y are
// [splits, tokens, rows].
template <int K>
__device__ __forceinline__ void gemm(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,
                                     const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y,
                                     u32 rows, u32 cols, u32 tokens) {
    __shared__ float total[8][264];
    u32 bank = fill_table<false>();
    __syncthreads();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, groups = cols / 32;
    u32 first = (u32)((u64)groups * blockIdx.y / gridDim.y), end = (u32)((u64)groups * (blockIdx.y + 1) / gridDim.y);
    u32 last = tokens - 1;
    const u32* words = codes + (size_t)blockIdx.x * cols * 8 * K + g;
    const u32* lasts = words + 32 * (K - 1) - g + ((g - 1) & 7u);
    const i8* column = values + (size_t)min(g, last) * cols + 4 * t;
    const float* step_0 = steps + (size_t)min(2 * t, last) * groups;
    const float* step_1 = steps + (size_t)min(2 * t + 1, last) * groups;
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
            size_t block = ((size_t)group * 8 + half * 4 + t) * (32 * K);
#pragma unroll
            for (int q = 0; q < 4; q++) {
#pragma unroll
                for (int k = 0; k < K; k++) w[half][q][k] = __ldg(words + block + 32 * k + 8 * q);
                before[half][q] = __ldg(lasts + block + 8 * q);
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
        for (u32 at = 0; at < tokens; at++) {
            y[((size_t)blockIdx.y * tokens + at) * rows + row] =
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
    for (u32 col = threadIdx.x; col < cols; col += 256) {
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
