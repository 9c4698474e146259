// RMS norm of rows, with the residual stream added on the way.
#include "gq_cuda.h"

// The sum over a block of 256 threads, in all of them: lanes, then warps in order.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double parts[8];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = parts[0];
#pragma unroll
    for (int warp = 1; warp < 8; warp++) sum += parts[warp];
    return sum;
}

// One block a row: x (in parts) is added to the residual where there is one, which is then what is normed:
// y = x / sqrt(mean(x^2) + eps) * weight. Squares are summed in f64, thread t over elements t, t + 256, ...
KERNEL(256) rms_norm(const float* __restrict__ x, u32 parts, u64 stride, float* residual, const float* __restrict__ weight,
                     float* __restrict__ y, u32 width, float eps) {
    size_t row = (size_t)blockIdx.x * width;
    double squares = 0.0;
    for (u32 i = threadIdx.x; i < width; i += 256) {
        float value = whole(x, parts, stride, row + i);
        if (residual) {
            value = residual[row + i] + value;
            residual[row + i] = value;
        } else {
            y[row + i] = value;
        }
        squares += (double)value * (double)value;
    }
    double mean = block_sum(squares) / (double)width;
    float factor = (float)(1.0 / sqrt(mean + (double)eps));
    for (u32 i = threadIdx.x; i < width; i += 256) {
        float value = (residual ? residual[row + i] : y[row + i]) * factor;
        y[row + i] = weight ? value * weight[i] : value;
    }
}
