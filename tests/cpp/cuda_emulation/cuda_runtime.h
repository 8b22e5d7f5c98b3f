// What kernels and the host code around them use of the CUDA language, as ordinary C++; emulator.h says what this is for.
// Included instead of NVIDIA's header of the same name. Only what this project uses is here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>

#include "emulator.h"

#define FGSBIR_CUDA_EMULATION

// ---- qualifiers ----
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// Plain shared variables work too, but start as zeros and count against no limit; FGSBIR_SHARED (csrc/cuda/launch.cuh) is
// checked.
#define __shared__ static

#define FGSBIR_SHARED(Type, name) \
    static char name##_key;       \
    Type& name = *static_cast<Type*>(cuda_emulation::shared(&name##_key, sizeof(Type)))
#define FGSBIR_DYNAMIC_SHARED(Type, name) Type* const name = static_cast<Type*>(cuda_emulation::dynamic_shared())

// ---- built-in variables and types ----
inline const cuda_emulation::Index& threadIdx = cuda_emulation::place().thread;
inline const cuda_emulation::Index& blockIdx = cuda_emulation::place().block;
inline const cuda_emulation::Index& blockDim = cuda_emulation::place().block_extent;
inline const cuda_emulation::Index& gridDim = cuda_emulation::place().grid_extent;
constexpr int warpSize = 32;
using uint3 = cuda_emulation::Index;

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- barriers, votes, shuffles: the default argument is the place of the call ----
#define FGSBIR_SITE cuda_emulation::Site site = {__builtin_FILE(), __builtin_LINE()}
inline void __syncthreads(FGSBIR_SITE) { cuda_emulation::barrier(false, site); }
inline int __syncthreads_count(int predicate, FGSBIR_SITE) { return cuda_emulation::barrier(predicate != 0, site); }
inline int __syncthreads_or(int predicate, FGSBIR_SITE) { return cuda_emulation::barrier(predicate != 0, site) != 0; }
inline int __syncthreads_and(int predicate, FGSBIR_SITE) { return cuda_emulation::barrier(predicate == 0, site) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffU, FGSBIR_SITE) { cuda_emulation::sync_warp(mask, site); }

inline unsigned __ballot_sync(unsigned mask, int predicate, FGSBIR_SITE) {
    const auto all = cuda_emulation::exchange(mask, predicate != 0, "__ballot_sync", site);
    unsigned bits = 0;
    for (unsigned i = 0; i < 32; ++i) bits |= (all.present >> i & 1U) != 0 && all.values[i] != 0 ? 1U << i : 0U;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate, FGSBIR_SITE) { return __ballot_sync(mask, predicate, site) != 0; }
inline int __all_sync(unsigned mask, int predicate, FGSBIR_SITE) { return __ballot_sync(mask, !predicate, site) == 0; }

namespace cuda_emulation {

template <typename T>
std::uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a lane exchanges at most eight bytes");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <typename T>
T from_bits(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <typename T>
T shuffle(unsigned mask, T value, unsigned source, const char* operation, Site site) {
    const Exchange all = exchange(mask, to_bits(value), operation, site);
    if ((all.present >> source & 1U) == 0) fail("a shuffle that reads a lane outside its mask or the block", site);
    return from_bits<T>(all.values[source]);
}

template <typename T, typename Combine>
T reduce(unsigned mask, T value, Combine combine, const char* operation, Site site) {
    const Exchange all = exchange(mask, to_bits(value), operation, site);
    bool first = true;
    T result{};
    for (unsigned i = 0; i < 32; ++i) {
        if ((all.present >> i & 1U) == 0) continue;
        result = first ? from_bits<T>(all.values[i]) : combine(result, from_bits<T>(all.values[i]));
        first = false;
    }
    return result;
}

}  // namespace cuda_emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, FGSBIR_SITE) {
    const auto w = static_cast<unsigned>(width);
    const unsigned base = cuda_emulation::lane() & ~(w - 1);
    return cuda_emulation::shuffle(mask, value, base | (static_cast<unsigned>(source) & (w - 1)), "__shfl_sync", site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FGSBIR_SITE) {
    const unsigned own = cuda_emulation::lane(), base = own & ~(static_cast<unsigned>(width) - 1);
    return cuda_emulation::shuffle(mask, value, own - base >= delta ? own - delta : own, "__shfl_up_sync", site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FGSBIR_SITE) {
    const auto w = static_cast<unsigned>(width);
    const unsigned own = cuda_emulation::lane(), base = own & ~(w - 1);
    return cuda_emulation::shuffle(mask, value, own + delta < base + w ? own + delta : own, "__shfl_down_sync", site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, FGSBIR_SITE) {
    const auto w = static_cast<unsigned>(width);
    const unsigned own = cuda_emulation::lane(), end = (own & ~(w - 1)) + w, other = own ^ static_cast<unsigned>(flip);
    return cuda_emulation::shuffle(mask, value, other < end ? other : own, "__shfl_xor_sync", site);
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, FGSBIR_SITE) {
    return cuda_emulation::reduce(mask, value, [](unsigned a, unsigned b) { return a + b; }, "__reduce_add_sync", site);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, FGSBIR_SITE) {
    return cuda_emulation::reduce(mask, value, [](unsigned a, unsigned b) { return a | b; }, "__reduce_or_sync", site);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, FGSBIR_SITE) {
    return cuda_emulation::reduce(mask, value, [](T a, T b) { return std::min(a, b); }, "__reduce_min_sync", site);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, FGSBIR_SITE) {
    return cuda_emulation::reduce(mask, value, [](T a, T b) { return std::max(a, b); }, "__reduce_max_sync", site);
}

inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- atomics: real ones, so that ThreadSanitizer knows them; they order nothing else ----
namespace cuda_emulation {

template <typename T, typename Combine>
T update(T* address, Combine combine) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    auto* bits = reinterpret_cast<Bits*>(address);
    Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED), wanted;
    do {
        wanted = static_cast<Bits>(to_bits(combine(from_bits<T>(old))));
    } while (!__atomic_compare_exchange_n(bits, &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return from_bits<T>(old);
}

}  // namespace cuda_emulation

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return std::min(old, value); });
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return std::max(old, value); });
}
template <typename T>
T atomicOr(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return static_cast<T>(old | value); });
}
template <typename T>
T atomicAnd(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return static_cast<T>(old & value); });
}
template <typename T>
T atomicExch(T* address, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return cuda_emulation::update(address, [&](T old) { return old == expected ? value : old; });
}

// ---- loads and stores with cache hints ----
template <typename T>
T __ldg(const T* address) {
    return *address;
}
template <typename T>
T __ldcs(const T* address) {
    return *address;
}
template <typename T>
void __stcs(T* address, T value) {
    *address = value;
}

// ---- arithmetic ----
using std::max;
using std::min;
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0F / a; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float rsqrtf(float a) { return 1.0F / std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0.0F ? std::min(a, 1.0F) : 0.0F; }
inline int __float2int_rn(float a) { return static_cast<int>(std::lrintf(a)); }
inline int __float2int_rd(float a) { return static_cast<int>(std::floor(a)); }
inline int __float2int_ru(float a) { return static_cast<int>(std::ceil(a)); }
inline int __float2int_rz(float a) { return static_cast<int>(a); }
inline unsigned __float2uint_rz(float a) { return static_cast<unsigned>(a); }
inline long long __float2ll_rn(float a) { return std::llrintf(a); }
inline long long __double2ll_rn(double a) { return std::llrint(a); }
inline int __float_as_int(float a) { return cuda_emulation::from_bits<int>(cuda_emulation::to_bits(a)); }
inline unsigned __float_as_uint(float a) { return cuda_emulation::from_bits<unsigned>(cuda_emulation::to_bits(a)); }
inline float __int_as_float(int a) { return cuda_emulation::from_bits<float>(cuda_emulation::to_bits(a)); }
inline float __uint_as_float(unsigned a) { return cuda_emulation::from_bits<float>(cuda_emulation::to_bits(a)); }

// ---- bits ----
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(((std::uint64_t{high} << 32 | low) << (shift & 31U)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((std::uint64_t{high} << 32 | low) >> (shift & 31U));
}

#include "host_api.h"
