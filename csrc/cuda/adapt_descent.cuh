// The steps of the descent. Between each of these functions and the next the block must pass a barrier.
#pragma once

#include "cuda/adapt_state.cuh"

namespace fgsbir::cuda {

// Norms of all rows, eight lanes a row.
__device__ __forceinline__ void measure_norms(const AdaptState& s) {
    const int used = s.sizes().used;
    for (int first = 4 * s.warp(); first < used; first += 4 * s.warps()) {
        const int row = first + s.lane() / 8;
        float square = 0.0F;
        if (row < used) {
            for (int c = s.lane() % 8; c < s.at.active4; c += 8) {
                square = add_square(square, s.outputs()[row * s.at.row4 + c]);
            }
        }
        square = lane_sum(square, 8);
        if (row < used && s.lane() % 8 == 0) keep_norm(s, row, square);
    }
}

// z - z', products rounded on their own, so that equal rows give exactly 0.
__device__ __forceinline__ float4 apart(float4 u, float scale, float4 other, float other_scale) {
    return make_float4(__fsub_rn(__fmul_rn(u.x, scale), __fmul_rn(other.x, other_scale)),
                       __fsub_rn(__fmul_rn(u.y, scale), __fmul_rn(other.y, other_scale)),
                       __fsub_rn(__fmul_rn(u.z, scale), __fmul_rn(other.z, other_scale)),
                       __fsub_rn(__fmul_rn(u.w, scale), __fmul_rn(other.w, other_scale)));
}

// Distances of all pairs, eight lanes a pair.
__device__ __forceinline__ void measure_pairs(const AdaptState& s) {
    const int pairs = s.sizes().pairs, row4 = s.at.row4, active4 = s.at.active4;
    const float4* const outputs = s.outputs();
    const float* const inverse_norm = s.inverse_norm();
    for (int first = 4 * s.warp(); first < pairs; first += 4 * s.warps()) {
        const int pair = first + s.lane() / 8;
        float square = 0.0F;
        if (pair < pairs) {
            const auto rows = static_cast<unsigned>(s.pair_rows()[pair]);
            const int anchor = static_cast<int>(rows & 0xffffU), other = static_cast<int>(rows >> 16);
            const float scale = inverse_norm[anchor], other_scale = inverse_norm[other];
            for (int c = s.lane() % 8; c < active4; c += 8) {
                square = add_square(square, apart(outputs[anchor * row4 + c], scale, outputs[other * row4 + c], other_scale));
            }
        }
        square = lane_sum(square, 8);
        if (pair < pairs && s.lane() % 8 == 0) {
            s.squared()[pair] = square;
            s.distance()[pair] = sqrtf(at_least(square, kFloor));
        }
    }
}

// softplus_b(x) without overflow: max(x, 0) + log(1 + e^-|b x|) / b.
__device__ __forceinline__ float penalty(float x, float sharpness) {
    const float hinge = at_least(x, 0.0F);
    return sharpness == 0.0F ? hinge : hinge + log1pf(expf(-fabsf(sharpness * x))) / sharpness;
}

// Its derivative: the sigmoid of b x, or the hinge's step (0 at the corner).
__device__ __forceinline__ float penalty_slope(float x, float sharpness) {
    if (x != x) return x;
    if (sharpness == 0.0F) return x > 0.0F ? 1.0F : 0.0F;
    const float decay = expf(-sharpness * fabsf(x));
    return (x < 0.0F ? decay : 1.0F) / (1.0F + decay);
}

// Penalties and slopes of all triplets, run_lanes lanes a run.
__device__ __forceinline__ void weigh_triplets(const AdaptState& s, float margin, float sharpness) {
    const int runs = s.sizes().runs, lanes = s.at.record.run_lanes, at_once = 32 / lanes, own = s.lane() % lanes;
    const int2* const triplet_pairs = s.triplet_pairs();
    const float* const distance = s.distance();
    float* const slopes = s.slope();
    for (int first = at_once * s.warp(); first < runs; first += at_once * s.warps()) {
        const int run = first + s.lane() / lanes;
        float slope = 0.0F;
        double loss = 0.0;
        if (run < runs) {
            const float start = margin + distance[run];
            const int end = s.run_begin()[run + 1];
            for (int t = s.run_begin()[run] + own; t < end; t += lanes) {
                const float x = start - distance[triplet_pairs[t].y], steepness = penalty_slope(x, sharpness);
                slopes[t] = steepness;
                slope += steepness;
                loss += static_cast<double>(penalty(x, sharpness));
            }
        }
        slope = lane_sum(slope, lanes);
        loss = lane_sum(loss, lanes);
        if (run < runs && own == 0) {
            s.run_slope()[run] = slope;
            s.run_loss()[run] = loss;
        }
    }
}

// The mean penalty before this step, by one warp; the same sum however many warps there are.
__device__ __forceinline__ void write_loss(const AdaptState& s, int step) {
    if (s.warp() != s.warps() - 1) return;
    double sum = 0.0;
    for (int run = s.lane(); run < s.sizes().runs; run += 32) sum += s.run_loss()[run];
    sum = lane_sum(sum, 32);
    if (s.lane() == 0) s.losses()[step] = sum / static_cast<double>(s.sizes().triplets);
}

// What every pair weighs in the gradient, a thread a pair: pulls of its run less pushes of the triplets whose negative it is. At
// the floor of the distance nothing changes.
__device__ __forceinline__ void weigh_pairs(const AdaptState& s) {
    const int pairs = s.sizes().pairs, runs = s.sizes().runs;
    const float share = 1.0F / static_cast<float>(s.sizes().triplets);
    const int *const push_begin = s.push_begin(), *const push_triplet = s.push_triplet();
    const float* const slope = s.slope();
    for (int pair = s.thread; pair < pairs; pair += s.threads()) {
        float push = 0.0F;
        const int end = push_begin[pair + 1];
        for (int i = push_begin[pair]; i < end; ++i) push += slope[push_triplet[i]];
        const float pull = pair < runs ? s.run_slope()[pair] : 0.0F;
        s.weight()[pair] = s.squared()[pair] < kFloor ? 0.0F : share * (pull - push) / s.distance()[pair];
    }
}

// One float4 of dL/du of a row, over every parts-th of its meetings. With w the pair's weight and z = u / |u|,
//     dL/du_i = (sum_j w_ij (z_i - z_j) - z_i sum_j w_ij (|z_i - z_j|^2 + |z_i|^2 - |z_j|^2) / 2) / |u_i|,
// where the second sum is the part along z_i, that normalising takes away; at the floor of the norm it does not. Differences are
// rounded as in measure_pairs, so that a difference over its distance has length 1 however close two rows are.
__device__ __forceinline__ float4 row_gradient(const AdaptState& s, int row, int column, int part, int parts) {
    const float *const inverse_norm = s.inverse_norm(), *const unit_square = s.unit_square();
    const float *const weights = s.weight(), *const squared = s.squared();
    const float4* const outputs = s.outputs() + column;
    const int2* const meetings = s.meetings();
    const int row4 = s.at.row4, end = s.row_begin()[row + 1];
    const float scale = inverse_norm[row], own_square = unit_square[row], curved = own_square > 0.0F ? 0.5F : 0.0F;
    const float4 u = outputs[row * row4];
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    float along = 0.0F;
    for (int i = s.row_begin()[row] + part; i < end; i += parts) {
        const int2 met = meetings[i];
        const float weight = weights[met.x], other_scale = inverse_norm[met.y];
        along = multiply_add(weight, squared[met.x] + (own_square - fabsf(unit_square[met.y])), along);
        add_scaled(sum, weight, apart(u, scale, outputs[met.y * row4], other_scale));
    }
    add_scaled(sum, -curved * along * scale, u);
    return make_float4(scale * sum.x, scale * sum.y, scale * sum.z, scale * sum.w);
}

// V = momentum V + G and A -= alpha V for one float4. Without momentum (and so in the first step) V may hold anything before.
__device__ __forceinline__ void learn(const AdaptState& s, int row, int column, float4 gradient, float alpha, float momentum) {
    const int row4 = s.at.row4, first4 = s.at.first4;
    float4* const velocity = s.velocity() + row * row4 + column;
    if (momentum != 0.0F) add_scaled(gradient, momentum, *velocity);
    *velocity = gradient;
    if (column >= first4) add_scaled(s.coefficients()[row * (row4 - first4) + column - first4], -alpha, gradient);
}

// Gradients of all moving rows: a warp on each heavy row, where lanes that would be idle share its meetings; row_lanes lanes on
// each stretch of a light row.
__device__ __forceinline__ void gather_gradients(const AdaptState& s, float alpha, float momentum) {
    const int lanes = s.at.row_lanes, groups = 32 / lanes, own = s.lane() % lanes, group = s.lane() / lanes;
    const int row4 = s.at.row4, heavy = s.sizes().heavy;
    for (int row = s.warp(); row < heavy; row += s.warps()) {
        for (int first = 0; first < row4; first += lanes) {
            const int column = first + own;
            float4 gradient = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
            if (column < row4) gradient = row_gradient(s, row, column, group, groups);
            for (int flip = 16; flip >= lanes; flip /= 2) {
                gradient.x += __shfl_xor_sync(kWholeWarp, gradient.x, flip);
                gradient.y += __shfl_xor_sync(kWholeWarp, gradient.y, flip);
                gradient.z += __shfl_xor_sync(kWholeWarp, gradient.z, flip);
                gradient.w += __shfl_xor_sync(kWholeWarp, gradient.w, flip);
            }
            if (column < row4 && group == 0) learn(s, row, column, gradient, alpha, momentum);
        }
    }
    const int stretches = (row4 + lanes - 1) / lanes, end = (s.sizes().moving - heavy) * stretches;
    for (int i = s.warp() * groups + group; i < end; i += s.warps() * groups) {
        const int row = heavy + i / stretches, column = i % stretches * lanes + own;
        if (column < row4) learn(s, row, column, row_gradient(s, row, column, 0, 1), alpha, momentum);
    }
}

// The Gram matrix's values for two or four neighbouring rows.
template <int kRows>
struct GramValues {
    float of[kRows];
};
template <int kRows>
__device__ __forceinline__ GramValues<kRows> gram_values(const float* gram) {
    if constexpr (kRows == 4) {
        const float4 k = *reinterpret_cast<const float4*>(gram);
        return {{k.x, k.y, k.z, k.w}};
    } else {
        static_assert(kRows == 2);
        const float2 k = *reinterpret_cast<const float2*>(gram);
        return {{k.x, k.y}};
    }
}

// U -= alpha K V for kRows moving rows together, row_lanes lanes each, and the new norms.
template <int kRows>
__device__ __forceinline__ void move_rows(const AdaptState& s, float alpha) {
    const int lanes = s.at.row_lanes, groups = 32 / lanes, own = s.lane() % lanes;
    const int moving = s.sizes().moving, row4 = s.at.row4, active4 = s.at.active4, gram_stride = s.at.places.gram_stride;
    float4* const outputs = s.outputs();
    const float4* const velocity = s.velocity();
    const float* const gram = s.gram();
    for (int first = s.warp() * groups * kRows; first < moving; first += s.warps() * groups * kRows) {
        const int row = first + s.lane() / lanes * kRows;
        float square[kRows] = {};
        for (int column = own; row < moving && column < row4; column += lanes) {
            float4 sum[kRows] = {};
            FGSBIR_UNROLL_TWICE
            for (int j = 0; j < moving; ++j) {
                const GramValues<kRows> k = gram_values<kRows>(gram + j * gram_stride + row);  // beyond the last row: zeros
                const float4 v = velocity[j * row4 + column];
                for (int r = 0; r < kRows; ++r) add_scaled(sum[r], k.of[r], v);
            }
            for (int r = 0; r < kRows; ++r) {
                if (row + r >= moving) continue;
                float4 u = outputs[(row + r) * row4 + column];
                add_scaled(u, -alpha, sum[r]);
                outputs[(row + r) * row4 + column] = u;
                if (column < active4) square[r] = add_square(square[r], u);
            }
        }
        for (int r = 0; r < kRows; ++r) {
            square[r] = lane_sum(square[r], lanes);
            if (row + r < moving && own == 0) keep_norm(s, row + r, square[r]);
        }
    }
}

__device__ __forceinline__ void move_rows(const AdaptState& s, float alpha) {
    // Four rows together read each velocity half as often as two, but leave lanes idle where there are few rows.
    if (s.sizes().moving > 2 * (s.threads() / s.at.row_lanes)) {
        move_rows<4>(s, alpha);
    } else {
        move_rows<2>(s, alpha);
    }
}

}  // namespace fgsbir::cuda
