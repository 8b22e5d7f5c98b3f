// Products of matrices. Compiled once for each instruction set with the compiler's own vector types, so that one
// source serves SSE2, AVX2, AVX-512 and NEON. Include nothing here that holds inline functions outside an anonymous namespace.
#include "simd/adapt_kernels.h"
#include "simd/adapt_vectors.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kDotRows = 6, kDotCols = 4;          // accumulators of a tile of dots(): 24 of 32 registers
constexpr int kCombineRows = 6, kCombineCols = 4;  // rows and vectors of a tile of combine()
#elif defined(__AVX2__)
constexpr int kDotRows = 4, kDotCols = 3;
constexpr int kCombineRows = 6, kCombineCols = 2;
#elif defined(__aarch64__)
constexpr int kDotRows = 6, kDotCols = 4;
constexpr int kCombineRows = 5, kCombineCols = 4;  // 20, and a register for each factor
#else
constexpr int kDotRows = 3, kDotCols = 3;
constexpr int kCombineRows = 3, kCombineCols = 3;
#endif

// ---- dots: both operands run along the depth ----

template <typename Real, int Rows, int Cols>
INLINE void dots_tile(const DotsTask<Real>& t, Index i, Index j) {
    constexpr int lanes = kLanes<Real>;
    const Real* row = t.rows + i * t.ld_rows;
    const Real* other = t.others + j * t.ld_others;
    Vec<Real> sum[Rows * Cols] = {};
    const auto accumulate = [&](auto&& at) ALWAYS {
        Vec<Real> right[Cols];
    UNROLL for (int c = 0; c < Cols; ++c) right[c] = at(other + c * t.ld_others);
        UNROLL for (int r = 0; r < Rows; ++r) {
            const Vec<Real> left = at(row + r * t.ld_rows);
            UNROLL for (int c = 0; c < Cols; ++c) sum[r * Cols + c] += left * right[c];
        }
    };
    Index l = 0;
    for (; l + lanes <= t.depth; l += lanes) accumulate([l](const Real* p) ALWAYS { return load<Real>(p + l); });
    if (l < t.depth) accumulate([&](const Real* p) ALWAYS { return load_first<Real>(p + l, t.depth - l); });
    Real sums[room<Real>(Rows * Cols)], bias[Cols];
    add_lanes<Real, Rows * Cols>(sum, sums);
    UNROLL for (int c = 0; c < Cols; ++c) bias[c] = t.bias == nullptr ? t.offset : t.bias[j + c] + t.offset;
    Real* out = t.out + i * t.ld_out + j;
    UNROLL for (int r = 0; r < Rows; ++r, out += t.ld_out) {
        if constexpr (Cols == 4) {
            store_four(out, sums + 4 * r, bias);
        } else {
            UNROLL for (int c = 0; c < Cols; ++c) out[c] = sums[r * Cols + c] + bias[c];
        }
    }
}

template <typename Real, int Rows, int Cols>
void dots_tiles(const DotsTask<Real>& t, Index i, Index rows, Index j, Index cols) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return dots_tiles<Real, Rows - 1, Cols>(t, i, rows, j, cols);
    }
    if constexpr (Cols > 1) {
        if (cols < Cols) return dots_tiles<Real, Rows, Cols - 1>(t, i, rows, j, cols);
    }
    dots_tile<Real, Rows, Cols>(t, i, j);
}

// Rows in blocks of nearly equal height: 10 rows of at most 6 are 5 + 5, not 6 + 4 with a thin rest.
INLINE Index next_height(Index left, Index most) {
    const Index blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

template <typename Real>
void dots(const DotsTask<Real>& t) {
    // A panel of `others` stays in the first-level cache while all rows pass by; where rows are many, a larger one in the second.
    const Index few = 32, panel = t.count <= few ? kDotCols : 16 * kDotCols;
    for (Index begin = 0; begin < t.others_count; begin += panel) {
        const Index end = begin + panel < t.others_count ? begin + panel : t.others_count;
        for (Index i = 0, height = 0; i < t.count; i += height) {
            height = next_height(t.count - i, kDotRows);
            for (Index j = begin; j < end; j += kDotCols) {
                if (t.lower && j > i + height - 1) break;
                dots_tiles<Real, kDotRows, kDotCols>(t, i, height, j, end - j);
            }
        }
    }
}

// ---- combine: factors are broadcast, rows run along the columns ----

template <typename Real, int Rows, int Vectors>
INLINE void combine_tile(const CombineTask<Real>& t, Index i, Index j) {
    constexpr int lanes = kLanes<Real>;
    const Real* factor = t.factors + i * t.factor_row;
    const Real* row = t.rows + j;
    Vec<Real> sum[Rows][Vectors] = {};
    for (Index l = 0; l < t.depth; ++l) {
        Vec<Real> right[Vectors];
        UNROLL for (int v = 0; v < Vectors; ++v) right[v] = load<Real>(row + v * lanes);
        UNROLL for (int r = 0; r < Rows; ++r) {
            const Real left = factor[r * t.factor_row];
            UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
        }
        row += t.ld_rows;
        factor += t.factor_depth;
    }
    UNROLL for (int r = 0; r < Rows; ++r) {
        UNROLL for (int v = 0; v < Vectors; ++v) {
            Vec<Real> value = t.alpha * sum[r][v];
            if (t.add != nullptr) value += load<Real>(t.add + (i + r) * t.ld_add + j + v * lanes);
            store<Real>(t.out + (i + r) * t.ld_out + j + v * lanes, value);
        }
    }
}

template <typename Real, int Rows, int Vectors>
void combine_tiles(const CombineTask<Real>& t, Index i, Index rows, Index j, Index vectors) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return combine_tiles<Real, Rows - 1, Vectors>(t, i, rows, j, vectors);
    }
    if constexpr (Vectors > 1) {
        if (vectors < Vectors) return combine_tiles<Real, Rows, Vectors - 1>(t, i, rows, j, vectors);
    }
    combine_tile<Real, Rows, Vectors>(t, i, j);
}

template <typename Real>
void combine(const CombineTask<Real>& t) {
    constexpr int lanes = kLanes<Real>;
    const Index vectors = t.cols / lanes;
    for (Index i = 0, height = 0; i < t.count; i += height) {
        height = next_height(t.count - i, kCombineRows);
        for (Index v = 0, width = 0; v < vectors; v += width) {
            width = vectors - v < kCombineCols ? vectors - v : kCombineCols;
            combine_tiles<Real, kCombineRows, kCombineCols>(t, i, height, v * lanes, width);
        }
        for (Index r = i; r < i + height; ++r) {
            for (Index j = vectors * lanes; j < t.cols; ++j) {
                Real sum = 0;
                const Real* factor = t.factors + r * t.factor_row;
                for (Index l = 0; l < t.depth; ++l) sum += factor[l * t.factor_depth] * t.rows[l * t.ld_rows + j];
                t.out[r * t.ld_out + j] = (t.add == nullptr ? Real{0} : t.add[r * t.ld_add + j]) + t.alpha * sum;
            }
        }
    }
}

}  // namespace

const ProductKernels<float> product_float{dots<float>, combine<float>};
const ProductKernels<double> product_double{dots<double>, combine<double>};

}  // namespace fgsbir::FGSBIR_ISA
