// Heads of queries, keys and values: norm, rotary embedding, and where they go.
#include "gq_cuda.h"

// Largest head.
#define MOST_DIM 512

enum Store { TO_F32, CACHE_F32, CACHE_F16, CACHE_Q8 };

// Half away from zero, cut to -127..127: `f32::round` of what is in range.
__device__ __forceinline__ int rounded(float x) {
    x = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
    int whole = (int)x;
    float rest = x - (float)whole;
    return rest >= 0.5f ? whole + 1 : rest <= -0.5f ? whole - 1 : whole;
}

// One warp a head of one token (block y). Columns first .. first + heads * dim of x [tokens, width] (in parts).
// With `norm`, x / sqrt(mean(x^2) + eps) * weight, squares summed in f64: lane l over elements l, l + 32, ..., then lanes.
// With cos [tokens, dim / 2], pairs (i, i + dim / 2) are turned. Then f32 [tokens, heads * dim], or slot
// positions[token] mod slots of a cache [heads, slots, dim]; int8 has an f16 scale per 32 elements.
template <Store S>
__device__ __forceinline__ void head(float (*rows)[MOST_DIM], u32 block, const float* __restrict__ x, u32 parts, size_t stride, u32 width, u32 first, u32 norm,
                                     const float* __restrict__ weight, float eps, const float* __restrict__ cos,
                                     const float* __restrict__ sin, const u32* __restrict__ positions, u32 heads, u32 dim,
                                     u32 slots, void* __restrict__ out, u16* __restrict__ scales) {
    u32 lane = threadIdx.x % 32, number = block * 4 + threadIdx.x / 32, token = blockIdx.y;
    if (number >= heads) return;
    float* row = rows[threadIdx.x / 32];
    size_t from = (size_t)token * width + first + number * dim;
    double squares = 0.0;
    for (u32 i = lane; i < dim; i += 32) {
        float value = whole(x, parts, stride, from + i);
        row[i] = value;
        squares += (double)value * (double)value;
    }
    if (norm) {
        float factor = (float)(1.0 / sqrt(warp_sum(squares) / (double)dim + (double)eps));
        for (u32 i = lane; i < dim; i += 32) {
            float value = row[i] * factor;
            row[i] = weight ? value * weight[i] : value;
        }
    }
    if (cos) {
        __syncwarp();
        for (u32 i = lane; i < dim / 2; i += 32) {
            float a = row[i], b = row[i + dim / 2];
            float c = cos[(size_t)token * (dim / 2) + i], s = sin[(size_t)token * (dim / 2) + i];
            row[i] = a * c - b * s;
            row[i + dim / 2] = b * c + a * s;
        }
        __syncwarp();
    }
    if (S == TO_F32) {
        float* to = (float*)out + ((size_t)token * heads + number) * dim;
        for (u32 i = lane; i < dim; i += 32) to[i] = row[i];
        return;
    }
    size_t place = (size_t)number * slots + positions[token] % slots;
    if (S == CACHE_F32) {
        for (u32 i = lane; i < dim; i += 32) ((float*)out)[place * dim + i] = row[i];
    } else if (S == CACHE_F16) {
        for (u32 i = lane; i < dim; i += 32) ((u16*)out)[place * dim + i] = float_to_half(row[i]);
    } else {
        u32 groups = (dim + 31) / 32;
        for (u32 group = 0; group < groups; group++) {
            u32 i = group * 32 + lane;
            float value = i < dim ? row[i] : 0.0f;
            bool all = __all_sync(ALL, finite(value));
            float largest = warp_largest(fabsf(value)) / 127.0f;
            u16 scale = all ? float_to_half(largest > 65504.0f ? 65504.0f : largest) : 0x7e00;
            float step = half_to_float(scale), inverse = step > 0.0f ? 1.0f / step : 0.0f;
            if (i < dim) ((i8*)out)[place * dim + i] = all ? (i8)rounded(value * inverse) : 0;
            if (lane == 0) scales[place * groups + group] = scale;
        }
    }
}

#define HEADS(name, S)                                                                                                        \
    KERNEL(128) name(const float* __restrict__ x, u32 parts, u64 stride, u32 width, u32 first, u32 norm,                      \
                     const float* __restrict__ weight, float eps, const float* __restrict__ cos,                              \
                     const float* __restrict__ sin, const u32* __restrict__ positions, u32 heads, u32 dim, u32 slots,         \
                     void* __restrict__ out, u16* __restrict__ scales) {                                                      \
        __shared__ float rows[4][MOST_DIM];                                                                                   \
        head<S>(rows, blockIdx.x, x, parts, stride, width, first, norm, weight, eps, cos, sin, positions, heads, dim, slots, out, scales);      \
    }
HEADS(heads_f32, TO_F32)
HEADS(heads_cache_f32, CACHE_F32)
HEADS(heads_cache_f16, CACHE_F16)
HEADS(heads_cache_q8, CACHE_Q8)

// Queries to f32 rows, keys and values to their caches, in one launch: blocks of queries first, then of keys, then of values,
// which are not turned.
#define ALL_HEADS(name, S)                                                                                                    \
    KERNEL(128) name(const float* __restrict__ q, u32 q_parts, u64 q_stride, u32 q_width, u32 q_first, u32 q_norm,            \
                     const float* __restrict__ q_weight, float q_eps, const float* __restrict__ k, u32 k_parts, u64 k_stride, \
                     u32 k_width, u32 k_first, u32 k_norm, const float* __restrict__ k_weight, float k_eps,                   \
                     const float* __restrict__ v, u32 v_parts, u64 v_stride, u32 v_width, u32 v_first, u32 v_norm,            \
                     const float* __restrict__ v_weight, float v_eps, const float* __restrict__ cos,                          \
                     const float* __restrict__ sin, const u32* __restrict__ positions, u32 heads, u32 kv_heads, u32 dim,      \
                     u32 slots, float* __restrict__ out, void* __restrict__ keys, u16* __restrict__ key_scales,               \
                     void* __restrict__ values, u16* __restrict__ value_scales) {                                             \
        __shared__ float rows[4][MOST_DIM];                                                                                   \
        u32 of_q = (heads + 3) / 4, of_k = (kv_heads + 3) / 4, block = blockIdx.x;                                            \
        if (block < of_q) {                                                                                                   \
            head<TO_F32>(rows, block, q, q_parts, q_stride, q_width, q_first, q_norm, q_weight, q_eps, cos, sin, positions,   \
                         heads, dim, slots, out, nullptr);                                                                    \
        } else if (block < of_q + of_k) {                                                                                     \
            head<S>(rows, block - of_q, k, k_parts, k_stride, k_width, k_first, k_norm, k_weight, k_eps, cos, sin, positions, \
                    kv_heads, dim, slots, keys, key_scales);                                                                  \
        } else {                                                                                                              \
            head<S>(rows, block - of_q - of_k, v, v_parts, v_stride, v_width, v_first, v_norm, v_weight, v_eps, nullptr,      \
                    nullptr, positions, kv_heads, dim, slots, values, value_scales);                                          \
        }                                                                                                                     \
    }
ALL_HEADS(all_heads_f32, CACHE_F32)
ALL_HEADS(all_heads_f16, CACHE_F16)
ALL_HEADS(all_heads_q8, CACHE_Q8)
