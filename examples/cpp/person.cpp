#include "person.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace robot {
namespace {

constexpr std::int64_t kMinPairs = 3, kMaxCandidates = 4096, kMaxNegatives = 64;
constexpr double kWorse = 1.25, kDiverged = 1.5, kLossFloor = 0.01;  // as fgsbir_edge/guard.py

// At most `most` photos, evenly spaced over the gallery. (Python draws them at random; up to `most` photos both take all.)
std::vector<float> some_photos(const Model& model, std::int64_t most) {
    const std::int64_t count = std::min(most, model.count());
    std::vector<float> rows;
    rows.reserve(static_cast<std::size_t>(count * model.features));
    for (std::int64_t i = 0; i < count; ++i) {
        const float* row = model.features_of(i * model.count() / count);
        rows.insert(rows.end(), row, row + model.features);
    }
    return rows;
}

bool finite(const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

struct Ranks {
    double base = 0.0, adapted = 0.0;  // means over the pairs whose photo no other pair shows
    std::int64_t asked = 0;
};

Ranks mean_ranks(const fgsbir::AdaptPeoplePlan& plan, const fgsbir::AdaptLayout<float>& layout,
                 const std::vector<std::int32_t>& base, const std::vector<std::int32_t>& adapted) {
    Ranks mean;
    for (std::size_t task = 1; task < plan.left_out.size(); ++task) {
        const std::int32_t photo = layout.photo_of[static_cast<std::size_t>(plan.left_out[task])];
        if (std::count(layout.photo_of.begin(), layout.photo_of.end(), photo) != 1) continue;
        mean.base += base[task];
        mean.adapted += adapted[task];
        ++mean.asked;
    }
    if (mean.asked > 0) mean.base /= static_cast<double>(mean.asked), mean.adapted /= static_cast<double>(mean.asked);
    return mean;
}

}  // namespace

Learned learn(const Model& model, const std::vector<Pair>& pairs, int threads) {
    if (pairs.empty()) throw std::runtime_error("no sketch-photo pairs; give at least one, three or more let the guard check them");
    const auto k = static_cast<std::int64_t>(pairs.size());
    const std::int64_t C = model.features, D = model.width;
    std::vector<float> sketches, photos, others;
    for (const Pair& pair : pairs) {
        sketches.insert(sketches.end(), pair.sketch, pair.sketch + C);
        photos.insert(photos.end(), model.features_of(pair.photo), model.features_of(pair.photo) + C);
    }
    if (model.negatives == fgsbir::AdaptNegatives::gallery) others = some_photos(model, kMaxNegatives + k);

    // The support: every row once, its outputs by the base head, and all inner products.
    const fgsbir::AdaptEpisode<float> episode{sketches.data(), photos.data(), others.data(), k,
                                              static_cast<std::int64_t>(others.size()) / C};
    const fgsbir::AdaptHead<float> head = model.head();
    const fgsbir::AdaptLayout<float> layout = fgsbir::lay_out(&episode, 1, C);
    const auto m = static_cast<std::size_t>(layout.row_offsets.back()), wide = static_cast<std::size_t>(D);
    std::vector<float> rows(m * static_cast<std::size_t>(C)), outputs(m * wide), gram(static_cast<std::size_t>(layout.gram_size));
    fgsbir::fill_supports(head, layout, rows.data(), outputs.data(), gram.data(), threads);

    // The tasks: one with all pairs, and from three pairs on one more for each pair that is left out.
    fgsbir::AdaptPeople people{};
    people.row_offsets = layout.row_offsets.data();
    people.pair_offsets = layout.pair_offsets.data();
    people.photo_of = layout.photo_of.data();
    people.count = 1;
    people.fold_pairs = kMinPairs;
    people.negatives = model.negatives;
    people.photos_move = model.photos_move;
    people.margin = model.margin_net.empty() ? model.margin : std::nan("");
    fgsbir::AdaptBatch<float> batch{};
    fgsbir::AdaptCandidates<float> candidates;
    if (k >= kMinPairs) {
        const std::vector<float> pool = some_photos(model, kMaxCandidates);
        candidates = fgsbir::gather_candidates(head, people, rows.data(), outputs.data(), gram.data(), pool.data(),
                                               static_cast<std::int64_t>(pool.size()) / C, threads);
        people.truth = candidates.truth.data();
        batch.pools = candidates.pools();
    }
    fgsbir::AdaptPeoplePlan plan = fgsbir::plan_people(people);
    plan.centre(people, {model.centre}, outputs.data(), D);  // what all sketches have in common is taken from them
    batch.supports = {outputs.data(), gram.data(), plan.moves.data(), people.row_offsets, plan.gram_offsets.data(), 1, D,
                      plan.sketches.data()};
    batch.tasks = plan.tasks();
    std::int64_t hidden = 0;
    while (2 * hidden * hidden + 6 * hidden + 1 < static_cast<std::int64_t>(model.margin_net.size())) ++hidden;
    batch.margin_net = {model.margin_net.data(), hidden};
    batch.rule = {model.step_sizes.data(), static_cast<std::int64_t>(model.step_sizes.size()), 0.0, model.sharpness,
                  fgsbir::AdaptForm::automatic};

    const auto tasks = static_cast<std::size_t>(batch.tasks.count), steps = model.step_sizes.size() + 1;
    Learned learned;
    std::vector<float>& coefficients = learned.adapter.coefficients;
    coefficients.resize(m * wide);
    std::vector<double> losses(tasks * steps), margins(tasks);
    std::vector<std::int32_t> base(tasks), adapted(tasks);
    fgsbir::adapt(batch, {coefficients.data(), nullptr, losses.data(), margins.data(), base.data(), adapted.data()}, threads);

    // The adapter: the rows that moved, sketches first, and the shift of the task with all pairs.
    const bool triplets = plan.triplet_offsets[1] > plan.triplet_offsets[0];
    const std::size_t moved = !triplets ? 0 : model.photos_move ? m : pairs.size();
    coefficients.resize(moved * wide);
    learned.adapter.support.assign(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(moved) * C);
    if (!plan.shifts.empty()) {
        learned.adapter.sketch_shift.resize(wide);
        std::transform(plan.shifts.begin(), plan.shifts.begin() + D, learned.adapter.sketch_shift.begin(),
                       [](double value) { return static_cast<float>(value); });
    }
    if (triplets) learned.losses.assign(losses.begin(), losses.begin() + static_cast<std::ptrdiff_t>(steps));

    // The verdict. NaN never comes into force.
    bool sound = finite(coefficients) && finite(learned.adapter.sketch_shift);
    for (const double loss : learned.losses) sound = sound && std::isfinite(loss);
    if (sound && triplets) sound = learned.losses.back() <= kDiverged * std::max(learned.losses.front(), kLossFloor);
    const Ranks ranks = mean_ranks(plan, layout, base, adapted);
    char found[96] = "not checked";
    if (ranks.asked > 0) std::snprintf(found, sizeof found, "mean leave-one-out rank %.2f -> %.2f", ranks.base, ranks.adapted);
    if (!triplets && learned.adapter.sketch_shift.empty()) {
        learned.explanation = "base head kept: one photo has nothing to be told from; add pairs of other photos";
    } else if (!sound) {
        learned.explanation = "base head kept: the support loss grew, or something is not finite";
    } else if (ranks.asked > 0 && ranks.adapted > kWorse * ranks.base) {
        learned.explanation = std::string("base head kept: ") + found;
    } else {
        learned.explanation = std::string("adapted: ") + found;
        learned.adapted = true;
        return learned;
    }
    learned.adapter = {};
    learned.adapted = false;
    return learned;
}

}  // namespace robot
