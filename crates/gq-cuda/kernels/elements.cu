// Operators that look at one element at a time.
#include "gq_cuda.h"

// activation(gate) * up: gate and up are columns 0 and `up` and on of rows of `width` (in parts). SiLU, or GELU by tanh.
KERNEL(256) gated(const float* __restrict__ x, u32 parts, u64 stride, u32 width, u32 up, u32 columns, u32 gelu,
                  float* __restrict__ y) {
    u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at >= columns) return;
    size_t row = (size_t)blockIdx.y * width;
    float gate = whole(x, parts, stride, row + at), factor = whole(x, parts, stride, row + up + at);
    y[(size_t)blockIdx.y * columns + at] = activated(gate, factor, gelu);
}

// (residual + x) * factor, or x * factor.
KERNEL(256) add_scaled(const float* __restrict__ x, u32 parts, u64 stride, const float* residual, float factor, float* y,
                       u32 count) {
    u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    float value = whole(x, parts, stride, at);
    if (residual) value = residual[at] + value;
    y[at] = value * factor;
}

// cap * tanh(x / cap).
KERNEL(256) softcap(const float* __restrict__ x, u32 parts, u64 stride, float cap, float* __restrict__ y, u32 count) {
    u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at < count) y[at] = cap * hyperbolic_tangent(whole(x, parts, stride, at) / cap);
}
