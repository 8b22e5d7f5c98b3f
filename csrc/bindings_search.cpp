// _native.top_products, adapted_products and embed_rows.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "adapt.h"
#include "bindings.h"
#include "flat_search.h"

namespace fgsbir::bindings {
namespace {

constexpr float kSmallestNorm = 1e-12F;  // as in arrays.py

void same_width(const char* name, const py::array& array, py::ssize_t width) {
    if (array.shape(array.ndim() - 1) != width) refuse(name, array, std::to_string(width) + " columns");
}

// `allowed` as bytes, nullptr for None; throws unless at least `count` of `rows` photos are left.
const std::uint8_t* mask_of(const py::object& allowed, std::int64_t rows, std::int64_t count) {
    std::int64_t left = rows;
    const std::uint8_t* mask = nullptr;
    if (!allowed.is_none()) {
        const auto array = py::cast<py::array>(allowed);
        mask = reinterpret_cast<const std::uint8_t*>(input<bool>("allowed", array, 1, "bool [N]"));
        if (array.size() != rows) refuse("allowed", array, std::to_string(rows) + " entries");
        left = rows - std::count(mask, mask + rows, std::uint8_t{0});
    }
    if (count < 1 || count > left) {
        throw py::value_error("count is " + std::to_string(count) + ", expected 1 to the " + std::to_string(left) + " rows that may be");
    }
    return mask;
}

py::tuple top(const py::array& rows, const py::array& queries, std::int64_t count, const py::object& allowed,
              int threads) {
    FlatRows from{nullptr, nullptr, 0, 0};
    if (py::isinstance<py::array_t<std::uint16_t>>(rows)) {
        from.half = input<std::uint16_t>("rows", rows, 2, "float32 or uint16 [N, D]");
    } else {
        from.wide = input<float>("rows", rows, 2, "float32 or uint16 [N, D]");
    }
    from.count = rows.shape(0);
    from.width = rows.shape(1);
    const float* asked = input<float>("queries", queries, 2, "float32 [B, D]");
    same_width("queries", queries, from.width);
    const std::uint8_t* mask = mask_of(allowed, from.count, count);
    const std::int64_t batch = queries.shape(0);
    py::array_t<float> products({batch, count});
    py::array_t<std::int64_t> places({batch, count});
    float* product = products.mutable_data();
    std::int64_t* place = places.mutable_data();
    {
        const py::gil_scoped_release release;
        top_products(from, asked, batch, mask, count, product, place, threads);
    }
    return py::make_tuple(products, places);
}

py::array_t<float> adapted(const py::array& embeddings, const py::array& lengths, const py::array& features, const py::array& support,
                           const py::array& coefficients, const py::array& places, const py::array& query) {
    const float* units = input<float>("embeddings", embeddings, 2, "float32 [N, D]");
    const float* long_as = input<float>("lengths", lengths, 1, "float32 [N]");
    const auto* halves = input<std::uint16_t>("features", features, 2, "uint16 [N, C], the bits of float16");
    const LowRank change{input<float>("support", support, 2, "float32 [m, C]"),
                         input<float>("coefficients", coefficients, 2, "float32 [D, m]"), support.shape(0), embeddings.shape(1),
                         features.shape(1)};
    const auto* which = input<std::int64_t>("places", places, 1, "int64 [n]");
    const float* asked = input<float>("query", query, 1, "float32 [D]");
    same_width("support", support, change.features);
    same_width("coefficients", coefficients, change.rank);
    same_width("query", query, change.width);
    const std::int64_t rows = embeddings.shape(0), count = places.size();
    if (coefficients.shape(0) != change.width) refuse("coefficients", coefficients, std::to_string(change.width) + " rows");
    if (features.shape(0) != rows) refuse("features", features, std::to_string(rows) + " rows");
    same_width("lengths", lengths, rows);
    check_places(which, count, rows);
    py::array_t<float> out(count);
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    adapted_products(units, long_as, halves, change, which, count, asked, to);
    return out;
}

py::array_t<float> embed(const py::array& weight, const py::array& bias, const py::array& features) {
    const AdaptHead<float> head{input<float>("weight", weight, 2, "float32 [D, C]"), input<float>("bias", bias, 1, "float32 [D]"),
                                weight.shape(0), weight.shape(1)};
    const float* from = input<float>("features", features, 2, "float32 [N, C]");
    same_width("features", features, head.features);
    same_width("bias", bias, head.width);
    const std::int64_t count = features.shape(0);
    py::array_t<float> out({count, head.width});
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    head_outputs(head, from, count, to, 1);
    for (float* row = to; row != to + count * head.width; row += head.width) {
        float sum = 0.0F;
        for (std::int64_t d = 0; d < head.width; ++d) sum += row[d] * row[d];
        const float length = std::max(std::sqrt(sum), kSmallestNorm);
        for (std::int64_t d = 0; d < head.width; ++d) row[d] /= length;
    }
    return out;
}

}  // namespace

void define_search(py::module_& module) {
    module.def("top_products", &top, py::arg("rows"), py::arg("queries"), py::arg("count"), py::arg("allowed") = py::none(),
               py::arg("threads") = 1,
               R"(The largest inner products of each query with rows, and whose they are.

rows float32 [N, D], or uint16 [N, D] (the bits of float16), queries float32 [B, D], allowed bool [N] or None: rows that may be
-> (products float32 [B, count] descending, equal ones in the order of rows, places int64 [B, count]). Sums are float32. The answer
does not depend on threads. Raises ValueError on a wrong dtype, shape or layout, or where fewer than count rows may be.)");
    module.def("adapted_products", &adapted, py::arg("embeddings"), py::arg("lengths"), py::arg("features"), py::arg("support"),
               py::arg("coefficients"), py::arg("places"), py::arg("query"),
               R"(Inner products of a query with some photos' embeddings by an adapter: u . query / ||u||, u = e l + A (X f + 1).

embeddings e float32 [N, D] of unit length, lengths l [N] of the outputs they were made from, features f uint16 [N, C] (the bits of
float16), support X [m, C], coefficients A [D, m], places int64 [n], query [D] -> float32 [n]. Raises ValueError on a wrong dtype,
shape or layout, or a place that is no row.)");
    module.def("embed_rows", &embed, py::arg("weight"), py::arg("bias"), py::arg("features"),
               R"((W f + b) / max(||W f + b||, 1e-12): weight float32 [D, C], bias [D], features [N, C] -> float32 [N, D].

Raises ValueError on a wrong dtype, shape or layout; NaN is not looked for.)");
}

}  // namespace fgsbir::bindings
