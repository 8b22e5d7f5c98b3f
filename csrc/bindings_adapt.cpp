// _native.adapt and _native.plan_triplets.
#include "bindings_adapt.h"

namespace fgsbir::bindings {
namespace {

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
the L2-normalised outputs, floored at 1e-6. Each step: V = momentum V + dL/dU, U -= alpha_t gram V, A -= alpha_t V on the moving
rows. form "gram" and "span" are two ways to the same result, "automatic" takes the cheaper one.
Returns (coefficients [m, D], outputs [m, D], losses float64 [T+1]: before each step and after the last). Deterministic.
NaN in the input shows in the losses. Raises ValueError on a wrong dtype, shape, layout, index or setting.)");
    module.def("plan_triplets", &plan_triplets, py::arg("photo_of"), py::arg("items"), py::arg("negatives"),
               R"(Triplets int32 [t, 3] (sketch, its photo, another photo) of a support's pairs, as rows.

photo_of int32 [k] is the row (k .. items - 1) of each sketch's photo, -1 for a pair that takes no part. negatives "support": the
other photos that these pairs name; "gallery": every other photo row. Raises ValueError where a row is no photo.)");
    define_adapt_people(module);
}

}  // namespace fgsbir::bindings
