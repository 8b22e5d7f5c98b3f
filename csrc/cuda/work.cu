#include "cuda/work.h"

#include "cuda/launch.cuh"

namespace fgsbir::cuda {
namespace {

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }

}  // namespace

void* allocate(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "allocating device memory");
    return memory;
}

void release(void* memory) { check(cudaFree(memory), "freeing device memory"); }

Mapped allocate_mapped(std::size_t bytes) {
    Mapped memory{nullptr, nullptr};
    check(cudaHostAlloc(&memory.host, bytes, cudaHostAllocMapped), "allocating host memory for the device");
    const cudaError_t error = cudaHostGetDevicePointer(&memory.device, memory.host, 0);
    if (error != cudaSuccess) cudaFreeHost(memory.host);
    check(error, "mapping host memory");
    return memory;
}

void release_mapped(void* host) { check(cudaFreeHost(host), "freeing host memory"); }

bool is_integrated(int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, cudaDevAttrIntegrated, device), "asking whether the device shares the host's memory");
    return value != 0;
}

void* make_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    return stream;
}

void destroy_stream(void* stream) { check(cudaStreamDestroy(stream_of(stream)), "destroying a stream"); }

void synchronize(void* stream) { check(cudaStreamSynchronize(stream_of(stream)), "waiting for a stream"); }

void copy(void* to, const void* from, std::size_t bytes, void* stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), "copying");
}

void begin_capture(void* stream) {
    // Thread-local: what other threads allocate meanwhile is none of this recording's business.
    check(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "starting to record a stream");
}

void* end_capture(void* stream) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_of(stream), &graph), "recording a stream");
    cudaGraphExec_t recording = nullptr;
    const cudaError_t error = cudaGraphInstantiateWithFlags(&recording, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "preparing a recorded stream");
    return recording;
}

void launch_recording(void* recording, void* stream) {
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), stream_of(stream)), "running recorded work");
}

void destroy_recording(void* recording) {
    check(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording)), "forgetting recorded work");
}

}  // namespace fgsbir::cuda
