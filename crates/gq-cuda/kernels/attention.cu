// Causal attention over a cache of keys and values, with grouped heads, windows, softcap and sinks.
#include "gq_cuda.h"

// Positions whose keys, and then values, are in shared memory at a time.
#define TILE 32
// Query heads of a block, one for each warp.
#define HEADS 4

enum Kept { KEPT_F32, KEPT_F16, KEPT_Q8 };

// A cache [kv heads, slots, dim]; position p is in slot p mod slots.
struct Cache {
    const void* rows;
    const u16* scales;
};

// `count` rows of a head from position `from` on, as f32 with `pitch` floats a row.
template <Kept S>
__device__ __forceinline__ void fetch(const Cache& cache, float* tile, u32 pitch, size_t head, u32 slots, u32 from, u32 count,
                                      u32 dim) {
    u32 quads = dim / 4;
    for (u32 q = threadIdx.x; q < count * quads; q += 128) {
        u32 row = q / quads, col = q % quads * 4;
        size_t place = head * slots + (from + row) % slots;
        float4 v;
        if (S == KEPT_F32) {
            v = *(const float4*)((const float*)cache.rows + place * dim + col);
        } else if (S == KEPT_F16) {
            uint2 w = *(const uint2*)((const u16*)cache.rows + place * dim + col);
            v = make_float4(half_to_float((u16)w.x), half_to_float((u16)(w.x >> 16)), half_to_float((u16)w.y),
                            half_to_float((u16)(w.y >> 16)));
        } else {
            u32 w = *(const u32*)((const i8*)cache.rows + place * dim + col);
            float step = half_to_float(cache.scales[place * ((dim + 31) / 32) + col / 32]);
            v = make_float4((float)(i8)w * step, (float)(i8)(w >> 8) * step, (float)(i8)(w >> 16) * step,
                            (float)(i8)(w >> 24) * step);
        }
        *(float4*)(tile + row * pitch + col) = v;
    }
}

// What is left to do when all splits are known: largest score, sum and weighted values of each, joined in order; the sink
// is one more score without a value.
__device__ __forceinline__ float joined(const float* __restrict__ partial, u32 splits, u32 dim, const float* sink, u32 at) {
    float largest = partial[0];
    for (u32 split = 1; split < splits; split++) largest = larger(largest, partial[(size_t)split * (dim + 2)]);
    if (sink) largest = larger(largest, *sink);
    float sum = 0.0f, value = 0.0f;
    for (u32 split = 0; split < splits; split++) {
        const float* one = partial + (size_t)split * (dim + 2);
        float weight = exponential(one[0] - largest);
        sum += weight * one[1];
        value += weight * one[2 + at];
    }
    if (sink) sum += exponential(*sink - largest);
    return value / sum;
}

// Block (split, four query heads of a key-value head, token): positions first + chunk * split and on, 32 at a time. Lane j
// has the score of position j: products fused in order of elements. Then the values, fused in order of positions, on top
// of what came before times e^(old largest - new largest). To partial [tokens, heads, splits, 2 + dim].
template <Kept S, int E>
__device__ __forceinline__ void attend(const float* __restrict__ q, Cache keys, Cache values,
                                       const u32* __restrict__ positions, float* __restrict__ partial, u32 heads,
                                       u32 kv_heads, u32 dim, u32 slots, u32 window, u32 chunk, float scale, float cap) {
    extern __shared__ float shared[];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = heads / kv_heads, blocks = (group + HEADS - 1) / HEADS;
    u32 kv_head = blockIdx.y / blocks, member = blockIdx.y % blocks * HEADS + warp, token = blockIdx.z;
    u32 head = kv_head * group + member, pitch = dim + 4;
    bool works = member < group;
    float* tile = shared + HEADS * dim;
    float* query = shared + warp * dim;
    if (works) {
        for (u32 i = lane; i < dim; i += 32) query[i] = q[((size_t)token * heads + head) * dim + i];
    }
    u32 end = positions[token] + 1, first = window && end > window ? end - window : 0;
    u32 from = first + blockIdx.x * chunk, to = min(end, from + chunk);
    float largest = -__int_as_float(0x7f800000), sum = 0.0f, mixed[E];
#pragma unroll
    for (int e = 0; e < E; e++) mixed[e] = 0.0f;
#pragma unroll 1
    for (u32 at = from; at < to; at += TILE) {
        u32 count = min((u32)TILE, to - at);
        fetch<S>(keys, tile, pitch, kv_head, slots, at, count, dim);
        __syncthreads();
        float weight = 0.0f;
        if (works) {
            float score = -__int_as_float(0x7f800000);
            if (lane < count) {
                float product = 0.0f;
                const float4* key = (const float4*)(tile + lane * pitch);
                for (u32 i = 0; i < dim / 4; i++) {
                    float4 a = ((const float4*)query)[i], b = key[i];
                    product = fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, product))));
                }
                score = capped(product, scale, cap);
            }
            float now = larger(largest, warp_largest(score));
            float before = exponential(largest - now);
            weight = lane < count ? exponential(score - now) : 0.0f;
            sum = sum * before + warp_sum(weight);
            largest = now;
#pragma unroll
            for (int e = 0; e < E; e++) mixed[e] *= before;
        }
        __syncthreads();
        fetch<S>(values, tile, pitch, kv_head, slots, at, count, dim);
        __syncthreads();
        if (works) {
            for (u32 j = 0; j < count; j++) {
                float factor = __shfl_sync(ALL, weight, j);
#pragma unroll
                for (int e = 0; e < E; e++) {
                    u32 i = lane + 32 * e;
                    if (i < dim) mixed[e] = fmaf(factor, tile[j * pitch + i], mixed[e]);
                }
            }
        }
        __syncthreads();
    }
    if (works) {
        float* to = partial + (((size_t)token * heads + head) * gridDim.x + blockIdx.x) * (dim + 2);
        if (lane == 0) to[0] = largest, to[1] = sum;
#pragma unroll
        for (int e = 0; e < E; e++) {
            u32 i = lane + 32 * e;
            if (i < dim) to[2 + i] = mixed[e];
        }
    }
}

// Block (head, token): y [tokens, heads * dim].
KERNEL(128) attention_join(const float* __restrict__ partial, const float* __restrict__ sinks, float* __restrict__ y,
                           u32 splits, u32 dim) {
    size_t head = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
    const float* sink = sinks ? sinks + blockIdx.x : nullptr;
    for (u32 i = threadIdx.x; i < dim; i += 128) {
        y[head * dim + i] = joined(partial + head * splits * (dim + 2), splits, dim, sink, i);
    }
}

#define ATTENTION(name, S, E)                                                                                                 \
    KERNEL(128) name(const float* __restrict__ q, const void* __restrict__ keys, const u16* __restrict__ key_scales,          \
                     const void* __restrict__ values, const u16* __restrict__ value_scales,                                   \
                     const u32* __restrict__ positions, float* __restrict__ partial, u32 heads, u32 kv_heads, u32 dim,        \
                     u32 slots, u32 window, u32 chunk, float scale, float cap) {                                              \
        attend<S, E>(q, Cache{keys, key_scales}, Cache{values, value_scales}, positions, partial, heads, kv_heads, dim,       \
                     slots, window, chunk, scale, cap);                                                                       \
    }
#define ATTENTIONS(name, S) \
    ATTENTION(name##_64, S, 2) ATTENTION(name##_128, S, 4) ATTENTION(name##_256, S, 8) ATTENTION(name##_512, S, 16)
ATTENTIONS(attention_f32, KEPT_F32)
ATTENTIONS(attention_f16, KEPT_F16)
ATTENTIONS(attention_q8, KEPT_Q8)
