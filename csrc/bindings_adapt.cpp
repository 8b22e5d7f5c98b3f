// _native's part for adaptation: adapt, adapt_pairs, plan_triplets, prepare_support, head_outputs, gram_products, form_head.
#include "bindings.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "adapt.h"

namespace fgsbir::bindings {
namespace {

std::string text(std::int64_t number) { return std::to_string(number); }

AdaptForm form_named(const std::string& name) {
    if (name == "automatic") return AdaptForm::automatic;
    if (name == "gram") return AdaptForm::gram;
    if (name == "span") return AdaptForm::span;
    throw py::value_error("form is '" + name + "', expected 'automatic', 'gram' or 'span'");
}

AdaptNegatives negatives_named(const std::string& name) {
    if (name == "support") return AdaptNegatives::support;
    if (name == "gallery") return AdaptNegatives::gallery;
    throw py::value_error("negatives is '" + name + "', expected 'support' or 'gallery'");
}

bool photos_move(const std::string& side) {
    if (side != "sketch" && side != "both") throw py::value_error("side is '" + side + "', expected 'sketch' or 'both'");
    return side == "both";
}

template <typename Real>
const char* dtype() {
    return std::is_same_v<Real, double> ? "float64" : "float32";
}

bool is_double(const py::array& array) { return py::isinstance<py::array_t<double>>(array); }

template <typename Real>
py::tuple adapt_as(const py::array& outputs, const py::array& gram, const py::array& triplets, const py::array& moves,
                   const py::array& step_sizes, double margin, double sharpness, double momentum, AdaptForm form) {
    AdaptProblem<Real> problem{};
    problem.outputs = input<Real>("outputs", outputs, 2, std::string(dtype<Real>()) + " [m, D]");
    problem.items = outputs.shape(0);
    problem.width = outputs.shape(1);
    const std::string m = text(problem.items);
    problem.gram = input<Real>("gram", gram, 2, std::string(dtype<Real>()) + " [m, m] with m = " + m);
    if (gram.shape(0) != problem.items || gram.shape(1) != problem.items) refuse("gram", gram, "[m, m] with m = " + m);
    problem.triplets = input<std::int32_t>("triplets", triplets, 2, "int32 [t, 3]");
    if (triplets.shape(1) != 3) refuse("triplets", triplets, "int32 [t, 3]");
    problem.moves = input<std::uint8_t>("moves", moves, 1, "uint8 [m] with m = " + m);
    if (moves.size() != problem.items) refuse("moves", moves, "uint8 [m] with m = " + m);
    problem.step_sizes = input<Real>("step_sizes", step_sizes, 1, std::string(dtype<Real>()) + " [T]");
    problem.num_triplets = triplets.shape(0);
    problem.num_steps = step_sizes.size();
    problem.margin = static_cast<Real>(margin);
    problem.sharpness = static_cast<Real>(sharpness);
    problem.momentum = static_cast<Real>(momentum);
    problem.form = form;

    py::array_t<Real> coefficients({problem.items, problem.width}), moved({problem.items, problem.width});
    py::array_t<double> losses(problem.num_steps + 1);
    {
        Real *a = coefficients.mutable_data(), *u = moved.mutable_data();
        double* l = losses.mutable_data();
        const py::gil_scoped_release release;
        fgsbir::adapt(problem, a, u, l);
    }
    return py::make_tuple(coefficients, moved, losses);
}

py::tuple adapt(const py::array& outputs, const py::array& gram, const py::array& triplets, const py::array& moves,
                const py::array& step_sizes, double margin, double sharpness, double momentum, const std::string& form) {
    const AdaptForm chosen = form_named(form);
    if (is_double(outputs)) {
        return adapt_as<double>(outputs, gram, triplets, moves, step_sizes, margin, sharpness, momentum, chosen);
    }
    return adapt_as<float>(outputs, gram, triplets, moves, step_sizes, margin, sharpness, momentum, chosen);
}

// ---- supports of pairs ----

// What stands between Python's arguments and AdaptBatch: offsets, and views that must outlive the call.
template <typename Real>
class PairsCall {
  public:
    PairsCall(const py::array& outputs, const py::array& gram, const py::array& photo_of, const py::object& sizes) {
        batch_.supports.outputs = input<Real>("outputs", outputs, 2, std::string(dtype<Real>()) + " [R, D]");
        batch_.supports.width = outputs.shape(1);
        people_.photo_of = input<std::int32_t>("photo_of", photo_of, 1, "int32 [k]");
        if (sizes.is_none()) {
            rows_ = {0, outputs.shape(0)};
            pairs_ = {0, photo_of.size()};
        } else {
            const py::array table = sizes;
            const std::int64_t* size = input<std::int64_t>("sizes", table, 2, "int64 [S, 2], rows and pairs of each support");
            if (table.shape(1) != 2) refuse("sizes", table, "int64 [S, 2], rows and pairs of each support");
            rows_ = pairs_ = {0};
            for (std::int64_t s = 0; s < table.shape(0); ++s) {
                if (size[2 * s] < 0 || size[2 * s + 1] < 0) throw py::value_error("sizes[" + text(s) + "] is negative");
                rows_.push_back(rows_.back() + size[2 * s]);
                pairs_.push_back(pairs_.back() + size[2 * s + 1]);
            }
        }
        if (rows_.back() != outputs.shape(0)) refuse("outputs", outputs, "[R, D] with R = " + text(rows_.back()));
        if (pairs_.back() != photo_of.size()) refuse("photo_of", photo_of, "int32 [" + text(pairs_.back()) + "]");
        people_.row_offsets = rows_.data();
        people_.pair_offsets = pairs_.data();
        people_.count = static_cast<std::int64_t>(rows_.size()) - 1;
        std::int64_t elements = 0;
        for (std::size_t s = 0; s + 1 < rows_.size(); ++s) elements += (rows_[s + 1] - rows_[s]) * (rows_[s + 1] - rows_[s]);
        batch_.supports.gram = input<Real>("gram", gram, gram.ndim(), std::string(dtype<Real>()) + " [m, m]");
        if (gram.size() != elements) refuse("gram", gram, text(elements) + " numbers, m x m for each support");
    }

    // One pool of N photos that all supports share; cross holds N x m for each support, one after another.
    void rank_among(const py::object& pool, const py::object& cross, const py::object& truth) {
        if (pool.is_none()) return;
        const py::array photos = pool;
        batch_.pools.outputs = input<Real>("pool", photos, 2, std::string(dtype<Real>()) + " [N, D]");
        if (photos.shape(1) != batch_.supports.width) refuse("pool", photos, "[N, D] with D = " + text(batch_.supports.width));
        pool_rows_ = {0, photos.shape(0)};
        pool_of_.assign(static_cast<std::size_t>(people_.count), 0);
        for (std::int64_t s = 0; s < people_.count; ++s) cross_offsets_.push_back(rows_[static_cast<std::size_t>(s)] * photos.shape(0));
        const py::array own = truth.is_none() ? py::array_t<std::int32_t>(0) : py::array(truth);
        people_.truth = input<std::int32_t>("truth", own, 1, "int32 [" + text(pairs_.back()) + "]");
        if (own.size() != pairs_.back()) refuse("truth", own, "int32 [" + text(pairs_.back()) + "], a photo of the pool for each pair");
        if (people_.photos_move) {
            const py::array products = cross.is_none() ? py::array_t<Real>(0) : py::array(cross);
            batch_.pools.cross = input<Real>("cross", products, products.ndim(), std::string(dtype<Real>()) + " [N, m]");
            const std::int64_t wanted = photos.shape(0) * rows_.back();
            if (products.size() != wanted) refuse("cross", products, text(wanted) + " numbers, N x m for each support");
        }
        batch_.pools.row_offsets = pool_rows_.data();
        batch_.pools.pool_of = pool_of_.data();
        batch_.pools.cross_offsets = cross_offsets_.data();
        batch_.pools.count = 1;
    }

    void learn_how(const std::string& negatives, const std::string& side, const py::array& step_sizes, double margin,
                   const py::object& margin_net, double sharpness, double momentum, std::int64_t fold_pairs, const std::string& form) {
        people_.negatives = negatives_named(negatives);
        people_.photos_move = photos_move(side);
        people_.margin = margin;
        people_.fold_pairs = fold_pairs;
        const py::array_t<double, py::array::c_style | py::array::forcecast> sizes(step_sizes);  // T numbers: a copy costs nothing
        if (sizes.ndim() != 1) refuse("step_sizes", step_sizes, "[T]");
        steps_.assign(sizes.data(), sizes.data() + sizes.size());
        batch_.rule = {steps_.data(), static_cast<std::int64_t>(steps_.size()), momentum, sharpness, form_named(form)};
        if (margin_net.is_none()) return;
        const py::array weights = margin_net;
        batch_.margin_net.weights = input<float>("margin_net", weights, 1, "float32 [2 h h + 6 h + 1]");
        std::int64_t hidden = 1;
        while (2 * hidden * hidden + 6 * hidden + 1 < weights.size()) ++hidden;
        if (2 * hidden * hidden + 6 * hidden + 1 != weights.size()) refuse("margin_net", weights, "float32 [2 h h + 6 h + 1]");
        batch_.margin_net.hidden = hidden;
    }

    py::tuple run(int threads) {
        const AdaptPeoplePlan plan = plan_people(people_);
        const AdaptTasks tasks = plan.tasks();
        batch_.supports.moves = plan.moves.data();
        batch_.supports.row_offsets = rows_.data();
        batch_.supports.gram_offsets = plan.gram_offsets.data();
        batch_.supports.count = people_.count;
        batch_.tasks = tasks;
        py::array_t<Real> coefficients({rows_.back(), batch_.supports.width});
        py::array_t<double> losses({tasks.count, batch_.rule.num_steps + 1}), margins(tasks.count), seconds(tasks.count);
        py::array_t<std::int32_t> ranks({std::int64_t{2}, tasks.count});
        AdaptResults<Real> results{coefficients.mutable_data(), nullptr,
                                   losses.mutable_data(),       margins.mutable_data(),
                                   ranks.mutable_data(),        ranks.mutable_data() + tasks.count,
                                   seconds.mutable_data()};
        {
            const py::gil_scoped_release release;
            fgsbir::adapt(batch_, results, threads);
        }
        py::array_t<std::int64_t> first_task(static_cast<py::ssize_t>(plan.first_task.size()), plan.first_task.data());
        return py::make_tuple(coefficients, losses, margins, ranks, seconds, first_task);
    }

  private:
    std::vector<std::int64_t> rows_, pairs_, pool_rows_, cross_offsets_;
    std::vector<std::int32_t> pool_of_;
    std::vector<double> steps_;
    AdaptPeople people_{};
    AdaptBatch<Real> batch_{};
};

template <typename Real>
py::tuple adapt_pairs_as(const py::array& outputs, const py::array& gram, const py::array& photo_of, const py::object& sizes,
                         const py::object& pool, const py::object& cross, const py::object& truth, const std::string& negatives,
                         const std::string& side, const py::array& step_sizes, double margin, const py::object& margin_net,
                         double sharpness, double momentum, std::int64_t fold_pairs, int threads, const std::string& form) {
    PairsCall<Real> call(outputs, gram, photo_of, sizes);
    call.learn_how(negatives, side, step_sizes, margin, margin_net, sharpness, momentum, fold_pairs, form);
    call.rank_among(pool, cross, truth);
    return call.run(threads);
}

py::tuple adapt_pairs(const py::array& outputs, const py::array& gram, const py::array& photo_of, const py::object& sizes,
                      const py::object& pool, const py::object& cross, const py::object& truth, const std::string& negatives,
                      const std::string& side, const py::array& step_sizes, double margin, const py::object& margin_net,
                      double sharpness, double momentum, std::int64_t fold_pairs, int threads, const std::string& form) {
    const auto chosen = is_double(outputs) ? &adapt_pairs_as<double> : &adapt_pairs_as<float>;
    return chosen(outputs, gram, photo_of, sizes, pool, cross, truth, negatives, side, step_sizes, margin, margin_net, sharpness,
                  momentum, fold_pairs, threads, form);
}

py::array_t<std::int32_t> plan_triplets(const py::array& photo_of, std::int64_t items, const std::string& negatives) {
    const std::int32_t* rows = input<std::int32_t>("photo_of", photo_of, 1, "int32 [k]");
    const AdaptPlan plan = plan_adapt(rows, photo_of.size(), items, negatives_named(negatives), false);
    return py::array_t<std::int32_t>({static_cast<py::ssize_t>(plan.triplets.size() / 3), py::ssize_t{3}}, plan.triplets.data());
}

}  // namespace

void define_adapt(py::module_& module) {
    module.def("adapt", &adapt, py::arg("outputs"), py::arg("gram"), py::arg("triplets"), py::arg("moves"), py::arg("step_sizes"),
               py::arg("margin"), py::arg("sharpness"), py::arg("momentum") = 0.0, py::arg("form") = "automatic",
               R"(Gradient descent on a triplet loss in the span of the support features: one task, given triplets.

outputs [m, D] (W X^T + b, a row per support item), gram [m, m] (X X^T + 1), step_sizes [T]: all float32 or all float64;
triplets int32 [t, 3] (anchor, positive, negative); moves uint8 [m] (1 = the row moves with the head).
L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)) with b = sharpness (0 = hinge) and d the Euclidean distance of
the L2-normalised outputs, floored at 1e-6. Each step: V = momentum V + dL/dU, U -= alpha_t gram V, A -= alpha_t V on the moving rows.
form "gram" and "span" are two ways to the same result, "automatic" takes the cheaper one.
Returns (coefficients [m, D], outputs [m, D], losses float64 [T+1]: before each step and after the last). Deterministic.
NaN in the input shows in the losses. Raises ValueError on a wrong dtype, shape, layout, index or setting.)");
    module.def("adapt_pairs", &adapt_pairs, py::arg("outputs"), py::arg("gram"), py::arg("photo_of"), py::arg("sizes"),
               py::arg("pool"), py::arg("cross"), py::arg("truth"), py::arg("negatives"), py::arg("side"), py::arg("step_sizes"),
               py::arg("margin"), py::arg("margin_net"), py::arg("sharpness"), py::arg("momentum"), py::arg("fold_pairs"),
               py::arg("threads"), py::arg("form") = "automatic",
               R"(Adaptation of one or many supports made of pairs, with leave-one-out folds, in one call.)");
    module.def("plan_triplets", &plan_triplets, py::arg("photo_of"), py::arg("items"), py::arg("negatives"),
               R"(Triplets of a support's pairs.)");
}

}  // namespace fgsbir::bindings
