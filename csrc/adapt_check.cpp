// What adapt() refuses, with messages that name the array and the remedy.
#include <cmath>
#include <stdexcept>
#include <string>

#include "adapt.h"

namespace fgsbir {
namespace {

constexpr std::int64_t kMostItems = 32768;  // its Gram matrix is 4 GiB, and places in it are 32-bit numbers

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument("adapt: " + message); }

std::string text(std::int64_t number) { return std::to_string(number); }

void check_offsets(const char* name, const std::int64_t* offsets, std::int64_t count) {
    if (offsets[0] != 0) refuse(std::string(name) + " must begin with 0");
    for (std::int64_t i = 0; i < count; ++i) {
        if (offsets[i] > offsets[i + 1]) refuse(std::string(name) + " must not decrease, but does at " + text(i + 1));
    }
}

void check_rule(const AdaptRule& rule) {
    if (rule.num_steps < 0) refuse("the number of steps is negative");
    if (!(rule.sharpness >= 0.0 && std::isfinite(rule.sharpness))) {
        refuse("sharpness is " + std::to_string(rule.sharpness) + ", expected 0 (hinge) or a positive number");
    }
    if (!std::isfinite(rule.momentum)) refuse("momentum is " + std::to_string(rule.momentum) + ", expected a finite number");
    if (rule.form != AdaptForm::automatic && rule.form != AdaptForm::gram && rule.form != AdaptForm::span) {
        refuse("form is unknown; expected automatic, gram or span");
    }
}

void check_triplets(const std::int32_t* triplets, std::int64_t first, std::int64_t last, std::int64_t items) {
    for (std::int64_t i = 3 * first; i < 3 * last; ++i) {
        if (triplets[i] >= 0 && triplets[i] < items) continue;
        refuse("triplets[" + text(i / 3) + "] names item " + text(triplets[i]) + ", but there are " + text(items));
    }
}

template <typename Real>
void check_query(const AdaptBatch<Real>& batch, std::int64_t task, std::int64_t support, std::int64_t items) {
    const AdaptTasks& tasks = batch.tasks;
    const AdaptPools<Real>& pools = batch.pools;
    if (tasks.query == nullptr || tasks.query[task] == -1) return;
    if (tasks.query[task] < 0 || tasks.query[task] >= items) {
        refuse("the query of task " + text(task) + " is item " + text(tasks.query[task]) + ", but there are " + text(items));
    }
    if (pools.count == 0 || pools.pool_of[support] < 0) {
        refuse("task " + text(task) + " has a query, but its support has no pool of photos to rank it among");
    }
    const std::int64_t pool = pools.pool_of[support], photos = pools.row_offsets[pool + 1] - pools.row_offsets[pool];
    if (tasks.truth[task] < 0 || tasks.truth[task] >= photos) {
        refuse("the true photo of task " + text(task) + " is " + text(tasks.truth[task]) + ", but its pool has " + text(photos));
    }
}

}  // namespace

template <typename Real>
void check_adapt(const AdaptBatch<Real>& batch) {
    const AdaptSupports<Real>& supports = batch.supports;
    const AdaptPools<Real>& pools = batch.pools;
    const AdaptTasks& tasks = batch.tasks;
    check_rule(batch.rule);
    if (supports.width < 1) refuse("outputs have no columns, expected at least one item and one dimension");
    if (supports.count < 0 || pools.count < 0 || tasks.count < 0 || batch.margin_net.hidden < 0) refuse("a count is negative");
    check_offsets("row_offsets", supports.row_offsets, supports.count);
    if (pools.count > 0) check_offsets("pool row_offsets", pools.row_offsets, pools.count);
    for (std::int64_t s = 0; pools.count > 0 && s < supports.count; ++s) {
        if (pools.pool_of[s] >= -1 && pools.pool_of[s] < pools.count) continue;
        refuse("pool_of[" + text(s) + "] is " + text(pools.pool_of[s]) + ", but there are " + text(pools.count) + " pools");
    }
    check_offsets("triplet_offsets", tasks.triplet_offsets, tasks.count);
    if (tasks.shifts != nullptr && supports.shifted == nullptr) refuse("there are shifts, but not which rows they move");
    for (std::int64_t b = 0; b < tasks.count; ++b) {
        const std::int64_t s = tasks.support[b];
        if (s < 0 || s >= supports.count) {
            refuse("task " + text(b) + " names support " + text(s) + ", but there are " + text(supports.count));
        }
        const std::int64_t items = supports.row_offsets[s + 1] - supports.row_offsets[s];
        if (items < 1) refuse("support " + text(s) + " has no rows, expected at least one item and one dimension");
        if (items > kMostItems) {
            refuse("support " + text(s) + " has " + text(items) + " rows, expected at most " + text(kMostItems) +
                   "; take fewer negatives");
        }
        check_triplets(tasks.triplets, tasks.triplet_offsets[b], tasks.triplet_offsets[b + 1], items);
        if (batch.margin_net.hidden == 0 && std::isnan(tasks.margins[b])) {
            refuse("the margin of task " + text(b) + " is NaN and there is no margin network; give a number");
        }
        check_query(batch, b, s, items);
    }
}

template void check_adapt<float>(const AdaptBatch<float>&);
template void check_adapt<double>(const AdaptBatch<double>&);

}  // namespace fgsbir
