// The part of the DLPack ABI (version 1) that reading a tensor of another library takes. Field order and types are the
// standard's.
#pragma once

#include <cstdint>

namespace fgsbir::dlpack {

struct Version {
    std::uint32_t major, minor;
};
constexpr std::uint32_t kMajor = 1;

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };

struct Device {
    std::int32_t type, id;
};

enum TypeCode : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBool = 6 };

struct DataType {
    std::uint8_t code, bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;    // [ndim]
    std::int64_t* strides;  // [ndim] in elements, or nullptr for C order
    std::uint64_t byte_offset;
};

struct ManagedTensor {
    Tensor tensor;
    void* manager;
    void (*deleter)(ManagedTensor* self);  // may be nullptr
};

struct ManagedTensorVersioned {
    Version version;  // fields after `deleter` may change from one major version to the next
    void* manager;
    void (*deleter)(ManagedTensorVersioned* self);  // may be nullptr
    std::uint64_t flags;
    Tensor tensor;
};
constexpr std::uint64_t kReadOnly = 1;

}  // namespace fgsbir::dlpack
