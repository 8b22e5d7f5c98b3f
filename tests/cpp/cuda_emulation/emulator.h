// Runs CUDA kernels on a CPU, for tests on machines without a GPU.
//
// A .cu file is compiled as ordinary C++ with this folder first on the include path, so that <cuda_runtime.h> and <cuda_fp16.h>
// are the ones here. Every thread of a block is a fiber with a stack of its own; one operating system thread runs all fibers in
// turns. A fiber runs until it waits (__syncthreads, __syncwarp, a shuffle or a vote) and goes on when all that must arrive have
// arrived. Blocks run one after the other.
//
// What a passing test proves: the kernel's logic and integer arithmetic; with AddressSanitizer that it stays inside global memory
// and the block's shared memory, with UndefinedBehaviorSanitizer that wide accesses are aligned; that all threads reach the same
// barriers, and that warp operations name the right lanes (anything else is a Failure that says where each thread waits); that no
// result depends on the order in which threads or blocks run, as far as the tried orders show (Settings::shuffle), nor on what
// shared memory held before (it starts as garbage); with ThreadSanitizer that two threads of a block never touch the same memory
// without a barrier between, at least one of them writing, unless atomically.
//
// What it does not prove: speed; registers, occupancy and launch limits beyond the few checked here; the memory model beyond
// barriers (fences do nothing, and blocks never overlap in time); the last bit of approximate functions (__expf, rsqrtf and the
// like are the C library's here; the _rn functions are exact if compiled with -ffp-contract=off).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace cuda_emulation {

struct Settings {
    bool shuffle = false;               // run threads and blocks in random orders instead of ascending ones
    std::uint64_t seed = 0;             // of those orders, and of what shared memory holds at a block's start
    std::size_t shared_limit = 166912;  // bytes a block may ask for, as on Orin (163 KiB)
};
Settings& settings();  // for the launches that follow

// A kernel did what a GPU would hang on or leave undefined. The launch is abandoned.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Races that ThreadSanitizer has reported in this process, where the program was compiled with it.
#if defined(__SANITIZE_THREAD__)
constexpr bool kFindsRaces = true;
#else
constexpr bool kFindsRaces = false;
#endif
int races();

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

struct Launch {
    Index grid, block;  // extents
    std::size_t dynamic_shared = 0;
    std::function<void()> body;  // one thread of the kernel
};
void run(const Launch& launch);

// ---- for a running thread ----
struct Place {
    Index thread, block, block_extent, grid_extent;
};
const Place& place();  // always the same object: what it holds changes with the running thread
unsigned lane();       // 0..31 within the warp

struct Site {
    const char* file;
    int line;
};
// Returns how many threads passed true.
int barrier(bool predicate, Site site);

// One value of each lane of `mask`; `present` has the bits of those that have not left the kernel.
struct Exchange {
    std::array<std::uint64_t, 32> values;
    unsigned present;
};
Exchange exchange(unsigned mask, std::uint64_t value, const char* operation, Site site);
void sync_warp(unsigned mask, Site site);  // an exchange that also orders memory
[[noreturn]] void fail(const char* what, Site site);

// The block's shared memory: the same object for all its threads, told apart by the address of a variable in the kernel.
void* shared(const void* key, std::size_t bytes);
void* dynamic_shared();

// cudaFuncAttributeMaxDynamicSharedMemorySize
void allow_dynamic_shared(const void* kernel, std::size_t bytes);
std::size_t allowed_dynamic_shared(const void* kernel);

}  // namespace cuda_emulation
