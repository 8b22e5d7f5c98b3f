// How kernels of this project are started, and how they name shared memory. The same sources compile with nvcc and, for tests
// without a GPU, with any C++ compiler over tests/cpp/cuda_emulation.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "cuda/error.h"

#ifdef __CUDACC__
// A variable of the block's shared memory (Type without constructor; an alias for arrays), and the dynamic part as a pointer.
#define FGSBIR_SHARED(Type, name) __shared__ Type name
#define FGSBIR_DYNAMIC_SHARED(Type, name)            \
    extern __shared__ uint4 fgsbir_dynamic_shared[]; \
    Type* const name = reinterpret_cast<Type*>(fgsbir_dynamic_shared)
#endif

namespace fgsbir::cuda {

// What to do about an error, for people.
const char* remedy(cudaError_t error);

// Throws Error unless `error` is cudaSuccess, and clears CUDA's memory of it, so that the next call is not blamed for this one.
void check(cudaError_t error, const char* what);

// Starts kernel(arguments...) on the stream. Errors of the launch itself throw here; errors of the running kernel show in a later
// call on the device.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared,
            cudaStream_t stream, Arguments&&... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = dynamic_shared;
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
}

}  // namespace fgsbir::cuda
