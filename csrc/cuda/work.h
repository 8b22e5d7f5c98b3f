// Streams, memory and recorded work of the current device, for hosts that bring no CUDA library of their own. Handles are CUDA's
// own (cudaStream_t, cudaGraphExec_t), so they can be handed to other libraries. All throw Error.
#pragma once

#include <cstddef>

namespace fgsbir::cuda {

void* allocate(std::size_t bytes);
void release(void* memory);

// Page-locked host memory that the device can read and write too: without a copy where both share their memory (Jetson), over the
// bus otherwise.
struct Mapped {
    void* host;
    void* device;
};
Mapped allocate_mapped(std::size_t bytes);
void release_mapped(void* host);

// Whether the device and the host share their memory.
bool is_integrated(int device);

void* make_stream();  // waits for no other stream, the default one included
void destroy_stream(void* stream);
void synchronize(void* stream);

// Either side may be host memory; page-locked, or the call waits.
void copy(void* to, const void* from, std::size_t bytes, void* stream);

// What this thread puts into the stream between begin and end is not run but recorded; a recording is run as often as wanted, with
// the same addresses and sizes. end_capture makes an end of it even when it throws.
void begin_capture(void* stream);
void* end_capture(void* stream);
void launch_recording(void* recording, void* stream);
void destroy_recording(void* recording);

}  // namespace fgsbir::cuda
