#include "adapt_cuda.h"

#include <stdexcept>
#include <string>

#include "cuda/adapt_descent.cuh"
#include "cuda/adapt_gram.cuh"
#include "cuda/adapt_margin.cuh"
#include "cuda/adapt_results.cuh"
#include "cuda/launch.cuh"

namespace fgsbir {
namespace cuda {
namespace {

constexpr int kMaxThreads = 512;

// Reads the task's record and finds out where everything lies. All threads call; ends with a barrier.
__device__ __forceinline__ void lay_out(const AdaptLaunch& launch, int turn, AdaptBlock& at) {
    constexpr int kWords = sizeof(AdaptRecord) / sizeof(int);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kWords) {
        reinterpret_cast<int*>(&at.record)[thread] = __ldg(reinterpret_cast<const int*>(launch.records + turn) + thread);
    }
    __syncthreads();
    if (thread == 0) {
        at.lists = adapt_lists(at.record.sizes);
        at.places = adapt_places(at.record, launch.width, launch.hidden, at.record.memory == kAllGlobal ? 0 : at.lists.staged);
        if (at.record.memory == kMatricesGlobal) {  // the workspace begins with the matrices
            at.places.outputs -= at.places.tables;
            at.places.velocity -= at.places.tables;
            at.places.coefficients -= at.places.tables;
            at.places.full -= at.places.tables;
        }
        at.row4 = at.places.columns / 4;
        at.active4 = at.places.active / 4;
        at.first4 = at.places.first_coefficient / 4;
        at.row_lanes = 1;
        while (at.row_lanes < 32 && at.row_lanes < at.row4) at.row_lanes *= 2;
    }
    __syncthreads();
}

// Outputs of the rows that take part, padded with zeros; the moving rows' inner products, transposed; coefficients 0.
__device__ __forceinline__ void load_task(const AdaptState& s, bool gram_form) {
    const int columns = 4 * s.at.row4, moving = s.sizes().moving;
    if (!gram_form) {
        auto* const outputs = reinterpret_cast<float*>(s.outputs());
        for (int i = s.thread; i < s.sizes().used * columns; i += s.threads()) {
            const int row = i / columns, column = i % columns;
            outputs[i] = column < s.launch.width ? __ldg(s.base_outputs(s.row_of()[row]) + column) : 0.0F;
        }
    }
    for (int i = s.thread; i < moving * s.at.places.gram_stride; i += s.threads()) {
        const int from = i / s.at.places.gram_stride, to = i % s.at.places.gram_stride;
        s.gram()[i] = to < moving ? __ldg(s.base_gram(s.row_of()[to]) + s.row_of()[from]) : 0.0F;
    }
    const int coefficients = moving * (s.at.row4 - s.at.first4);
    for (int i = s.thread; i < coefficients; i += s.threads()) s.coefficients()[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
}

// The whole descent; returns past a barrier.
__device__ __forceinline__ void descend(const AdaptState& s) {
    const AdaptLaunch& launch = s.launch;
    const bool gram_form = s.at.record.gram_form != 0;
    load_task(s, gram_form);
    if (gram_form) {
        multiply_outputs(s);
        __syncthreads();
        factorise(s);
        place_factor(s);
    }
    __syncthreads();
    measure_norms(s);
    __syncthreads();
    measure_pairs(s);
    __syncthreads();
    const bool asked = s.at.record.margin != s.at.record.margin;
    if (asked) predict_margin(s, launch.input.net_weights, launch.hidden);
    const double* const chosen = asked ? s.margin() : &s.at.record.margin;
    if (s.thread == 0 && launch.results.margins != nullptr) launch.results.margins[s.at.record.task] = *chosen;
    const auto margin = static_cast<float>(*chosen);
    for (int step = 0;; ++step) {
        weigh_triplets(s, margin, launch.sharpness);
        __syncthreads();
        write_loss(s, step);
        if (step == launch.steps) break;
        const auto alpha = static_cast<float>(launch.step_sizes[step]);
        weigh_pairs(s);
        __syncthreads();
        gather_gradients(s, alpha, step == 0 ? 0.0F : launch.momentum);
        __syncthreads();
        move_rows(s, alpha);
        __syncthreads();
        measure_pairs(s);
        __syncthreads();
    }
}

__device__ __forceinline__ void run_task(const AdaptState& s) {
    const AdaptLaunch& launch = s.launch;
    const AdaptRecord& record = s.at.record;
    const AdaptResults<float>& results = launch.results;
    if (s.sizes().triplets > 0) {
        descend(s);
    } else {
        for (int step = s.thread; step <= launch.steps; step += s.threads()) s.losses()[step] = 0.0;
        if (s.thread == 0 && results.margins != nullptr) results.margins[record.task] = record.margin;
    }
    const bool wanted = record.result_row >= 0, gram_form = record.gram_form != 0;
    const std::int64_t at = record.result_row * s.launch.width;
    float* const coefficients = wanted && results.coefficients != nullptr ? results.coefficients + at : nullptr;
    float* const moved = wanted && results.moved != nullptr ? results.moved + at : nullptr;
    if (gram_form) {
        mix_coefficients(s, coefficients);
        __syncthreads();
    }
    const Coefficients a = gram_form ? Coefficients{s.full(), s.launch.width}
                                     : Coefficients{reinterpret_cast<const float*>(s.coefficients()), 4 * s.at.row4};
    write_rows(s, a, gram_form, coefficients, moved);
    std::int32_t* const base_rank = results.base_ranks != nullptr ? results.base_ranks + record.task : nullptr;
    std::int32_t* const adapted_rank = results.adapted_ranks != nullptr ? results.adapted_ranks + record.task : nullptr;
    if (record.query >= 0) {
        Pool pool{};
        pool.outputs = launch.input.pool_outputs + record.pool_row * s.launch.width;
        pool.cross = launch.photos_move ? launch.input.cross + record.cross_at : nullptr;
        pool.photos = record.photos;
        pool.photos_move = launch.photos_move;
        rank_photos(s, a, pool, record.query, record.truth, base_rank, adapted_rank);
    } else if (s.thread == 0) {
        if (base_rank != nullptr) *base_rank = 0;
        if (adapted_rank != nullptr) *adapted_rank = 0;
    }
}

// The whole adaptation of many tasks.
//
// A block owns one task from its first load to its results (and takes further ones where there are fewer blocks than tasks, which
// is so only with a workspace). Its state (outputs U, velocity V, coefficients A, Gram matrix, lists of who meets whom) lies in
// shared memory, or beyond that in the block's part of the workspace. Each step has five phases with a barrier after each: a
// thread for a pair's weight, eight lanes for a pair's distance, up to 32 lanes for a run of triplets, row_lanes lanes (four
// columns each) for a row of the gradient and for two or four rows of U -= alpha K V, whose norms come out of the same pass; a
// warp for a row that meets 16 others or more.
//
// Global memory, for m used rows, mv of them moving: reads 4 (m D + mv^2) bytes and the lists (about 40 bytes a triplet), writes
// 4 m D bytes each for coefficients and moved outputs and 8 (T + 1) for losses; in gram form U0 is read about m/4 times from the
// caches instead. Work: D (pairs + meetings + mv^2) multiplications a step, with 2 m in the place of D in gram form.
//
// Deterministic: no atomics; every sum has an order that depends on the task alone, not on the batch or the number of threads, so
// a task gives the same bits on every run and in every batch. Limits: AdaptCudaPlan.
//
// kAllFit: all state of every task of the launch is in shared memory, and loads and stores go there without asking where to.
template <bool kAllFit>
__global__ void __launch_bounds__(kMaxThreads, kAllFit ? 2 : 1) adapt_kernel(const __grid_constant__ AdaptLaunch launch) {
    FGSBIR_DYNAMIC_SHARED(float, shared);
    FGSBIR_SHARED(AdaptBlock, at);
    const int thread = static_cast<int>(threadIdx.x);
    auto* const workspace = reinterpret_cast<float*>(launch.workspace + blockIdx.x * launch.workspace_stride);
    for (int turn = static_cast<int>(blockIdx.x); turn < launch.tasks; turn += static_cast<int>(gridDim.x)) {
        lay_out(launch, turn, at);
        const int* const lists = launch.lists + at.record.lists_at;
        const bool staged = kAllFit || at.record.memory != kAllGlobal;
        if (staged) {
            auto* const copy = reinterpret_cast<int4*>(shared);
            for (int i = thread; i < at.lists.staged / 4; i += static_cast<int>(blockDim.x)) {
                copy[i] = __ldg(reinterpret_cast<const int4*>(lists) + i);
            }
            __syncthreads();
        }
        const int* const own_lists = reinterpret_cast<const int*>(shared);
        if constexpr (kAllFit) {
            run_task({at, launch, own_lists, shared, shared, thread});
        } else {
            run_task({at, launch, staged ? own_lists : lists, staged ? shared : workspace,
                      at.record.memory == kAllShared ? shared : workspace, thread});
        }
        __syncthreads();  // the next task overwrites what slower threads still read
    }
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(std::string("adapt_cuda: ") + message);
}

}  // namespace
}  // namespace cuda

AdaptCudaDevice adapt_cuda_device() {
    int device = 0, shared = 0, multiprocessors = 0;
    cuda::check(cudaGetDevice(&device), "adapt_cuda: the current device");
    cuda::check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "adapt_cuda: shared memory");
    cuda::check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "adapt_cuda: multiprocessors");
    // The kernel's own variables take their part of it.
    return {static_cast<std::size_t>(shared) - sizeof(cuda::AdaptBlock), multiprocessors};
}

AdaptCudaTable::AdaptCudaTable(const AdaptCudaPlan& plan) {
    if (plan.table.empty()) return;
    cuda::check(cudaMalloc(&memory_, plan.table.size()), "adapt_cuda: memory for the plan's table");
    try {
        // The copy is over when this returns: whatever stream the first launch is in, it finds the table there.
        cuda::check(cudaMemcpyAsync(memory_, plan.table.data(), plan.table.size(), cudaMemcpyHostToDevice, nullptr),
                    "adapt_cuda: copying");
        cuda::check(cudaStreamSynchronize(nullptr), "adapt_cuda: copying the plan's table");
    } catch (...) {
        cudaFree(memory_);
        throw;
    }
}

AdaptCudaTable::~AdaptCudaTable() { cudaFree(memory_); }

void adapt_cuda(const AdaptCudaPlan& plan, const void* table, const AdaptCudaInput& input, const AdaptResults<float>& results,
                void* workspace, void* stream) {
    using cuda::require;
    if (plan.tasks == 0) return;
    require(table != nullptr && reinterpret_cast<std::uintptr_t>(table) % 16 == 0,
            "the table must lie in device memory at a multiple of 16 bytes");
    require(input.outputs != nullptr && input.gram != nullptr && results.losses != nullptr,
            "outputs, gram and losses are needed");
    require(plan.workspace_bytes == 0 || (workspace != nullptr && reinterpret_cast<std::uintptr_t>(workspace) % 16 == 0),
            "this plan needs workspace_bytes of device memory at a multiple of 16 bytes");
    require(!plan.ranks || input.pool_outputs != nullptr, "tasks have queries, so pool_outputs is needed");
    require(!plan.ranks || !plan.photos_move || input.cross != nullptr, "photos move, so cross is needed to rank them");
    require(!plan.predicts || input.net_weights != nullptr, "a margin is NaN, so net_weights is needed");

    const auto* const bytes = static_cast<const unsigned char*>(table);
    cuda::AdaptLaunch launch{};
    launch.records = reinterpret_cast<const cuda::AdaptRecord*>(bytes);
    launch.lists = reinterpret_cast<const int*>(bytes + plan.lists_at);
    launch.step_sizes = reinterpret_cast<const double*>(bytes + plan.step_sizes_at);
    launch.input = input;
    launch.results = results;
    launch.workspace = static_cast<unsigned char*>(workspace);
    launch.workspace_stride = plan.workspace_bytes / static_cast<std::size_t>(plan.blocks);
    launch.tasks = static_cast<int>(plan.tasks);
    launch.width = static_cast<int>(plan.width);
    launch.steps = static_cast<int>(plan.num_steps);
    launch.hidden = static_cast<int>(plan.hidden);
    launch.momentum = static_cast<float>(plan.momentum);
    launch.sharpness = static_cast<float>(plan.sharpness);
    launch.photos_move = plan.photos_move;
    const auto kernel = plan.workspace_bytes == 0 ? &cuda::adapt_kernel<true> : &cuda::adapt_kernel<false>;
    if (plan.shared_bytes > 48 * 1024) {
        cuda::check(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(plan.shared_bytes)),
            "adapt_cuda: shared memory");
    }
    cuda::launch("adapt_cuda", kernel, dim3(static_cast<unsigned>(plan.blocks)), dim3(static_cast<unsigned>(plan.threads)),
                 plan.shared_bytes, static_cast<cudaStream_t>(stream), launch);
}

}  // namespace fgsbir
