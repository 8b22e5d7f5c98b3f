// _native's prepare_support, adapt_support, adapt_features and form_head.
#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "bindings_adapt.h"

namespace fgsbir::bindings {
namespace {

// How to learn, as Python says it; keeps what the views in AdaptRule and AdaptMarginNet point to.
struct Settings {
    AdaptNegatives negatives;
    bool photos_move;
    std::vector<double> step_sizes;
    double margin, sharpness, momentum;
    AdaptCentre centre;
    py::array margin_net;
    std::int64_t hidden = 0;
    std::int64_t fold_pairs;
    AdaptForm form;

    Settings(const std::string& side, const std::string& negatives_name, const py::array& sizes, double fixed_margin,
             const py::object& net, double sharpness_, double momentum_, double centre_, std::int64_t folds,
             const std::string& form_name)
        : negatives(negatives_named(negatives_name)),
          photos_move(bindings::photos_move(side)),
          margin(fixed_margin),
          sharpness(sharpness_),
          momentum(momentum_),
          centre{centre_},
          fold_pairs(folds),
          form(form_named(form_name)) {
        if (has_layout<float>(sizes, 1)) {
            const float* values = static_cast<const float*>(sizes.data());
            step_sizes.assign(values, values + sizes.size());
        } else {
            const double* values = input<double>("step_sizes", sizes, 1, "float32 or float64 [T]");
            step_sizes.assign(values, values + sizes.size());
        }
        if (net.is_none()) return;
        margin_net = net;
        input<float>("margin_net", margin_net, 1, "float32 [2 h h + 6 h + 1]");
        hidden = 1;
        while (2 * hidden * hidden + 6 * hidden + 1 < margin_net.size()) ++hidden;
        if (2 * hidden * hidden + 6 * hidden + 1 != margin_net.size())
            refuse("margin_net", margin_net, "float32 [2 h h + 6 h + 1]");
    }

    AdaptRule rule() const {
        return {step_sizes.data(), static_cast<std::int64_t>(step_sizes.size()), momentum, sharpness, form};
    }
    AdaptMarginNet net() const { return {hidden == 0 ? nullptr : static_cast<const float*>(margin_net.data()), hidden}; }
};

template <typename Real>
std::string real(const char* shape) {
    return std::string(dtype<Real>()) + " " + shape;
}

template <typename Real>
AdaptHead<Real> head_of(const py::array& weight, const py::array& bias) {
    AdaptHead<Real> head{};
    head.weight = input<Real>("weight", weight, 2, real<Real>("[D, C]"));
    head.width = weight.shape(0);
    head.features = weight.shape(1);
    head.bias = input<Real>("bias", bias, 1, real<Real>("[D]"));
    if (bias.size() != head.width) refuse("bias", bias, "[D] with D = " + text(head.width));
    return head;
}

template <typename Real>
const Real* rows_of(const char* name, const py::array& array, std::int64_t columns) {
    const Real* data = input<Real>(name, array, 2, real<Real>("[n, C]"));
    if (array.shape(1) != columns) refuse(name, array, "[n, C] with C = " + text(columns));
    return data;
}

// An array [rows, columns] that begins at a cache line. NumPy's own begin 16 bytes into one, and every vector load of two such
// operands would cross a line: 4 % of an adaptation.
template <typename Real>
py::array_t<Real> aligned(std::int64_t rows, std::int64_t columns) {
    constexpr std::size_t line = 64;
    py::array_t<Real> memory(rows * columns + static_cast<std::int64_t>(line / sizeof(Real)));
    const std::size_t past = reinterpret_cast<std::uintptr_t>(memory.mutable_data()) % line;
    const std::size_t skipped = (line - past) % line / sizeof(Real);
    return py::array_t<Real>({rows, columns}, memory.mutable_data() + skipped, memory);
}

// What prepare_support and fill_supports give, as arrays.
struct Supports {
    py::array rows, outputs, gram, photo_of;
    std::vector<std::int64_t> row_offsets, pair_offsets;

    template <typename Real>
    static Supports prepare(const AdaptHead<Real>& head, const std::vector<AdaptEpisode<Real>>& episodes, int threads) {
        const AdaptLayout<Real> layout = lay_out(episodes.data(), static_cast<std::int64_t>(episodes.size()), head.features);
        const std::int64_t count = layout.row_offsets.back();
        py::array_t<Real> rows = aligned<Real>(count, head.features), outputs = aligned<Real>(count, head.width);
        const bool one = episodes.size() == 1;
        py::array_t<Real> gram = one ? py::array_t<Real>({count, count}) : py::array_t<Real>(layout.gram_size);
        {
            Real *x = rows.mutable_data(), *u = outputs.mutable_data(), *k = gram.mutable_data();
            const py::gil_scoped_release release;
            fill_supports(head, layout, x, u, k, threads);
        }
        py::array_t<std::int32_t> photo_of(static_cast<py::ssize_t>(layout.photo_of.size()), layout.photo_of.data());
        return {rows, outputs, gram, photo_of, layout.row_offsets, layout.pair_offsets};
    }
};

// Photos to rank among, as Python gives them: None, features [N, C], or these and their outputs [N, D]. Views of its arrays.
template <typename Real>
struct Photos {
    const Real *features = nullptr, *outputs = nullptr;
    std::int64_t count = 0;

    Photos(const AdaptHead<Real>& head, const py::object& candidates) {
        if (candidates.is_none()) return;
        const bool both = py::isinstance<py::tuple>(candidates);
        const py::tuple parts = both ? py::tuple(candidates) : py::make_tuple(candidates);
        if (both && parts.size() != 2)
            throw py::value_error("candidates are " + text(static_cast<std::int64_t>(parts.size())) +
                                  " arrays, expected features, or (features, outputs)");
        const py::array rows = parts[0];
        features = rows_of<Real>("candidates", rows, head.features);
        count = rows.shape(0);
        if (!both) return;
        const py::array made = parts[1];
        outputs = input<Real>("candidates' outputs", made, 2, real<Real>("[N, D]"));
        if (made.shape(0) != count || made.shape(1) != head.width)
            refuse("candidates' outputs", made, "[N, D] with N = " + text(count) + ", D = " + text(head.width));
    }
};

template <typename Real>
py::tuple learn(const AdaptHead<Real>& head, const Supports& supports, const py::object& candidates, const Settings& settings,
                int threads) {
    AdaptPeople people{};
    people.row_offsets = supports.row_offsets.data();
    people.pair_offsets = supports.pair_offsets.data();
    people.count = static_cast<std::int64_t>(supports.row_offsets.size()) - 1;
    people.photo_of = static_cast<const std::int32_t*>(supports.photo_of.data());
    people.fold_pairs = settings.fold_pairs;
    people.negatives = settings.negatives;
    people.photos_move = settings.photos_move;
    people.margin = settings.margin;
    AdaptBatch<Real> batch{};
    batch.supports.outputs = static_cast<const Real*>(supports.outputs.data());
    batch.supports.gram = static_cast<const Real*>(supports.gram.data());
    batch.supports.row_offsets = people.row_offsets;
    batch.supports.count = people.count;
    batch.supports.width = head.width;
    batch.margin_net = settings.net();
    batch.rule = settings.rule();
    const Real* rows = static_cast<const Real*>(supports.rows.data());
    const Photos<Real> photos(head, candidates);
    bool folds = false;
    for (std::int64_t s = 0; s < people.count; ++s) {
        folds |= people.fold_pairs > 0 && people.pair_offsets[s + 1] - people.pair_offsets[s] >= people.fold_pairs;
    }

    AdaptCandidates<Real> pool;
    AdaptPeoplePlan plan;
    double pool_seconds = 0.0;
    {
        const py::gil_scoped_release release;
        if (folds) {
            const auto start = std::chrono::steady_clock::now();
            pool = gather_candidates(head, people, rows, batch.supports.outputs, batch.supports.gram, photos.features,
                                     photos.count, threads, photos.outputs);
            pool_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            batch.pools = pool.pools();
            people.truth = pool.truth.data();
        }
        plan = plan_people(people);
        plan.centre(people, settings.centre, batch.supports.outputs, head.width);
    }
    batch.supports.moves = plan.moves.data();
    batch.supports.shifted = plan.sketches.data();
    batch.supports.gram_offsets = plan.gram_offsets.data();
    batch.tasks = plan.tasks();
    py::array_t<Real> coefficients({people.row_offsets[people.count], head.width});
    py::array_t<double> losses({batch.tasks.count, batch.rule.num_steps + 1}), margins(batch.tasks.count),
        seconds(batch.tasks.count);
    py::array_t<std::int32_t> ranks({std::int64_t{2}, batch.tasks.count});
    const AdaptResults<Real> results{coefficients.mutable_data(), nullptr,
                                     losses.mutable_data(),       margins.mutable_data(),
                                     ranks.mutable_data(),        ranks.mutable_data() + batch.tasks.count,
                                     seconds.mutable_data()};
    {
        const py::gil_scoped_release release;
        fgsbir::adapt(batch, results, threads);
    }
    py::object first_task = py::none(), pool_sizes = py::none();
    if (people.count != 1)
        first_task = py::array_t<std::int64_t>(static_cast<py::ssize_t>(plan.first_task.size()), plan.first_task.data());
    if (folds) {
        py::array_t<std::int64_t> sizes(people.count);
        for (std::int64_t s = 0; s < people.count; ++s) {
            const std::size_t p = static_cast<std::size_t>(pool.pool_of[static_cast<std::size_t>(s)]);
            sizes.mutable_data()[s] = pool.row_offsets[p + 1] - pool.row_offsets[p];
        }
        pool_sizes = sizes;
    }
    py::object shifts = py::none();
    if (!plan.shifts.empty()) {  // those of the tasks with all pairs
        py::array_t<Real> of_supports({people.count, head.width});
        for (std::int64_t s = 0; s < people.count; ++s) {
            const double* shift = plan.shifts.data() + plan.first_task[static_cast<std::size_t>(s)] * head.width;
            std::transform(shift, shift + head.width, of_supports.mutable_data() + s * head.width,
                           [](double value) { return static_cast<Real>(value); });
        }
        shifts = of_supports;
    }
    return py::make_tuple(coefficients, losses, margins, ranks, seconds, pool_seconds, pool_sizes, first_task, shifts);
}

template <typename Real>
AdaptEpisode<Real> episode_of(const AdaptHead<Real>& head, const py::array& sketches, const py::array& photos,
                              const py::array& others) {
    AdaptEpisode<Real> episode{};
    episode.sketches = rows_of<Real>("sketches", sketches, head.features);
    episode.photos = rows_of<Real>("photos", photos, head.features);
    episode.others = rows_of<Real>("others", others, head.features);
    episode.pairs = sketches.shape(0);
    episode.others_count = others.shape(0);
    if (photos.shape(0) != episode.pairs)
        refuse("photos", photos, "[k, C] with k = " + text(episode.pairs) + ", a photo for each sketch");
    return episode;
}

template <typename Real>
py::tuple prepare_support_as(const py::array& weight, const py::array& bias, const py::array& sketches, const py::array& photos,
                             const py::array& others, int threads) {
    const AdaptHead<Real> head = head_of<Real>(weight, bias);
    const Supports made = Supports::prepare<Real>(head, {episode_of(head, sketches, photos, others)}, threads);
    return py::make_tuple(made.rows, made.outputs, made.gram, made.photo_of);
}

template <typename Real>
py::tuple adapt_support_as(const py::array& weight, const py::array& bias, const py::tuple& support, const py::object& candidates,
                           const Settings& settings, int threads) {
    const AdaptHead<Real> head = head_of<Real>(weight, bias);
    if (support.size() != 4)
        throw py::value_error("support has " + text(static_cast<std::int64_t>(support.size())) +
                              " parts, expected (rows, outputs, gram, photo_of)");
    Supports given{support[0], support[1], support[2], support[3], {}, {}};
    rows_of<Real>("rows", given.rows, head.features);
    const std::int64_t items = given.rows.shape(0);
    input<Real>("outputs", given.outputs, 2, real<Real>("[m, D]"));
    if (given.outputs.shape(0) != items || given.outputs.shape(1) != head.width) {
        refuse("outputs", given.outputs, "[m, D] with m = " + text(items) + ", D = " + text(head.width));
    }
    input<Real>("gram", given.gram, 2, real<Real>("[m, m]"));
    if (given.gram.shape(0) != items || given.gram.shape(1) != items)
        refuse("gram", given.gram, "[m, m] with m = " + text(items));
    input<std::int32_t>("photo_of", given.photo_of, 1, "int32 [k]");
    given.row_offsets = {0, items};
    given.pair_offsets = {0, given.photo_of.size()};
    return learn(head, given, candidates, settings, threads);
}

// W' and b' in arrays that the caller gives, in the shape of the head's own.
template <typename Real>
struct NewHead {
    Real *weight = nullptr, *bias = nullptr;

    NewHead(const AdaptHead<Real>& head, const py::object& new_weight, const py::object& new_bias) {
        if (new_weight.is_none() && new_bias.is_none()) return;
        py::array w = new_weight, b = new_bias;
        input<Real>("new_weight", w, 2, real<Real>("[D, C]"));
        if (w.shape(0) != head.width || w.shape(1) != head.features) refuse("new_weight", w, "[D, C], as weight");
        input<Real>("new_bias", b, 1, real<Real>("[D]"));
        if (b.size() != head.width) refuse("new_bias", b, "[D], as bias");
        weight = static_cast<Real*>(w.mutable_data());
        bias = static_cast<Real*>(b.mutable_data());
    }
};

template <typename Real>
py::tuple adapt_features_as(const py::array& weight, const py::array& bias, const py::list& episodes,
                            const py::object& candidates, const Settings& settings, int threads, const py::object& new_weight,
                            const py::object& new_bias) {
    const AdaptHead<Real> head = head_of<Real>(weight, bias);
    std::vector<AdaptEpisode<Real>> views;
    for (const py::handle& item : episodes) {
        const py::tuple parts = py::reinterpret_borrow<py::object>(item);
        if (parts.size() != 3)
            throw py::value_error("an episode has " + text(static_cast<std::int64_t>(parts.size())) +
                                  " parts, expected (sketches, photos, others)");
        views.push_back(episode_of(head, parts[0], parts[1], parts[2]));
    }
    const NewHead<Real> changed(head, new_weight, new_bias);
    if (changed.weight != nullptr && views.size() != 1) {
        throw py::value_error("new_weight and new_bias take the head of one episode, but there are " +
                              text(static_cast<std::int64_t>(views.size())) + "; call form_head for each");
    }
    const Supports made = Supports::prepare(head, views, threads);
    const py::tuple learned = learn(head, made, candidates, settings, threads);
    if (changed.weight != nullptr) {
        const py::array coefficients = learned[0];
        const auto *a = static_cast<const Real*>(coefficients.data()), *x = static_cast<const Real*>(made.rows.data());
        const py::object shifts = learned[8];
        const Real* shift = shifts.is_none() ? nullptr : static_cast<const Real*>(py::array(shifts).data());
        const std::int64_t moving = settings.photos_move ? made.row_offsets.back() : views[0].pairs;  // sketches come first
        const py::gil_scoped_release release;
        form_head(head, a, x, moving, changed.weight, changed.bias, threads);
        for (std::int64_t d = 0; shift != nullptr && d < head.width; ++d) changed.bias[d] += shift[d];
    }
    py::array_t<std::int64_t> row_offsets(static_cast<py::ssize_t>(made.row_offsets.size()), made.row_offsets.data());
    return py::make_tuple(made.rows, made.photo_of, row_offsets) + learned;
}

template <typename Real>
void form_head_as(const py::array& weight, const py::array& bias, const py::array& coefficients, const py::array& rows,
                  const py::array& new_weight, const py::array& new_bias, int threads) {
    const AdaptHead<Real> head = head_of<Real>(weight, bias);
    const Real* x = rows_of<Real>("rows", rows, head.features);
    const Real* a = input<Real>("coefficients", coefficients, 2, real<Real>("[m, D]"));
    if (coefficients.shape(0) != rows.shape(0) || coefficients.shape(1) != head.width) {
        refuse("coefficients", coefficients, "[m, D] with m = " + text(rows.shape(0)) + ", D = " + text(head.width));
    }
    const NewHead<Real> changed(head, new_weight, new_bias);
    const std::int64_t items = rows.shape(0);
    const py::gil_scoped_release release;
    form_head(head, a, x, items, changed.weight, changed.bias, threads);
}

py::tuple prepare_support(const py::array& weight, const py::array& bias, const py::array& sketches, const py::array& photos,
                          const py::array& others, int threads) {
    const auto chosen = is_double(weight) ? &prepare_support_as<double> : &prepare_support_as<float>;
    return chosen(weight, bias, sketches, photos, others, threads);
}

py::tuple adapt_support(const py::array& weight, const py::array& bias, const py::tuple& support, const py::object& candidates,
                        const std::string& side, const std::string& negatives, const py::array& step_sizes, double margin,
                        const py::object& margin_net, double sharpness, double momentum, double centre, std::int64_t fold_pairs, int threads,
                        const std::string& form) {
    const Settings settings(side, negatives, step_sizes, margin, margin_net, sharpness, momentum, centre, fold_pairs, form);
    const auto chosen = is_double(weight) ? &adapt_support_as<double> : &adapt_support_as<float>;
    return chosen(weight, bias, support, candidates, settings, threads);
}

py::tuple adapt_features(const py::array& weight, const py::array& bias, const py::list& episodes, const py::object& candidates,
                         const std::string& side, const std::string& negatives, const py::array& step_sizes, double margin,
                         const py::object& margin_net, double sharpness, double momentum, double centre, std::int64_t fold_pairs, int threads,
                         const std::string& form, const py::object& new_weight, const py::object& new_bias) {
    const Settings settings(side, negatives, step_sizes, margin, margin_net, sharpness, momentum, centre, fold_pairs, form);
    const auto chosen = is_double(weight) ? &adapt_features_as<double> : &adapt_features_as<float>;
    return chosen(weight, bias, episodes, candidates, settings, threads, new_weight, new_bias);
}

void form_head_any(const py::array& weight, const py::array& bias, const py::array& coefficients, const py::array& rows,
                   const py::array& new_weight, const py::array& new_bias, int threads) {
    const auto chosen = is_double(weight) ? &form_head_as<double> : &form_head_as<float>;
    chosen(weight, bias, coefficients, rows, new_weight, new_bias, threads);
}

}  // namespace

void define_adapt_people(py::module_& module) {
    module.def("prepare_support", &prepare_support, py::arg("weight"), py::arg("bias"), py::arg("sketches"), py::arg("photos"),
               py::arg("others"), py::arg("threads") = 1,
               R"(A support from features: sketches [k, C], their photos [k, C] (repeats allowed), other photos [n, C].

weight [D, C], bias [D]; all float32 or all float64, C-contiguous. Returns (rows [m, C]: sketches, then every photo once, outputs
[m, D] = rows weight^T + bias, gram [m, m] = rows rows^T + 1, photo_of int32 [k]). Raises ValueError on a wrong dtype, shape or
layout.)");
    module.def(
        "adapt_support", &adapt_support, py::arg("weight"), py::arg("bias"), py::arg("support"), py::arg("candidates"),
        py::arg("side"), py::arg("negatives"), py::arg("step_sizes"), py::arg("margin"), py::arg("margin_net"),
        py::arg("sharpness"), py::arg("momentum") = 0.0, py::arg("centre") = std::numeric_limits<double>::infinity(), py::arg("fold_pairs") = 0, py::arg("threads") = 1,
        py::arg("form") = "automatic",
        R"(The whole adaptation of a prepared support in one call: triplets, margin network, T steps, leave-one-out folds, ranks.

support is what prepare_support returns; step_sizes [T]; margin NaN asks margin_net, float32 [2 h h + 6 h + 1] (W1 [h, 3], b1, W2
[h, 2h], b2, W3, b3, flattened one after another) or None. With at least fold_pairs > 0 pairs, every pair is left out once, the
others adapt, and the sketch left out is ranked among candidates [N, C] (missing photos of the support are added) or, with None,
among the support's named photos; candidates may be (features [N, C], outputs [N, D]) where rows W^T + b is known. B tasks: all pairs, then the folds. threads: at most this many; results do not depend on it.
Returns (coefficients [m, D], losses float64 [B, T+1], margins float64 [B], ranks int32 [2, B]: base and adapted, 0 for task 0,
seconds float64 [B], seconds spent on the candidates, pool sizes int64 [1] or None without folds, None, shifts [1, D] or None). centre
is p: before any step each task adds -k / (k + p) times the mean output of its k sketches to all sketches, infinity: nothing; shifts
holds what task 0 added. A task without triplets changes nothing else and has losses 0. Raises ValueError on a wrong dtype, shape, layout, index or setting.)");
    module.def("adapt_features", &adapt_features, py::arg("weight"), py::arg("bias"), py::arg("episodes"), py::arg("candidates"),
               py::arg("side"), py::arg("negatives"), py::arg("step_sizes"), py::arg("margin"), py::arg("margin_net"),
               py::arg("sharpness"), py::arg("momentum") = 0.0, py::arg("centre") = std::numeric_limits<double>::infinity(), py::arg("fold_pairs") = 0, py::arg("threads") = 1,
               py::arg("form") = "automatic", py::arg("new_weight") = py::none(), py::arg("new_bias") = py::none(),
               R"(prepare_support and adapt_support in one call, for any number S of supports; with new_weight, form_head too.

episodes is a list of (sketches [k, C], photos [k, C], others [n, C]). Returns (rows [R, C] of all supports, photo_of int32
[sum of k], row_offsets int64 [S+1]) and then what adapt_support returns, with tasks of all supports one after another:
coefficients [R, D], pool sizes int64 [S] or None, then the first task of each support, int64 [S+1], or None with a single
support, then shifts [S, D] or None.
With a single support, new_weight [D, C] and new_bias [D] receive W' and b' of sketches: b' with the shift.)");
    module.def("form_head", &form_head_any, py::arg("weight"), py::arg("bias"), py::arg("coefficients"), py::arg("rows"),
               py::arg("new_weight"), py::arg("new_bias"), py::arg("threads") = 1,
               R"(Write W' = W + A X [D, C] and b' = b + A 1 [D] into given arrays.

coefficients [m, D] (A transposed), rows [m, C]; all float32 or all float64, C-contiguous. new_weight may be weight itself. Raises
ValueError on a wrong dtype, shape or layout.)");
}

}  // namespace fgsbir::bindings
