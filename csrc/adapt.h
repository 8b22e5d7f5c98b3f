// The inner loop of adaptation, in the span of the support features. Plain C++17: no Python, no Torch.
#pragma once

#include <cstdint>

namespace fgsbir {

// With frozen support features X [m, C] and a head U = W X^T + b, every gradient of the head is a combination of support features:
// W' = W + A X, b' = b + A 1. So the loop needs only the outputs and the Gram matrix of the features with a column of ones,
// and never sees C. All arrays are row-major and contiguous; rows are support items.
template <typename Real>
struct AdaptProblem {
    const Real* outputs;            // [m, D] head outputs before any step
    const Real* gram;               // [m, m] X X^T + 1
    const std::int32_t* triplets;   // [t, 3] rows (anchor, positive, negative)
    const std::uint8_t* moves;      // [m] 1: the row's gradient moves the head and the row moves with it; 0: the row stays as it is
    const Real* step_sizes;         // [T]
    std::int64_t items;             // m
    std::int64_t width;             // D
    std::int64_t num_triplets;      // t, at least 1
    std::int64_t num_steps;         // T
    Real margin;
    Real sharpness;                 // b of softplus_b(x) = log(1 + e^(b x)) / b; 0 means the hinge max(0, x)
};

// Gradient descent on L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)), d the Euclidean distance
// sqrt(max(|z - z'|^2, 1e-12)) of the normalised outputs z = u / max(|u|, 1e-12). Each step, with G = dL/dU:
// U -= alpha_t gram G and A -= alpha_t G on the moving rows.
//
// Writes coefficients [m, D] (A transposed), outputs [m, D] (U after the last step) and losses [T + 1] (before each step and after
// the last). Deterministic: one thread, fixed order of sums. NaN and infinity in the input show up in the losses and are not an
// error. Throws std::invalid_argument on bad sizes, indices or settings. coefficients, outputs and losses must not overlap the input.
template <typename Real>
void adapt(const AdaptProblem<Real>& problem, Real* coefficients, Real* outputs, double* losses);

extern template void adapt<float>(const AdaptProblem<float>&, float*, float*, double*);
extern template void adapt<double>(const AdaptProblem<double>&, double*, double*, double*);

}  // namespace fgsbir
