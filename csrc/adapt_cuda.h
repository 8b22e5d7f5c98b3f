// Adaptation on the GPU: the same descent as adapt.h in float32, all tasks of a batch in one launch, one block each.
// This header needs no CUDA header; a stream is a cudaStream_t, or nullptr for the default one. What CUDA refuses throws
// fgsbir::cuda::Error (cuda/launch.cuh).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "adapt.h"

namespace fgsbir {

// What a plan must know of the GPU.
struct AdaptCudaDevice {
    std::size_t shared_bytes;  // that one block may have for its task
    int multiprocessors;
};

// Of the current device. Throws where there is none.
AdaptCudaDevice adapt_cuda_device();

// How one batch is launched. It depends on sizes, triplets, margins, queries and the rule, and not on outputs or inner products:
// two people with five pairs each can use the same plan one after the other.
struct AdaptCudaPlan {
    std::vector<unsigned char> table;  // what the kernel reads; to be copied to the device, at a multiple of 16 bytes
    std::int64_t records_at = 0, lists_at = 0, step_sizes_at = 0;  // bytes within it
    std::int64_t tasks = 0, width = 0, num_steps = 0, hidden = 0;
    double momentum = 0.0, sharpness = 0.0;
    bool photos_move = false, ranks = false, predicts = false;  // whether any task has a query, or asks for its margin
    int blocks = 0, threads = 0;
    std::size_t shared_bytes = 0;     // of each block
    std::size_t workspace_bytes = 0;  // device memory that the launch needs for tasks beyond shared memory; 0: all fit
};

// Checks the batch as adapt() does (check_adapt) and arranges it. All arrays in host memory; supports.outputs, gram,
// pools.outputs, cross and margin_net.weights are not read and may be nullptr. Throws std::invalid_argument, also where a task is
// beyond the kernel's limits: 65,535 rows named by triplets, 2^26 numbers in one matrix or list. A task with fewer columns than
// rows takes the span form whatever the rule says.
AdaptCudaPlan plan_adapt_cuda(const AdaptBatch<float>& batch, const AdaptCudaDevice& device);

// A plan's table in the current device's memory, for as long as this lives. Throws cuda::Error.
class AdaptCudaTable {
  public:
    explicit AdaptCudaTable(const AdaptCudaPlan& plan);
    AdaptCudaTable(const AdaptCudaTable&) = delete;
    AdaptCudaTable& operator=(const AdaptCudaTable&) = delete;
    ~AdaptCudaTable();
    const void* data() const { return memory_; }

  private:
    void* memory_ = nullptr;
};

// The large arrays of a batch, in device memory, laid out as in AdaptBatch<float>.
struct AdaptCudaInput {
    const float* outputs;       // AdaptSupports::outputs
    const float* gram;          // AdaptSupports::gram
    const float* pool_outputs;  // AdaptPools::outputs; nullptr where nothing is ranked
    const float* cross;         // AdaptPools::cross; nullptr where photos do not move
    const float* net_weights;   // AdaptMarginNet::weights; nullptr where all margins are given
};

// Runs the plan on the stream and returns at once. table: the plan's table, in device memory. Results as adapt(), in device
// memory; losses must not be nullptr. workspace: plan.workspace_bytes of device memory at a multiple of 16 bytes, or nullptr
// where that is 0; two launches that overlap in time must not share it. Agreement with the float64 reference: coefficients within
// 1e-4 of the largest one of the task, losses within 1e-5 (docs/cuda.md says what was measured and where it ends). The same bits
// on every run, and for a task whatever batch it is in. Throws std::invalid_argument on a missing array, cuda::Error where the
// launch is refused.
void adapt_cuda(const AdaptCudaPlan& plan, const void* table, const AdaptCudaInput& input, const AdaptResults<float>& results,
                void* workspace, void* stream);

// ---- the head's side, as in adapt.h, all arrays in device memory; simple tiled kernels, not tuned: a framework's matrix product
// ----
// ---- will be faster on large problems ----

// U = X W^T + b: features [n, C] -> outputs [n, D].
void head_outputs_cuda(const AdaptHead<float>& head, const float* features, std::int64_t count, float* outputs, void* stream);

// X Y^T + 1: rows [n, C], others [m, C] -> products [n, m].
void gram_products_cuda(const float* rows, std::int64_t count, const float* others, std::int64_t others_count,
                        std::int64_t features, float* products, void* stream);

// W' = W + A X and b' = b + A 1: coefficients [m, D], support features [m, C] -> weight [D, C], bias [D], which may be the head's
// own.
void form_head_cuda(const AdaptHead<float>& head, const float* coefficients, const float* features, std::int64_t items,
                    float* weight, float* bias, void* stream);

}  // namespace fgsbir
