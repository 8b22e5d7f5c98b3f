// What a task leaves behind: coefficients, outputs after the descent, and the rank of its query's photo.
#pragma once

#include "cuda/adapt_gram.cuh"
#include "cuda/adapt_state.cuh"

namespace fgsbir::cuda {

// Coefficients of the moving rows for all D columns.
struct Coefficients {
    const float* rows;
    int stride;
};

// In gram form: mixes outputs into coefficients, four rows at a time. Writes s.full() and the task's result rows where they are
// wanted.
__device__ __forceinline__ void mix_coefficients(const AdaptState& s, float* results) {
    const int stride = 4 * (s.at.row4 - s.at.first4), moving = s.sizes().moving;
    const auto* const mix = reinterpret_cast<const float*>(s.coefficients());
    for (int first = 0; first < moving; first += 4) {
        for (int column = s.thread; column < s.launch.width; column += s.threads()) {
            float sums[4] = {};
            for (int j = 0; j < s.sizes().used; ++j) {
                const float u = __ldg(s.base_outputs(s.row_of()[j]) + column);
                for (int r = 0; r < 4; ++r) sums[r] = multiply_add(mix[min(first + r, moving - 1) * stride + j], u, sums[r]);
            }
            for (int r = 0; r < 4; ++r) {
                if (first + r >= moving) break;
                if (s.full() != nullptr) s.full()[(first + r) * s.launch.width + column] = sums[r];
                if (results != nullptr) {
                    results[static_cast<std::int64_t>(s.row_of()[first + r]) * s.launch.width + column] = sums[r];
                }
            }
        }
    }
}

// One output of a row after the descent, as the changed head gives it: U0[row] + sum_p K[row, p] A[p].
__device__ __forceinline__ float carried(const AdaptState& s, const Coefficients& a, int row, int column) {
    float u = __ldg(s.base_outputs(row) + column);
    const float* const gram = s.base_gram(row);
    for (int p = 0; p < s.sizes().moving; ++p) u = multiply_add(__ldg(gram + s.row_of()[p]), a.rows[p * a.stride + column], u);
    return u;
}

// coefficients [m, D] (in span form; in gram form only the rows that do not move) and moved [m, D], each where it is wanted.
__device__ __forceinline__ void write_rows(const AdaptState& s, const Coefficients& a, bool gram_form, float* coefficients,
                                           float* moved) {
    const auto* const outputs = reinterpret_cast<const float*>(s.outputs());
    for (int row = s.warp(); row < s.sizes().items; row += s.warps()) {
        const int local = s.local_of()[row];
        const bool moves = local >= 0 && local < s.sizes().moving;
        const std::int64_t at = static_cast<std::int64_t>(row) * s.launch.width;
        for (int column = s.lane(); column < s.launch.width; column += 32) {
            if (coefficients != nullptr && !(moves && gram_form)) {
                coefficients[at + column] = moves ? a.rows[local * a.stride + column] : 0.0F;
            }
            if (moved == nullptr) continue;
            if (moves) {
                moved[at + column] = gram_form ? mixed(s, outputs + local * 4 * s.at.row4 + 4 * s.at.first4, column)
                                               : outputs[local * 4 * s.at.row4 + column];
            } else {
                moved[at + column] = local == kCarried ? carried(s, a, row, column) : __ldg(s.base_outputs(row) + column);
            }
        }
    }
}

// Cosines of a photo and the query before and after, by one warp.
struct Cosines {
    float base, adapted;
};
struct Pool {
    const float *outputs, *cross;  // [N, D], [N, m]
    int photos;
    bool photos_move;
};
__device__ __forceinline__ Cosines cosines(const AdaptState& s, const Coefficients& a, const Pool& pool, const float* query,
                                           float inverse_base, float inverse_adapted, int photo) {
    float base_dot = 0.0F, base_square = 0.0F, dot = 0.0F, square = 0.0F;
    const float* const cross = pool.photos_move ? pool.cross + static_cast<std::int64_t>(photo) * s.sizes().items : nullptr;
    for (int column = s.lane(); column < s.launch.width; column += 32) {
        const float u = __ldg(pool.outputs + static_cast<std::int64_t>(photo) * s.launch.width + column);
        float v = u;
        if (pool.photos_move) {
            for (int p = 0; p < s.sizes().moving; ++p) {
                v = multiply_add(__ldg(cross + s.row_of()[p]), a.rows[p * a.stride + column], v);
            }
        }
        base_dot = multiply_add(u, query[column], base_dot);
        base_square = multiply_add(u, u, base_square);
        dot = multiply_add(v, query[s.launch.width + column], dot);
        square = multiply_add(v, v, square);
    }
    base_dot = lane_sum(base_dot, 32);
    base_square = lane_sum(base_square, 32);
    dot = lane_sum(dot, 32);
    square = lane_sum(square, 32);
    return {base_dot * inverse_base / at_least(sqrtf(base_square), kFloor),
            dot * inverse_adapted / at_least(sqrtf(square), kFloor)};
}

// Ranks of the true photo before and after: how many photos are not farther from the query, ties within 1e-6 and NaN against. A
// warp takes one photo at a time. All threads call; s.ranking() holds counts of up to 16 warps, before and after, and the two
// queries.
__device__ __forceinline__ void rank_photos(const AdaptState& s, const Coefficients& a, const Pool& pool, int query_row,
                                            int truth, std::int32_t* base_rank, std::int32_t* adapted_rank) {
    auto* const counts = reinterpret_cast<int*>(s.ranking());
    float* const query = s.ranking() + 64;
    for (int column = s.thread; column < s.launch.width; column += s.threads()) {
        query[column] = __ldg(s.base_outputs(query_row) + column);
        query[s.launch.width + column] = carried(s, a, query_row, column);
    }
    __syncthreads();
    float base_square = 0.0F, square = 0.0F;
    for (int column = s.lane(); column < s.launch.width; column += 32) {
        base_square = multiply_add(query[column], query[column], base_square);
        square = multiply_add(query[s.launch.width + column], query[s.launch.width + column], square);
    }
    const float inverse_base = 1.0F / at_least(sqrtf(lane_sum(base_square, 32)), kFloor);
    const float inverse_adapted = 1.0F / at_least(sqrtf(lane_sum(square, 32)), kFloor);
    const Cosines own = cosines(s, a, pool, query, inverse_base, inverse_adapted, truth);
    int base_count = 0, count = 0;
    for (int photo = s.warp(); photo < pool.photos; photo += s.warps()) {
        const Cosines other = cosines(s, a, pool, query, inverse_base, inverse_adapted, photo);
        base_count += !(other.base < own.base - 1e-6F);
        count += !(other.adapted < own.adapted - 1e-6F);
    }
    if (s.lane() == 0) {
        counts[s.warp()] = base_count;
        counts[32 + s.warp()] = count;
    }
    __syncthreads();
    if (s.thread == 0) {
        for (int warp = 1; warp < s.warps(); ++warp) {
            counts[0] += counts[warp];
            counts[32] += counts[32 + warp];
        }
        if (base_rank != nullptr) *base_rank = counts[0];
        if (adapted_rank != nullptr) *adapted_rank = counts[32];
    }
}

}  // namespace fgsbir::cuda
