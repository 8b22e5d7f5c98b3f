// Which triplets a support gives, with all pairs and with each one left out.
#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "adapt.h"

namespace fgsbir {
namespace {

void check_pairs(const std::int32_t* photo_of, std::int64_t pairs, std::int64_t items) {
    if (pairs < 0 || pairs > items) {
        throw std::invalid_argument("adapt: " + std::to_string(pairs) + " pairs cannot have " + std::to_string(items) + " rows");
    }
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        if (photo_of[pair] == -1 || (photo_of[pair] >= pairs && photo_of[pair] < items)) continue;
        throw std::invalid_argument("adapt: photo_of[" + std::to_string(pair) + "] is " + std::to_string(photo_of[pair]) +
                                    ", expected the row of a photo, " + std::to_string(pairs) + " to " +
                                    std::to_string(items - 1));
    }
}

// Appends the triplets of all pairs but one.
class Planner {
  public:
    Planner(const std::int32_t* photo_of, std::int64_t pairs, std::int64_t items, AdaptNegatives negatives)
        : photo_of_(photo_of), pairs_(pairs) {
        check_pairs(photo_of, pairs, items);
        if (negatives == AdaptNegatives::gallery) {
            pool_.resize(static_cast<std::size_t>(items - pairs));
            std::iota(pool_.begin(), pool_.end(), static_cast<std::int32_t>(pairs));
        } else {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                if (photo_of[pair] != -1) pool_.push_back(photo_of[pair]);
            }
            std::sort(pool_.begin(), pool_.end());
            named_once_.assign(static_cast<std::size_t>(items), 0);
            for (const std::int32_t photo : pool_) ++named_once_[static_cast<std::size_t>(photo)];
            pool_.erase(std::unique(pool_.begin(), pool_.end()), pool_.end());
        }
    }

    void append(std::int64_t left_out, std::vector<std::int32_t>& triplets) const {
        // Of the support's own photos, the one that only the pair left out names is not known to this task.
        std::int32_t unknown = -1;
        if (left_out >= 0 && photo_of_[left_out] != -1 && !named_once_.empty() &&
            named_once_[static_cast<std::size_t>(photo_of_[left_out])] == 1) {
            unknown = photo_of_[left_out];
        }
        for (std::int64_t pair = 0; pair < pairs_; ++pair) {
            if (pair == left_out || photo_of_[pair] == -1) continue;
            for (const std::int32_t other : pool_) {
                if (other == photo_of_[pair] || other == unknown) continue;
                triplets.push_back(static_cast<std::int32_t>(pair));
                triplets.push_back(photo_of_[pair]);
                triplets.push_back(other);
            }
        }
    }

  private:
    const std::int32_t* photo_of_;
    std::int64_t pairs_;
    std::vector<std::int32_t> pool_, named_once_;  // how many pairs name a photo; empty where that does not matter
};

}  // namespace

AdaptPlan plan_adapt(const std::int32_t* photo_of, std::int64_t pairs, std::int64_t items, AdaptNegatives negatives, bool folds) {
    const Planner planner(photo_of, pairs, items, negatives);
    AdaptPlan plan;
    plan.triplet_offsets.push_back(0);
    for (std::int64_t left_out = -1; left_out < (folds ? pairs : 0); ++left_out) {
        if (left_out >= 0 && photo_of[left_out] == -1) continue;
        planner.append(left_out, plan.triplets);
        plan.triplet_offsets.push_back(static_cast<std::int64_t>(plan.triplets.size() / 3));
        plan.left_out.push_back(static_cast<std::int32_t>(left_out));
    }
    return plan;
}

AdaptPeoplePlan plan_people(const AdaptPeople& people) {
    AdaptPeoplePlan plan;
    plan.photos_move = people.photos_move;
    plan.moves.assign(static_cast<std::size_t>(people.row_offsets[people.count]), people.photos_move ? 1 : 0);
    plan.sketches.assign(plan.moves.size(), 0);
    plan.triplet_offsets.push_back(0);
    plan.first_task.push_back(0);
    std::int64_t gram = 0;
    for (std::int64_t s = 0; s < people.count; ++s) {
        const std::int64_t row = people.row_offsets[s], items = people.row_offsets[s + 1] - row;
        const std::int64_t pair = people.pair_offsets[s], pairs = people.pair_offsets[s + 1] - pair;
        const Planner planner(people.photo_of + pair, pairs, items, people.negatives);
        std::fill_n(plan.moves.begin() + row, pairs, std::uint8_t{1});
        std::fill_n(plan.sketches.begin() + row, pairs, std::uint8_t{1});
        plan.gram_offsets.push_back(gram);
        gram += items * items;
        const bool folds = people.fold_pairs > 0 && pairs >= people.fold_pairs;
        for (std::int64_t left_out = -1; left_out < (folds ? pairs : 0); ++left_out) {
            if (left_out >= 0 && people.photo_of[pair + left_out] == -1) continue;
            planner.append(left_out, plan.triplets);
            const bool ranked = left_out >= 0 && people.truth != nullptr;
            plan.triplet_offsets.push_back(static_cast<std::int64_t>(plan.triplets.size() / 3));
            plan.support.push_back(static_cast<std::int32_t>(s));
            plan.result_rows.push_back(left_out < 0 ? row : -1);
            plan.left_out.push_back(static_cast<std::int32_t>(left_out));
            plan.query.push_back(ranked ? static_cast<std::int32_t>(left_out) : -1);
            plan.truth.push_back(ranked ? people.truth[pair + left_out] : -1);
            plan.margins.push_back(people.margin);
        }
        plan.first_task.push_back(static_cast<std::int64_t>(plan.support.size()));
    }
    return plan;
}

AdaptTasks AdaptPeoplePlan::tasks() const {
    const std::int64_t count = static_cast<std::int64_t>(support.size());
    const std::uint8_t both = photos_move ? 1 : 0;
    return {support.data(), triplets.data(), triplet_offsets.data(), margins.data(), result_rows.data(),
            query.data(),   truth.data(),    count,                  both,           shifts.empty() ? nullptr : shifts.data()};
}

template <typename Real>
void AdaptPeoplePlan::centre(const AdaptPeople& people, AdaptCentre centre, const Real* outputs, std::int64_t width) {
    if (!(centre.prior >= 0.0)) {
        throw std::invalid_argument("adapt: the prior of the centre is " + std::to_string(centre.prior) +
                                    ", expected 0 or more, or infinity for none");
    }
    shifts.clear();
    if (centre.prior == std::numeric_limits<double>::infinity()) return;
    shifts.resize(support.size() * static_cast<std::size_t>(width));
    for (std::size_t task = 0; task < support.size(); ++task) {
        const std::int64_t s = support[task], row = people.row_offsets[s], pair = people.pair_offsets[s];
        double* shift = shifts.data() + task * static_cast<std::size_t>(width);
        std::int64_t taking_part = 0;
        for (std::int64_t i = 0; i < people.pair_offsets[s + 1] - pair; ++i) {
            if (people.photo_of[pair + i] == -1 || i == left_out[task]) continue;
            ++taking_part;
            for (std::int64_t d = 0; d < width; ++d) shift[d] -= static_cast<double>(outputs[(row + i) * width + d]);
        }
        const double share = taking_part == 0 ? 0.0 : 1.0 / (static_cast<double>(taking_part) + centre.prior);
        for (std::int64_t d = 0; d < width; ++d) shift[d] *= share;
    }
}

template void AdaptPeoplePlan::centre<float>(const AdaptPeople&, AdaptCentre, const float*, std::int64_t);
template void AdaptPeoplePlan::centre<double>(const AdaptPeople&, AdaptCentre, const double*, std::int64_t);

}  // namespace fgsbir
