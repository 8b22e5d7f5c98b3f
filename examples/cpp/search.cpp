#include "search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace robot {
namespace {

constexpr float kTie = 1e-6F, kSmallestNorm = 1e-12F;

// Unit embeddings [n, D] of features [n, C]: (W f + b + A (X f + 1) + shift) / |...|.
std::vector<float> embed(const Model& model, const Adapter& adapter, const float* shift, const float* features, std::int64_t n,
                         int threads) {
    const auto D = static_cast<std::size_t>(model.width), m = adapter.coefficients.size() / D;
    std::vector<float> rows(static_cast<std::size_t>(n) * D);
    fgsbir::head_outputs(model.head(), features, n, rows.data(), threads);
    std::vector<float> products(static_cast<std::size_t>(n) * m);
    if (m > 0) {
        fgsbir::gram_products(features, n, adapter.support.data(), static_cast<std::int64_t>(m), model.features, products.data(),
                              threads);
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        float* row = rows.data() + i * D;
        for (std::size_t j = 0; j < m; ++j) {
            const float* column = adapter.coefficients.data() + j * D;
            for (std::size_t d = 0; d < D; ++d) row[d] += products[i * m + j] * column[d];
        }
        for (std::size_t d = 0; shift != nullptr && d < D; ++d) row[d] += shift[d];
        const float length = std::max(std::sqrt(std::inner_product(row, row + D, row, 0.0F)), kSmallestNorm);
        for (std::size_t d = 0; d < D; ++d) row[d] /= length;
    }
    return rows;
}

}  // namespace

Searcher::Searcher(const Model& model, const Adapter& adapter, int threads) : model_(model), adapter_(adapter), threads_(threads) {
    if (model.photos_move && !adapter.coefficients.empty())
        moved_ = embed(model, adapter, nullptr, model.photo_features.data(), model.count(), threads);
}

std::vector<Hit> Searcher::search(const float* sketch, std::size_t k) const {
    const float* shift = adapter_.sketch_shift.empty() ? nullptr : adapter_.sketch_shift.data();
    const std::vector<float> query = embed(model_, adapter_, shift, sketch, 1, threads_);
    const std::vector<float>& photos = moved_.empty() ? model_.photo_embeddings : moved_;
    std::vector<float> scores(model_.photos.size());
    for (std::size_t i = 0; i < scores.size(); ++i)
        scores[i] = std::inner_product(query.begin(), query.end(), photos.begin() + static_cast<std::ptrdiff_t>(i * query.size()), 0.0F);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    for (std::size_t first = 0, i = 1; i <= order.size(); ++i) {  // runs of neighbours that tie, each in the gallery's order
        if (i < order.size() && scores[order[i - 1]] - scores[order[i]] <= kTie) continue;
        std::sort(order.begin() + static_cast<std::ptrdiff_t>(first), order.begin() + static_cast<std::ptrdiff_t>(i));
        first = i;
    }
    std::vector<Hit> hits;
    for (std::size_t i = 0; i < std::min(k, order.size()); ++i)
        hits.push_back({static_cast<std::int64_t>(order[i]), std::sqrt(std::max(0.0, 2.0 - 2.0 * double{scores[order[i]]}))});
    return hits;
}

}  // namespace robot
