// Inner products with one query. Compiled once for each instruction set.
#include "simd/search_kernels.h"

#include "simd/adapt_vectors.h"
#include "simd/half_kernels.h"

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fgsbir::FGSBIR_ISA {
namespace {

constexpr int kTile = 8;  // rows whose lanes are added up together
constexpr Index kLong = 512;  // bytes of a row
constexpr int kFloats = kLanes<float>;

INLINE Vec<float> widened(const float* from) { return load<float>(from); }

INLINE Vec<float> widened(const std::uint16_t* from) {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__aarch64__)
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    float lanes[kFloats];
    widen_half(from, lanes, kFloats);
    return load<float>(lanes);
#endif
}

template <typename Stored>
INLINE Vec<float> widened_first(const Stored* from, Index count) {  // zero in the lanes from count on
    Stored lanes[kFloats] = {};
    for (Index i = 0; i < count; ++i) lanes[i] = from[i];
    return widened(lanes);
}

// The sums of `Rows` neighbours, lane by lane.
template <typename Stored, int Rows>
INLINE void row_sums(const Stored* rows, Index width, const float* query, Vec<float>* sums) {
    Vec<float> odd[Rows] = {};
    UNROLL for (int r = 0; r < Rows; ++r) sums[r] = Vec<float>{};
    Index l = 0;
    for (; l + 2 * kFloats <= width; l += 2 * kFloats) {
        const Vec<float> first = load<float>(query + l), second = load<float>(query + l + kFloats);
        UNROLL for (int r = 0; r < Rows; ++r) {
            sums[r] += widened(rows + r * width + l) * first;
            odd[r] += widened(rows + r * width + l + kFloats) * second;
        }
    }
    for (; l + kFloats <= width; l += kFloats) {
        const Vec<float> first = load<float>(query + l);
        UNROLL for (int r = 0; r < Rows; ++r) sums[r] += widened(rows + r * width + l) * first;
    }
    if (l < width) {
        const Vec<float> first = load_first<float>(query + l, width - l);
        UNROLL for (int r = 0; r < Rows; ++r) odd[r] += widened_first(rows + r * width + l, width - l) * first;
    }
    UNROLL for (int r = 0; r < Rows; ++r) sums[r] += odd[r];
}

// Short rows two at a time, long ones one after the other: the processor foresees few streams of addresses, and a page holds two
// long rows, where going to and fro between them took twice as long.
template <typename Stored, int Together>
INLINE void tile(const Stored* rows, Index width, const float* query, float* out) {
    Vec<float> sum[kTile];
    UNROLL for (int r = 0; r < kTile; r += Together) {
        row_sums<Stored, Together>(rows + r * width, width, query, sum + r);
        asm volatile("" ::: "memory");  // else GCC weaves the loops of all eight rows together
    }
    float sums[room<float>(kTile)];
    add_lanes<float, kTile>(sum, sums);
    for (int r = 0; r < kTile; ++r) out[r] = sums[r];
}

template <typename Stored>
INLINE void single(const Stored* row, Index width, const float* query, float* out) {
    Vec<float> sum;
    row_sums<Stored, 1>(row, width, query, &sum);
    float sums[kFloats];
    add_lanes<float, 1>(&sum, sums);
    *out = sums[0];
}

template <typename Stored>
void products(const Stored* rows, Index count, Index width, const float* query, float* out) {
    Index i = 0;
    if (width * static_cast<Index>(sizeof(Stored)) < kLong) {
        for (; i + kTile <= count; i += kTile) tile<Stored, 2>(rows + i * width, width, query, out + i);
    } else {
        for (; i + kTile <= count; i += kTile) tile<Stored, 1>(rows + i * width, width, query, out + i);
    }
    for (; i < count; ++i) single(rows + i * width, width, query, out + i);
}

}  // namespace

const SearchKernels search_kernels{products<float>, products<std::uint16_t>};

}  // namespace fgsbir::FGSBIR_ISA
