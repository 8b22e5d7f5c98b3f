// Memory, streams and recorded work: on the emulator everywhere, on a GPU as test_gpu_work.
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

#include "check.h"
#include "cuda/error.h"
#include "cuda/work.h"

namespace {

namespace cuda = fgsbir::cuda;
constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE
constexpr std::size_t kCount = 1000, kBytes = kCount * sizeof(std::int32_t);

// Page-locked numbers, as host and device see them.
struct Numbers {
    cuda::Mapped memory = cuda::allocate_mapped(kBytes);
    ~Numbers() { cuda::release_mapped(memory.host); }
    std::int32_t& operator[](std::size_t i) { return static_cast<std::int32_t*>(memory.host)[i]; }
    void fill(std::int32_t first) {
        for (std::size_t i = 0; i < kCount; ++i) (*this)[i] = first + static_cast<std::int32_t>(i);
    }
    bool counts_from(std::int32_t first) {
        bool good = true;
        for (std::size_t i = 0; i < kCount; ++i) good = good && (*this)[i] == first + static_cast<std::int32_t>(i);
        return good;
    }
};

void bytes_go_up_and_come_back(void* stream) {
    Numbers up, back;
    void* const there = cuda::allocate(kBytes);
    up.fill(7);
    back.fill(0);
    cuda::copy(there, up.memory.device, kBytes, stream);
    cuda::copy(back.memory.device, there, kBytes, stream);
    cuda::synchronize(stream);
    CHECK(back.counts_from(7));
    cuda::release(there);
}

void recorded_work_runs_when_it_is_launched(void* stream) {
    Numbers up, back;
    back.fill(0);
    cuda::begin_capture(stream);
    cuda::copy(back.memory.device, up.memory.device, kBytes, stream);
    void* const recording = cuda::end_capture(stream);
    up.fill(5);
    cuda::synchronize(stream);
    CHECK(back.counts_from(0));
    for (const std::int32_t first : {5, 50}) {
        up.fill(first);
        cuda::launch_recording(recording, stream);
        cuda::synchronize(stream);
        CHECK(back.counts_from(first));
    }
    cuda::destroy_recording(recording);
}

void misuse_is_refused(void* stream) {
    CHECK_THROWS(cuda::end_capture(stream), cuda::Error);
    CHECK_THROWS(cuda::begin_capture(nullptr), cuda::Error);  // the default stream cannot be recorded
}

}  // namespace

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "skipped: no GPU\n");
        return kSkipped;
    }
    void* const stream = cuda::make_stream();
    bytes_go_up_and_come_back(stream);
    recorded_work_runs_when_it_is_launched(stream);
    misuse_is_refused(stream);
    recorded_work_runs_when_it_is_launched(stream);  // a refusal leaves nothing behind
    std::printf("memory is %s\n", cuda::is_integrated(0) ? "shared with the host" : "the device's own");
    cuda::destroy_stream(stream);
    return check::finish();
}
