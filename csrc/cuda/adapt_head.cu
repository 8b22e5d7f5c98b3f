// The head's side of adaptation on the device: plain tiled products, so that a C++ program needs no other library. Not tuned.
#include <stdexcept>
#include <string>

#include "adapt_cuda.h"
#include "cuda/launch.cuh"

namespace fgsbir {
namespace cuda {
namespace {

constexpr int kTile = 16;
using Tile = float[kTile][kTile + 1];  // one more column, so that a column's numbers lie in different banks

struct Product {
    const float *left, *right, *bias;  // [n, depth], [columns, depth], [columns] or nullptr for 1
    float* out;                        // [n, columns]
    long long rows, columns, depth;
};

// out = left rightᵀ + bias. A thread owns one number of the result, a block 16 x 16 of them; each number of left is read from
// global memory columns / 16 times, each of right rows / 16 times. Sums run over the depth in order: the same bits on every run.
__global__ void __launch_bounds__(kTile* kTile) multiply(const Product p) {
    FGSBIR_SHARED(Tile, left);
    FGSBIR_SHARED(Tile, right);
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
    const long long first_row = static_cast<long long>(blockIdx.x) * kTile,
                    first_column = static_cast<long long>(blockIdx.y) * kTile;
    const long long row = first_row + y, column = first_column + x;
    float sum = 0.0F;
    for (long long first = 0; first < p.depth; first += kTile) {
        const bool inside = first + x < p.depth;
        left[y][x] = inside && row < p.rows ? __ldg(p.left + row * p.depth + first + x) : 0.0F;
        right[y][x] = inside && first_column + y < p.columns ? __ldg(p.right + (first_column + y) * p.depth + first + x) : 0.0F;
        __syncthreads();
        for (int k = 0; k < kTile; ++k) sum = __fmaf_rn(left[y][k], right[x][k], sum);
        __syncthreads();
    }
    if (row >= p.rows || column >= p.columns) return;
    p.out[row * p.columns + column] = sum + (p.bias == nullptr ? 1.0F : __ldg(p.bias + column));
}

struct Forming {
    const float *weight, *bias, *coefficients, *rows;  // [D, C], [D], [m, D], [m, C]
    float *new_weight, *new_bias;
    long long width, features, items;
};

// W' = W + A X, b' = b + A 1. A thread owns one number of W', which may be W itself: it alone reads and writes it. The blocks of
// the first columns also write b'. Global memory: W once each way, A C / 16 times, X D / 16 times.
__global__ void __launch_bounds__(kTile* kTile) form(const Forming f) {
    FGSBIR_SHARED(Tile, coefficients);
    FGSBIR_SHARED(Tile, rows);
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
    const long long first_row = static_cast<long long>(blockIdx.x) * kTile,
                    column = static_cast<long long>(blockIdx.y) * kTile + x;
    const long long row = first_row + y;
    float sum = 0.0F, shift = 0.0F;
    for (long long first = 0; first < f.items; first += kTile) {
        const bool inside = first + y < f.items;
        coefficients[y][x] =
            inside && first_row + x < f.width ? __ldg(f.coefficients + (first + y) * f.width + first_row + x) : 0.0F;
        rows[y][x] = inside && column < f.features ? __ldg(f.rows + (first + y) * f.features + column) : 0.0F;
        __syncthreads();
        for (int k = 0; k < kTile; ++k) {
            sum = __fmaf_rn(coefficients[k][y], rows[k][x], sum);
            shift += coefficients[k][y];
        }
        __syncthreads();
    }
    if (row >= f.width) return;
    if (column < f.features) f.new_weight[row * f.features + column] = f.weight[row * f.features + column] + sum;
    if (blockIdx.y == 0 && x == 0) f.new_bias[row] = f.bias[row] + shift;
}

// 16 x 16 tiles over rows and columns.
dim3 tiles(const char* name, std::int64_t rows, std::int64_t columns) {
    const std::int64_t down = (rows + kTile - 1) / kTile, across = (columns + kTile - 1) / kTile;
    if (down > 2147483647 || across > 65535) {
        throw std::invalid_argument(std::string(name) + ": a product of " + std::to_string(rows) + " rows and " +
                                    std::to_string(columns) + " columns, at most 1048560 columns go; split it");
    }
    return {static_cast<unsigned>(down), static_cast<unsigned>(across)};
}

void multiply_on(const char* name, const Product& product, void* stream) {
    if (product.rows == 0 || product.columns == 0) return;
    launch(name, multiply, tiles(name, product.rows, product.columns), dim3(kTile, kTile), 0, static_cast<cudaStream_t>(stream),
           product);
}

}  // namespace
}  // namespace cuda

void head_outputs_cuda(const AdaptHead<float>& head, const float* features, std::int64_t count, float* outputs, void* stream) {
    cuda::multiply_on("head_outputs_cuda", {features, head.weight, head.bias, outputs, count, head.width, head.features}, stream);
}

void gram_products_cuda(const float* rows, std::int64_t count, const float* others, std::int64_t others_count,
                        std::int64_t features, float* products, void* stream) {
    cuda::multiply_on("gram_products_cuda", {rows, others, nullptr, products, count, others_count, features}, stream);
}

void form_head_cuda(const AdaptHead<float>& head, const float* coefficients, const float* features, std::int64_t items,
                    float* weight, float* bias, void* stream) {
    if (head.width == 0 || head.features == 0) return;
    const cuda::Forming forming{head.weight, head.bias, coefficients, features, weight, bias, head.width, head.features, items};
    cuda::launch("form_head_cuda", cuda::form, cuda::tiles("form_head_cuda", head.width, head.features),
                 dim3(cuda::kTile, cuda::kTile), 0, static_cast<cudaStream_t>(stream), forming);
}

}  // namespace fgsbir
