// _native.DlpackTensor and cuda_devices: there with and without CUDA.
#include <string>

#include "bindings.h"
#include "dlpack.h"
#ifdef FGSBIR_HAS_CUDA
#include "cuda/devices.h"
#endif

namespace fgsbir::bindings {
namespace {

// A tensor taken over from another library: where it lies and how. Gives it back when it goes.
class DlpackTensor {
  public:
    explicit DlpackTensor(const py::capsule& capsule) {
        const std::string name = capsule.name() == nullptr ? "" : capsule.name();
        if (name == "dltensor_versioned") {
            auto* managed = capsule.get_pointer<dlpack::ManagedTensorVersioned>();
            if (managed->version.major != dlpack::kMajor) {
                throw py::value_error("the tensor is of DLPack version " + std::to_string(managed->version.major) + "." +
                                      std::to_string(managed->version.minor) + ", expected version 1");
            }
            tensor_ = &managed->tensor;
            read_only_ = (managed->flags & dlpack::kReadOnly) != 0;
            take(capsule, "used_dltensor_versioned");
            versioned_ = managed;
        } else if (name == "dltensor") {
            auto* managed = capsule.get_pointer<dlpack::ManagedTensor>();
            tensor_ = &managed->tensor;
            take(capsule, "used_dltensor");
            plain_ = managed;
        } else {
            throw py::value_error("the capsule is named '" + name +
                                  "', expected 'dltensor' or 'dltensor_versioned': each can be taken once");
        }
    }
    DlpackTensor(const DlpackTensor&) = delete;
    DlpackTensor& operator=(const DlpackTensor&) = delete;
    ~DlpackTensor() {
        if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
        if (plain_ != nullptr && plain_->deleter != nullptr) plain_->deleter(plain_);
    }

    std::uintptr_t pointer() const { return reinterpret_cast<std::uintptr_t>(tensor_->data) + tensor_->byte_offset; }
    py::tuple device() const { return py::make_tuple(tensor_->device.type, tensor_->device.id); }
    bool read_only() const { return read_only_; }

    py::tuple shape() const {
        py::tuple sizes(static_cast<std::size_t>(tensor_->ndim));
        for (std::int32_t i = 0; i < tensor_->ndim; ++i) sizes[static_cast<std::size_t>(i)] = tensor_->shape[i];
        return sizes;
    }

    // Bytes; None for C order.
    py::object strides() const {
        if (tensor_->strides == nullptr) return py::none();
        py::tuple bytes(static_cast<std::size_t>(tensor_->ndim));
        for (std::int32_t i = 0; i < tensor_->ndim; ++i) {
            bytes[static_cast<std::size_t>(i)] = tensor_->strides[i] * tensor_->dtype.bits / 8;
        }
        return bytes;
    }

    // As in NumPy's type strings; '?' with the standard's numbers for types that NumPy lacks.
    std::string typestr() const {
        const dlpack::DataType& t = tensor_->dtype;
        const char kind = t.code == dlpack::kInt     ? 'i'
                          : t.code == dlpack::kUInt  ? 'u'
                          : t.code == dlpack::kFloat ? 'f'
                          : t.code == dlpack::kBool  ? 'b'
                                                     : '?';
        if (kind == '?' || t.lanes != 1 || t.bits % 8 != 0) {
            return "?code " + std::to_string(t.code) + ", " + std::to_string(t.bits) + " bits, " + std::to_string(t.lanes) +
                   " lanes";
        }
        return (t.bits == 8 ? "|" : "<") + std::string(1, kind) + std::to_string(t.bits / 8);
    }

  private:
    // From here on the capsule's own destructor leaves the tensor alone.
    static void take(const py::capsule& capsule, const char* used) {
        if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
    }

    const dlpack::Tensor* tensor_ = nullptr;
    dlpack::ManagedTensor* plain_ = nullptr;
    dlpack::ManagedTensorVersioned* versioned_ = nullptr;
    bool read_only_ = false;
};

py::object cuda_devices(bool probe) {
#ifdef FGSBIR_HAS_CUDA
    cuda::Devices found;
    {
        const py::gil_scoped_release release;
        found = cuda::devices(probe);
    }
    if (found.list.empty()) return py::str(found.problem);
    py::list list;
    for (const cuda::Device& d : found.list) {
        py::dict entry;
        entry["name"] = d.name;
        entry["compute_capability"] = std::to_string(d.major) + "." + std::to_string(d.minor);
        entry["memory"] = d.memory;
        entry["multiprocessors"] = d.multiprocessors;
        entry["problem"] = d.problem;
        list.append(entry);
    }
    return list;
#else
    static_cast<void>(probe);
    return py::str("built without device code (" FGSBIR_NO_CUDA_REASON "): build again with nvcc on PATH and FGSBIR_CUDA=ON set");
#endif
}

}  // namespace

void define_device(py::module_& module) {
    py::class_<DlpackTensor>(module, "DlpackTensor", "A tensor of another library, taken from a DLPack capsule without a copy.")
        .def(py::init<const py::capsule&>(), py::arg("capsule"),
             "Take over what a 'dltensor' or 'dltensor_versioned' capsule holds; it is given back when this object goes. Raises "
             "ValueError for any other capsule, a used one, or an unknown version; the capsule then stays as it was.")
        .def_property_readonly("pointer", &DlpackTensor::pointer, "Address of the first element.")
        .def_property_readonly("device", &DlpackTensor::device, "(device type, device number) in DLPack's numbers.")
        .def_property_readonly("shape", &DlpackTensor::shape)
        .def_property_readonly("strides", &DlpackTensor::strides, "Bytes; None for C order.")
        .def_property_readonly("typestr", &DlpackTensor::typestr, "As in NumPy; begins with '?' for types that it lacks.")
        .def_property_readonly("read_only", &DlpackTensor::read_only);
    module.def("cuda_devices", &cuda_devices, py::arg("probe") = false,
               R"(The GPUs: a list of dicts, or a str that says why there is none.

Keys: name, compute_capability ('8.7'), memory (bytes), multiprocessors, problem ('' or why kernels cannot run there; looked into
only with ``probe``, which starts CUDA on every device).)");
}

}  // namespace fgsbir::bindings
