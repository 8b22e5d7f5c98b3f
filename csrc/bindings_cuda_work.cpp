// _native.cuda_*: streams, memory and recorded work, as numbers that fgsbir_edge/cuda_work.py gives owners to.
#include <cstdint>
#include <tuple>

#include "bindings.h"
#include "cuda/devices.h"
#include "cuda/work.h"

namespace fgsbir::bindings {
namespace {

using Handle = std::uintptr_t;

void* at(Handle handle) { return reinterpret_cast<void*>(handle); }
Handle number(const void* pointer) { return reinterpret_cast<Handle>(pointer); }

// Calls `work` with the device current and the interpreter unlocked.
template <typename Work>
auto on(int device, Work work) {
    const py::gil_scoped_release release;
    const cuda::DeviceGuard guard(device);
    return work();
}

}  // namespace

void define_cuda_work(py::module_& module) {
    const auto device = py::arg("device"), stream = py::arg("stream"), memory = py::arg("memory");
    module.def(
        "cuda_allocate", [](int d, std::size_t bytes) { return on(d, [&] { return number(cuda::allocate(bytes)); }); }, device,
        py::arg("bytes"), "Address of new device memory.");
    module.def(
        "cuda_release", [](int d, Handle m) { on(d, [&] { cuda::release(at(m)); }); }, device, memory);
    module.def(
        "cuda_allocate_mapped",
        [](int d, std::size_t bytes) {
            const cuda::Mapped mapped = on(d, [&] { return cuda::allocate_mapped(bytes); });
            return std::make_tuple(number(mapped.host), number(mapped.device));
        },
        device, py::arg("bytes"), "(address for the host, address for the device) of page-locked memory that both see.");
    module.def(
        "cuda_release_mapped", [](int d, Handle host) { on(d, [&] { cuda::release_mapped(at(host)); }); }, device,
        py::arg("host"));
    module.def(
        "cuda_is_integrated", [](int d) { return on(d, [&] { return cuda::is_integrated(d); }); }, device,
        "Whether the device shares the host's memory.");
    module.def(
        "cuda_make_stream", [](int d) { return on(d, [] { return number(cuda::make_stream()); }); }, device);
    module.def(
        "cuda_destroy_stream", [](int d, Handle s) { on(d, [&] { cuda::destroy_stream(at(s)); }); }, device, stream);
    module.def(
        "cuda_synchronize", [](int d, Handle s) { on(d, [&] { cuda::synchronize(at(s)); }); }, device, stream);
    module.def(
        "cuda_copy",
        [](int d, Handle to, Handle from, std::size_t bytes, Handle s) {
            on(d, [&] { cuda::copy(at(to), at(from), bytes, at(s)); });
        },
        device, py::arg("to"), py::arg("source"), py::arg("bytes"), stream, "Between any two memories, in stream order.");
    module.def(
        "cuda_begin_capture", [](int d, Handle s) { on(d, [&] { cuda::begin_capture(at(s)); }); }, device, stream,
        "What this thread puts into the stream from now on is recorded, not run.");
    module.def(
        "cuda_end_capture", [](int d, Handle s) { return on(d, [&] { return number(cuda::end_capture(at(s))); }); }, device,
        stream, "The recording.");
    module.def(
        "cuda_launch_recording", [](int d, Handle r, Handle s) { on(d, [&] { cuda::launch_recording(at(r), at(s)); }); }, device,
        py::arg("recording"), stream);
    module.def(
        "cuda_destroy_recording", [](int d, Handle r) { on(d, [&] { cuda::destroy_recording(at(r)); }); }, device,
        py::arg("recording"));
}

}  // namespace fgsbir::bindings
