// Hot loops of adaptation as tables of function pointers, for each instruction set. All matrices are row-major with a leading
// dimension ld; "padded" means that loops may run over whole vectors of kAdaptPad elements, so those elements must exist, and be
// zero where they would count. No inline functions in here: see CMakeLists.txt.
#pragma once

#include <cstdint>

namespace fgsbir {

constexpr std::int64_t kAdaptPad = 16;  // elements; a row of that many fills the widest vector in float and in double

// out[i][j] = rows[i] . others[j] + offset, plus bias[j] where bias is given. Neither side needs padding.
template <typename Real>
struct DotsTask {
    const Real* rows;  // [n, depth]
    std::int64_t ld_rows, count;
    const Real* others;  // [m, depth]
    std::int64_t ld_others, others_count;
    std::int64_t depth;
    const Real* bias;  // [m] or nullptr
    Real offset;
    bool lower;  // leave out most of what lies above the diagonal
    Real* out;   // [n, m]
    std::int64_t ld_out;
};

// out[i] = add[i] + alpha * sum over l of factor[i][l] * rows[l], with factor[i][l] at factors[i * factor_row + l *
// factor_depth]. add may be out itself, or nullptr for zero. No padding needed; fastest where cols is a multiple of kAdaptPad.
template <typename Real>
struct CombineTask {
    const Real* factors;  // [n, depth]
    std::int64_t factor_row, factor_depth;
    const Real* rows;  // [depth, cols]
    std::int64_t ld_rows;
    const Real* add;  // [n, cols]
    std::int64_t ld_add;
    Real* out;  // [n, cols]
    std::int64_t ld_out;
    std::int64_t count, depth, cols;
    Real alpha;
};

template <typename Real>
struct ProductKernels {
    void (*dots)(const DotsTask<Real>& task);
    void (*combine)(const CombineTask<Real>& task);
};

template <typename Real>
struct RowKernels {
    // inverse[i] = 1 / max(|u_i|, 1e-12), NaN where |u_i|^2 is not finite in Real, and square[i] = |u_i inverse[i]|^2, exactly 1
    // above that floor; z_i = u_i inverse[i]. Rows padded to ld.
    void (*normalise)(const Real* u, Real* z, std::int64_t count, std::int64_t ld, double* inverse, double* square);

    // squared[p] = |z[first[p]] - z[second[p]]|^2. Rows padded to ld.
    void (*squared_distances)(const Real* z, std::int64_t ld, const std::int32_t* first, const std::int32_t* second,
                              std::int64_t count, double* squared);

    // v = momentum v + inverse[i] (gradient + diagonal[i] z), a -= rate v, on rows [n, ld]; all but the scalars are padded.
    void (*descend)(const Real* gradient, const Real* z, const double* diagonal, const double* inverse, std::int64_t count,
                    std::int64_t ld, Real momentum, Real rate, Real* v, Real* a);

    // out[i][j] += in[i][j] * factor[j] on rows [n, ld]; all padded.
    void (*add_scaled_columns)(const Real* in, const Real* factor, std::int64_t count, std::int64_t ld, Real* out);

    // out[i] = double(in[i])
    void (*widen)(const Real* in, double* out, std::int64_t count);

    // inverse[i] = 1 / max(|row i|, 1e-12)
    void (*inverse_norms)(const Real* rows, std::int64_t ld, std::int64_t count, std::int64_t depth, Real* inverse);

    // Inner products of rows [n, depth] with two queries: to_first[i] = scale[i] * rows[i] . first, and so on.
    void (*project)(const Real* rows, std::int64_t ld, std::int64_t count, std::int64_t depth, const Real* scale,
                    const Real* first, const Real* second, Real* to_first, Real* to_second);

    // How many of similarity[0 .. count - 1] are not below limit; NaN is not below anything.
    std::int64_t (*count_not_below)(const Real* similarity, std::int64_t count, Real limit);
};

// The triplets of a task: pairs (near, far) of distances, in runs of one near distance each. Where every run's far distances lie
// side by side and the runs are long, side_by_side says so, and nothing has to be gathered.
struct TripletRuns {
    const std::int32_t *near, *far;  // [count] padded
    const std::int32_t* begin;       // [runs + 1]
    std::int64_t count, runs;
    bool side_by_side;
};

// What the triplets of a task need, in double whatever the problem's type. Arrays are padded.
struct TripletKernels {
    // out[j] = sum over l of a[l][j] * b[l][j] over rows [count, ld], and size[j] = sum over l of |a[l][j]| * weight[l]
    void (*column_dots)(const double* a, const double* b, const double* weight, std::int64_t count, std::int64_t ld, double* out,
                        double* size);

    // inverse[i] = 1 / max(sqrt(squared[i]), 1e-12), NaN where squared[i] is not at most `largest`; square[i] = squared[i]
    // inverse[i]^2, exactly 1 above that floor. squared is padded, nothing is written from count on.
    void (*inverse_roots)(const double* squared, std::int64_t count, double largest, double* inverse, double* square);

    // squared[p] = square[first] + square[second] - 2 inner[at[p]] scale[p], with scale[p] = inverse[first] inverse[second].
    void (*squared_from_inner)(const double* inner, const std::int32_t* at, const std::int32_t* first, const std::int32_t* second,
                               const double* inverse, const double* square, std::int64_t count, double* scale, double* squared);

    // distance[p] = sqrt(max(squared[p], 1e-12)); NaN stays NaN.
    void (*distances)(const double* squared, std::int64_t count, double* distance);

    // excess[t] = margin + distance[near] - distance[far]
    void (*excesses)(const TripletRuns& triplets, const double* distance, double margin, double* excess);

    // Sum over triplets of softplus_b(excess); where slope is given, also the derivatives.
    double (*penalties)(const double* excess, std::int64_t count, double sharpness, double* slope);

    // weight[near] += share * slope, weight[far] -= share * slope over all triplets
    void (*weigh)(const TripletRuns& triplets, const double* slope, double share, double* weight);

    // q[p] = weight[p] / distance[p], 0 at the floor of the distance; inward[p] = q[p] (1 - squared[p] / 2).
    void (*forces)(const double* weight, const double* squared, const double* distance, std::int64_t count, double* q,
                   double* inward);

    // The first layer of the margin network and its summary over triplets: mean[i] and deviation[i] for i < hidden.
    void (*margin_summary)(const float* w1, const float* b1, std::int64_t hidden, const double* near, const double* far,
                           std::int64_t count, double* mean, double* deviation);
};

namespace baseline {
extern const ProductKernels<float> product_float;
extern const ProductKernels<double> product_double;
extern const RowKernels<float> row_float;
extern const RowKernels<double> row_double;
extern const TripletKernels triplet_kernels;
}  // namespace baseline
namespace avx2 {
extern const ProductKernels<float> product_float;
extern const ProductKernels<double> product_double;
extern const RowKernels<float> row_float;
extern const RowKernels<double> row_double;
extern const TripletKernels triplet_kernels;
}  // namespace avx2
namespace avx512 {
extern const ProductKernels<float> product_float;
extern const ProductKernels<double> product_double;
extern const RowKernels<float> row_float;
extern const RowKernels<double> row_double;
extern const TripletKernels triplet_kernels;
}  // namespace avx512

}  // namespace fgsbir
