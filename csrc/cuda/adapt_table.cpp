// From a batch of adaptation tasks to the kernel's table (adapt_table.h). Plain C++, runs on the host once for each batch layout.
#include "cuda/adapt_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "adapt_cuda.h"

namespace fgsbir {
namespace {

using cuda::AdaptLists;
using cuda::AdaptPlaces;
using cuda::AdaptRecord;
using cuda::AdaptSizes;

constexpr std::int64_t kMaxWords = std::int64_t{1} << 26;  // of a matrix or list: sums of a dozen of them still fit in 31 bits
constexpr std::int32_t kHeavyMeetings = 16;
constexpr double kGramAdvantage = 2.0;     // by count, since counting leaves out what the factorisation waits for
constexpr std::int32_t kMaxGramRows = 32;  // beyond it, the factorisation's row after row costs more than it saves

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

[[noreturn]] void too_large(std::int64_t task, const std::string& what, const std::string& remedy) {
    throw std::invalid_argument("adapt_cuda: task " + std::to_string(task) + " has " + what + "; " + remedy);
}

// A set of triplets as the kernel wants it. Depends on the rows' numbers alone, so tasks of the same pattern share one.
struct Structure {
    AdaptSizes sizes{};
    std::int32_t run_lanes = 1;
    bool carries = false;             // rows that move although no triplet names them
    std::vector<std::int32_t> lists;  // as adapt_lists() says
};

class Builder {
  public:
    Builder(const std::uint8_t* moves, std::int64_t items, const std::int32_t* triplets, std::int64_t count)
        : moves_(moves), triplets_(triplets), order_(at(count)), items_(items) {}

    Structure build(std::int64_t task) {
        sort_triplets();
        collect_pairs();
        number_rows(task);
        return write(task);
    }

  private:
    using Pair = std::pair<std::int32_t, std::int32_t>;  // anchor and the other row, rows of the support

    Pair pair_of(std::int64_t position, int side) const {
        const std::int32_t* triplet = triplets_ + 3 * order_[at(position)];
        return {triplet[0], triplet[side]};
    }

    std::int64_t count() const { return static_cast<std::int64_t>(order_.size()); }

    void sort_triplets() {
        std::iota(order_.begin(), order_.end(), std::int64_t{0});
        std::stable_sort(order_.begin(), order_.end(), [this](std::int64_t i, std::int64_t j) {
            const std::int32_t *a = triplets_ + 3 * i, *b = triplets_ + 3 * j;
            return Pair{a[0], a[1]} < Pair{b[0], b[1]};
        });
    }

    // The runs' pairs first, in their order, then the other pairs of anchor and negative, ascending.
    void collect_pairs() {
        for (std::int64_t t = 0; t < count(); ++t) {
            if (pairs_.empty() || pairs_.back() != pair_of(t, 1)) {
                pairs_.push_back(pair_of(t, 1));
                run_begin_.push_back(static_cast<std::int32_t>(t));
            }
            run_of_.push_back(static_cast<std::int32_t>(pairs_.size()) - 1);
        }
        runs_ = static_cast<std::int64_t>(pairs_.size());
        run_begin_.push_back(static_cast<std::int32_t>(count()));
        std::vector<Pair> negatives;
        for (std::int64_t t = 0; t < count(); ++t) negatives.push_back(pair_of(t, 2));
        std::sort(negatives.begin(), negatives.end());
        negatives.erase(std::unique(negatives.begin(), negatives.end()), negatives.end());
        for (const Pair& pair : negatives) {
            if (!std::binary_search(pairs_.begin(), pairs_.begin() + runs_, pair)) pairs_.push_back(pair);
        }
    }

    std::int32_t index_of(const Pair& pair) const {
        for (const auto& [begin, end] : {Pair{0, static_cast<std::int32_t>(runs_)},
                                         Pair{static_cast<std::int32_t>(runs_), static_cast<std::int32_t>(pairs_.size())}}) {
            const auto found = std::lower_bound(pairs_.begin() + begin, pairs_.begin() + end, pair);
            if (found != pairs_.begin() + end && *found == pair) return static_cast<std::int32_t>(found - pairs_.begin());
        }
        throw std::logic_error("adapt_cuda: a pair is missing from its own list");
    }

    // Moving rows first, those that meet most others in front; then the rows that stay.
    void number_rows(std::int64_t task) {
        std::vector<std::int32_t> meets(at(items_), 0);
        for (const Pair& pair : pairs_) {
            ++meets[at(pair.first)];
            ++meets[at(pair.second)];
        }
        for (std::int32_t row = 0; row < items_; ++row) {
            if (meets[at(row)] > 0) row_of_.push_back(row);
        }
        if (row_of_.size() > at(cuda::kMaxUsed)) {
            too_large(task, std::to_string(row_of_.size()) + " rows in its triplets, at most 65535 go", "use adapt() on the CPU");
        }
        std::stable_sort(row_of_.begin(), row_of_.end(), [&](std::int32_t a, std::int32_t b) {
            const bool a_moves = moves_[a] != 0, b_moves = moves_[b] != 0;
            if (a_moves != b_moves) return a_moves;
            return a_moves && meets[at(a)] > meets[at(b)];
        });
        local_of_.assign(at(items_), cuda::kStays);
        for (std::int32_t row = 0; row < items_; ++row) {
            if (moves_[row] != 0) local_of_[at(row)] = cuda::kCarried;
        }
        for (std::size_t i = 0; i < row_of_.size(); ++i) {
            const auto row = at(row_of_[i]);
            local_of_[row] = static_cast<std::int32_t>(i);
            if (moves_[row] == 0) continue;
            ++moving_;
            if (meets[row] >= kHeavyMeetings) ++heavy_;
        }
    }

    Structure write(std::int64_t task) const {
        std::vector<std::vector<std::int32_t>> meetings(at(moving_));  // pair, other row, pair, other row, ...
        std::int64_t words = 0;
        for (std::size_t p = 0; p < pairs_.size(); ++p) {
            const std::int32_t anchor = local_of_[at(pairs_[p].first)], other = local_of_[at(pairs_[p].second)];
            for (const auto& [own, met] : {Pair{anchor, other}, Pair{other, anchor}}) {
                if (own >= moving_) continue;
                meetings[at(own)].insert(meetings[at(own)].end(), {static_cast<std::int32_t>(p), met});
                words += 2;
            }
        }
        if (words > kMaxWords) too_large(task, std::to_string(words / 2) + " meetings of rows", "split its triplets");

        Structure structure;
        AdaptSizes& sizes = structure.sizes;
        sizes.items = static_cast<std::int32_t>(items_);
        sizes.used = static_cast<std::int32_t>(row_of_.size());
        sizes.moving = moving_;
        sizes.heavy = heavy_;
        sizes.triplets = static_cast<std::int32_t>(count());
        sizes.runs = static_cast<std::int32_t>(runs_);
        sizes.pairs = static_cast<std::int32_t>(pairs_.size());
        sizes.meetings = static_cast<std::int32_t>(words / 2);
        structure.carries = std::find(local_of_.begin(), local_of_.end(), cuda::kCarried) != local_of_.end();
        while (structure.run_lanes < 32 && structure.run_lanes * runs_ < count()) structure.run_lanes *= 2;

        const AdaptLists lists = cuda::adapt_lists(sizes);
        structure.lists.assign(at(lists.end), 0);
        const auto list = [&](std::int32_t begin) { return structure.lists.begin() + begin; };
        std::vector<std::vector<std::int32_t>> pushes(pairs_.size());
        for (std::int64_t t = 0; t < count(); ++t) {
            const std::int32_t negative = index_of(pair_of(t, 2));
            *list(lists.triplet_pairs + static_cast<std::int32_t>(2 * t)) = run_of_[at(t)];
            *list(lists.triplet_pairs + static_cast<std::int32_t>(2 * t + 1)) = negative;
            pushes[at(negative)].push_back(static_cast<std::int32_t>(t));
        }
        for (std::size_t p = 0; p < pairs_.size(); ++p) {
            const auto anchor = static_cast<std::uint32_t>(local_of_[at(pairs_[p].first)]);
            const auto other = static_cast<std::uint32_t>(local_of_[at(pairs_[p].second)]);
            *(list(lists.pair_rows) + static_cast<std::ptrdiff_t>(p)) = static_cast<std::int32_t>(anchor | other << 16);
        }
        std::copy(run_begin_.begin(), run_begin_.end(), list(lists.run_begin));
        flatten(pushes, 1, list(lists.push_begin), list(lists.push_triplet));
        flatten(meetings, 2, list(lists.row_begin), list(lists.meetings));
        std::copy(row_of_.begin(), row_of_.end(), list(lists.row_of));
        std::copy(local_of_.begin(), local_of_.end(), list(lists.local_of));
        return structure;
    }

    // begin [n + 1] counts entries of `each` words.
    template <typename Place>
    static void flatten(const std::vector<std::vector<std::int32_t>>& rows, std::int32_t each, Place begin, Place words) {
        std::int32_t end = 0;
        for (const auto& row : rows) {
            words = std::copy(row.begin(), row.end(), words);
            end += static_cast<std::int32_t>(row.size()) / each;
            *++begin = end;
        }
    }

    const std::uint8_t* moves_;
    const std::int32_t* triplets_;
    std::vector<std::int64_t> order_;  // [t] triplets by anchor and positive
    std::int64_t items_, runs_ = 0;
    std::int32_t moving_ = 0, heavy_ = 0;
    std::vector<Pair> pairs_;
    std::vector<std::int32_t> run_begin_, run_of_, row_of_, local_of_;
};

// Structures of all tasks, each kind once.
class Structures {
  public:
    struct Entry {
        AdaptSizes sizes;
        std::int32_t run_lanes;
        bool carries;
        std::int64_t lists_at;
    };

    const Entry& of(const AdaptBatch<float>& batch, std::int64_t task) {
        const std::int64_t s = batch.tasks.support[task], row = batch.supports.row_offsets[s];
        const std::int64_t items = batch.supports.row_offsets[s + 1] - row, first = batch.tasks.triplet_offsets[task];
        const std::int64_t count = batch.tasks.triplet_offsets[task + 1] - first;
        if (items > kMaxWords || count > kMaxWords / 2) {
            too_large(task, std::to_string(items) + " rows and " + std::to_string(count) + " triplets", "split it");
        }
        std::string key(reinterpret_cast<const char*>(batch.supports.moves + row), at(items));
        key.append(reinterpret_cast<const char*>(batch.tasks.triplets + 3 * first), at(3 * count) * sizeof(std::int32_t));
        key.append(std::to_string(items));  // moves and triplets could otherwise be cut apart in two ways
        const auto [found, fresh] = known_.try_emplace(std::move(key));
        if (fresh) {
            Structure made = Builder(batch.supports.moves + row, items, batch.tasks.triplets + 3 * first, count).build(task);
            found->second = {made.sizes, made.run_lanes, made.carries, static_cast<std::int64_t>(words.size())};
            words.insert(words.end(), made.lists.begin(), made.lists.end());
        }
        return found->second;
    }

    std::vector<std::int32_t> words;

  private:
    std::unordered_map<std::string, Entry> known_;
};

// Multiplications of the whole task in either form; in gram form with a count for each row's turn in the factorisation that
// stands for the time the block waits there. Counted, not measured.
struct Costs {
    double span, gram;
};
Costs count_costs(const AdaptSizes& s, std::int64_t width, std::int64_t steps) {
    const double pairs = 3.0 * s.pairs, moves = s.meetings + static_cast<double>(s.moving) * s.moving, used = s.used;
    const double turns = static_cast<double>(steps) + 1.0, columns = static_cast<double>(width);
    return {turns * columns * (pairs + moves),
            turns * used * (pairs + 2.0 * moves) + columns * used * (5.0 * used + 2.0 * s.moving) + 20000.0 * used};
}

// With fewer columns than rows the rows depend on one another, and combinations of them could grow without bound that add up to
// nothing: there span form is both the cheaper and the exact one.
bool takes_gram_form(const AdaptSizes& s, std::int64_t width, const AdaptRule& rule) {
    if (rule.form == AdaptForm::span || width < s.used) return false;
    if (rule.form == AdaptForm::gram) return true;
    const Costs costs = count_costs(s, width, rule.num_steps);
    return s.used <= kMaxGramRows && kGramAdvantage * costs.gram < costs.span;
}

}  // namespace

AdaptCudaPlan plan_adapt_cuda(const AdaptBatch<float>& batch, const AdaptCudaDevice& device) {
    check_adapt(batch);
    if (batch.tasks.shifts != nullptr) {
        throw std::invalid_argument("adapt_cuda: there are shifts; add them to outputs instead, a support for each task");
    }
    const auto& [supports, pools, tasks, net, rule] = batch;
    AdaptCudaPlan plan;
    plan.tasks = tasks.count;
    plan.width = supports.width;
    plan.num_steps = rule.num_steps;
    plan.hidden = net.hidden;
    plan.momentum = rule.momentum;
    plan.sharpness = rule.sharpness;
    plan.photos_move = tasks.photos_move != 0;
    if (supports.width > kMaxWords || net.hidden > 4096 || rule.num_steps > kMaxWords ||
        tasks.count > std::numeric_limits<int>::max()) {
        throw std::invalid_argument(
            "adapt_cuda: embedding width, network, steps or number of tasks are beyond the kernel's limits (" +
            std::to_string(supports.width) + ", " + std::to_string(net.hidden) + ", " + std::to_string(rule.num_steps) + ", " +
            std::to_string(tasks.count) + "); use adapt() on the CPU");
    }

    Structures structures;
    std::vector<AdaptRecord> records;
    std::vector<double> cost;
    std::int64_t shared_words = 0, workspace_words = 0, work = 0;
    for (std::int64_t b = 0; b < tasks.count; ++b) {
        const Structures::Entry& structure = structures.of(batch, b);
        const std::int64_t s = tasks.support[b];
        AdaptRecord record{};
        record.task = b;
        record.outputs_row = supports.row_offsets[s];
        record.gram_at = supports.gram_offsets[s];
        record.result_row = tasks.result_rows[b];
        record.lists_at = structure.lists_at;
        record.margin = tasks.margins[b];
        record.sizes = structure.sizes;
        record.run_lanes = structure.run_lanes;
        record.query = tasks.query == nullptr ? -1 : tasks.query[b];
        plan.predicts |= std::isnan(record.margin);
        plan.ranks |= record.query >= 0;
        if (record.query >= 0) {
            const std::int64_t p = pools.pool_of[s], photos = pools.row_offsets[p + 1] - pools.row_offsets[p];
            record.truth = tasks.truth[b];
            record.pool_row = pools.row_offsets[p];
            record.cross_at = plan.photos_move ? pools.cross_offsets[s] : 0;
            record.photos = static_cast<std::int32_t>(std::min<std::int64_t>(photos, std::numeric_limits<std::int32_t>::max()));
        }
        record.gram_form = takes_gram_form(record.sizes, plan.width, rule) ? 1 : 0;
        record.need_full = record.gram_form != 0 && (record.query >= 0 || (record.result_row >= 0 && structure.carries)) ? 1 : 0;
        const Costs costs = count_costs(record.sizes, plan.width, plan.num_steps);
        cost.push_back(record.gram_form ? costs.gram : costs.span);

        const std::int64_t columns = 4 + (record.gram_form ? 2 * std::int64_t{record.sizes.used} : 0) + plan.width;
        const std::int64_t largest =
            std::int64_t{record.sizes.used} * std::max<std::int64_t>(columns, 2 * (record.sizes.used + 1));
        if (largest > kMaxWords || std::int64_t{record.sizes.moving} * (record.sizes.moving + 4) > kMaxWords) {
            too_large(b, std::to_string(record.sizes.used) + " rows of width " + std::to_string(plan.width), "split its support");
        }
        const std::int32_t staged = cuda::adapt_lists(record.sizes).staged, width = static_cast<std::int32_t>(plan.width);
        const AdaptPlaces places = cuda::adapt_places(record, width, static_cast<std::int32_t>(net.hidden), staged);
        const auto fits = [&](std::int64_t words) { return 4 * words <= static_cast<std::int64_t>(device.shared_bytes); };
        record.memory = fits(places.end) ? cuda::kAllShared : fits(places.tables) ? cuda::kMatricesGlobal : cuda::kAllGlobal;
        const std::int64_t in_shared[] = {0, places.tables, places.end};
        const std::int64_t outside[] = {places.end - staged, places.end - places.tables, 0};
        shared_words = std::max(shared_words, in_shared[record.memory]);
        workspace_words = std::max(workspace_words, outside[record.memory]);
        work = std::max({work, std::int64_t{record.sizes.used} * (places.columns / 4), std::int64_t{record.sizes.pairs} * 2});
        records.push_back(record);
    }

    // The largest tasks start first, so that the last ones to end are short.
    std::vector<std::size_t> order(records.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cost[a] > cost[b]; });
    const std::size_t record_bytes = records.size() * sizeof(AdaptRecord),
                      list_bytes = structures.words.size() * sizeof(std::int32_t);
    plan.lists_at = static_cast<std::int64_t>(record_bytes);
    plan.step_sizes_at = static_cast<std::int64_t>(record_bytes + list_bytes);
    plan.table.resize(record_bytes + list_bytes + at(rule.num_steps) * sizeof(double));
    for (std::size_t i = 0; i < order.size(); ++i) {
        std::memcpy(plan.table.data() + i * sizeof(AdaptRecord), &records[order[i]], sizeof(AdaptRecord));
    }
    if (list_bytes > 0) std::memcpy(plan.table.data() + record_bytes, structures.words.data(), list_bytes);
    if (rule.num_steps > 0) {
        std::memcpy(plan.table.data() + plan.step_sizes_at, rule.step_sizes, at(rule.num_steps) * sizeof(double));
    }

    plan.threads = work <= 256 ? 128 : work <= 2048 ? 256 : 512;
    plan.shared_bytes = at(4 * shared_words);
    // Without a workspace every task has a block of its own; with one, blocks take turns so that it stays small.
    plan.blocks =
        static_cast<int>(workspace_words == 0 ? tasks.count : std::min<std::int64_t>(tasks.count, 2 * device.multiprocessors));
    plan.workspace_bytes = at(4 * workspace_words) * at(plan.blocks);
    return plan;
}

}  // namespace fgsbir
