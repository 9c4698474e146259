// Small kernels that use every kind of instruction the interpreter is for, and some that are broken on purpose.
#include <cuda_fp16.h>

extern "C" __global__ void axpy(const float* x, float* y, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

// One block: the sum of squares by shuffles and shared memory, then a division by the root.
extern "C" __global__ void rms(const float4* x, float4* y, int quads, float eps) {
    __shared__ float part[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[i];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    float total = 0.0f;
    for (int w = 0; w < blockDim.x / 32; w++) total += part[w];
    float factor = 1.0f / sqrtf(total / (4 * quads) + eps);
    for (int i = threadIdx.x; i < quads; i += blockDim.x) {
        float4 v = x[i];
        y[i] = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
    }
}

// prmt with all of its nibbles: __byte_perm clears their top bit, which copies signs.
__device__ __forceinline__ int permute(int a, int b, int selector) {
    int d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
    return d;
}

// Integer forms: byte products, permutes, funnel shifts, bit fields, wide products, divisions.
extern "C" __global__ void integers(const int* a, const int* b, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = a[i], y = b[i], r = 0;
    r += __dp4a(x, y, 7);
    r ^= permute(x, y, 0x5140) + permute(x, y, 0xba98);
    r += __funnelshift_r(x, y, i & 31);
    r ^= __popc(x) + __clz(y) + __brev(x);
    r += (int)(((long long)x * y) >> 17);
    r += y == 0 ? 0 : x / y + x % y;
    r ^= (int)((unsigned)x / 10u) + min(x, y) + max((unsigned)x, (unsigned)y);
    r += (signed char)(x >> 8) + (short)y;
    out[i] = r;
}

// Halves in and out, rounding to integers, conversions.
extern "C" __global__ void halves(const __half2* x, __half2* y, int* rounded, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 v = __half22float2(x[i]);
    rounded[i] = __float2int_rn(v.x * 8.0f) + (int)v.y;
    y[i] = __floats2half2_rn(v.x * 1.5f, v.y - 0.25f);
}

// A loop of a different length in every lane, then a shuffle of the whole warp.
extern "C" __global__ void collatz(const int* start, int* steps, int* most) {
    int x = start[threadIdx.x], n = 0;
    while (x != 1) {
        x = x % 2 ? 3 * x + 1 : x / 2;
        n++;
    }
    steps[threadIdx.x] = n;
    for (int d = 16; d > 0; d /= 2) n = max(n, __shfl_down_sync(0xffffffffu, n, d));
    if (threadIdx.x == 0) *most = n;
}

__device__ __forceinline__ void copy16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :: "r"((unsigned)__cvta_generic_to_shared(shared)), "l"(global));
}

// 16 bytes a thread by an asynchronous copy, read by the neighbor after the barrier.
extern "C" __global__ void copies(const uint4* x, uint4* y) {
    extern __shared__ __align__(16) unsigned char raw[];
    uint4* tile = reinterpret_cast<uint4*>(raw);
    copy16(tile + threadIdx.x, x + threadIdx.x);
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 0;");
    __syncthreads();
    y[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x];
}

// D [16, 8] = A [16, 32] B [32, 8] in bytes: A by rows, B by columns, one warp.
extern "C" __global__ void product(const int* a, const int* b, int* d) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    int a0 = a[g * 8 + t], a1 = a[(g + 8) * 8 + t], a2 = a[g * 8 + t + 4], a3 = a[(g + 8) * 8 + t + 4];
    int b0 = b[g * 8 + t], b1 = b[g * 8 + t + 4];
    int d0 = 0, d1 = 0, d2 = 0, d3 = 0;
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    d[g * 8 + 2 * t] = d0;
    d[g * 8 + 2 * t + 1] = d1;
    d[(g + 8) * 8 + 2 * t] = d2;
    d[(g + 8) * 8 + 2 * t + 1] = d3;
}

// The same in halves with k = 16.
extern "C" __global__ void half_product(const unsigned* a, const unsigned* b, float* d) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    unsigned a0 = a[g * 8 + t], a1 = a[(g + 8) * 8 + t], a2 = a[g * 8 + t + 4], a3 = a[(g + 8) * 8 + t + 4];
    unsigned b0 = b[g * 8 + t], b1 = b[g * 8 + t + 4];
    float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    d[g * 8 + 2 * t] = d0;
    d[g * 8 + 2 * t + 1] = d1;
    d[(g + 8) * 8 + 2 * t] = d2;
    d[(g + 8) * 8 + 2 * t + 1] = d3;
}

// Broken on purpose: no barrier between the write and another warp's read.
extern "C" __global__ void broken_race(int* out) {
    __shared__ int cell[64];
    cell[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = cell[63 - threadIdx.x];
}

// Broken on purpose: cells are written again while another warp may still read them.
extern "C" __global__ void broken_overwrite(int* out) {
    __shared__ int cell[64];
    cell[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = cell[63 - threadIdx.x];
    cell[threadIdx.x] = 0;
}

// Broken on purpose: lanes of one warp exchange through shared memory without a warp barrier.
extern "C" __global__ void broken_warp(int* out) {
    __shared__ volatile int cell[32];
    cell[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = cell[31 - threadIdx.x];
}

// The same, mended.
extern "C" __global__ void mended_warp(int* out) {
    __shared__ volatile int cell[32];
    cell[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = cell[31 - threadIdx.x];
}

// Broken on purpose: a barrier that half of a warp reaches.
extern "C" __global__ void broken_barrier(int* out) {
    if (threadIdx.x < 16) {
        __syncthreads();
        out[threadIdx.x] = 1;
    }
}

// Broken on purpose: a shuffle that names lanes which are elsewhere.
extern "C" __global__ void broken_shuffle(int* out) {
    int x = threadIdx.x;
    if (x < 16) x = __shfl_xor_sync(0xffffffffu, x, 1);
    out[threadIdx.x] = x;
}

// Broken on purpose: a copy is read before it was waited for.
extern "C" __global__ void broken_copy(const uint4* x, uint4* y) {
    __shared__ uint4 tile[32];
    copy16(tile + threadIdx.x, x + threadIdx.x);
    asm volatile("cp.async.commit_group;");
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

// Broken on purpose: shared memory that nobody has written.
extern "C" __global__ void broken_blank(int* out) {
    __shared__ int cell[64];
    if (threadIdx.x != 5) cell[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = cell[threadIdx.x];
}

// Broken on purpose: every block writes the same place.
extern "C" __global__ void broken_blocks(int* out) { out[threadIdx.x] = blockIdx.x; }
