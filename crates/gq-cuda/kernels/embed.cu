// Rows of tables in planes (scalar codes, grids, MXFP4) to f32, in the rotated basis where the code has one.
#include "codes.h"

// What values are rounded to behind scale and minimum.
enum Rounding { NONE, HALF, BRAIN };

__device__ __forceinline__ float rounded(float value, u32 rounding) {
    if (rounding == HALF) return half_to_float(float_to_half(value));
    if (rounding != BRAIN) return value;
    u32 bits = __float_as_uint(value);
    u32 nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    return __uint_as_float(value != value ? bits | 0x00400000u : nearest);
}

template <Code C> __device__ __forceinline__ float wide_level(const Words& w, int k, int n) {
    u32 index = (w.four[k] >> (4 * n) & 15u) | (twos(w, k) >> (4 * n) & 3u) << 4;
    if (C == TQ7) index |= (ones(w, k) >> (4 * n) & 1u) << 6;
    u32 sign_bit = C == TQ6 ? 32 : 64;
    float magnitude = C == TQ6 ? MAGNITUDES_6[index & 31u] : MAGNITUDES_7[index & 63u];
    return index & sign_bit ? -magnitude : magnitude;
}

// One block a token, 32 elements a thread: y[token] = rounded(scale * level + minimum) of row ids[token].
template <Code C>
__device__ __forceinline__ void embed(const u32* __restrict__ codes, const Scales& scales, u32 rounding,
                                      const u32* __restrict__ ids, float* __restrict__ y, u32 total, u32 cols) {
    u32 groups = cols / 32;
    size_t row = ids[blockIdx.x];
    Planes from = planes<C>(codes, (size_t)total * groups, row * groups);
    for (u32 group = threadIdx.x; group < groups; group += 128) {
        Words words = load<C>(from, group);
        float2 of = step(scales, row, group, groups);
        bool by_row = scales.form == ROW_HALF || scales.form == ROW_FLOAT;
        float factor = by_row ? row_factor(scales, row) : of.x * scales.unit;
        float* to = y + (size_t)blockIdx.x * cols + group * 32;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float level[4];
            u32 four = is_wide(C) ? 0 : levels<C>(words, i / 2, i % 2);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                level[n] = is_wide(C) ? wide_level<C>(words, i / 2, i % 2 * 4 + n) : (float)(i8)(four >> (8 * n));
                // A negative code of four bits may be zero: its sign is kept.
                if (C == MXFP4 && words.four[i / 2] >> (16 * (i % 2) + 4 * n + 3) & 1) level[n] = -fabsf(level[n]);
                level[n] *= factor;
                if (has_minimum(C)) level[n] += of.y;
                if (C >= MXFP4 || C == BYTES) level[n] = rounded(level[n], rounding);
            }
            *(float4*)(to + 4 * i) = make_float4(level[0], level[1], level[2], level[3]);
        }
    }
}

#define EMBED(name, C)                                                                                                        \
    KERNEL(128) name(const u32* __restrict__ codes, const void* __restrict__ scales, u32 form, u32 shift, float unit,         \
                     u32 rounding, const u32* __restrict__ ids, float* __restrict__ y, u32 total, u32 cols) {                 \
        embed<C>(codes, Scales{scales, form, shift, unit}, rounding, ids, y, total, cols);                                    \
    }
EMBED(embed_tq1, TQ1)
EMBED(embed_tq2, TQ2)
EMBED(embed_tq3, TQ3)
EMBED(embed_tq4, TQ4)
EMBED(embed_tq5, TQ5)
EMBED(embed_tq6, TQ6)
EMBED(embed_tq7, TQ7)
EMBED(embed_bytes, BYTES)
EMBED(embed_mxfp4, MXFP4)
EMBED(embed_grid4, GRID4)
EMBED(embed_grid4m, GRID4M)
EMBED(embed_grid5, GRID5)
EMBED(embed_grid5m, GRID5M)
EMBED(embed_grid6, GRID6)
