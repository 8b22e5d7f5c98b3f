#include "flat_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "adapt_parts.h"
#include "half_rows.h"
#include "parallel.h"
#include "simd/isa.h"
#include "simd/search_kernels.h"

namespace fgsbir {
namespace {

using Index = std::int64_t;

constexpr Index kBlockBytes = 1 << 16;  // of embeddings that are multiplied at a time: they stay in the second-level cache
constexpr Index kQueries = 64;          // that pass over a block together
constexpr Index kStride = 16;           // products that are compared with the threshold at a time
constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kSmallestNorm = 1e-12F;  // as in arrays.py

// A product and its row in one number, the better the larger: first the product, whose bits are turned so that they order as
// floats do, then the row, the smaller the better. Such numbers are sorted in a third of the time that pairs take.
using Found = std::uint64_t;

Found found(float product, Index place) {
    std::uint32_t bits = 0;
    const float finite = product == product ? product + 0.0F : kLowest;  // + 0: one zero only
    std::memcpy(&bits, &finite, sizeof bits);
    bits ^= (bits >> 31) != 0 ? 0xFFFFFFFFU : 0x80000000U;
    return static_cast<Found>(bits) << 32 | (0xFFFFFFFFU - static_cast<std::uint32_t>(place));
}

Index place_of(Found one) { return static_cast<Index>(0xFFFFFFFFU - static_cast<std::uint32_t>(one)); }

float product_of(Found one) {
    std::uint32_t bits = static_cast<std::uint32_t>(one >> 32);
    bits ^= (bits >> 31) != 0 ? 0x80000000U : 0xFFFFFFFFU;
    float product = 0.0F;
    std::memcpy(&product, &bits, sizeof product);
    return product;
}

// The best so far: rows come in ascending order, so that one that only equals the threshold is never among them.
class Selection {
  public:
    explicit Selection(Index best) : best_(best), room_(4 * best + kStride) { found_.reserve(static_cast<std::size_t>(room_)); }

    void offer(const float* products, Index count, Index first, const std::uint8_t* allowed) {
        for (Index i = 0; i < count; i += kStride) {
            const Index end = std::min(i + kStride, count);
            if (full_) {
                int any = 0;
                if (end == i + kStride) {
                    for (Index j = 0; j < kStride; ++j) any |= products[i + j] > threshold_;
                } else {
                    any = 1;
                }
                if (!any) continue;
            }
            for (Index j = i; j < end; ++j) {
                const bool in = !full_ || products[j] > threshold_;
                if (in && (allowed == nullptr || allowed[first + j] != 0)) add(products[j], first + j);
            }
        }
    }

    void merge(const Selection& other) {
        found_.insert(found_.end(), other.found_.begin(), other.found_.end());
    }

    // What is left, in order.
    void write(float* products, Index* places) {
        cut();
        std::sort(found_.begin(), found_.end(), std::greater<>());
        for (const Found one : found_) {
            *products++ = product_of(one);
            *places++ = place_of(one);
        }
    }

  private:
    void add(float product, Index place) {
        found_.push_back(found(product, place));
        if (static_cast<Index>(found_.size()) >= room_) cut();
    }

    void cut() {
        if (static_cast<Index>(found_.size()) <= best_) return;
        std::nth_element(found_.begin(), found_.begin() + (best_ - 1), found_.end(), std::greater<>());
        found_.resize(static_cast<std::size_t>(best_));
        threshold_ = product_of(found_.back());
        full_ = true;
    }

    Index best_, room_;
    std::vector<Found> found_;
    float threshold_ = kLowest;
    bool full_ = false;
};

const SearchKernels& kernels() {
#ifdef FGSBIR_SIMD_X86
    if (isa() == Isa::avx512) return avx512::search_kernels;
    if (isa() == Isa::avx2) return avx2::search_kernels;
#endif
    return baseline::search_kernels;
}

struct Task {
    const FlatRows& rows;
    const float* queries;
    Index queries_count;
    const std::uint8_t* allowed;
    Index block;
};

// Products of all queries with a block of rows, [queries, rows]. `widened` has room for the block.
void multiply(const Task& task, Index first, Index count, float* widened, float* out) {
    const Index width = task.rows.width, start = first * width;
    const bool half = task.rows.half != nullptr;
    if (task.queries_count == 1) {
        if (half) return kernels().half(task.rows.half + start, count, width, task.queries, out);
        return kernels().wide(task.rows.wide + start, count, width, task.queries, out);
    }
    if (half) widen_halves(task.rows.half + start, count * width, widened);
    adapt_parts::products<float>().dots({task.queries, width, task.queries_count, half ? widened : task.rows.wide + start, width,
                                         count, width, nullptr, 0.0F, false, out, count});
}

// Blocks of rows, as many as the queue gives, against all queries of the task.
void search_blocks(const Task& task, ItemQueue& queue, std::vector<Selection>& selections) {
    const bool widen = task.rows.half != nullptr && task.queries_count > 1;
    std::vector<float> products(static_cast<std::size_t>(task.queries_count * task.block));
    std::vector<float> widened(widen ? static_cast<std::size_t>(task.block * task.rows.width) : 0U);
    for (Index item = 0; queue.take(item);) {
        const Index first = item * task.block, count = std::min(task.block, task.rows.count - first);
        multiply(task, first, count, widened.data(), products.data());
        for (Index q = 0; q < task.queries_count; ++q) {
            selections[static_cast<std::size_t>(q)].offer(products.data() + q * count, count, first, task.allowed);
        }
    }
}

}  // namespace

void top_products(const FlatRows& rows, const float* queries, std::int64_t queries_count, const std::uint8_t* allowed,
                  std::int64_t best, float* products, std::int64_t* places, int threads) {
    if (rows.count > Index{1} << 32) throw std::length_error("more than 2^32 rows");
    const Index block = std::max<Index>(kStride, kBlockBytes / (4 * std::max<Index>(rows.width, 1)) / kStride * kStride);
    for (Index begin = 0; begin < queries_count; begin += kQueries) {
        const Index now = std::min(kQueries, queries_count - begin);
        const Task task{rows, queries + begin * rows.width, now, allowed, block};
        std::vector<Selection> all(static_cast<std::size_t>(now), Selection(best));
        std::mutex mutex;
        run_workers((rows.count + block - 1) / block, threads, [&](ItemQueue& queue) {
            if (threads <= 1) return search_blocks(task, queue, all);
            std::vector<Selection> mine(static_cast<std::size_t>(now), Selection(best));
            search_blocks(task, queue, mine);
            const std::lock_guard<std::mutex> lock(mutex);
            for (std::size_t q = 0; q < mine.size(); ++q) all[q].merge(mine[q]);
        });
        for (Index q = 0; q < now; ++q) {
            all[static_cast<std::size_t>(q)].write(products + (begin + q) * best, places + (begin + q) * best);
        }
    }
}

void adapted_products(const float* embeddings, const float* lengths, const std::uint16_t* features, const LowRank& change,
                      const std::int64_t* places, std::int64_t count, const float* query, float* out) {
    const Index width = change.width, rank = change.rank;
    const Index block = std::max<Index>(kStride, 2 * kBlockBytes / (4 * std::max<Index>(change.features, 1)));
    const auto& multiply_by = adapt_parts::products<float>();
    const auto product = kernels().wide;
    std::vector<float> widened(static_cast<std::size_t>(block * change.features)), inner(static_cast<std::size_t>(block * rank)),
        outputs(static_cast<std::size_t>(block * width)), across(static_cast<std::size_t>(rank * width));
    for (Index d = 0; d < width; ++d) {
        for (Index l = 0; l < rank; ++l) across[static_cast<std::size_t>(l * width + d)] = change.coefficients[d * rank + l];
    }
    for (Index first = 0; first < count; first += block) {
        const Index now = std::min(block, count - first);
        gather_half(features, change.features, places + first, now, widened.data());
        multiply_by.dots({widened.data(), change.features, now, change.support, change.features, rank, change.features, nullptr,
                          1.0F, false, inner.data(), rank});
        for (Index i = 0; i < now; ++i) {
            const float* unit = embeddings + places[first + i] * width;
            const float length = lengths[places[first + i]];
            float* row = outputs.data() + i * width;
            for (Index d = 0; d < width; ++d) row[d] = length * unit[d];
        }
        multiply_by.combine({inner.data(), rank, 1, across.data(), width, outputs.data(), width, outputs.data(), width, now, rank,
                             width, 1.0F});
        product(outputs.data(), now, width, query, out + first);
        for (Index i = 0; i < now; ++i) {
            const float* row = outputs.data() + i * width;
            float squared = 0.0F;
            product(row, 1, width, row, &squared);
            out[first + i] /= std::max(std::sqrt(squared), kSmallestNorm);
        }
    }
}

}  // namespace fgsbir
