// Gram form: the descent sees outputs through their inner products alone, so any rows with the same inner products do as well.
// The rows of the triangular factor L, L Lᵀ = U0 U0ᵀ, have only as many columns as there are rows. Beside L stands the unit
// matrix: it takes every step that L takes, and at the end says of which outputs at the beginning each row is made, whatever D
// is:
//     [L, 1] -> [L_T, M_T],  U_T = M_T U0,  and the coefficients likewise.
// Distances are differences of rows of L, so close rows lose no digits to cancellation, as they would with inner products in
// float32. Inner products are summed in two floats each (about 48 bits); the factor is found in double, rounded once, and that is
// all the double arithmetic there is: m^3 / 6 multiplications, which matters where double runs at 1/64 of float (Orin).
#pragma once

#include "cuda/adapt_state.cuh"

namespace fgsbir::cuda {

// An unevaluated sum; the parts do not overlap.
struct TwoFloats {
    float high = 0.0F, low = 0.0F;
};

// Adds a * b; both the product's rounding and the sum's go to the low part.
__device__ __forceinline__ void add_product(TwoFloats& sum, float a, float b) {
    const float product = __fmul_rn(a, b), product_error = __fmaf_rn(a, b, -product);
    const float total = __fadd_rn(sum.high, product), part = __fsub_rn(total, sum.high);
    const float sum_error = __fadd_rn(__fsub_rn(sum.high, __fsub_rn(total, part)), __fsub_rn(product, part));
    sum.high = total;
    sum.low = __fadd_rn(sum.low, __fadd_rn(sum_error, product_error));
}

// products [used, used]: the lower triangle of U0 U0ᵀ, a warp for each row and four others at a time.
__device__ __forceinline__ void multiply_outputs(const AdaptState& s) {
    const int used = s.sizes().used;
    int turn = 0;
    for (int row = 0; row < used; ++row) {
        for (int first = 0; first <= row; first += 4) {
            if (turn++ % s.warps() != s.warp()) continue;
            const float* const own = s.base_outputs(s.row_of()[row]);
            const float* others[4];
            for (int k = 0; k < 4; ++k) others[k] = s.base_outputs(s.row_of()[min(first + k, row)]);
            TwoFloats sums[4];
            for (int c = s.lane(); c < s.launch.width; c += 32) {
                const float u = __ldg(own + c);
                for (int k = 0; k < 4; ++k) add_product(sums[k], u, __ldg(others[k] + c));
            }
            for (int k = 0; k < 4; ++k) {
                const double sum = lane_sum(static_cast<double>(sums[k].high) + static_cast<double>(sums[k].low), 32);
                if (s.lane() == 0 && first + k <= row) s.products()[row * used + first + k] = sum;
            }
        }
    }
}

__device__ __forceinline__ double inverse_root(double x) {
#ifdef __CUDACC__
    return rsqrt(x);
#else
    return 1.0 / sqrt(x);
#endif
}

// products -> L, column after column. A row that the ones before it span, to 1e-7 of its length, gets no column of its own;
// without that, the noise of its rest would be blown up to a direction. All threads call.
__device__ __forceinline__ void factorise(const AdaptState& s) {
    const int used = s.sizes().used;
    double* const diagonal = s.products() + used * used;
    for (int i = s.thread; i < used; i += s.threads()) diagonal[i] = s.products()[i * used + i];
    for (int column = 0; column < used; ++column) {
        __syncthreads();
        if (s.warp() == 0) {
            const double rest = s.products()[column * used + column];
            const double scale = rest <= 1e-14 * diagonal[column] ? 0.0 : inverse_root(rest);  // NaN stays NaN
            __syncwarp();  // all lanes have read what the first one now writes
            for (int row = column + s.lane(); row < used; row += 32) s.products()[row * used + column] *= scale;
        }
        __syncthreads();
        for (int row = column + 1 + s.thread / 8; row < used; row += s.threads() / 8) {
            const double factor = s.products()[row * used + column];
            for (int other = column + 1 + s.thread % 8; other <= row; other += 8) {
                s.products()[row * used + other] =
                    fma(-factor, s.products()[other * used + column], s.products()[row * used + other]);
            }
        }
    }
    __syncthreads();
}

// outputs = [L, 1], padded with zeros.
__device__ __forceinline__ void place_factor(const AdaptState& s) {
    const int used = s.sizes().used, active = 4 * s.at.active4, columns = 4 * s.at.row4;
    auto* const outputs = reinterpret_cast<float*>(s.outputs());
    for (int i = s.thread; i < used * columns; i += s.threads()) {
        const int row = i / columns, column = i % columns;
        float value = column - active == row ? 1.0F : 0.0F;
        if (column <= row) value = static_cast<float>(s.products()[row * used + column]);
        outputs[i] = value;
    }
}

// One number of a row that is made of the outputs at the beginning: sum_j mix[j] U0[j, column].
__device__ __forceinline__ float mixed(const AdaptState& s, const float* mix, int column) {
    float sum = 0.0F;
    for (int j = 0; j < s.sizes().used; ++j) {
        sum = multiply_add(mix[j], __ldg(s.base_outputs(s.row_of()[j]) + column), sum);
    }
    return sum;
}

}  // namespace fgsbir::cuda
