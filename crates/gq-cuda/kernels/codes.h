// Scalar codes, MXFP4 and grids: packed words to signed bytes, and the product with int8 activations.
//
// Codes lie in planes of the whole matrix (src/layout/planes.rs): of 32 elements, element 8 k + n has its part in nibble n
// of word k (plane of 4 bits), at bit 2 (k mod 2) of nibble n of word k / 2 (2 bits), or at bit k of nibble n (1 bit). A
// plane of 8 bits has its bytes in order. So words are selectors of prmt, four elements at a time.
#pragma once
#include "gq_cuda.h"

enum Code { TQ1, TQ2, TQ3, TQ4, TQ5, TQ6, TQ7, BYTES, MXFP4, GRID4, GRID4M, GRID5, GRID5M, GRID6 };

// Where scales come from.
enum Form { ROW_HALF, GROUP_HALF, GROUP_HALVES, GROUP_FLOATS, ROW_FLOAT, GROUP_EXPONENT };

// Magnitudes of 6 and 7 bits, beyond a byte.
__constant__ u16 MAGNITUDES_6[32] = {68,   205,  343,  480,  619,  758,  899,  1041, 1185, 1330, 1478,
                                     1629, 1783, 1940, 2101, 2266, 2437, 2613, 2796, 2987, 3186, 3397,
                                     3620, 3858, 4116, 4397, 4708, 5061, 5473, 5975, 6636, 7668};
__constant__ u16 MAGNITUDES_7[64] = {17,   52,   86,   121,  155,  190,  225,  259,  294,  329,  364,  400,  435,
                                     471,  507,  543,  579,  615,  652,  689,  726,  764,  802,  840,  879,  918,
                                     958,  998,  1039, 1080, 1122, 1164, 1207, 1251, 1296, 1341, 1387, 1435, 1483,
                                     1532, 1583, 1635, 1689, 1744, 1800, 1859, 1920, 1983, 2049, 2117, 2189, 2265,
                                     2345, 2431, 2522, 2620, 2728, 2846, 2979, 3131, 3309, 3530, 3825, 4290};

constexpr bool has_four(Code c) { return c == TQ4 || c == TQ5 || c == TQ6 || c == TQ7 || (c >= MXFP4); }
constexpr bool has_two(Code c) { return c == TQ2 || c == TQ3 || c == TQ6 || c == TQ7 || c == GRID6; }
constexpr bool has_one(Code c) {
    return c == TQ1 || c == TQ3 || c == TQ5 || c == TQ7 || c == GRID5 || c == GRID5M;
}
constexpr bool is_wide(Code c) { return c == TQ6 || c == TQ7; }
constexpr bool has_minimum(Code c) { return c == GRID4M || c == GRID5M; }
// Signs are the top bits of nibbles, and a table of eight has the magnitudes.
constexpr bool is_signed_nibble(Code c) { return c == TQ4 || c == MXFP4; }

// Words of 32 elements.
struct Words {
    u32 four[4], two[2], one;
    uint4 bytes[2];
};

// A row: the first words of its planes.
struct Planes {
    const uint4* four;
    const uint2* two;
    const u32* one;
    const uint4* bytes;
};

// Of a matrix whose planes have `groups` groups each, from group `first` on; the widest plane comes first.
template <Code C> __device__ __forceinline__ Planes planes(const u32* codes, size_t groups, size_t first) {
    Planes out = {};
    if (has_four(C)) {
        out.four = (const uint4*)codes + first;
        codes += 4 * groups;
    }
    if (has_two(C)) {
        out.two = (const uint2*)codes + first;
        codes += 2 * groups;
    }
    if (has_one(C)) out.one = codes + first;
    if (C == BYTES) out.bytes = (const uint4*)codes + 2 * first;
    return out;
}

template <Code C> __device__ __forceinline__ Words load(const Planes& from, u32 group) {
    Words out = {};
    if (has_four(C)) {
        uint4 w = __ldg(from.four + group);
        out.four[0] = w.x, out.four[1] = w.y, out.four[2] = w.z, out.four[3] = w.w;
    }
    if (has_two(C)) {
        uint2 w = __ldg(from.two + group);
        out.two[0] = w.x, out.two[1] = w.y;
    }
    if (has_one(C)) out.one = __ldg(from.one + group);
    if (C == BYTES) {
        out.bytes[0] = __ldg(from.bytes + 2 * group);
        out.bytes[1] = __ldg(from.bytes + 2 * group + 1);
    }
    return out;
}

__device__ __forceinline__ u32 word(const uint4 (&v)[2], int at) {
    const uint4& half = v[at / 4];
    return at % 4 == 0 ? half.x : at % 4 == 1 ? half.y : at % 4 == 2 ? half.z : half.w;
}

__device__ __forceinline__ u32 twos(const Words& w, int k) { return (w.two[k / 2] >> (2 * (k % 2))) & 0x33333333u; }
__device__ __forceinline__ u32 ones(const Words& w, int k) { return (w.one >> k) & 0x11111111u; }

// In a register of its own, which the assembler does not know to be constant: it would make a new one for every prmt.
template <Code C> __device__ __forceinline__ u32 low_table() {
    u32 lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return (C == MXFP4 ? 0x03020100u : 0x24190f05u) + (lane >> 5);
}
template <Code C> __device__ __forceinline__ u32 high_table() { return C == MXFP4 ? 0x0c080604u : 0x684f3e30u; }

// Four values 0 to 15 of nibbles 4 h to 4 h + 3.
__device__ __forceinline__ u32 unpacked(u32 nibbles, int h) {
    return permute(nibbles & 0x0f0f0f0fu, (nibbles >> 4) & 0x0f0f0f0fu, h ? 0x7362u : 0x5140u);
}

// Magnitudes of what is positive (x) and of what is negative (y), 0 elsewhere: a selector's top bit copies the sign of a
// table's byte, which is 0.
template <Code C> __device__ __forceinline__ uint2 signed_parts(const Words& w, int k, int h) {
    u32 codes = w.four[k] >> (16 * h);
    return make_uint2(permute(low_table<C>(), high_table<C>(), codes),
                      permute(low_table<C>(), high_table<C>(), codes ^ 0x8888u));
}

// Levels of elements 8 k + 4 h and the three behind it, a signed byte each.
template <Code C> __device__ __forceinline__ u32 levels(const Words& w, int k, int h) {
    int shift = 16 * h;
    if (C == TQ1) return permute(0x0000ff01u, 0, ones(w, k) >> shift);
    if (C == TQ2) return permute(0xcef1320fu, 0, twos(w, k) >> shift);
    if (C == TQ3) return permute(0x58371f0au, 0xa8c9e1f6u, (twos(w, k) | ones(w, k) << 2) >> shift);
    if (is_signed_nibble(C)) {
        uint2 parts = signed_parts<C>(w, k, h);
        return ((parts.x | 0x80808080u) - parts.y) ^ 0x80808080u;
    }
    if (C == TQ5) {
        u32 low = permute(0x120d0803u, 0x28221c17u, w.four[k] >> shift);
        u32 high = permute(0x443c352eu, 0x7c66584du, (w.four[k] ^ 0x88888888u) >> shift);
        u32 sign = permute(0x0000ff00u, 0, ones(w, k) >> shift);
        return ((low | high) ^ sign) + (sign & 0x01010101u);
    }
    if (C == BYTES) return word(w.bytes, 2 * k + h);
    u32 low = unpacked(w.four[k], h);
    if (C == GRID4) return low | permute(0x0000f000u, 0, ((w.four[k] >> 3) & 0x11111111u) >> shift);
    if (C == GRID5) return low | permute(0x0000f000u, 0, ones(w, k) >> shift);
    if (C == GRID5M) return low | permute(0x00001000u, 0, ones(w, k) >> shift);
    if (C == GRID6) return low | permute(0xf0e01000u, 0, twos(w, k) >> shift);
    return low;
}

// Levels of 6 and 7 bits are 64 high + low, both signed bytes: a word for every code, in every lane's bank. A barrier
// follows before it is read.
template <Code C> __device__ __forceinline__ void fill(u32* table) {
    const u32 sign_bit = C == TQ6 ? 32 : 64;
    for (u32 at = threadIdx.x; at < 64 * sign_bit; at += blockDim.x) {
        u32 code = at / 32, index = code & (sign_bit - 1);
        int magnitude = C == TQ6 ? MAGNITUDES_6[index] : MAGNITUDES_7[index];
        int low = magnitude % 64, high = magnitude / 64;
        if (code & sign_bit) low = -low, high = -high;
        table[at] = (u32)(low & 255) | (u32)(high & 255) << 8;
    }
}

// Low and high parts of four levels.
template <Code C> __device__ __forceinline__ uint2 wide_levels(const u32* table, const Words& w, int k, int h) {
    u32 packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int n = 4 * h + i;
        u32 code = (w.four[k] >> (4 * n) & 15u) | (twos(w, k) >> (4 * n) & 3u) << 4;
        if (C == TQ7) code |= (ones(w, k) >> (4 * n) & 1u) << 6;
        packed[i] = table[code * 32 + threadIdx.x % 32];
    }
    u32 front = permute(packed[0], packed[1], 0x5140u), back = permute(packed[2], packed[3], 0x5140u);
    return make_uint2(permute(front, back, 0x5410u), permute(front, back, 0x7632u));
}

// Everything a product needs beside codes and activations.
struct Scales {
    const void* scales;
    u32 form;
    // Groups of 32 that share a scale, as a power of two (GROUP_HALF).
    u32 shift;
    // What a level is multiplied by, beside scales.
    float unit;
};

// Scale (x) and minimum (y) of group `group` of row `row`.
__device__ __forceinline__ float2 step(const Scales& s, size_t row, u32 group, u32 groups) {
    size_t at = row * groups + group;
    switch (s.form) {
    case GROUP_HALF: return make_float2(half_to_float(__ldg((const u16*)s.scales + (at >> s.shift))), 0.0f);
    case GROUP_HALVES: {
        u32 both = __ldg((const u32*)s.scales + at);
        return make_float2(half_to_float((u16)both), half_to_float((u16)(both >> 16)));
    }
    case GROUP_FLOATS: return __ldg((const float2*)s.scales + at);
    case GROUP_EXPONENT: {
        u32 exponent = __ldg((const u8*)s.scales + at);
        u32 bits = exponent == 255 ? 0x7fc00000u : exponent == 0 ? 0x00400000u : exponent << 23;
        return make_float2(__uint_as_float(bits), 0.0f);
    }
    default: return make_float2(1.0f, 0.0f);
    }
}

__device__ __forceinline__ float row_factor(const Scales& s, size_t row) {
    if (s.form == ROW_HALF) return half_to_float(__ldg((const u16*)s.scales + row)) * s.unit;
    if (s.form == ROW_FLOAT) return __ldg((const float*)s.scales + row) * s.unit;
    return s.unit;
}

// Adds a lane's groups to its sums. With ROW there are no scales within a row.
template <Code C, int T, bool ROW>
__device__ __forceinline__ void accumulate(const Planes& from, const Scales& scales, const u32* table, size_t row,
                                           const i8* values, const float* steps, u32 first, u32 stride, u32 groups, u32 tokens,
                                           float (&sums)[T]) {
    // For one token two products are cheaper than levels with a sign.
    constexpr bool in_parts = is_signed_nibble(C) && T == 1;
    for (u32 g = first; g < groups; g += stride) {
        Words words = load<C>(from, g);
        float2 of = ROW ? make_float2(1.0f, 0.0f) : step(scales, row, g, groups);
        u32 low[8], high[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (is_wide(C)) {
                uint2 both = wide_levels<C>(table, words, i / 2, i % 2);
                low[i] = both.x, high[i] = both.y;
            } else if (in_parts) {
                uint2 both = signed_parts<C>(words, i / 2, i % 2);
                low[i] = both.x, high[i] = both.y;
            } else {
                low[i] = levels<C>(words, i / 2, i % 2);
            }
        }
#pragma unroll
        for (int t = 0; t < T; t++) {
            u32 token = T == 1 || t < tokens ? t : tokens - 1;
            uint4 x[2];
            const uint4* source = (const uint4*)(values + (size_t)token * groups * 32) + 2 * g;
            x[0] = __ldg(source), x[1] = __ldg(source + 1);
            float x_step = __ldg(steps + (size_t)token * groups + g);
            int dot = 0, dot_high = 0, sum = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                dot = __dp4a((int)low[i], (int)word(x, i), dot);
                if (is_wide(C) || in_parts) dot_high = __dp4a((int)high[i], (int)word(x, i), dot_high);
                if (has_minimum(C)) sum = __dp4a(0x01010101, (int)word(x, i), sum);
            }
            if (is_wide(C)) dot += 64 * dot_high;
            if (in_parts) dot -= dot_high;
            if (has_minimum(C)) {
                sums[t] = fmaf(x_step, fmaf(of.y, (float)sum, of.x * (float)dot), sums[t]);
            } else {
                sums[t] = fmaf(ROW ? x_step : of.x * x_step, (float)dot, sums[t]);
            }
        }
    }
}

// y[t, row] = <row, x[t]>: a row is `split` warps' work (1, 2 or 4 of a block's four), lane l of all of them takes groups
// l, l + 32 split, ...; lanes are added as `warp_sum` does, warps in order. With experts, block y is a slot: expert
// experts[slot]'s rows meet token slot / per, and go to row slot of y.
template <Code C, int T>
__device__ __forceinline__ void multiply(const u32* __restrict__ codes, Scales scales, const i8* __restrict__ values,
                                         const float* __restrict__ steps, float* __restrict__ y, u32 rows, u32 total, u32 cols,
                                         u32 tokens, u32 split, const u32* __restrict__ experts, u32 per) {
    __shared__ u32 table[is_wide(C) ? (C == TQ6 ? 64 : 128) * 32 : 1];
    __shared__ float partial[4][T];
    if (is_wide(C)) {
        fill<C>(table);
        __syncthreads();
    }
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = cols / 32;
    u32 local = blockIdx.x * (4 / split) + warp / split;
    bool is_there = local < rows;
    if (!is_there) local = rows - 1;
    size_t row = local;
    if (experts) {
        size_t token = blockIdx.y / per;
        row += (size_t)experts[blockIdx.y] * rows;
        values += token * cols, steps += token * groups;
        y += (size_t)blockIdx.y * rows;
    }
    Planes from = planes<C>(codes, (size_t)total * groups, row * groups);
    float sums[T];
#pragma unroll
    for (int t = 0; t < T; t++) sums[t] = 0.0f;
    u32 first = warp % split * 32 + lane, stride = 32 * split;
    if (T == 1 && (scales.form == ROW_HALF || scales.form == ROW_FLOAT)) {
        accumulate<C, T, true>(from, scales, table, row, values, steps, first, stride, groups, tokens, sums);
    } else {
        accumulate<C, T, false>(from, scales, table, row, values, steps, first, stride, groups, tokens, sums);
    }
    float factor = row_factor(scales, row);
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = warp_sum(sums[t]);
        if (split > 1) {
            if (lane == 0) partial[warp][t] = sum;
        } else if (lane == 0 && is_there && t < tokens) {
            y[(size_t)t * rows + local] = factor * sum;
        }
    }
    if (split > 1) {
        __syncthreads();
        if (warp % split == 0 && lane < T && lane < tokens && is_there) {
            float sum = partial[warp][lane];
            for (u32 other = 1; other < split; other++) sum += partial[warp + other][lane];
            y[(size_t)lane * rows + local] = factor * sum;
        }
    }
}

#define GEMV(name, C, T)                                                                                                      \
    KERNEL(128) name(const u32* __restrict__ codes, const void* __restrict__ scales, u32 form, u32 shift, float unit,         \
                     const i8* __restrict__ values, const float* __restrict__ steps, float* __restrict__ y, u32 rows,         \
                     u32 total, u32 cols, u32 tokens, u32 split, const u32* __restrict__ experts, u32 per) {                  \
        multiply<C, T>(codes, Scales{scales, form, shift, unit}, values, steps, y, rows, total, cols, tokens, split, experts, \
                       per);                                                                                                  \
    }
#define GEMVS(name, C) GEMV(name##_x1, C, 1) GEMV(name##_x4, C, 4) GEMV(name##_x8, C, 8)
