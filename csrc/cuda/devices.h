// The GPUs of this machine, and whether this library runs on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fgsbir::cuda {

struct Device {
    std::string name;
    int major, minor;    // compute capability
    std::size_t memory;  // bytes
    int multiprocessors;
    std::string problem;  // why the kernels cannot run there; empty where they can, or where nobody asked
};

struct Devices {
    std::vector<Device> list;
    std::string problem;  // why the list is empty
};

// Never throws on account of CUDA. With `probe` each device is asked whether the kernels would run, which starts CUDA on it: tens
// to hundreds of milliseconds and some of its memory.
Devices devices(bool probe);

// The device that an address belongs to, or -1 for host memory that no device knows. Throws Error.
int device_of(const void* address);

// What is put into `after` from now on waits for what is in `before` now. Both are streams (cudaStream_t) of the current device.
void order_streams(void* before, void* after);

// Makes a device current for as long as it lives. Throws Error.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device);
    ~DeviceGuard();
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int previous_ = 0, device_;
};

}  // namespace fgsbir::cuda
