#include "cuda/devices.h"

#include "cuda/launch.cuh"

namespace fgsbir::cuda {
namespace {

__global__ void probe_kernel() {}

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string problem_text(cudaError_t error) {
    cudaGetLastError();
    int driver = 0, runtime = 0;
    if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess) {
        cudaRuntimeGetVersion(&runtime);
        if (driver == 0) return "no NVIDIA driver is installed: the functions for a GPU cannot be used, all others can";
        return "the NVIDIA driver supports CUDA " + version_text(driver) + ", this was built with " + version_text(runtime) +
               ": update the driver, or build again with the older toolkit";
    }
    return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + "): " + remedy(error);
}

// Finding a kernel's attributes loads its code, which is where a device that it was not compiled for shows.
std::string problem_of(int device) {
    int previous = 0;
    cudaFuncAttributes attributes;
    cudaError_t error = cudaGetDevice(&previous);
    if (error == cudaSuccess) error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, probe_kernel);
    cudaSetDevice(previous);
    return error == cudaSuccess ? std::string() : problem_text(error);
}

}  // namespace

Devices devices(bool probe) {
    Devices found;
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        found.problem = problem_text(error != cudaSuccess ? error : cudaErrorNoDevice);
        return found;
    }
    for (int d = 0; d < count; ++d) {
        cudaDeviceProp properties;
        const cudaError_t refused = cudaGetDeviceProperties(&properties, d);
        if (refused != cudaSuccess) {
            found.list.push_back({"device " + std::to_string(d), 0, 0, 0, 0, problem_text(refused)});
            continue;
        }
        found.list.push_back({properties.name, properties.major, properties.minor, properties.totalGlobalMem,
                              properties.multiProcessorCount, probe ? problem_of(d) : std::string()});
    }
    return found;
}

int device_of(const void* address) {
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, address), "looking up an array's device");
    const bool is_host = attributes.type == cudaMemoryTypeUnregistered || attributes.type == cudaMemoryTypeHost;
    return is_host ? -1 : attributes.device;
}

void order_streams(void* before, void* after) {
    if (before == after) return;
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    const cudaError_t recorded = cudaEventRecord(event, static_cast<cudaStream_t>(before));
    const cudaError_t waiting =
        recorded == cudaSuccess ? cudaStreamWaitEvent(static_cast<cudaStream_t>(after), event, 0) : recorded;
    cudaEventDestroy(event);  // goes when it has happened
    check(waiting, "waiting for the stream that an array is written in");
}

DeviceGuard::DeviceGuard(int device) : device_(device) {
    check(cudaGetDevice(&previous_), "asking for the current device");
    if (device_ != previous_) check(cudaSetDevice(device_), "choosing a device");
}

DeviceGuard::~DeviceGuard() {
    if (device_ != previous_) cudaSetDevice(previous_);
}

}  // namespace fgsbir::cuda
