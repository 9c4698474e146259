// What every kernel of gq-cuda shares. Compiled with --fmad=false: a product and a sum are fused where fmaf is written,
// and nowhere else, so that results have defined bits. Functions of the fast-math kind are not used.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define ALL 0xffffffffu

__device__ __forceinline__ float half_to_float(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

__device__ __forceinline__ u16 float_to_half(float value) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

__device__ __forceinline__ float brain_to_float(u16 brain) { return __uint_as_float((u32)brain << 16); }

// prmt with all four bits of its nibbles; __byte_perm clears the top one, which copies signs.
__device__ __forceinline__ u32 permute(u32 a, u32 b, u32 selector) {
    u32 out;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
    return out;
}

__device__ __forceinline__ bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// The sum of 32 lanes, in all of them: lanes 16 apart first, neighbors last.
template <typename V> __device__ __forceinline__ V warp_sum(V value) {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    return value;
}

__device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }

__device__ __forceinline__ float warp_largest(float value) {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) value = larger(value, __shfl_xor_sync(ALL, value, apart));
    return value;
}

// Element `at` of a value that came in parts: partial sums of a split product, added in order.
__device__ __forceinline__ float whole(const float* x, u32 parts, size_t stride, size_t at) {
    float sum = x[at];
    for (u32 part = 1; part < parts; part++) sum += x[part * stride + at];
    return sum;
}

// e^x by the operations of gq-model's `math::exp`, in their order.
__device__ __forceinline__ float exponential(float x) {
    const float ROUND = 12582912.0f;
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.7f ? 88.7f : x;
    float shifted = x * 1.44269504088896340736f + ROUND;
    float n = shifted - ROUND;
    float r = x - n * 0.6933594f - n * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3982e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    float value = p * (r * r) + r + 1.0f;
    u32 power = __float_as_uint(shifted) - __float_as_uint(ROUND);
    u32 half = (u32)((int)power >> 1);
    return value * __uint_as_float((half + 127u) << 23) * __uint_as_float((power - half + 127u) << 23);
}

// SiLU, or GELU by tanh, of a gate, times the other factor.
__device__ __forceinline__ float activated(float gate, float factor, u32 gelu) {
    float inner = gelu ? 1.595769f * (gate + 0.044715f * gate * gate * gate) : gate;
    return gate / (1.0f + exponential(-inner)) * factor;
}

// tanh by the operations of gq-model's `math::tanh`.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
    float square = x * x;
    float small = x + x * square * (-0.33333334f + square * (0.13333334f - square * 0.053968254f));
    float large = 1.0f - 2.0f / (1.0f + exponential(2.0f * x));
    return square < 0.01f ? small : large;
}

// cap * tanh(x / cap) after x * scale; without a cap (0) the product alone.
__device__ __forceinline__ float capped(float x, float scale, float cap) {
    return cap > 0.0f ? cap * hyperbolic_tangent(x * (scale / cap)) : x * scale;
}

// D = A B + D by one warp: 16 rows, 8 columns, k = 32, exact.
__device__ __forceinline__ void multiply_bytes(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
