// y = W x for weights that are stored as f32, f16 or bf16, with f32 activations; and rows of such tables.
#include "gq_cuda.h"

enum Kind { F32, F16, BF16 };

// Four elements from element `at` on.
template <Kind K> __device__ __forceinline__ float4 four(const void* __restrict__ from, size_t at) {
    if (K == F32) return __ldg((const float4*)((const float*)from + at));
    uint2 w = __ldg((const uint2*)((const u16*)from + at));
    if (K == BF16) {
        return make_float4(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xffff0000u), __uint_as_float(w.y << 16),
                           __uint_as_float(w.y & 0xffff0000u));
    }
    return make_float4(half_to_float((u16)w.x), half_to_float((u16)(w.x >> 16)), half_to_float((u16)w.y),
                       half_to_float((u16)(w.y >> 16)));
}

// As `multiply` of codes.h: lane l of a row's `split` warps takes quads l, l + 32 split, ... in fused products.
template <Kind K, int T>
__device__ __forceinline__ void multiply(const void* __restrict__ weights, const float* __restrict__ x, float* __restrict__ y,
                                         u32 rows, u32 cols, u32 tokens, u32 split, const u32* __restrict__ experts, u32 per) {
    __shared__ float partial[4][T];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 local = blockIdx.x * (4 / split) + warp / split;
    bool is_there = local < rows;
    if (!is_there) local = rows - 1;
    size_t row = local, first = 0;
    if (experts) {
        row += (size_t)experts[blockIdx.y] * rows;
        first = blockIdx.y / per;
        y += (size_t)blockIdx.y * rows;
    }
    float sums[T];
#pragma unroll
    for (int t = 0; t < T; t++) sums[t] = 0.0f;
    for (u32 q = warp % split * 32 + lane; q < cols / 4; q += 32 * split) {
        float4 w = four<K>(weights, row * cols + 4 * (size_t)q);
#pragma unroll
        for (int t = 0; t < T; t++) {
            size_t token = first + (T == 1 || t < tokens ? t : tokens - 1);
            float4 v = __ldg((const float4*)(x + token * cols) + q);
            sums[t] = fmaf(w.w, v.w, fmaf(w.z, v.z, fmaf(w.y, v.y, fmaf(w.x, v.x, sums[t]))));
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = warp_sum(sums[t]);
        if (split > 1) {
            if (lane == 0) partial[warp][t] = sum;
        } else if (lane == 0 && is_there && t < tokens) {
            y[(size_t)t * rows + local] = sum;
        }
    }
    if (split > 1) {
        __syncthreads();
        if (warp % split == 0 && lane < T && lane < tokens && is_there) {
            float sum = partial[warp][lane];
            for (u32 other = 1; other < split; other++) sum += partial[warp + other][lane];
            y[(size_t)lane * rows + local] = sum;
        }
    }
}

#define GEMV(name, K, T)                                                                                                     \
    KERNEL(128) name(const void* __restrict__ weights, const float* __restrict__ x, float* __restrict__ y, u32 rows,         \
                     u32 cols, u32 tokens, u32 split, const u32* __restrict__ experts, u32 per) {                            \
        multiply<K, T>(weights, x, y, rows, cols, tokens, split, experts, per);                                              \
    }
#define GEMVS(name, K) GEMV(name##_x1, K, 1) GEMV(name##_x4, K, 4) GEMV(name##_x8, K, 8)
GEMVS(gemv_f32, F32)
GEMVS(gemv_f16, F16)
GEMVS(gemv_bf16, BF16)

// Rows ids[token] of a table, times a factor: one block a token.
#define EMBED(name, K)                                                                                                       \
    KERNEL(256) name(const void* __restrict__ table, const u32* __restrict__ ids, float* __restrict__ y, u32 width,          \
                     float factor) {                                                                                         \
        size_t row = (size_t)ids[blockIdx.x] * width, to = (size_t)blockIdx.x * width;                                       \
        for (u32 q = threadIdx.x; q < width / 4; q += 256) {                                                                 \
            float4 v = four<K>(table, row + 4 * (size_t)q);                                                                  \
            *(float4*)(y + to + 4 * (size_t)q) =                                                                             \
                make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);                                         \
        }                                                                                                                    \
    }
EMBED(embed_f32, F32)
EMBED(embed_f16, F16)
EMBED(embed_bf16, BF16)
