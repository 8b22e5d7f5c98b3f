// _native.rasterize_cuda and what Python needs to know about device memory.
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <tuple>

#include "bindings.h"
#include "cuda/devices.h"
#include "rasterize_cuda.h"

namespace fgsbir::bindings {
namespace {

// Address and first extent of an array. Everything else about it was checked in Python (fgsbir_edge/device.py).
using Array = std::tuple<std::uintptr_t, std::int64_t>;

template <typename T>
T* at(const Array& array) {
    return reinterpret_cast<T*>(std::get<0>(array));
}

void rasterize_cuda(const std::tuple<Array, Array, Array>& sketches, std::uintptr_t out, int format,
                    const std::tuple<int, int>& size,
                    const std::tuple<int, float, bool, std::array<float, 3>, std::array<float, 3>>& settings,
                    const std::tuple<int, std::uintptr_t>& place, bool check) {
    const auto& [points, strokes, ends] = sketches;
    const SketchBatchView view{at<const float>(points),  std::get<1>(points),          at<const std::int64_t>(strokes),
                               std::get<1>(strokes) - 1, at<const std::int64_t>(ends), std::get<1>(ends) - 1};
    RasterParams params;
    std::tie(params.height, params.width) = size;
    params.style = static_cast<RasterStyle>(std::get<0>(settings));
    params.line_width = std::get<1>(settings);
    params.dark = std::get<2>(settings);
    params.mean = std::get<3>(settings);
    params.stddev = std::get<4>(settings);
    const auto [device, stream] = place;
    void* const in_stream = reinterpret_cast<void*>(stream);
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    if (check) check_sketches_cuda(view, in_stream);
    fgsbir::rasterize_cuda(view, params, static_cast<PixelFormat>(format), reinterpret_cast<void*>(out), in_stream);
}

void order_streams(int device, std::uintptr_t before, std::uintptr_t after) {
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    cuda::order_streams(reinterpret_cast<void*>(before), reinterpret_cast<void*>(after));
}

}  // namespace

void define_rasterize_cuda(py::module_& module) {
    module.def("rasterize_cuda", &rasterize_cuda, py::arg("sketches"), py::arg("out"), py::arg("format"), py::arg("size"),
               py::arg("settings"), py::arg("place"), py::arg("check"),
               R"(Draw a batch in device memory into device memory.

sketches is ((address of points, P), (address of stroke_offsets, S + 1), (address of sketch_offsets, B + 1)); out an address;
format 0 uint8, 1 float32, 2 float16; size (H, W); settings as in rasterize; place (device number, stream handle). Nothing is
checked but the settings, unless ``check``. Raises ValueError, and RuntimeError with the remedy when CUDA refuses.)");
    module.def(
        "cuda_device_of", [](std::uintptr_t address) { return cuda::device_of(reinterpret_cast<const void*>(address)); },
        py::arg("address"), "Number of the device that an address belongs to, -1 for host memory. Raises RuntimeError.");
    module.def("cuda_order_streams", &order_streams, py::arg("device"), py::arg("before"), py::arg("after"),
               "What is put into the stream ``after`` from now on waits for what is in ``before`` now. Raises RuntimeError.");
}

}  // namespace fgsbir::bindings
