#include "search.h"

#include <fgsbir/flat_search.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace robot {
namespace {

constexpr float kTie = 1e-6F, kSmallestNorm = 1e-12F;
constexpr std::size_t kSpare = 16;  // photos looked at beyond those wanted, to see where ties end

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
    const auto photos_count = model_.photos.size();
    if (photos_count == 0 || k == 0) return {};
    std::vector<float> scores;
    std::vector<std::int64_t> order;
    for (std::size_t count = std::min(photos_count, k + kSpare);; count = std::min(photos_count, 4 * count)) {
        scores.resize(count);
        order.resize(count);
        fgsbir::top_products({photos.data(), nullptr, model_.count(), model_.width}, query.data(), 1, nullptr,
                             static_cast<std::int64_t>(count), scores.data(), order.data(), threads_);
        // whatever was left out must lie farther than the k-th, and not tie with it
        if (count == photos_count || scores[k - 1] - kTie > scores[count - 1]) break;
    }
    while (order.size() > k && scores[order.size() - 1] < scores[k - 1] - kTie) order.pop_back();
    std::map<std::int64_t, float> score_of;
    for (std::size_t i = 0; i < order.size(); ++i) score_of[order[i]] = scores[i];
    for (std::size_t first = 0, i = 1; i <= order.size(); ++i) {  // runs of neighbours that tie, each in the gallery's order
        if (i < order.size() && scores[i - 1] - scores[i] <= kTie) continue;
        std::sort(order.begin() + static_cast<std::ptrdiff_t>(first), order.begin() + static_cast<std::ptrdiff_t>(i));
        first = i;
    }
    std::vector<Hit> hits;
    for (std::size_t i = 0; i < std::min(k, order.size()); ++i)
        hits.push_back({order[i], std::sqrt(std::max(0.0, 2.0 - 2.0 * double{score_of[order[i]]}))});
    return hits;
}

}  // namespace robot
