// Loops over rows of outputs. Compiled once for each instruction set with the compiler's own vector types, so that one
// source serves SSE2, AVX2, AVX-512 and NEON. Include nothing here that holds inline functions outside an anonymous namespace.
#include "simd/adapt_kernels.h"
#include "simd/adapt_vectors.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

// ---- rows of outputs ----

template <typename Real>
void normalise(const Real* u, Real* z, Index count, Index ld, double* inverse, double* square) {
    constexpr int lanes = kLanes<Real>, together = 8;
    for (Index i = 0; i < count; i += together) {
        const Index rows = count - i < together ? count - i : together;
        const Real* row[together];
    UNROLL for (int r = 0; r < together; ++r) row[r] = u + (i + (r < rows ? r : 0)) * ld;
        Vec<Real> sum[together] = {};
        for (Index l = 0; l < ld; l += lanes) {
            UNROLL for (int r = 0; r < together; ++r) {
                const Vec<Real> value = load<Real>(row[r] + l);
                sum[r] += value * value;
            }
        }
        Real sums[room<Real>(together)];
        double squares[together];
        add_lanes<Real, together>(sum, sums);
        for (int r = 0; r < together; ++r) squares[r] = static_cast<double>(sums[r]);
        roots_of(squares, rows, static_cast<double>(largest<Real>()), inverse + i, square + i);
        for (Index r = 0; r < rows; ++r) {
            const Real factor = static_cast<Real>(inverse[i + r]);
            for (Index l = 0; l < ld; l += lanes) store<Real>(z + (i + r) * ld + l, factor * load<Real>(row[r] + l));
        }
    }
}

template <typename Real>
void squared_distances(const Real* z, Index ld, const std::int32_t* first, const std::int32_t* second, Index count,
                       double* squared) {
    constexpr int lanes = kLanes<Real>, together = 8;
    for (Index p = 0; p < count; p += together) {
        const Index pairs = count - p < together ? count - p : together;
        const Real *a[together], *b[together];
        UNROLL for (int n = 0; n < together; ++n) {
            a[n] = z + first[p + (n < pairs ? n : 0)] * ld;
            b[n] = z + second[p + (n < pairs ? n : 0)] * ld;
        }
        Vec<Real> sum[together] = {};
        const auto accumulate = [&](Index l, int n, Vec<Real> left) ALWAYS {
            const Vec<Real> difference = left - load<Real>(b[n] + l);
            sum[n] += difference * difference;
        };
        bool one = true;  // pairs come in runs of one anchor
        UNROLL for (int n = 1; n < together; ++n) one &= a[n] == a[0];
        if (one) {
            for (Index l = 0; l < ld; l += lanes) {
                const Vec<Real> left = load<Real>(a[0] + l);
                UNROLL for (int n = 0; n < together; ++n) accumulate(l, n, left);
            }
        } else {
            for (Index l = 0; l < ld; l += lanes) {
                UNROLL for (int n = 0; n < together; ++n) accumulate(l, n, load<Real>(a[n] + l));
            }
        }
        Real sums[room<Real>(together)];
        add_lanes<Real, together>(sum, sums);
        for (Index n = 0; n < pairs; ++n) squared[p + n] = static_cast<double>(sums[n]);
    }
}

template <typename Real>
void add_scaled_columns(const Real* in, const Real* factor, Index count, Index ld, Real* out) {
    for (Index i = 0; i < count * ld; i += ld) {
        for (Index j = 0; j < ld; j += kLanes<Real>) {
            store<Real>(out + i + j, load<Real>(out + i + j) + load<Real>(in + i + j) * load<Real>(factor + j));
        }
    }
}

template <typename Real>
void widen(const Real* in, double* out, Index count) {
    for (Index i = 0; i < count; ++i) out[i] = static_cast<double>(in[i]);
}

template <typename Real>
void descend(const Real* gradient, const Real* z, const double* diagonal, const double* inverse, Index count, Index ld,
             Real momentum, Real rate, Real* v, Real* a) {
    for (Index i = 0; i < count; ++i) {
        const Real along = static_cast<Real>(diagonal[i]), scale = static_cast<Real>(inverse[i]);
        for (Index l = i * ld; l < (i + 1) * ld; l += kLanes<Real>) {
            Vec<Real> value = scale * (load<Real>(gradient + l) + along * load<Real>(z + l));
            if (momentum != Real{0}) value += momentum * load<Real>(v + l);
            store<Real>(v + l, value);
            store<Real>(a + l, load<Real>(a + l) - rate * value);
        }
    }
}

// ---- ranks ----

// sum[q * 4 + r] of four rows r with each of `Queries` queries; with none, of each row with itself.
template <typename Real, int Queries>
INLINE void four_rows(const Real* rows, Index ld, Index height, Index depth, const Real* const* query, Real* sums) {
    constexpr int lanes = kLanes<Real>, together = 4, each = Queries == 0 ? 1 : Queries;
    const Real* row[together];
    UNROLL for (int r = 0; r < together; ++r) row[r] = rows + (r < height ? r : 0) * ld;
    Vec<Real> sum[each * together] = {};
    const auto accumulate = [&](auto&& at) ALWAYS {
        Vec<Real> right[each];
        UNROLL for (int q = 0; q < Queries; ++q) right[q] = at(query[q]);
        UNROLL for (int r = 0; r < together; ++r) {
            const Vec<Real> value = at(row[r]);
            UNROLL for (int q = 0; q < each; ++q) sum[q * together + r] += value * (Queries == 0 ? value : right[q]);
        }
    };
    Index l = 0;
    for (; l + lanes <= depth; l += lanes) accumulate([l](const Real* p) ALWAYS { return load<Real>(p + l); });
    if (l < depth) accumulate([&](const Real* p) ALWAYS { return load_first<Real>(p + l, depth - l); });
    add_lanes<Real, each * together>(sum, sums);
}

template <typename Real>
void inverse_norms(const Real* rows, Index ld, Index count, Index depth, Real* inverse) {
    for (Index i = 0; i < count; i += 4) {
        const Index height = count - i < 4 ? count - i : 4;
        Real sums[room<Real>(4)];
        four_rows<Real, 0>(rows + i * ld, ld, height, depth, nullptr, sums);
        for (Index r = 0; r < height; ++r) {
            const double norm = __builtin_sqrt(static_cast<double>(sums[r]));
            inverse[i + r] = static_cast<Real>(1.0 / (norm < kFloor ? kFloor : norm));
        }
    }
}

template <typename Real>
void project(const Real* rows, Index ld, Index count, Index depth, const Real* scale, const Real* first, const Real* second,
             Real* to_first, Real* to_second) {
    const Real* const queries[2] = {first, second};
    for (Index i = 0; i < count; i += 4) {
        const Index height = count - i < 4 ? count - i : 4;
        Real sums[room<Real>(8)];
        four_rows<Real, 2>(rows + i * ld, ld, height, depth, queries, sums);
        for (Index r = 0; r < height; ++r) {
            to_first[i + r] = scale[i + r] * sums[r];
            to_second[i + r] = scale[i + r] * sums[4 + r];
        }
    }
}

template <typename Real>
Index count_not_below(const Real* similarity, Index count, Real limit) {
    Index rank = 0;
    for (Index i = 0; i < count; ++i) rank += similarity[i] < limit ? 0 : 1;
    return rank;
}

}  // namespace

#define FGSBIR_TABLE(Real)                                                                                                  \
    {normalise<Real>, squared_distances<Real>, descend<Real>, add_scaled_columns<Real>, widen<Real>, inverse_norms<Real>,   \
     project<Real>,   count_not_below<Real>}
const RowKernels<float> row_float FGSBIR_TABLE(float);
const RowKernels<double> row_double FGSBIR_TABLE(double);

}  // namespace fgsbir::FGSBIR_ISA
