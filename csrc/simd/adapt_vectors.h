// Vectors as GCC and Clang know them, and what the kernels of adaptation share. Everything is in an anonymous namespace within
// that of the instruction set: each source has its own, and the linker merges nothing.
#pragma once

#include <cstdint>

#define ALWAYS __attribute__((always_inline))
#define INLINE inline ALWAYS
#define UNROLL _Pragma("GCC unroll 32")

namespace fgsbir::FGSBIR_ISA {
namespace {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <typename Real>
struct Of;
template <>
struct Of<float> {
    typedef float Vector __attribute__((vector_size(kBytes)));
    typedef float Unaligned __attribute__((vector_size(kBytes), aligned(4), may_alias));
    typedef std::int32_t Mask __attribute__((vector_size(kBytes)));
};
template <>
struct Of<double> {
    typedef double Vector __attribute__((vector_size(kBytes)));
    typedef double Unaligned __attribute__((vector_size(kBytes), aligned(8), may_alias));
    typedef std::int64_t Mask __attribute__((vector_size(kBytes)));
};
template <typename Real>
using Vec = typename Of<Real>::Vector;
template <typename Real>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(Real));

template <typename Real>
INLINE Vec<Real> load(const Real* from) {
    return *reinterpret_cast<const typename Of<Real>::Unaligned*>(from);
}
template <typename Real>
INLINE void store(Real* to, Vec<Real> value) {
    *reinterpret_cast<typename Of<Real>::Unaligned*>(to) = value;
}
template <typename Real>
INLINE Vec<Real> broadcast(Real value) {
    return value - Vec<Real>{};
}
template <typename Real>
INLINE Vec<Real> load_first(const Real* from, Index count) {  // zero in the lanes from count on
    alignas(kBytes) Real lanes[kLanes<Real>] = {};
    for (Index i = 0; i < count; ++i) lanes[i] = from[i];
    return load<Real>(lanes);
}

// sums[n] = all lanes of value[n] added up, for `Count` vectors at once: each pass adds neighbours of distance `Step` and lets
// two vectors share one, so that as many vectors as there are lanes cost little more than one alone. sums has room for whole
// vectors.
template <typename Real, int Step, int Count>
INLINE void fold(Vec<Real>* value) {
    constexpr int lanes = kLanes<Real>;
    if constexpr (Step < lanes) {
        typename Of<Real>::Mask low{}, high{};
    UNROLL for (int i = 0; i < lanes; ++i) {
            low[i] = (i / Step) % 2 == 0 ? i : lanes + i - Step;
            high[i] = (i / Step) % 2 == 0 ? i + Step : lanes + i;
        }
        constexpr int left = (Count + 1) / 2;
        UNROLL for (int n = 0; n < left; ++n) {
            const Vec<Real> a = value[2 * n], b = 2 * n + 1 < Count ? value[2 * n + 1] : value[2 * n];
            value[n] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
        }
        fold<Real, 2 * Step, left>(value);
    }
}
template <typename Real, int Count, int First = 0>
INLINE void add_lanes(Vec<Real>* value, Real* sums) {
    constexpr int now = Count - First < kLanes<Real> ? Count - First : kLanes<Real>;
    fold<Real, 1, now>(value + First);
    store<Real>(sums + First, value[First]);
    if constexpr (First + now < Count) add_lanes<Real, Count, First + now>(value, sums);
}

template <typename Real>
constexpr int room(int count) {  // for the sums of so many vectors
    return (count + kLanes<Real> - 1) / kLanes<Real> * kLanes<Real>;
}

template <typename Real>
INLINE void store_four(Real* to, const Real* a, const Real* b) {
    typedef Real Four __attribute__((vector_size(4 * sizeof(Real)), aligned(sizeof(Real)), may_alias));
    *reinterpret_cast<Four*>(to) = *reinterpret_cast<const Four*>(a) + *reinterpret_cast<const Four*>(b);
}

constexpr double kFloor = 1e-12;  // of norms and of squared distances

template <typename Real>
INLINE Real largest();
template <>
INLINE float largest<float>() {
    return __FLT_MAX__;
}
template <>
INLINE double largest<double>() {
    return __DBL_MAX__;
}

using Double = Vec<double>;
using Whole = Of<double>::Mask;
constexpr int kDoubles = kLanes<double>;

INLINE double total(Double value) {
    double sums[kDoubles];
    add_lanes<double, 1>(&value, sums);
    return sums[0];
}

INLINE Double choose(Whole condition, Double yes, Double no) { return condition ? yes : no; }

// inverse[i] = 1 / max(sqrt(squared[i]), 1e-12) and so on: see TripletKernels::inverse_roots.
INLINE void roots_of(const double* squared, Index count, double largest, double* inverse, double* square) {
    for (Index i = 0; i < count; i += kDoubles) {
        const Double value = load<double>(squared + i);
        Double root;
        UNROLL for (int l = 0; l < kDoubles; ++l) root[l] = __builtin_sqrt(value[l]);
        const Double norm = choose(root < kFloor, broadcast(kFloor), root);
        const Double scale = choose(value <= largest, 1.0 / norm, broadcast(__builtin_nan("")));
        const Double length = choose(root > kFloor, scale - scale + 1.0, value * scale * scale);
        if (i + kDoubles <= count) {
            store<double>(inverse + i, scale);
            store<double>(square + i, length);
        } else {
            for (int l = 0; i + l < count; ++l) {
                inverse[i + l] = scale[l];
                square[i + l] = length[l];
            }
        }
    }
}

}  // namespace
}  // namespace fgsbir::FGSBIR_ISA
