// Random batches of adaptation tasks, the device's answer to them (a GPU's or the emulator's), and how far it is from the CPU's
// in double.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "adapt.h"
#include "adapt_cuda.h"
#include "cuda/launch.cuh"

namespace cases {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Owns what AdaptBatch points to. Supports: k sketches, then the photos; each photo is near its sketch.
struct Batch {
    std::int64_t width = 8;
    std::vector<float> outputs, gram, pool_outputs, cross, net;
    std::vector<std::uint8_t> moves;
    std::vector<std::int64_t> row_offsets{0}, gram_offsets, pool_rows{0}, cross_offsets, triplet_offsets{0}, result_rows;
    std::vector<std::int32_t> pool_of, support, triplets, query, truth;
    std::vector<double> margins, step_sizes{0.05, 0.04, 0.03};
    std::int64_t result_count = 0, hidden = 0;
    double momentum = 0.0, sharpness = 10.0;
    std::uint8_t photos_move = 0;
    fgsbir::AdaptForm form = fgsbir::AdaptForm::automatic;

    std::int64_t tasks() const { return static_cast<std::int64_t>(support.size()); }
    std::int64_t items(std::size_t s) const { return row_offsets[s + 1] - row_offsets[s]; }

    template <typename Real>
    fgsbir::AdaptBatch<Real> view(const std::vector<Real>& u, const std::vector<Real>& k, const std::vector<Real>& p,
                                  const std::vector<Real>& c) const {
        fgsbir::AdaptBatch<Real> batch{};
        batch.supports = {u.data(),
                          k.data(),
                          moves.data(),
                          row_offsets.data(),
                          gram_offsets.data(),
                          static_cast<std::int64_t>(gram_offsets.size()),
                          width};
        batch.pools = {p.data(), pool_rows.data(),     pool_of.data(),
                       c.data(), cross_offsets.data(), static_cast<std::int64_t>(pool_rows.size()) - 1};
        batch.tasks = {support.data(),     triplets.data(), triplet_offsets.data(), margins.data(),
                       result_rows.data(), query.data(),    truth.data(),           tasks(),
                       photos_move};
        batch.margin_net = {net.data(), hidden};
        batch.rule = {step_sizes.data(), static_cast<std::int64_t>(step_sizes.size()), momentum, sharpness, form};
        return batch;
    }
    fgsbir::AdaptBatch<float> view() const { return view<float>(outputs, gram, pool_outputs, cross); }
};

// Device memory of exactly its size: a byte beyond it shows under AddressSanitizer and compute-sanitizer.
template <typename T>
class Memory {
  public:
    explicit Memory(std::size_t count, T value = T{}) : Memory(std::vector<T>(count, value)) {}
    explicit Memory(const std::vector<T>& values) : count_(values.size()) {
        fgsbir::cuda::check(cudaMalloc(&data_, std::max<std::size_t>(count_ * sizeof(T), 1)), "cudaMalloc");
        copy(data_, values.data(), cudaMemcpyHostToDevice);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { cudaFree(data_); }

    T* get() const { return data_; }
    std::vector<T> values() const {
        std::vector<T> all(count_);
        copy(all.data(), data_, cudaMemcpyDeviceToHost);
        return all;
    }

  private:
    void copy(T* to, const T* from, cudaMemcpyKind kind) const {
        if (count_ == 0) return;
        fgsbir::cuda::check(cudaMemcpyAsync(to, from, count_ * sizeof(T), kind, nullptr), "cudaMemcpy");
        fgsbir::cuda::check(cudaStreamSynchronize(nullptr), "cudaMemcpy");
    }
    std::size_t count_;
    T* data_ = nullptr;
};

template <typename Real>
struct Answer {
    std::vector<Real> coefficients, moved;
    std::vector<double> losses, margins;
    std::vector<std::int32_t> base_ranks, adapted_ranks;
};

template <typename Real>
bool same_bits(const std::vector<Real>& a, const std::vector<Real>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](Real x, Real y) {
               return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y));
           });
}

template <typename Real>
bool same_bits(const Answer<Real>& a, const Answer<Real>& b) {
    return same_bits(a.coefficients, b.coefficients) && same_bits(a.moved, b.moved) && same_bits(a.losses, b.losses) &&
           same_bits(a.margins, b.margins) && a.base_ranks == b.base_ranks && a.adapted_ranks == b.adapted_ranks;
}

inline std::vector<double> doubled(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// The CPU's answer in double, from the same float inputs.
inline Answer<double> on_cpu(const Batch& b) {
    const auto n = static_cast<std::size_t>(b.result_count * b.width), tasks = b.support.size();
    Answer<double> answer{
        std::vector<double>(n),     std::vector<double>(n),           std::vector<double>(tasks * (b.step_sizes.size() + 1)),
        std::vector<double>(tasks), std::vector<std::int32_t>(tasks), std::vector<std::int32_t>(tasks)};
    const auto u = doubled(b.outputs), k = doubled(b.gram), p = doubled(b.pool_outputs), c = doubled(b.cross);
    fgsbir::adapt<double>(b.view<double>(u, k, p, c),
                          {answer.coefficients.data(), answer.moved.data(), answer.losses.data(), answer.margins.data(),
                           answer.base_ranks.data(), answer.adapted_ranks.data()},
                          1);
    return answer;
}

struct Options {
    std::size_t shared_bytes = 166912;  // at most, and as much as the device has
    int threads = 0;                    // 0: as planned
};

inline fgsbir::AdaptCudaDevice limited(std::size_t shared_bytes) {
    fgsbir::AdaptCudaDevice device = fgsbir::adapt_cuda_device();
    device.shared_bytes = std::min(device.shared_bytes, shared_bytes);
    return device;
}

// The kernel's answer.
inline Answer<float> on_device(const Batch& b, const Options& options = {}) {
    fgsbir::AdaptCudaPlan plan = fgsbir::plan_adapt_cuda(b.view(), limited(options.shared_bytes));
    if (options.threads != 0) plan.threads = options.threads;
    const fgsbir::AdaptCudaTable table(plan);
    const Memory<unsigned char> workspace(plan.workspace_bytes, 0xff);
    const Memory<float> outputs(b.outputs), gram(b.gram), pool(b.pool_outputs), cross(b.cross), net(b.net);
    const auto n = static_cast<std::size_t>(b.result_count * b.width), tasks = b.support.size();
    const Memory<float> coefficients(n, -77.0F), moved(n, -77.0F);
    const Memory<double> losses(tasks * (b.step_sizes.size() + 1), -77.0), margins(tasks, -77.0);
    const Memory<std::int32_t> base_ranks(tasks, -77), adapted_ranks(tasks, -77);
    fgsbir::adapt_cuda(plan, table.data(), {outputs.get(), gram.get(), pool.get(), cross.get(), net.get()},
                       {coefficients.get(), moved.get(), losses.get(), margins.get(), base_ranks.get(), adapted_ranks.get()},
                       workspace.get(), nullptr);
    return {coefficients.values(), moved.values(),      losses.values(),
            margins.values(),      base_ranks.values(), adapted_ranks.values()};
}

// ---- random batches ----

struct Shape {
    std::int64_t pairs = 5, others = 0;
    fgsbir::AdaptNegatives negatives = fgsbir::AdaptNegatives::support;
    bool folds = false, photos_move = true;  // photos_move: side "both"
};

class Maker {
  public:
    explicit Maker(std::uint64_t seed) : random_(seed) {}

    std::int64_t below(std::int64_t n) { return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random_); }
    float normal() { return std::normal_distribution<float>()(random_); }
    double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }

    // One more support, with a pool of its photos, and its tasks: one with all pairs and, with folds, one that leaves out each
    // pair.
    void add(Batch& b, const Shape& shape, double margin) {
        const std::int64_t k = shape.pairs, items = k + k + shape.others;
        std::vector<std::int32_t> photo_of;
        for (std::int64_t i = 0; i < k; ++i) photo_of.push_back(static_cast<std::int32_t>(k + (below(8) == 0 ? below(k) : i)));
        add_rows(b, items, k, shape.photos_move);
        const fgsbir::AdaptPlan plan = fgsbir::plan_adapt(photo_of.data(), k, items, shape.negatives, shape.folds);
        for (std::size_t i = 0; i < plan.left_out.size(); ++i) {
            const auto begin = plan.triplets.begin() + 3 * plan.triplet_offsets[i],
                       end = plan.triplets.begin() + 3 * plan.triplet_offsets[i + 1];
            add_task(b, {begin, end}, margin);
            b.query.back() = plan.left_out[i];
            if (plan.left_out[i] >= 0) {
                b.truth.back() = photo_of[static_cast<std::size_t>(plan.left_out[i])] - static_cast<std::int32_t>(k);
            }
        }
    }

    // A support whose photos are rows k .. items - 1; features of width 24 decide the inner products.
    void add_rows(Batch& b, std::int64_t items, std::int64_t k, bool photos_move) {
        constexpr std::int64_t kFeatures = 24;
        const double noise = uniform(0.1, 1.0), shared = below(2) == 0 ? 0.0 : 0.9;
        std::vector<float> common(kFeatures), x(static_cast<std::size_t>(items * kFeatures)),
            w(static_cast<std::size_t>(b.width * kFeatures));
        for (float& value : common) value = normal();
        for (std::int64_t i = k; i < items; ++i) {
            for (std::int64_t c = 0; c < kFeatures; ++c) {
                at(x, i, c, kFeatures) = 0.2F * (static_cast<float>(shared) * at(common, 0, c, 0) + 0.5F * normal());
            }
        }
        for (std::int64_t i = 0; i < std::min(k, items); ++i) {
            for (std::int64_t c = 0; c < kFeatures; ++c) {
                const float near = k + i < items ? at(x, k + i, c, kFeatures) : 0.0F;
                at(x, i, c, kFeatures) = near + 0.1F * static_cast<float>(noise) * normal();
            }
        }
        for (float& value : w) value = normal();
        const auto first_output = static_cast<std::int64_t>(b.outputs.size()),
                   first_gram = static_cast<std::int64_t>(b.gram.size());
        for (std::int64_t i = 0; i < items; ++i) {
            for (std::int64_t d = 0; d < b.width; ++d) b.outputs.push_back(dot(x, i, w, d, kFeatures) + 0.05F);
        }
        for (std::int64_t i = 0; i < items; ++i) {
            for (std::int64_t j = 0; j < items; ++j) b.gram.push_back(dot(x, i, x, j, kFeatures) + 1.0F);
        }
        b.gram_offsets.push_back(first_gram);
        b.row_offsets.push_back(b.row_offsets.back() + items);
        for (std::int64_t i = 0; i < items; ++i) b.moves.push_back(i < k || photos_move ? 1 : 0);
        b.photos_move = photos_move ? 1 : 0;
        // The pool: this support's photos.
        b.pool_of.push_back(static_cast<std::int32_t>(b.pool_rows.size()) - 1);
        b.pool_rows.push_back(b.pool_rows.back() + items - k);
        b.cross_offsets.push_back(static_cast<std::int64_t>(b.cross.size()));
        for (std::int64_t i = k; i < items; ++i) {
            for (std::int64_t d = 0; d < b.width; ++d) {
                b.pool_outputs.push_back(b.outputs[static_cast<std::size_t>(first_output + i * b.width + d)]);
            }
            for (std::int64_t j = 0; j < items; ++j) {
                b.cross.push_back(b.gram[static_cast<std::size_t>(first_gram + i * items + j)]);
            }
        }
    }

    // A further task on the last support.
    void add_task(Batch& b, const std::vector<std::int32_t>& triplets, double margin) {
        b.support.push_back(static_cast<std::int32_t>(b.gram_offsets.size()) - 1);
        b.triplets.insert(b.triplets.end(), triplets.begin(), triplets.end());
        b.triplet_offsets.push_back(static_cast<std::int64_t>(b.triplets.size()) / 3);
        b.margins.push_back(margin);
        b.result_rows.push_back(b.result_count);
        b.result_count += b.items(b.gram_offsets.size() - 1);
        b.query.push_back(-1);
        b.truth.push_back(0);
    }

    void add_net(Batch& b, std::int64_t hidden) {
        b.hidden = hidden;
        b.net.clear();
        for (std::int64_t i = 0; i < 2 * hidden * hidden + 6 * hidden + 1; ++i) b.net.push_back(0.3F * normal());
    }

  private:
    static float& at(std::vector<float>& matrix, std::int64_t i, std::int64_t j, std::int64_t width) {
        return matrix[static_cast<std::size_t>(i * width + j)];
    }
    static float dot(const std::vector<float>& a, std::int64_t i, const std::vector<float>& b, std::int64_t j,
                     std::int64_t width) {
        double sum = 0.0;
        for (std::int64_t c = 0; c < width; ++c) {
            sum += static_cast<double>(a[static_cast<std::size_t>(i * width + c)]) *
                   static_cast<double>(b[static_cast<std::size_t>(j * width + c)]);
        }
        return static_cast<float>(sum);
    }

    std::mt19937_64 random_;
};

// ---- how far apart ----

struct Gap {
    double coefficients = 0.0, moved = 0.0, losses = 0.0, margins = 0.0;  // the first relative, the others absolute
    void widen(const Gap& other) {
        coefficients = std::max(coefficients, other.coefficients);
        moved = std::max(moved, other.moved);
        losses = std::max(losses, other.losses);
        margins = std::max(margins, other.margins);
    }
};

// How large the coefficients of a support might become: a row's gradient is at most about 1 / |u|.
inline double reach(const Batch& b, std::size_t s) {
    double shortest = std::numeric_limits<double>::infinity(), path = 0.0;
    for (std::int64_t row = b.row_offsets[s]; row < b.row_offsets[s + 1]; ++row) {
        double square = 0.0;
        for (std::int64_t d = 0; d < b.width; ++d) {
            const auto u = static_cast<double>(b.outputs[static_cast<std::size_t>(row * b.width + d)]);
            square += u * u;
        }
        shortest = std::min(shortest, std::sqrt(square));
    }
    for (const double step : b.step_sizes) path += step;
    return path / std::max(shortest, 1e-12);
}

// The smallest distance in a task's triplets at the base outputs.
inline double closest(const Batch& b, std::size_t task) {
    const float* const outputs = b.outputs.data() + b.row_offsets[static_cast<std::size_t>(b.support[task])] * b.width;
    const auto cosine = [&](const float* u, const float* v) {
        double dot = 0.0, u_square = 0.0, v_square = 0.0;
        for (std::int64_t d = 0; d < b.width; ++d) {
            const double x = static_cast<double>(u[d]), y = static_cast<double>(v[d]);
            dot += x * y;
            u_square += x * x;
            v_square += y * y;
        }
        return dot / std::sqrt(u_square * v_square);
    };
    double smallest = 2.0;
    for (std::int64_t t = b.triplet_offsets[task]; t < b.triplet_offsets[task + 1]; ++t) {
        const std::int32_t* const rows = b.triplets.data() + 3 * t;
        for (int side = 1; side <= 2; ++side) {
            const double square = 2.0 - 2.0 * cosine(outputs + rows[0] * b.width, outputs + rows[side] * b.width);
            smallest = std::min(smallest, std::sqrt(std::max(square, 0.0)));
        }
    }
    return smallest;
}

// Infinity where one side is not finite. Coefficients are measured by the task's largest, or by a hundredth of what they might be
// where all are tiny: in one dimension exact gradients are 0.
template <typename Real>
Gap gap(const Batch& b, std::size_t task, const Answer<Real>& got, const Answer<double>& wanted) {
    const auto s = static_cast<std::size_t>(b.support[task]);
    const auto begin = static_cast<std::size_t>(b.result_rows[task] * b.width),
               end = begin + static_cast<std::size_t>(b.items(s) * b.width);
    const auto away = [](double x, double y) {
        return std::isfinite(x) && std::isfinite(y) ? std::abs(x - y) : std::numeric_limits<double>::infinity();
    };
    Gap result;
    double largest = 0.0;
    for (std::size_t i = begin; i < end; ++i) {
        result.coefficients =
            std::max(result.coefficients, away(static_cast<double>(got.coefficients[i]), wanted.coefficients[i]));
        largest = std::max(largest, std::abs(wanted.coefficients[i]));
        result.moved = std::max(result.moved, away(static_cast<double>(got.moved[i]), wanted.moved[i]));
    }
    if (result.coefficients > 0.0) result.coefficients /= std::max(largest, 0.01 * reach(b, s));
    const std::size_t steps = b.step_sizes.size() + 1;
    for (std::size_t i = task * steps; i < (task + 1) * steps; ++i) {
        result.losses = std::max(result.losses, away(got.losses[i], wanted.losses[i]));
    }
    result.margins = away(got.margins[task], wanted.margins[task]);
    return result;
}

}  // namespace cases
