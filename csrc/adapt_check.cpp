// What adapt() refuses, with messages that name the array and the remedy.
#include <cmath>
#include <stdexcept>
#include <string>

#include "adapt.h"

namespace fgsbir {
namespace {

void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument("adapt: " + message);
}

void check_offsets(const char* name, const std::int64_t* offsets, std::int64_t count) {
    require(offsets[0] == 0, std::string(name) + " must begin with 0");
    for (std::int64_t i = 0; i < count; ++i) {
        require(offsets[i] <= offsets[i + 1], std::string(name) + " must not decrease, but does at " + std::to_string(i + 1));
    }
}

void check_rule(const AdaptRule& rule) {
    require(rule.num_steps >= 0, "the number of steps is negative");
    require(rule.sharpness >= 0.0 && std::isfinite(rule.sharpness),
            "sharpness is " + std::to_string(rule.sharpness) + ", expected 0 (hinge) or a positive number");
    require(std::isfinite(rule.momentum), "momentum is " + std::to_string(rule.momentum) + ", expected a finite number");
    require(rule.form == AdaptForm::automatic || rule.form == AdaptForm::gram || rule.form == AdaptForm::span,
            "form is unknown; expected automatic, gram or span");
}

}  // namespace

template <typename Real>
void check_adapt(const AdaptBatch<Real>& batch) {
    const AdaptSupports<Real>& supports = batch.supports;
    const AdaptPools<Real>& pools = batch.pools;
    const AdaptTasks& tasks = batch.tasks;
    check_rule(batch.rule);
    require(supports.width >= 1, "outputs have no columns, expected at least one item and one dimension");
    require(supports.count >= 0 && pools.count >= 0 && tasks.count >= 0 && batch.margin_net.hidden >= 0, "a count is negative");
    check_offsets("row_offsets", supports.row_offsets, supports.count);
    if (pools.count > 0) {
        check_offsets("pool row_offsets", pools.row_offsets, pools.count);
        for (std::int64_t s = 0; s < supports.count; ++s) {
            require(pools.pool_of[s] >= -1 && pools.pool_of[s] < pools.count,
                    "pool_of[" + std::to_string(s) + "] is " + std::to_string(pools.pool_of[s]) + ", but there are " +
                        std::to_string(pools.count) + " pools");
        }
    }
    check_offsets("triplet_offsets", tasks.triplet_offsets, tasks.count);
    for (std::int64_t b = 0; b < tasks.count; ++b) {
        const std::int64_t s = tasks.support[b];
        require(s >= 0 && s < supports.count, "task " + std::to_string(b) + " names support " + std::to_string(s) +
                                                  ", but there are " + std::to_string(supports.count));
        const std::int64_t items = supports.row_offsets[s + 1] - supports.row_offsets[s];
        require(items >= 1, "support " + std::to_string(s) + " has no rows, expected at least one item and one dimension");
        for (std::int64_t i = 3 * tasks.triplet_offsets[b]; i < 3 * tasks.triplet_offsets[b + 1]; ++i) {
            require(tasks.triplets[i] >= 0 && tasks.triplets[i] < items,
                    "triplets[" + std::to_string(i / 3) + "] names item " + std::to_string(tasks.triplets[i]) + ", but there are " +
                        std::to_string(items));
        }
        require(batch.margin_net.hidden > 0 || !std::isnan(tasks.margins[b]),
                "the margin of task " + std::to_string(b) + " is NaN and there is no margin network; give a number");
        if (tasks.query == nullptr || tasks.query[b] == -1) continue;
        require(tasks.query[b] >= 0 && tasks.query[b] < items, "the query of task " + std::to_string(b) + " is item " +
                                                                   std::to_string(tasks.query[b]) + ", but there are " +
                                                                   std::to_string(items));
        require(pools.count > 0 && pools.pool_of[s] >= 0,
                "task " + std::to_string(b) + " has a query, but its support has no pool of photos to rank it among");
        const std::int64_t p = pools.pool_of[s], photos = pools.row_offsets[p + 1] - pools.row_offsets[p];
        require(tasks.truth[b] >= 0 && tasks.truth[b] < photos, "the true photo of task " + std::to_string(b) + " is " +
                                                                    std::to_string(tasks.truth[b]) + ", but its pool has " +
                                                                    std::to_string(photos));
    }
}

template void check_adapt<float>(const AdaptBatch<float>&);
template void check_adapt<double>(const AdaptBatch<double>&);

}  // namespace fgsbir
