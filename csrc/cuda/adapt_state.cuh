// What every part of the adaptation kernel sees of its task, and sums over neighbouring lanes.
#pragma once

#include <cuda_runtime.h>

#include "adapt_cuda.h"
#include "cuda/adapt_table.h"
#include "cuda/launch.cuh"

// Before a loop that would spill registers if the compiler unrolled it as far as it likes.
#ifdef __CUDACC__
#define FGSBIR_UNROLL_TWICE _Pragma("unroll 2")
#else
#define FGSBIR_UNROLL_TWICE
#endif

namespace fgsbir::cuda {

constexpr unsigned kWholeWarp = 0xffffffffU;
constexpr float kFloor = 1e-12F;  // of squared distances and of norms

// The kernel's arguments.
struct AdaptLaunch {
    const AdaptRecord* records;  // [tasks]
    const int* lists;
    const double* step_sizes;  // [steps]
    AdaptCudaInput input;
    AdaptResults<float> results;
    unsigned char* workspace;
    std::size_t workspace_stride;  // bytes from one block's share to the next
    int tasks, width, steps, hidden;
    float momentum, sharpness;
    bool photos_move;
};

// The block's task. Lies in shared memory: threads read a size or a place where they need it, for dozens of them held in
// registers would leave too few for the work.
struct AdaptBlock {
    AdaptRecord record;
    AdaptLists lists;
    AdaptPlaces places;
    int row_lanes;  // neighbouring lanes that share a row: a power of two up to 32
    int row4;       // a row of outputs and of velocity in float4
    int active4;    // the part of it that distances see
    int first4;     // the part of it without coefficients
};

// One thread's view. Lists and arrays as adapt_table.h says; matrices are rows of float4.
struct AdaptState {
    const AdaptBlock& at;
    const AdaptLaunch& launch;
    const int* lists;
    float* tables;
    float* matrices;
    int thread;  // of the block

    __device__ __forceinline__ int lane() const { return thread & 31; }
    __device__ __forceinline__ int warp() const { return thread >> 5; }
    __device__ __forceinline__ int threads() const { return static_cast<int>(blockDim.x); }
    __device__ __forceinline__ int warps() const { return static_cast<int>(blockDim.x >> 5); }

    __device__ __forceinline__ const AdaptSizes& sizes() const { return at.record.sizes; }
    __device__ __forceinline__ const int2* triplet_pairs() const {
        return reinterpret_cast<const int2*>(lists + at.lists.triplet_pairs);
    }
    __device__ __forceinline__ const int2* meetings() const { return reinterpret_cast<const int2*>(lists + at.lists.meetings); }
    __device__ __forceinline__ const int* pair_rows() const { return lists + at.lists.pair_rows; }
    __device__ __forceinline__ const int* run_begin() const { return lists + at.lists.run_begin; }
    __device__ __forceinline__ const int* push_begin() const { return lists + at.lists.push_begin; }
    __device__ __forceinline__ const int* push_triplet() const { return lists + at.lists.push_triplet; }
    __device__ __forceinline__ const int* row_begin() const { return lists + at.lists.row_begin; }
    __device__ __forceinline__ const int* row_of() const { return lists + at.lists.row_of; }
    __device__ __forceinline__ const int* local_of() const { return launch.lists + at.record.lists_at + at.lists.local_of; }

    __device__ __forceinline__ float* squared() const { return tables + at.places.squared; }
    __device__ __forceinline__ float* distance() const { return tables + at.places.distance; }
    __device__ __forceinline__ float* weight() const { return tables + at.places.weight; }
    __device__ __forceinline__ float* slope() const { return tables + at.places.slope; }
    __device__ __forceinline__ float* run_slope() const { return tables + at.places.run_slope; }
    __device__ __forceinline__ double* run_loss() const { return reinterpret_cast<double*>(tables + at.places.run_loss); }
    __device__ __forceinline__ float* inverse_norm() const { return tables + at.places.inverse_norm; }
    __device__ __forceinline__ float* unit_square() const { return tables + at.places.unit_square; }
    __device__ __forceinline__ float* gram() const { return tables + at.places.gram; }
    __device__ __forceinline__ double* margin() const { return reinterpret_cast<double*>(tables + at.places.margin); }
    __device__ __forceinline__ float* network() const { return tables + at.places.margin + 4; }
    __device__ __forceinline__ float* ranking() const { return tables + at.places.ranking; }

    __device__ __forceinline__ float4* outputs() const { return reinterpret_cast<float4*>(matrices + at.places.outputs); }
    __device__ __forceinline__ float4* velocity() const { return reinterpret_cast<float4*>(matrices + at.places.velocity); }
    __device__ __forceinline__ float4* coefficients() const {
        return reinterpret_cast<float4*>(matrices + at.places.coefficients);
    }
    // In gram form, before the descent, in the place of velocity: [used, used] and [used].
    __device__ __forceinline__ double* products() const { return reinterpret_cast<double*>(matrices + at.places.velocity); }
    __device__ __forceinline__ float* full() const { return at.record.need_full ? matrices + at.places.full : nullptr; }

    __device__ __forceinline__ double* losses() const { return launch.results.losses + at.record.task * (launch.steps + 1); }

    // Of the support: [m, D] and [m, m].
    __device__ __forceinline__ const float* base_outputs(int row) const {
        return launch.input.outputs + (at.record.outputs_row + row) * launch.width;
    }
    __device__ __forceinline__ const float* base_gram(int row) const {
        return launch.input.gram + at.record.gram_at + static_cast<std::int64_t>(row) * at.record.sizes.items;
    }
};

// The sum over `lanes` neighbouring lanes (a power of two), in all of them. All lanes of the warp must call.
template <typename T>
__device__ __forceinline__ T lane_sum(T value, int lanes) {
    for (int flip = lanes / 2; flip > 0; flip /= 2) value += __shfl_xor_sync(kWholeWarp, value, flip);
    return value;
}

// Every multiplication with an addition is written as one of these, so that no compiler has a choice of how to round.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// y + |v|^2
__device__ __forceinline__ float add_square(float y, float4 v) {
    return multiply_add(v.w, v.w, multiply_add(v.z, v.z, multiply_add(v.y, v.y, multiply_add(v.x, v.x, y))));
}

// y += factor * x
__device__ __forceinline__ void add_scaled(float4& y, float factor, float4 x) {
    y.x = multiply_add(factor, x.x, y.x);
    y.y = multiply_add(factor, x.y, y.y);
    y.z = multiply_add(factor, x.z, y.z);
    y.w = multiply_add(factor, x.w, y.w);
}

// The comparison is written so that NaN stays NaN, as in the CPU's body.
__device__ __forceinline__ float at_least(float value, float floor) { return value < floor ? floor : value; }

// What z = u / max(|u|, floor) needs, from |u|^2. A row at the floor is marked by a negative sign of the square, -0 for u = 0.
__device__ __forceinline__ void keep_norm(const AdaptState& s, int row, float square) {
    const float norm = sqrtf(square), shrunk = norm / kFloor;
    s.inverse_norm()[row] = 1.0F / at_least(norm, kFloor);
    s.unit_square()[row] = norm > kFloor ? 1.0F : -(shrunk * shrunk);
}

}  // namespace fgsbir::cuda
