// fgsbir_edge._native: what it was built with, and the list of its parts.
#include "bindings.h"

#include "simd/isa.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
    py::dict info;
    info["version"] = FGSBIR_VERSION;
    info["compiler"] = FGSBIR_COMPILER;
    info["simd"] = fgsbir::isa_name(fgsbir::isa());
#ifdef FGSBIR_HAS_CUDA
    info["cuda"] = true;
#else
    info["cuda"] = false;
#endif
    info["cuda_toolkit"] = FGSBIR_CUDA_TOOLKIT;
    info["cuda_architectures"] = FGSBIR_CUDA_ARCHITECTURES;
    return info;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Native core of fgsbir_edge: rasteriser and inner loop. All functions release the interpreter lock.";
    fgsbir::bindings::define_rasterize(module);
    fgsbir::bindings::define_adapt(module);
    fgsbir::bindings::define_device(module);
    fgsbir::bindings::define_half(module);
    fgsbir::bindings::define_search(module);
#ifdef FGSBIR_HAS_CUDA
    fgsbir::bindings::define_adapt_cuda(module);
    fgsbir::bindings::define_cuda_work(module);
    fgsbir::bindings::define_rasterize_cuda(module);
#endif
    module.def("build_info", &build_info,
               "What this module was built with: version, compiler, simd (the instructions in use here), cuda (device code inside), "
               "cuda_toolkit and cuda_architectures ('' without).");
}
