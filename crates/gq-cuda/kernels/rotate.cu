// Rotations (formats/encodings.md, "hadamard") of one row a block, and activations to int8 behind them.
#include "gq_cuda.h"

// Outputs of a Hartley factor that one thread keeps until all have been computed.
#define KEPT 24

// Walsh-Hadamard stages of 32 and more within blocks of `block` elements, in shared memory: two at a time where two remain.
__device__ __forceinline__ void wide_butterflies(float* row, u32 width, u32 block) {
    u32 half = 32;
    for (; 4 * half <= block; half *= 4) {
        for (u32 q = threadIdx.x; q < width / 4; q += blockDim.x) {
            u32 at = (q / half) * 4 * half + q % half;
            float a = row[at], b = row[at + half], c = row[at + 2 * half], d = row[at + 3 * half];
            float sum = a + b, difference = a - b, other_sum = c + d, other_difference = c - d;
            row[at] = sum + other_sum;
            row[at + half] = difference + other_difference;
            row[at + 2 * half] = sum - other_sum;
            row[at + 3 * half] = difference - other_difference;
        }
        __syncthreads();
    }
    if (2 * half <= block) {
        for (u32 q = threadIdx.x; q < width / 2; q += blockDim.x) {
            u32 at = (q / half) * 2 * half + q % half;
            float a = row[at], b = row[at + half];
            row[at] = a + b;
            row[at + half] = a - b;
        }
        __syncthreads();
    }
}

// Stages 1 to 16 of the 32 elements of a warp.
__device__ __forceinline__ float narrow_butterflies(float value) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 1; half < 32; half *= 2) {
        float other = __shfl_xor_sync(ALL, value, half);
        value = lane & half ? other - value : value + other;
    }
    return value;
}

// out[o, i, c] = sum over j of F[i, j] x[o, j, c], F[i, j] = entries[i j mod p].
__device__ __forceinline__ void hartley(float* row, u32 width, u32 p, u32 inner, const float* __restrict__ entries) {
    float kept[KEPT];
#pragma unroll
    for (u32 k = 0; k < KEPT; k++) {
        u32 at = threadIdx.x + k * blockDim.x;
        if (at < width) {
            u32 i = at / inner % p;
            const float* source = row + (at - i * inner);
            float sum = 0.0f;
            u32 entry = 0;
#pragma unroll 1
            for (u32 j = 0; j < p; j++) {
                sum += entries[entry] * source[j * inner];
                entry += i;
                if (entry >= p) entry -= p;
            }
            kept[k] = sum;
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 k = 0; k < KEPT; k++) {
        u32 at = threadIdx.x + k * blockDim.x;
        if (at < width) row[at] = kept[k];
    }
    __syncthreads();
}

__device__ __forceinline__ float signed_factor(const u32* __restrict__ signs, u32 at, float factor) {
    return signs[at / 32] >> (at % 32) & 1 ? -factor : factor;
}

// element(at): what is rotated. tables: the number of primes, the primes in ascending order, then p entries (f32) for each.
template <typename Element>
__device__ __forceinline__ void forward(Element element, float* row, u32 width, u32 block, const u32* __restrict__ signs,
                                        float factor, const u32* __restrict__ tables) {
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) {
        row[at] = narrow_butterflies(element(at) * signed_factor(signs, at, factor));
    }
    __syncthreads();
    wide_butterflies(row, width, block);
    u32 primes = tables[0], inner = width, entries = 1 + primes;
    for (u32 n = 0; n < primes; n++) {
        u32 p = tables[1 + n];
        inner /= p;
        hartley(row, width, p, inner, (const float*)tables + entries);
        entries += p;
    }
}

// 32 adjacent elements, one a lane: scale = largest / 127, value = x * (127 / largest) to nearest even. Groups whose
// largest element is below 2^-100 become zeros; a group with an element that is not finite has scale NaN.
__device__ __forceinline__ void quantize(float x, u32 at, i8* __restrict__ values, float* __restrict__ scales) {
    bool all = __all_sync(ALL, finite(x));
    float largest = warp_largest(fabsf(x));
    bool kept = all && largest >= 7.888609052210118e-31f;
    float inverse = kept ? 127.0f / largest : 0.0f;
    values[at] = kept ? (i8)__float2int_rn(x * inverse) : 0;
    if (at % 32 == 0) scales[at / 32] = all ? (kept ? largest / 127.0f : 0.0f) : __uint_as_float(0x7fc00000u);
}

// x [rows, width] (in parts) to int8 in the rotated basis: values [rows, width], scales [rows, width / 32].
KERNEL(1024) rotate_quantize(const float* __restrict__ x, u32 parts, u64 stride, const u32* __restrict__ signs, float factor,
                             const u32* __restrict__ tables, u32 width, u32 block, i8* __restrict__ values,
                             float* __restrict__ scales) {
    extern __shared__ float row[];
    size_t first = (size_t)blockIdx.x * width;
    x += first;
    forward([&](u32 at) { return whole(x, parts, stride, at); }, row, width, block, signs, factor, tables);
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) {
        quantize(row[at], at, values + first, scales + first / 32);
    }
}

// The sum of the squares of a row's elements in f64 as `rms_norm` has it: each of its 256 threads, lanes, warps in order,
// whatever threads this block has. Each element is asked for once, by the same thread every time.
template <typename Element> __device__ __forceinline__ double squares(Element element, u32 width, double* parts) {
    u32 lane = threadIdx.x % 32;
    for (u32 warp = threadIdx.x / 32; warp < 8; warp += blockDim.x / 32) {
        double sum = 0.0;
        for (u32 i = warp * 32 + lane; i < width; i += 256) {
            float value = element(i);
            sum += (double)value * (double)value;
        }
        sum = warp_sum(sum);
        if (lane == 0) parts[warp] = sum;
    }
    __syncthreads();
    double sum = parts[0];
#pragma unroll
    for (int warp = 1; warp < 8; warp++) sum += parts[warp];
    return sum;
}

__device__ __forceinline__ float norm_factor(double squares, u32 width, float eps) {
    return (float)(1.0 / sqrt(squares / (double)width + (double)eps));
}

// One block a row: x (in parts), normed first with `posted`, joins the residual stream where there is one,
// residual = (residual + x) * scale, which is then normed, and goes to int8 in the rotated basis.
KERNEL(1024) norm_rotate(const float* __restrict__ x, u32 parts, u64 stride, u32 posted, const float* __restrict__ post,
                         float post_eps, float* residual, float scale, const float* __restrict__ weight, float eps,
                         const u32* __restrict__ signs, float factor, const u32* __restrict__ tables, u32 width, u32 block,
                         i8* __restrict__ values, float* __restrict__ scales) {
    extern __shared__ float row[];
    __shared__ double sums[2][8];
    size_t first = (size_t)blockIdx.x * width;
    x += first;
    float before = 1.0f;
    if (posted) {
        double sum = squares([&](u32 i) { return row[i] = whole(x, parts, stride, i); }, width, sums[0]);
        before = norm_factor(sum, width, post_eps);
    }
    double sum = squares([&](u32 i) {
        float value = posted ? row[i] * before : whole(x, parts, stride, i);
        if (posted && post) value = value * post[i];
        if (residual) {
            value = (residual[first + i] + value) * scale;
            residual[first + i] = value;
        }
        return row[i] = value;
    }, width, sums[1]);
    float after = norm_factor(sum, width, eps);
    forward([&](u32 at) {
        float value = row[at] * after;
        return weight ? value * weight[at] : value;
    }, row, width, block, signs, factor, tables);
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) {
        quantize(row[at], at, values + first, scales + first / 32);
    }
}

// activation(gate) * up, of columns 0 and `up` and on of rows of `columns` (in parts), to int8 in the rotated basis.
KERNEL(1024) gated_rotate(const float* __restrict__ x, u32 parts, u64 stride, u32 columns, u32 up, u32 gelu,
                          const u32* __restrict__ signs, float factor, const u32* __restrict__ tables, u32 width, u32 block,
                          i8* __restrict__ values, float* __restrict__ scales) {
    extern __shared__ float row[];
    size_t first = (size_t)blockIdx.x * width;
    x += (size_t)blockIdx.x * columns;
    forward([&](u32 at) {
        return activated(whole(x, parts, stride, at), whole(x, parts, stride, up + at), gelu);
    }, row, width, block, signs, factor, tables);
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) {
        quantize(row[at], at, values + first, scales + first / 32);
    }
}

// Rows that are wider than a block's shared memory take two launches. First, `chunk` neighbors a block: signs and the
// Walsh-Hadamard stages below `chunk`, a power of two that divides `block`; y [rows, width].
KERNEL(1024) rotate_chunks(const float* __restrict__ x, u32 parts, u64 stride, const u32* __restrict__ signs, float factor,
                           u32 width, u32 chunk, float* __restrict__ y) {
    extern __shared__ float row[];
    u32 begin = blockIdx.x * chunk;
    size_t first = (size_t)blockIdx.y * width + begin;
    for (u32 at = threadIdx.x; at < chunk; at += blockDim.x) {
        float value = whole(x + first, parts, stride, at) * signed_factor(signs, begin + at, factor);
        row[at] = narrow_butterflies(value);
    }
    __syncthreads();
    wide_butterflies(row, chunk, chunk);
    for (u32 at = threadIdx.x; at < chunk; at += blockDim.x) y[first + at] = row[at];
}

// Then 32 columns a block of the matrix [width / chunk, chunk] that a row is: the stages that are left, the Hartley factors,
// and int8 as `rotate_quantize` gives it.
KERNEL(1024) rotate_across(const float* __restrict__ x, const u32* __restrict__ tables, u32 width, u32 chunk, u32 block,
                           i8* __restrict__ values, float* __restrict__ scales) {
    extern __shared__ float row[];
    u32 all = width / chunk * 32, column = blockIdx.x * 32;
    size_t first = (size_t)blockIdx.y * width;
    for (u32 at = threadIdx.x; at < all; at += blockDim.x) row[at] = x[first + at / 32 * chunk + column + at % 32];
    __syncthreads();
    wide_butterflies(row, all, block / chunk * 32);
    u32 primes = tables[0], inner = width, entries = 1 + primes;
    for (u32 n = 0; n < primes; n++) {
        u32 p = tables[1 + n];
        inner /= p;
        hartley(row, all, p, inner / chunk * 32, (const float*)tables + entries);
        entries += p;
    }
    for (u32 at = threadIdx.x; at < all; at += blockDim.x) {
        quantize(row[at], at / 32 * chunk + column + at % 32, values + first, scales + first / 32);
    }
}

// Rows that are not rotated, to int8.
KERNEL(256) quantize_rows(const float* __restrict__ x, u32 parts, u64 stride, u32 width, i8* __restrict__ values,
                          float* __restrict__ scales) {
    size_t first = (size_t)blockIdx.y * width;
    u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at / 32 * 32 < width) quantize(whole(x + first, parts, stride, at), at, values + first, scales + first / 32);
}

// y = R^T x: factors in descending order, Walsh-Hadamard, signs.
KERNEL(1024) rotate_back(const float* __restrict__ x, const u32* __restrict__ signs, float factor,
                         const u32* __restrict__ tables, u32 width, u32 block, float* __restrict__ y) {
    extern __shared__ float row[];
    size_t first = (size_t)blockIdx.x * width;
    u32 primes = tables[0], entries = 1 + primes;
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) row[at] = x[first + at];
    __syncthreads();
    u32 inner = block;
    for (u32 n = 0; n < primes; n++) entries += tables[1 + n];
    for (u32 n = primes; n > 0; n--) {
        u32 p = tables[n];
        entries -= p;
        hartley(row, width, p, inner, (const float*)tables + entries);
        inner *= p;
    }
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) row[at] = narrow_butterflies(row[at]);
    __syncthreads();
    wide_butterflies(row, width, block);
    for (u32 at = threadIdx.x; at < width; at += blockDim.x) y[first + at] = row[at] * signed_factor(signs, at, factor);
}
