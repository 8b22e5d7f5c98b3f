// The emulator itself: it runs right kernels right, and wrong kernels do not pass.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/launch.cuh"

namespace {

using cuda_emulation::Failure;
using Words = unsigned[256];

// Sums each block's 256 values by a tree in shared memory.
template <bool kForgetBarrier>
__global__ void sum(const unsigned* in, unsigned* out) {
    FGSBIR_SHARED(Words, partial);
    partial[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (unsigned half = 128; half != 0; half /= 2) {
        if (!kForgetBarrier) __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

template <bool kForgetBarrier>
int wrong_sums(int seeds) {
    std::vector<unsigned> in(3 * 256), out(3), expected(3);
    for (std::size_t i = 0; i < in.size(); ++i) {
        in[i] = static_cast<unsigned>(i * i % 1000);
        expected[i / 256] += in[i];
    }
    int wrong = 0;
    for (int seed = 0; seed < seeds; ++seed) {
        cuda_emulation::settings().shuffle = seed != 0;
        cuda_emulation::settings().seed = static_cast<std::uint64_t>(seed);
        fgsbir::cuda::launch("sum", sum<kForgetBarrier>, dim3(3), dim3(256), 0, nullptr, in.data(), out.data());
        wrong += out != expected ? 1 : 0;
    }
    cuda_emulation::settings() = {};
    return wrong;
}

__global__ void warp_operations(unsigned* out) {
    const unsigned t = threadIdx.x, lane = t % 32;
    bool right = __ballot_sync(0xffffffffU, lane % 3 == 0) == 0x49249249U;
    right = right && __shfl_sync(0xffffffffU, 100 + t, 5) == 100 + t - lane + 5;
    right = right && __shfl_sync(0xffffffffU, t, 1, 8) == t - t % 8 + 1;
    right = right && __shfl_up_sync(0xffffffffU, static_cast<float>(t), 2) == static_cast<float>(lane < 2 ? t : t - 2);
    right = right && __shfl_down_sync(0xffffffffU, std::uint64_t{t} << 40, 1, 16) == std::uint64_t{t % 16 == 15 ? t : t + 1}
                                                                                         << 40;
    right = right && __shfl_xor_sync(0xffffffffU, t, 7) == (t ^ 7U);
    right = right && __any_sync(0xffffffffU, lane == 31) && !__any_sync(0xffffffffU, 0);
    right = right && __all_sync(0xffffffffU, 1) && !__all_sync(0xffffffffU, lane != 3);
    right = right && __reduce_max_sync(0xffffffffU, -static_cast<int>(t)) == -static_cast<int>(t - lane);
    right = right && __reduce_add_sync(0xffffffffU, 2U) == 64U;
    if (lane < 16) right = right && __ballot_sync(0x0000ffffU, lane % 2) == 0xaaaaU;
    right = right && __syncthreads_count(t % 4 == 0) == static_cast<int>(blockDim.x) / 4;
    right = right && __syncthreads_or(t == 40) != 0 && __syncthreads_and(t != 40) == 0;
    atomicAdd(out, right ? 1U : 0U);
}

// Neighbours swap through shared memory, with the warp's barrier or without.
template <bool kForgetBarrier>
__global__ void swap_neighbours(int* values) {
    FGSBIR_DYNAMIC_SHARED(int, scratch);
    scratch[threadIdx.x] = values[threadIdx.x];
    if (!kForgetBarrier) __syncwarp();
    values[threadIdx.x] = scratch[threadIdx.x ^ 1U];
}

template <bool kForgetBarrier>
bool swaps(std::uint64_t seed) {
    std::vector<int> values(64);
    for (int i = 0; i < 64; ++i) values[static_cast<std::size_t>(i)] = i;
    cuda_emulation::settings().shuffle = true;
    cuda_emulation::settings().seed = seed;
    fgsbir::cuda::launch("swap", swap_neighbours<kForgetBarrier>, dim3(1), dim3(64), 64 * sizeof(int), nullptr, values.data());
    cuda_emulation::settings() = {};
    bool right = true;
    for (int i = 0; i < 64; ++i) right = right && values[static_cast<std::size_t>(i)] == (i ^ 1);
    return right;
}

__global__ void exit_early() {
    if (threadIdx.x == 7) return;
    __syncthreads();
}
__global__ void two_barriers() {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
__global__ void lane_not_named() { __ballot_sync(0xfffffffeU, 1); }
__global__ void lane_elsewhere() {
    if (threadIdx.x == 3) {
        __syncthreads();
    } else {
        __ballot_sync(0xffffffffU, 1);
        __syncthreads();
    }
}
__global__ void lane_outside() { __shfl_sync(0x0000ffffU, 1, 20); }
__global__ void does_nothing() {}

bool fails(void (*kernel)(), const std::string& words, unsigned threads = 64) {
    try {
        fgsbir::cuda::launch("kernel", kernel, dim3(2), dim3(threads), 0, nullptr);
    } catch (const Failure& failure) {
        if (std::string(failure.what()).find(words) != std::string::npos) return true;
        std::fprintf(stderr, "unexpected words: %s\n", failure.what());
    }
    return false;
}

void halves() {
    const float samples[] = {0.0F, -0.0F,    1.0F,       -2.5F,      65504.0F,        65519.9F,     65520.0F,
                             1e9F, 0x1p-24F, 0x1.8p-25F, 0x1p-25F,   0x1.000002p-25F, 0x1.ffcp-15F, 0x1.ffep-15F,
                             0.1F, 1.0F / 3, 1.0004883F, 1.0014648F, -INFINITY,       6.1e-5F};
    const std::uint16_t expected[] = {0x0000, 0x8000, 0x3c00, 0xc100, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x0001, 0x0001,
                                      0x0000, 0x0001, 0x0400, 0x0400, 0x2e66, 0x3555, 0x3c00, 0x3c02, 0xfc00, 0x03ff};
    for (std::size_t i = 0; i < std::size(samples); ++i) CHECK(__half_as_ushort(__float2half_rn(samples[i])) == expected[i]);
    int wrong = 0;
    for (unsigned bits = 0; bits < 0x10000U; ++bits) {
        if ((bits & 0x7fffU) > 0x7c00U) continue;  // NaN
        wrong += __half_as_ushort(__float2half_rn(__half2float({static_cast<std::uint16_t>(bits)}))) != bits;
    }
    CHECK(wrong == 0);
    CHECK(__half2float({0x3555}) == 0x1.554p-2F);
}

}  // namespace

// The races below are wanted, and counted: they are no reason for ThreadSanitizer to fail the program.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "exitcode=0"; }

int main() {
    CHECK(wrong_sums<false>(20) == 0);
    CHECK(cuda_emulation::races() == 0);
    CHECK(wrong_sums<true>(20) > 0);
    CHECK(cuda_emulation::races() > 0 || !cuda_emulation::kFindsRaces);

    unsigned right = 0;
    fgsbir::cuda::launch("warp_operations", warp_operations, dim3(2), dim3(128), 0, nullptr, &right);
    CHECK(right == 256);
    int races = cuda_emulation::races();
    CHECK(swaps<false>(1) && swaps<false>(2));
    CHECK(cuda_emulation::races() == races);
    CHECK(!swaps<true>(1) || !swaps<true>(2) || !swaps<true>(3));
    CHECK(cuda_emulation::races() > races || !cuda_emulation::kFindsRaces);

    CHECK(fails(exit_early, "63 threads __syncthreads at"));
    CHECK(fails(two_barriers, "divergent barriers"));
    CHECK(fails(lane_not_named, "mask lacks the calling lane"));
    CHECK(fails(lane_elsewhere, "1 threads __syncthreads at"));
    CHECK(fails(lane_outside, "reads a lane outside", 16));
    CHECK(!fails(does_nothing, ""));

    CHECK_THROWS(fgsbir::cuda::launch("too many threads", does_nothing, dim3(1), dim3(1025), 0, nullptr), fgsbir::cuda::Error);
    CHECK_THROWS(fgsbir::cuda::launch("no blocks", does_nothing, dim3(0), dim3(1), 0, nullptr), fgsbir::cuda::Error);
    CHECK_THROWS(fgsbir::cuda::launch("shared", does_nothing, dim3(1), dim3(1), 49153, nullptr), fgsbir::cuda::Error);
    CHECK(cudaFuncSetAttribute(does_nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536) == cudaSuccess);
    fgsbir::cuda::launch("shared", does_nothing, dim3(1), dim3(1), 65536, nullptr);
    halves();
    return check::finish();
}
