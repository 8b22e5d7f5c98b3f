// A batch in device memory looked over: one pass of many threads over offsets and points, the first fault of each kind kept by an
// atomic minimum. Reads every byte of the batch once. Deterministic.
#include <limits>
#include <stdexcept>
#include <string>

#include "cuda/launch.cuh"
#include "rasterize_cuda.h"

namespace fgsbir {
namespace cuda {
namespace {

using Fault = unsigned long long;  // index of the first fault; the largest number: none
constexpr Fault kNone = std::numeric_limits<Fault>::max();
enum Kind { kSketchOrder, kSketchEnd, kStrokeOrder, kStrokeEnd, kPoints, kKinds };

__device__ void look_at_offsets(const std::int64_t* offsets, std::int64_t count, std::int64_t end, Fault* order, Fault* ends,
                                std::int64_t first, std::int64_t stride) {
    for (std::int64_t i = first; i <= count; i += stride) {
        if (i < count && offsets[i] > offsets[i + 1]) atomicMin(order, static_cast<Fault>(i + 1));
        if ((i == 0 && offsets[i] != 0) || (i == count && offsets[i] != end)) atomicMin(ends, static_cast<Fault>(i));
    }
}

__global__ void check_kernel(const SketchBatchView batch, Fault* faults) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    look_at_offsets(batch.sketch_offsets, batch.num_sketches, batch.num_strokes, faults + kSketchOrder, faults + kSketchEnd,
                    first, stride);
    look_at_offsets(batch.stroke_offsets, batch.num_strokes, batch.num_points, faults + kStrokeOrder, faults + kStrokeEnd, first,
                    stride);
    for (std::int64_t i = first; i < batch.num_points; i += stride) {
        const bool sound = fabsf(batch.points[2 * i]) <= kMaxCoordinate && fabsf(batch.points[2 * i + 1]) <= kMaxCoordinate;
        if (!sound) atomicMin(faults + kPoints, static_cast<Fault>(i));  // NaN comes here too
    }
}

// Device memory for the faults, given back whatever happens.
struct Faults {
    Fault* device = nullptr;
    Faults() { check(cudaMalloc(&device, kKinds * sizeof(Fault)), "check_sketches_cuda"); }
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;
    ~Faults() { cudaFree(device); }
};

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("check_sketches_cuda: " + what); }

void refuse_offsets(const std::string& name, Fault order, Fault end, std::int64_t expected) {
    if (end == 0) refuse(name + "[0] is not 0");
    if (order != kNone) refuse(name + " falls at index " + std::to_string(order) + "; offsets must never decrease");
    if (end != kNone) refuse(name + " does not end at " + std::to_string(expected) + ", the number of items it indexes");
}

}  // namespace
}  // namespace cuda

void check_sketches_cuda(const SketchBatchView& sketches, void* stream) {
    using namespace cuda;
    constexpr unsigned kThreads = 256, kBlocks = 256;
    const auto in_stream = static_cast<cudaStream_t>(stream);
    const Faults faults;
    Fault found[kKinds];
    check(cudaMemsetAsync(faults.device, 0xff, sizeof found, in_stream), "check_sketches_cuda");
    launch("check_sketches_cuda", check_kernel, dim3(kBlocks), dim3(kThreads), 0, in_stream, sketches, faults.device);
    check(cudaMemcpyAsync(found, faults.device, sizeof found, cudaMemcpyDeviceToHost, in_stream), "check_sketches_cuda");
    check(cudaStreamSynchronize(in_stream), "check_sketches_cuda");
    refuse_offsets("sketch_offsets", found[kSketchOrder], found[kSketchEnd], sketches.num_strokes);
    refuse_offsets("stroke_offsets", found[kStrokeOrder], found[kStrokeEnd], sketches.num_points);
    if (found[kPoints] != kNone) {
        refuse("points[" + std::to_string(found[kPoints]) +
               "] is not finite or beyond 1e9 pixels; check and recentre the sketch first");
    }
}

}  // namespace fgsbir
