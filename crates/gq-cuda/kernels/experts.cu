// Mixture of experts: which experts a token takes, and the sum of what they gave.
#include "gq_cuda.h"

// Most experts of a layer.
#define MOST 512

// One warp a token. Softmax of scores [tokens, experts] (in parts; the sum in f64 by index mod 8, then those of the last
// incomplete eight), the `top` largest, of equals the first; divided by their sum in descending order, times their own
// scales. Ids [tokens, top] ascending and factors beside them.
KERNEL(32) route(const float* __restrict__ scores, u32 parts, u64 stride, const float* __restrict__ scales, u32 experts,
                 u32 top, u32* __restrict__ ids, float* __restrict__ factors) {
    __shared__ float weights[MOST];
    u32 lane = threadIdx.x;
    size_t row = (size_t)blockIdx.x * experts;
    float largest = -__int_as_float(0x7f800000);
    for (u32 i = lane; i < experts; i += 32) {
        float score = whole(scores, parts, stride, row + i);
        weights[i] = score;
        largest = larger(largest, score);
    }
    largest = warp_largest(largest);
    for (u32 i = lane; i < experts; i += 32) weights[i] = exponential(weights[i] - largest);
    __syncwarp();
    double sum = 0.0;
    if (lane < 8) {
        for (u32 i = lane; i < experts / 8 * 8; i += 8) sum += (double)weights[i];
    }
    double total = 0.0, rest = 0.0;
#pragma unroll 1
    for (u32 from = 0; from < 8; from++) total += __shfl_sync(ALL, sum, from);
    for (u32 i = experts / 8 * 8; i < experts; i++) rest += (double)weights[i];
    float factor = (float)(1.0 / (total + rest));
    __syncwarp();
    for (u32 i = lane; i < experts; i += 32) weights[i] *= factor;
    // Lane j keeps choice j.
    u32 chosen = 0xffffffffu;
    float mine = 0.0f, all = 0.0f;
    for (u32 choice = 0; choice < top; choice++) {
        u32 key = 0, best = 0xffffffffu;
        for (u32 i = lane; i < experts; i += 32) {
            u32 bits = __float_as_uint(weights[i]) + 1;
            if (weights[i] >= 0.0f && bits > key) key = bits, best = i;
        }
#pragma unroll
        for (int apart = 16; apart > 0; apart /= 2) {
            u32 other = __shfl_xor_sync(ALL, key, apart), place = __shfl_xor_sync(ALL, best, apart);
            if (other > key || (other == key && place < best)) key = other, best = place;
        }
        float weight = __uint_as_float(key - 1);
        // Scores that are no numbers leave nothing to choose by.
        if (key == 0) best = choice, weight = __uint_as_float(0x7fc00000u);
        all += weight;
        if (lane == choice) chosen = best, mine = weight;
        if (best % 32 == lane) weights[best] = -1.0f;
    }
    u32 rank = 0;
    for (u32 other = 0; other < top; other++) rank += __shfl_sync(ALL, chosen, other) < chosen;
    if (lane < top) {
        size_t at = (size_t)blockIdx.x * top + rank;
        ids[at] = chosen;
        factors[at] = mine / all * scales[chosen];
    }
}

// y[token] = sum over its slots, in order, of x[slot] * factors[slot]; x [tokens * per, width] (in parts).
KERNEL(256) mix_experts(const float* __restrict__ x, u32 parts, u64 stride, const float* __restrict__ factors, u32 per,
                        float* __restrict__ y, u32 width) {
    u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at >= width) return;
    size_t slot = (size_t)blockIdx.y * per;
    float sum = 0.0f;
    for (u32 j = 0; j < per; j++) sum += whole(x, parts, stride, (slot + j) * width + at) * factors[slot + j];
    y[(size_t)blockIdx.y * width + at] = sum;
}
