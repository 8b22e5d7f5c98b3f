#include "cuda/launch.cuh"

#include <string>

namespace fgsbir::cuda {

const char* remedy(cudaError_t error) {
    switch (error) {
        case cudaErrorNoDevice:
            return "no NVIDIA GPU is visible; look at CUDA_VISIBLE_DEVICES and nvidia-smi, or use the CPU functions";
        case cudaErrorInsufficientDriver:
            return "there is no NVIDIA driver, or it is older than the CUDA toolkit this was built with; install or update it, or "
                   "use the CPU functions";
        case cudaErrorSystemDriverMismatch:
            return "parts of the driver differ in version; restart the machine after an update of the driver";
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorUnsupportedPtxVersion:
            return "this was built for other GPUs; build it again on this machine with CUDAARCHS set to the compute capability, as "
                   "in CUDAARCHS=87";
        case cudaErrorMemoryAllocation: return "free device memory, or use a smaller batch";
        case cudaErrorInvalidDevice: return "there is no device of that number; fgsbir-edge doctor lists them";
        case cudaErrorInvalidResourceHandle:
            return "the stream is not one of this device's; pass a stream of the device that the arrays are on";
        case cudaErrorIllegalAddress:
        case cudaErrorLaunchFailure:
            return "a kernel before this call failed and the process must start anew; compute-sanitizer names the kernel";
        default: return "CUDA_LAUNCH_BLOCKING=1 shows which call is to blame, compute-sanitizer why";
    }
}

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();
    throw Error(std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + "); " + remedy(error));
}

}  // namespace fgsbir::cuda
