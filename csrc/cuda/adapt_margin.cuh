// The margin network (adapt.h) on the distances of a task's triplets at the base outputs.
#pragma once

#include "cuda/adapt_state.cuh"

namespace fgsbir::cuda {

// ReLU(w1 x + b1) of one hidden unit for one triplet.
__device__ __forceinline__ float hidden_value(const AdaptState& s, const float* weights, float bias, int triplet) {
    const int2 pairs = s.triplet_pairs()[triplet];
    const float near = s.distance()[pairs.x], far = s.distance()[pairs.y];
    return at_least(multiply_add(weights[0], near, multiply_add(weights[1], far, multiply_add(weights[2], far - near, bias))),
                    0.0F);
}

// Leaves the margin in *s.margin(). Four lanes to each hidden unit, then eight to each unit of the second layer. All threads
// call; the block must have passed a barrier since measure_pairs, and passes one at the end.
__device__ __forceinline__ void predict_margin(const AdaptState& s, const float* net, int hidden) {
    const float *w1 = net, *b1 = w1 + 3 * hidden, *w2 = b1 + hidden, *b2 = w2 + 2 * hidden * hidden, *w3 = b2 + hidden,
                *b3 = w3 + hidden;
    float *const summary = s.network(), *const shares = s.network() + 2 * hidden;  // [2 h], [h]
    const auto count = static_cast<float>(s.sizes().triplets);
    for (int first = 8 * s.warp(); first < hidden; first += 8 * s.warps()) {
        const int unit = min(first + s.lane() / 4, hidden - 1);  // lanes beyond the last unit repeat it
        const float weights[3] = {__ldg(w1 + 3 * unit), __ldg(w1 + 3 * unit + 1), __ldg(w1 + 3 * unit + 2)},
                    bias = __ldg(b1 + unit);
        float mean = 0.0F, variance = 0.0F;
        for (int t = s.lane() % 4; t < s.sizes().triplets; t += 4) mean += hidden_value(s, weights, bias, t);
        mean = lane_sum(mean, 4) / count;
        for (int t = s.lane() % 4; t < s.sizes().triplets; t += 4) {
            const float off = hidden_value(s, weights, bias, t) - mean;
            variance = multiply_add(off, off, variance);
        }
        variance = lane_sum(variance, 4) / count;
        if (s.lane() % 4 == 0 && first + s.lane() / 4 < hidden) {
            summary[unit] = mean;
            summary[hidden + unit] = sqrtf(variance + 1e-8F);
        }
    }
    __syncthreads();
    for (int first = 4 * s.warp(); first < hidden; first += 4 * s.warps()) {
        const int unit = min(first + s.lane() / 8, hidden - 1);
        float sum = 0.0F;
        for (int j = s.lane() % 8; j < 2 * hidden; j += 8) sum = multiply_add(__ldg(w2 + 2 * hidden * unit + j), summary[j], sum);
        sum = lane_sum(sum, 8) + __ldg(b2 + unit);
        if (s.lane() % 8 == 0 && first + s.lane() / 8 < hidden) shares[unit] = __ldg(w3 + unit) * at_least(sum, 0.0F);
    }
    __syncthreads();
    if (s.warp() == 0) {
        float logit = 0.0F;
        for (int unit = s.lane(); unit < hidden; unit += 32) logit += shares[unit];
        logit = lane_sum(logit, 32) + __ldg(b3);
        if (s.lane() == 0) *s.margin() = 1.0 / (1.0 + exp(-static_cast<double>(logit)));
    }
    __syncthreads();
}

}  // namespace fgsbir::cuda
