// y = W x for many tokens: codes are decoded into fragments of m16n8k32, once for 64 tokens. One chain of sums a row and
// token, group of 32 columns after group, so that nothing depends on how many tokens there are.
#include "codes.h"
#include "trellis.h"

// Tokens of a block, groups of columns that are fetched together, and bytes of a token's part of them: a multiple of 16
// that puts eight tokens into different banks.
#define TOKENS 64
#define GROUPS 4
#define PITCH 144

// Activations of 64 tokens and 4 groups.
struct Stage {
    i8 values[TOKENS * PITCH];
    float steps[TOKENS * GROUPS];
};

__device__ __forceinline__ void copy_16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from));
}

__device__ __forceinline__ void copy_4(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from));
}

// Begins to fetch groups `group` and on for tokens `token` and on; tokens that do not exist are the last one.
__device__ __forceinline__ void fetch(Stage& stage, const i8* values, const float* steps, u32 group, u32 token, u32 cols,
                                      u32 tokens) {
    u32 groups = cols / 32, count = min((u32)GROUPS, groups - group);
    for (u32 at = threadIdx.x; at < TOKENS * count * 2; at += blockDim.x) {
        u32 row = at / (2 * count), part = at % (2 * count);
        size_t source = min(token + row, tokens - 1);
        copy_16(stage.values + row * PITCH + part * 16, values + source * cols + group * 32 + part * 16);
    }
    for (u32 at = threadIdx.x; at < TOKENS * count; at += blockDim.x) {
        u32 row = at / count, part = at % count;
        size_t source = min(token + row, tokens - 1);
        copy_4(stage.steps + row * GROUPS + part, steps + source * groups + group + part);
    }
    asm volatile("cp.async.commit_group;");
}

// Calls `work(stage, group, place)` for every group, its activations at `place` of the stage, behind a barrier.
template <typename Work>
__device__ __forceinline__ void each_group(const i8* values, const float* steps, u32 token, u32 cols, u32 tokens, Work work) {
    __shared__ __align__(16) Stage stages[2];
    u32 groups = cols / 32;
    fetch(stages[0], values, steps, 0, token, cols, tokens);
#pragma unroll 1
    for (u32 group = 0; group < groups; group += GROUPS) {
        u32 turn = group / GROUPS % 2;
        if (group + GROUPS < groups) {
            fetch(stages[1 - turn], values, steps, group + GROUPS, token, cols, tokens);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
#pragma unroll 1
        for (u32 place = 0; place < GROUPS && group + place < groups; place++) work(stages[turn], group + place, place);
        __syncthreads();
    }
}

// A lane's part of B for eight tokens, and the steps of the two tokens that it has results of.
__device__ __forceinline__ uint2 column(const Stage& stage, u32 tile, u32 place) {
    u32 lane = threadIdx.x % 32;
    const i8* from = stage.values + (tile * 8 + lane / 4) * PITCH + place * 32 + lane % 4 * 4;
    return make_uint2(*(const u32*)from, *(const u32*)(from + 16));
}

__device__ __forceinline__ float2 two_steps(const Stage& stage, u32 tile, u32 place) {
    const float* from = stage.steps + (tile * 8 + threadIdx.x % 4 * 2) * GROUPS + place;
    return make_float2(from[0], from[GROUPS]);
}

// Levels of elements 16 half + 4 t to 16 half + 4 t + 3 of a group; their high parts where a level has two.
template <Code C>
__device__ __forceinline__ uint2 fragment(const u32* table, const Planes& from, size_t group, u32 half, u32 t) {
    u32 k = 2 * half + t / 2, shift = t % 2 * 16;
    Words w = {};
    if (C == BYTES) return make_uint2(__ldg((const u32*)from.bytes + 8 * group + 4 * half + t), 0);
    if (has_four(C)) w.four[0] = __ldg((const u32*)from.four + 4 * group + k) >> shift;
    if (has_two(C)) w.two[0] = __ldg((const u32*)from.two + 2 * group + half) >> (2 * (k % 2) + shift);
    if (has_one(C)) w.one = __ldg(from.one + group) >> (k + shift);
    if (is_wide(C)) return wide_levels<C>(table, w, 0, 0);
    return make_uint2(levels<C>(w, 0, 0), 0);
}

// Block (64 rows, 64 tokens), a warp 16 rows. y [tokens, rows].
template <Code C>
__device__ __forceinline__ void plane_tile(const u32* __restrict__ codes, const Scales& scales, const i8* __restrict__ values,
                                           const float* __restrict__ steps, float* __restrict__ y, u32 rows, u32 cols,
                                           u32 tokens) {
    __shared__ u32 table[is_wide(C) ? (C == TQ6 ? 64 : 128) * 32 : 1];
    if (is_wide(C)) fill<C>(table);
    u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, groups = cols / 32, token = blockIdx.y * TOKENS;
    u32 first = blockIdx.x * 64 + threadIdx.x / 32 * 16 + g;
    size_t row[2] = {min(first, rows - 1), min(first + 8, rows - 1)};
    Planes from = planes<C>(codes, (size_t)rows * groups, 0);
    float sums[8][4];
#pragma unroll
    for (int n = 0; n < 8; n++) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
    each_group(values, steps, token, cols, tokens, [&](const Stage& stage, u32 group, u32 place) {
        u32 a[4], high[4];
        float2 of[2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint2 both = fragment<C>(table, from, row[i % 2] * groups + group, i / 2, t);
            a[i] = both.x, high[i] = both.y;
        }
        of[0] = step(scales, row[0], group, groups), of[1] = step(scales, row[1], group, groups);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            uint2 b = column(stage, n, place);
            float2 by = two_steps(stage, n, place);
            int d[4] = {0, 0, 0, 0}, more[4] = {0, 0, 0, 0};
            multiply_bytes(d, a, b.x, b.y);
            if (is_wide(C)) multiply_bytes(more, high, b.x, b.y);
            // The sums of the activations are products with ones, the same in every row.
            u32 one[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
            if (has_minimum(C)) multiply_bytes(more, one, b.x, b.y);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x_step = i % 2 ? by.y : by.x;
                float2 w = of[i / 2];
                int dot = is_wide(C) ? d[i] + 64 * more[i] : d[i];
                if (has_minimum(C)) {
                    sums[n][i] = fmaf(x_step, fmaf(w.y, (float)more[i], w.x * (float)dot), sums[n][i]);
                } else {
                    sums[n][i] = fmaf(w.x * x_step, (float)dot, sums[n][i]);
                }
            }
        }
    });
#pragma unroll
    for (int i = 0; i < 2; i++) {
        u32 at = first + i * 8;
        if (at >= rows) continue;
        float factor = row_factor(scales, at);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            u32 of = token + n * 8 + 2 * t;
            if (of < tokens) y[(size_t)of * rows + at] = factor * sums[n][2 * i];
            if (of + 1 < tokens) y[(size_t)(of + 1) * rows + at] = factor * sums[n][2 * i + 1];
        }
    }
}

// Block (strip, 64 tokens): warp w has rows 4 w to 4 w + 3 of every segment, two products of 16 rows. A window of a
// lane's four rows is 32 bits of the 64 that end with the last of them. y [tokens, rows].
template <int K>
__device__ __forceinline__ void trellis_tile(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,
                                             const i8* __restrict__ values, const float* __restrict__ steps,
                                             float* __restrict__ y, u32 rows, u32 cols, u32 tokens) {
    u32 bank = fill_table<false>();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, token = blockIdx.y * TOKENS;
    u32 end = K * (4 * warp + 4), last = (end - 1) / 32, behind = 32 * last + 32 - end;
    const u32* strip = codes + (size_t)blockIdx.x * cols * 8 * K;
    const u32* low_words = strip + 32 * last + g;
    const u32* high_words = last ? strip + 32 * (last - 1) + g : strip + 32 * (K - 1) + ((g - 1) & 7u);
    float sums[2][8][4];
#pragma unroll
    for (int i = 0; i < 16; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i / 8][i % 8][j] = 0.0f;
    }
    each_group(values, steps, token, cols, tokens, [&](const Stage& stage, u32 group, u32 place) {
        u32 a[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 level[4][4];
#pragma unroll
            for (int q = 0; q < 4; q++) {
                size_t at = ((size_t)group * 8 + half * 4 + t) * (32 * K) + 8 * q;
                u64 bits = ((u64)__ldg(high_words + at) << 32 | __ldg(low_words + at)) >> behind;
#pragma unroll
                for (int row = 0; row < 4; row++) {
                    u32 window = __funnelshift_r((u32)bits, (u32)(bits >> 32), K * (3 - row));
                    level[row][q] = book_entry(window, multiplier, bank);
                }
            }
#pragma unroll
            for (int row = 0; row < 4; row++) {
                a[row / 2][2 * half + row % 2] = permute(permute(level[row][0], level[row][1], 0x0040u),
                                                         permute(level[row][2], level[row][3], 0x0040u), 0x5410u);
            }
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            uint2 b = column(stage, n, place);
            float2 by = two_steps(stage, n, place);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int d[4] = {0, 0, 0, 0};
                multiply_bytes(d, a[i], b.x, b.y);
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][n][j] = fmaf(j % 2 ? by.y : by.x, (float)d[j], sums[i][n][j]);
            }
        }
    });
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 row = blockIdx.x * STRIP + 32 * g + 4 * warp + 2 * i + j / 2;
            if (row >= rows) continue;
            float factor = half_to_float(__ldg(scales + row)) * 0.03125f;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                u32 of = token + n * 8 + 2 * t + j % 2;
                if (of < tokens) y[(size_t)of * rows + row] = factor * sums[i][n][j];
            }
        }
    }
}

#define PLANES(name, C)                                                                                                       \
    KERNEL(128) name(const u32* __restrict__ codes, const void* __restrict__ scales, u32 form, u32 shift, float unit,         \
                     const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y, u32 rows,         \
                     u32 cols, u32 tokens) {                                                                                  \
        plane_tile<C>(codes, Scales{scales, form, shift, unit}, values, steps, y, rows, cols, tokens);                        \
    }
PLANES(prefill_tq1, TQ1)
PLANES(prefill_tq2, TQ2)
PLANES(prefill_tq3, TQ3)
PLANES(prefill_tq4, TQ4)
PLANES(prefill_tq5, TQ5)
PLANES(prefill_tq6, TQ6)
PLANES(prefill_tq7, TQ7)
PLANES(prefill_bytes, BYTES)
PLANES(prefill_mxfp4, MXFP4)
PLANES(prefill_grid4, GRID4)
PLANES(prefill_grid4m, GRID4M)
PLANES(prefill_grid5, GRID5)
PLANES(prefill_grid5m, GRID5M)
PLANES(prefill_grid6, GRID6)

#define TRELLIS(K)                                                                                                            \
    KERNEL(256) prefill_tt##K(const u32* __restrict__ codes, const u16* __restrict__ scales, u32 multiplier,                  \
                              const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y,          \
                              u32 rows, u32 cols, u32 tokens) {                                                               \
        trellis_tile<K>(codes, scales, multiplier, values, steps, y, rows, cols, tokens);                                     \
    }
TRELLIS(2)
TRELLIS(3)
TRELLIS(4)
TRELLIS(5)
TRELLIS(6)
