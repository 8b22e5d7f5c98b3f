// Links the installed device code and lists the GPUs. The exit status is 0 where there is one that the kernels run on, or where
// the library says why not.
#include <fgsbir/cuda/devices.h>
#include <fgsbir/rasterize_cuda.h>

#include <stdexcept>

int main() {
    const fgsbir::cuda::Devices found = fgsbir::cuda::devices(true);
    if (found.list.empty() == found.problem.empty()) return 1;
    fgsbir::RasterParams params;
    params.height = 0;
    try {
        fgsbir::rasterize_cuda({}, params, fgsbir::PixelFormat::bytes, nullptr, nullptr);
    } catch (const std::invalid_argument&) {
        return 0;
    }
    return 1;
}
