// What the host's code uses of the CUDA runtime: one device, whose memory is the host's; everything has happened when a call returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "emulator.h"

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorSystemDriverMismatch = 803,
    cudaErrorUnknown = 999,
};
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };


inline const char* cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidValue"; }
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid argument"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrIntegrated = 18, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrMultiProcessorCount ? 2
             : attribute == cudaDevAttrIntegrated        ? 1
                                                         : static_cast<int>(cuda_emulation::settings().shared_limit);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

// ---- recorded work: while a stream records, what is put into it is kept as functions instead of done ----
using cudaGraph_t = std::vector<std::function<void()>>*;
using cudaGraphExec_t = cudaGraph_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
namespace cuda_emulation {
struct Recorder {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;  // null: nothing is being recorded
};
inline Recorder& recorder() {
    static thread_local Recorder one;
    return one;
}
// Does `work`, or keeps it. Results of recorded work are not known yet, so it counts as done well.
inline cudaError_t now_or_recorded(cudaStream_t stream, std::function<cudaError_t()> work) {
    Recorder& r = recorder();
    if (r.graph == nullptr || r.stream != stream) return work();
    r.graph->push_back([work = std::move(work)] { work(); });
    return cudaSuccess;
}
}  // namespace cuda_emulation
constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    return *stream = reinterpret_cast<cudaStream_t>(new char), cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete reinterpret_cast<char*>(stream), cudaSuccess; }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (stream == nullptr || cuda_emulation::recorder().graph != nullptr) return cudaErrorInvalidValue;
    cuda_emulation::recorder() = {stream, new std::vector<std::function<void()>>};
    return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    if (stream != cuda_emulation::recorder().stream || stream == nullptr) return cudaErrorInvalidValue;
    *graph = std::exchange(cuda_emulation::recorder(), {}).graph;
    return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* recording, cudaGraph_t graph, unsigned) {
    return *recording = new std::vector<std::function<void()>>(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t recording) { return delete recording, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t recording, cudaStream_t) {
    for (const std::function<void()>& work : *recording) work();
    return cudaSuccess;
}

constexpr unsigned cudaHostAllocMapped = 2;
template <typename T>
cudaError_t cudaHostAlloc(T** memory, std::size_t bytes, unsigned) {
    *memory = static_cast<T*>(std::malloc(bytes));
    return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) { return std::free(memory), cudaSuccess; }
template <typename T>
cudaError_t cudaHostGetDevicePointer(T** device, void* host, unsigned) {
    return *device = static_cast<T*>(host), cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
template <typename T>
cudaError_t cudaMalloc(T** memory, std::size_t bytes) {
    *memory = static_cast<T*>(std::malloc(bytes));
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream = nullptr) {
    return cuda_emulation::now_or_recorded(stream, [=] { return std::memcpy(to, from, bytes), cudaSuccess; });
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream = nullptr) {
    return cuda_emulation::now_or_recorded(stream, [=] { return std::memset(to, value, bytes), cudaSuccess; });
}

inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }

struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount;
    std::size_t totalGlobalMem;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {"CPU emulator", 8, 7, 2, std::size_t{1} << 30};
    return cudaSuccess;
}

enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
};
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
    *attributes = {cudaMemoryTypeDevice, 0};
    return cudaSuccess;
}

using cudaEvent_t = struct CUevent_st*;
constexpr unsigned cudaEventDisableTiming = 2;
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = nullptr, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

struct cudaFuncAttributes {
    int numRegs;
};
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    return *attributes = {}, cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    const auto bytes = static_cast<std::size_t>(value);
    if (value < 0 || bytes > cuda_emulation::settings().shared_limit) return cudaErrorInvalidValue;
    cuda_emulation::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), bytes);
    return cudaSuccess;
}

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
    const dim3 grid = config->gridDim, block = config->blockDim;
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535) {
        return cudaErrorInvalidConfiguration;
    }
    if (config->dynamicSmemBytes > cuda_emulation::allowed_dynamic_shared(reinterpret_cast<const void*>(kernel))) {
        return cudaErrorInvalidValue;
    }
    const std::tuple<std::decay_t<Parameters>...> parameters{static_cast<Parameters>(arguments)...};
    cuda_emulation::Launch launch;
    launch.grid = {grid.x, grid.y, grid.z};
    launch.block = {block.x, block.y, block.z};
    launch.dynamic_shared = config->dynamicSmemBytes;
    launch.body = [=] { std::apply(kernel, parameters); };  // parameters are taken by value: each thread has its own copies
    return cuda_emulation::now_or_recorded(config->stream, [launch] { return cuda_emulation::run(launch), cudaSuccess; });
}
