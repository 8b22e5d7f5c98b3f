// Which triplets a support gives, with all pairs and with each one left out.
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "adapt.h"

namespace fgsbir {

AdaptPlan plan_adapt(const std::int32_t* photo_of, std::int64_t pairs, std::int64_t items, AdaptNegatives negatives, bool folds) {
    if (pairs < 0 || pairs > items) {
        throw std::invalid_argument("adapt: " + std::to_string(pairs) + " pairs cannot have " + std::to_string(items) + " rows");
    }
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        if (photo_of[pair] < pairs || photo_of[pair] >= items) {
            throw std::invalid_argument("adapt: photo_of[" + std::to_string(pair) + "] is " + std::to_string(photo_of[pair]) +
                                        ", expected the row of a photo, " + std::to_string(pairs) + " to " +
                                        std::to_string(items - 1));
        }
    }
    AdaptPlan plan;
    plan.triplet_offsets.push_back(0);
    std::vector<std::int32_t> pool;
    for (std::int64_t left_out = -1; left_out < (folds ? pairs : 0); ++left_out) {
        pool.clear();
        if (negatives == AdaptNegatives::gallery) {
            pool.resize(static_cast<std::size_t>(items - pairs));
            std::iota(pool.begin(), pool.end(), static_cast<std::int32_t>(pairs));
        } else {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                if (pair != left_out) pool.push_back(photo_of[pair]);
            }
            std::sort(pool.begin(), pool.end());
            pool.erase(std::unique(pool.begin(), pool.end()), pool.end());
        }
        for (std::int64_t pair = 0; pair < pairs; ++pair) {
            if (pair == left_out) continue;
            for (const std::int32_t other : pool) {
                if (other == photo_of[pair]) continue;
                plan.triplets.insert(plan.triplets.end(), {static_cast<std::int32_t>(pair), photo_of[pair], other});
            }
        }
        plan.triplet_offsets.push_back(static_cast<std::int64_t>(plan.triplets.size() / 3));
        plan.left_out.push_back(static_cast<std::int32_t>(left_out));
    }
    return plan;
}

}  // namespace fgsbir
