#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "adapt.h"
#include "adapt_parts.h"
#include "parallel.h"

namespace fgsbir {
namespace adapt_parts {
namespace {

constexpr Index kNormBlock = 1024;  // photos whose norms are one item of work

// Inverse norms of all pools' photos; nothing where no task has a query.
template <typename Real>
std::vector<Real> pool_norms(const AdaptBatch<Real>& batch, int threads) {
    const AdaptTasks& tasks = batch.tasks;
    if (tasks.query == nullptr || std::all_of(tasks.query, tasks.query + tasks.count, [](std::int32_t row) { return row < 0; })) {
        return {};
    }
    const Index photos = batch.pools.row_offsets[batch.pools.count], width = batch.supports.width;
    std::vector<Real> norms(static_cast<std::size_t>(photos));
    run_workers((photos + kNormBlock - 1) / kNormBlock, threads, [&](ItemQueue& queue) {
        for (Index block = 0; queue.take(block);) {
            const Index first = block * kNormBlock;
            row_loops<Real>().inverse_norms(batch.pools.outputs + first * width, width, std::min(kNormBlock, photos - first),
                                            width, norms.data() + first);
        }
    });
    return norms;
}

// Computes tasks one after another and keeps what belongs to a support while tasks stay with it and have no shifts of their own.
template <typename Real>
class Worker {
  public:
    Worker(const AdaptBatch<Real>& batch, const AdaptResults<Real>& results, const Real* norms)
        : batch_(batch), results_(results), norms_(norms), scratch_(Scratch::mine()) {}
    ~Worker() { scratch_.trim(); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void compute(Index task) {
        const auto start = std::chrono::steady_clock::now();
        const AdaptTasks& tasks = batch_.tasks;
        if (tasks.support[task] != support_ || tasks.shifts != nullptr) {
            scratch_.rewind({0, 0});
            support_ = tasks.support[task];
            const double* shift = tasks.shifts == nullptr ? nullptr : tasks.shifts + task * batch_.supports.width;
            prepared_ = prepare(batch_.supports, support_, shift, scratch_);
            mark_ = scratch_.mark();
        }
        scratch_.rewind(mark_);
        learn(task);
        if (results_.seconds != nullptr) {
            results_.seconds[task] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
    }

  private:
    void learn(Index task) {
        const AdaptTasks& tasks = batch_.tasks;
        const Index steps = batch_.rule.num_steps, first = tasks.triplet_offsets[task];
        const Index count = tasks.triplet_offsets[task + 1] - first;
        const bool wanted = tasks.result_rows[task] >= 0;
        double margin = tasks.margins[task];
        double* losses = results_.losses + task * (steps + 1);
        const Real* coefficients = nullptr;
        Real* moved = nullptr;
        if (count > 0) {
            const TripletGraph graph = make_graph(tasks.triplets + 3 * first, count, prepared_.place, prepared_.items, scratch_);
            const bool gram = batch_.rule.form == AdaptForm::automatic ? prefers_gram(prepared_, graph, steps)
                                                                       : batch_.rule.form == AdaptForm::gram;
            if (gram && prepared_.inner == nullptr) {  // kept for the support's other tasks: made before anything of this one's
                scratch_.rewind(mark_);
                prepare_gram(prepared_, scratch_);
                mark_ = scratch_.mark();
                return learn(task);
            }
            if (wanted && results_.moved != nullptr) moved = scratch_.template take<Real>(prepared_.moving * prepared_.ld_width);
            const TaskView<Real> view{prepared_, graph, batch_.rule, batch_.margin_net, losses, &margin};
            if (gram) coefficients = run_gram(view, scratch_, moved);
            if (coefficients == nullptr) coefficients = run_span(view, scratch_, moved);
        } else {
            std::fill_n(losses, steps + 1, 0.0);
        }
        if (results_.margins != nullptr) results_.margins[task] = margin;
        if (wanted) write(tasks.result_rows[task], coefficients, moved);
        rank(task, coefficients);
    }

    // From positions to rows; rows that do not move have coefficients 0 and their first outputs.
    void write(Index row, const Real* coefficients, const Real* moved) const {
        const Index width = prepared_.width, ld = prepared_.ld_width;
        for (Index i = 0; i < prepared_.items; ++i) {
            const Index at = (row + prepared_.order[i]) * width;
            const bool moves = i < prepared_.moving && coefficients != nullptr;
            if (results_.coefficients != nullptr) {
                if (moves) {
                    std::copy_n(coefficients + i * ld, width, results_.coefficients + at);
                } else {
                    std::fill_n(results_.coefficients + at, width, Real{0});
                }
            }
            if (results_.moved != nullptr) std::copy_n((moves ? moved : prepared_.outputs) + i * ld, width, results_.moved + at);
        }
    }

    void rank(Index task, const Real* coefficients) {
        if (results_.base_ranks == nullptr && results_.adapted_ranks == nullptr) return;
        const bool asked = batch_.tasks.query != nullptr && batch_.tasks.query[task] >= 0;
        const Ranks ranks = asked ? rank_query(batch_, task, prepared_, coefficients, norms_, scratch_) : Ranks{0, 0};
        if (results_.base_ranks != nullptr) results_.base_ranks[task] = ranks.base;
        if (results_.adapted_ranks != nullptr) results_.adapted_ranks[task] = ranks.adapted;
    }

    const AdaptBatch<Real>& batch_;
    const AdaptResults<Real>& results_;
    const Real* norms_;
    Scratch& scratch_;
    Scratch::Mark mark_{0, 0};
    Index support_ = -1;
    Prepared<Real> prepared_{};
};

}  // namespace

}  // namespace adapt_parts

template <typename Real>
void adapt(const AdaptBatch<Real>& batch, const AdaptResults<Real>& results, int threads) {
    check_adapt(batch);
    const bool ranks = results.base_ranks != nullptr || results.adapted_ranks != nullptr;
    const std::vector<Real> norms = ranks ? adapt_parts::pool_norms(batch, threads) : std::vector<Real>{};
    run_workers(batch.tasks.count, threads, [&](ItemQueue& queue) {
        adapt_parts::Worker<Real> worker(batch, results, norms.data());
        for (std::int64_t task = 0; queue.take(task);) worker.compute(task);
    });
}

template <typename Real>
void adapt(const AdaptProblem<Real>& problem, Real* coefficients, Real* outputs, double* losses) {
    if (problem.items < 1 || problem.width < 1) {
        throw std::invalid_argument("adapt: outputs are [" + std::to_string(problem.items) + ", " +
                                    std::to_string(problem.width) + "], expected at least one item and one dimension");
    }
    if (problem.num_triplets < 1) {
        throw std::invalid_argument("adapt: no triplets; give at least one (anchor, positive, negative)");
    }
    if (problem.num_steps < 0) throw std::invalid_argument("adapt: the number of steps is negative");
    const std::vector<double> step_sizes(problem.step_sizes, problem.step_sizes + problem.num_steps);
    const std::int64_t rows[2] = {0, problem.items}, triplets[2] = {0, problem.num_triplets}, zero = 0;
    const std::int32_t support = 0;
    const double margin = static_cast<double>(problem.margin);
    AdaptBatch<Real> batch{};
    batch.supports = {problem.outputs, problem.gram, problem.moves, rows, &zero, 1, problem.width};
    batch.tasks = {&support, problem.triplets, triplets, &margin, &zero, nullptr, nullptr, 1, 0};
    batch.rule = {step_sizes.data(), problem.num_steps, static_cast<double>(problem.momentum),
                  static_cast<double>(problem.sharpness), problem.form};
    adapt<Real>(batch, {coefficients, outputs, losses, nullptr, nullptr, nullptr, nullptr}, 1);
}

template void adapt<float>(const AdaptBatch<float>&, const AdaptResults<float>&, int);
template void adapt<double>(const AdaptBatch<double>&, const AdaptResults<double>&, int);
template void adapt<float>(const AdaptProblem<float>&, float*, float*, double*);
template void adapt<double>(const AdaptProblem<double>&, double*, double*, double*);

}  // namespace fgsbir
