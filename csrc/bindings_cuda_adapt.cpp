// _native.AdaptCudaPlan and adapt_cuda: what fgsbir_edge/adapt_cuda.py stands on.
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "adapt_cuda.h"
#include "bindings.h"
#include "cuda/devices.h"

namespace fgsbir::bindings {
namespace {

template <typename T>
std::vector<T> numbers(const char* name, const py::array& array, const char* expected, std::int64_t count = -1) {
    const T* data = input<T>(name, array, 1, expected);
    if (count >= 0 && array.size() != count) {
        refuse(name, array, std::string(expected) + " with " + std::to_string(count) + " elements");
    }
    return {data, data + array.size()};
}

template <typename T>
const T* data(const std::vector<T>& values) {
    return values.empty() ? nullptr : values.data();
}

// The batch's whole numbers, as AdaptBatch points to them.
struct Numbers {
    std::vector<std::uint8_t> moves;
    std::vector<std::int64_t> row_offsets, gram_offsets, pool_offsets, cross_offsets, triplet_offsets, result_rows;
    std::vector<std::int32_t> pool_of, support, triplets, query, truth;
    std::vector<double> margins, step_sizes;

    AdaptBatch<float> view(std::int64_t width) const {
        AdaptBatch<float> batch{};
        const auto supports = static_cast<std::int64_t>(row_offsets.size()) - 1;
        batch.supports = {nullptr, nullptr, data(moves), data(row_offsets), data(gram_offsets), supports, width};
        const auto pools = pool_offsets.empty() ? 0 : static_cast<std::int64_t>(pool_offsets.size()) - 1;
        batch.pools = {nullptr, data(pool_offsets), data(pool_of), nullptr, data(cross_offsets), pools};
        batch.tasks = {data(support),
                       data(triplets),
                       data(triplet_offsets),
                       data(margins),
                       data(result_rows),
                       data(query),
                       data(truth),
                       static_cast<std::int64_t>(support.size()),
                       0};
        return batch;
    }
};

using Supports = std::tuple<py::array, py::array>;  // row_offsets, moves
using Pools = std::tuple<py::array, py::array>;     // row offsets, pool_of
// support, triplets, triplet_offsets, margins, result_rows
using Tasks = std::tuple<py::array, py::array, py::array, py::array, py::array>;
using Queries = std::tuple<py::array, py::array>;  // query, truth
using Rule = std::tuple<py::array, double, double, int>;

void read_pools(Numbers& n, const Pools& pools) {
    const auto supports = static_cast<std::int64_t>(n.gram_offsets.size());
    n.pool_offsets = numbers<std::int64_t>("pool_offsets", std::get<0>(pools), "int64 [P + 1]");
    n.pool_of = numbers<std::int32_t>("pool_of", std::get<1>(pools), "int32 [S]", supports);
    std::int64_t end = 0;
    for (std::size_t s = 0; s < n.pool_of.size(); ++s) {  // inner products lie one support after another
        n.cross_offsets.push_back(end);
        const std::int64_t pool = n.pool_of[s];
        if (pool < 0 || pool + 1 >= static_cast<std::int64_t>(n.pool_offsets.size())) continue;  // check_adapt names it
        const auto p = static_cast<std::size_t>(pool);
        end += (n.pool_offsets[p + 1] - n.pool_offsets[p]) * (n.row_offsets[s + 1] - n.row_offsets[s]);
    }
}

Numbers read(const Supports& supports, const std::optional<Pools>& pools, const Tasks& tasks,
             const std::optional<Queries>& queries, const Rule& rule) {
    Numbers n;
    n.row_offsets = numbers<std::int64_t>("row_offsets", std::get<0>(supports), "int64 [S + 1]");
    if (n.row_offsets.empty()) refuse("row_offsets", std::get<0>(supports), "int64 [S + 1]");
    n.moves = numbers<std::uint8_t>("moves", std::get<1>(supports), "uint8 [R]", n.row_offsets.back());
    std::int64_t end = 0;
    for (std::size_t s = 0; s + 1 < n.row_offsets.size(); ++s) {
        n.gram_offsets.push_back(end);
        const std::int64_t items = n.row_offsets[s + 1] - n.row_offsets[s];
        end += items * items;
    }
    if (pools) read_pools(n, *pools);
    n.support = numbers<std::int32_t>("support", std::get<0>(tasks), "int32 [B]");
    const auto count = static_cast<std::int64_t>(n.support.size());
    const py::array& triplets = std::get<1>(tasks);
    const auto* rows = input<std::int32_t>("triplets", triplets, 2, "int32 [t, 3]");
    if (triplets.shape(1) != 3) refuse("triplets", triplets, "int32 [t, 3]");
    n.triplets.assign(rows, rows + triplets.size());
    n.triplet_offsets = numbers<std::int64_t>("triplet_offsets", std::get<2>(tasks), "int64 [B + 1]", count + 1);
    if (n.triplet_offsets.back() != triplets.shape(0)) {
        throw py::value_error("triplet_offsets ends with " + std::to_string(n.triplet_offsets.back()) +
                              ", expected the number of triplets, " + std::to_string(triplets.shape(0)));
    }
    n.margins = numbers<double>("margins", std::get<3>(tasks), "float64 [B]", count);
    n.result_rows = numbers<std::int64_t>("result_rows", std::get<4>(tasks), "int64 [B]", count);
    if (queries) {
        n.query = numbers<std::int32_t>("query", std::get<0>(*queries), "int32 [B]", count);
        n.truth = numbers<std::int32_t>("truth", std::get<1>(*queries), "int32 [B]", count);
    }
    n.step_sizes = numbers<double>("step_sizes", std::get<0>(rule), "float64 [T]");
    return n;
}

// A plan for one device, and its table there.
class Planned {
  public:
    Planned(const Supports& supports, const std::optional<Pools>& pools, const Tasks& tasks,
            const std::optional<Queries>& queries, const Rule& rule, bool photos_move, std::int64_t hidden, std::int64_t width,
            int device)
        : device_(device) {
        const Numbers n = read(supports, pools, tasks, queries, rule);
        AdaptBatch<float> batch = n.view(width);
        batch.tasks.photos_move = photos_move ? 1 : 0;
        batch.margin_net.hidden = hidden;
        batch.rule = {n.step_sizes.data(), static_cast<std::int64_t>(n.step_sizes.size()), std::get<1>(rule), std::get<2>(rule),
                      static_cast<AdaptForm>(std::get<3>(rule))};
        const py::gil_scoped_release release;
        const cuda::DeviceGuard guard(device);
        plan_ = plan_adapt_cuda(batch, adapt_cuda_device());
        table_ = std::make_unique<AdaptCudaTable>(plan_);
    }

    const AdaptCudaPlan& plan() const { return plan_; }
    const void* table() const { return table_->data(); }
    int device() const { return device_; }

  private:
    AdaptCudaPlan plan_;
    std::unique_ptr<AdaptCudaTable> table_;
    int device_;
};

template <typename T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

void launch(const Planned& planned, const std::array<std::uintptr_t, 5>& arrays, const std::array<std::uintptr_t, 6>& out,
            std::uintptr_t workspace, std::uintptr_t stream) {
    const AdaptCudaInput input{at<const float>(arrays[0]), at<const float>(arrays[1]), at<const float>(arrays[2]),
                               at<const float>(arrays[3]), at<const float>(arrays[4])};
    const AdaptResults<float> results{at<float>(out[0]),  at<float>(out[1]),        at<double>(out[2]),
                                      at<double>(out[3]), at<std::int32_t>(out[4]), at<std::int32_t>(out[5])};
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(planned.device());
    adapt_cuda(planned.plan(), planned.table(), input, results, at<void>(workspace), at<void>(stream));
}

}  // namespace

void define_adapt_cuda(py::module_& module) {
    py::class_<Planned>(module, "AdaptCudaPlan", "How a batch of adaptation tasks is launched, and its table on one GPU.")
        .def(py::init<const Supports&, const std::optional<Pools>&, const Tasks&, const std::optional<Queries>&, const Rule&,
                      bool, std::int64_t, std::int64_t, int>(),
             py::arg("supports"), py::arg("pools"), py::arg("tasks"), py::arg("queries"), py::arg("rule"), py::arg("photos_move"),
             py::arg("hidden"), py::arg("width"), py::arg("device"),
             R"(Check and arrange a batch; copies its table to the GPU ``device``.

supports (row_offsets int64 [S+1], moves uint8 [R]); pools None or (row offsets int64 [P+1], pool_of int32 [S]); tasks (support
int32 [B], triplets int32 [t, 3], triplet_offsets int64 [B+1], margins float64 [B], result_rows int64 [B]); queries None or (query int32
[B], truth int32 [B]); rule (step_sizes float64 [T], momentum, sharpness, form 0 automatic, 1 gram, 2 span); hidden is the margin
network's h, 0 without; width D. Raises ValueError on a wrong dtype, shape, index or setting, RuntimeError when CUDA refuses.)")
        .def_property_readonly("workspace_bytes", [](const Planned& p) { return p.plan().workspace_bytes; })
        .def_property_readonly(
            "shared_bytes", [](const Planned& p) { return p.plan().shared_bytes; }, "Shared memory of each block.")
        .def_property_readonly("blocks", [](const Planned& p) { return p.plan().blocks; })
        .def_property_readonly("threads", [](const Planned& p) { return p.plan().threads; }, "Of each block.");
    module.def("adapt_cuda", &launch, py::arg("plan"), py::arg("arrays"), py::arg("out"), py::arg("workspace"), py::arg("stream"),
               R"(Run a plan in a stream of its GPU.

All are addresses in device memory, 0 for none: arrays (outputs, gram, pool outputs, cross, network's weights), out (coefficients,
moved, losses, margins, base ranks, adapted ranks). Nothing is checked but that what the plan needs is there. Raises ValueError,
RuntimeError when CUDA refuses.)");
}

}  // namespace fgsbir::bindings
