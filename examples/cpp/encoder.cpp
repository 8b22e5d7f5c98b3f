#include "encoder.h"

#include <onnxruntime_cxx_api.h>

#include <stdexcept>

namespace robot {

struct Encoder::State {
    Ort::Env env{ORT_LOGGING_LEVEL_WARNING, "fgsbir_robot"};
    Ort::Session session{nullptr};
};

Encoder::Encoder(const std::string& path, int threads) : state_(std::make_unique<State>()) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    try {
        state_->session = Ort::Session(state_->env, path.c_str(), options);
    } catch (const Ort::Exception& error) {
        throw std::runtime_error(path + ": " + error.what() + "; name the encoder.onnx of the bundle that the pack was made with");
    }
}

Encoder::~Encoder() = default;

std::vector<float> Encoder::encode(std::vector<float>& pixels, std::int64_t count, std::int64_t size) {
    const std::int64_t shape[] = {count, 3, size, size};
    const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value input = Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape, 4);
    const char *input_name = "image", *output_name = "features";
    try {
        const std::vector<Ort::Value> outputs =
            state_->session.Run(Ort::RunOptions{nullptr}, &input_name, &input, 1, &output_name, 1);
        const float* features = outputs[0].GetTensorData<float>();
        return {features, features + outputs[0].GetTensorTypeAndShapeInfo().GetElementCount()};
    } catch (const Ort::Exception& error) {
        throw std::runtime_error(std::string("the encoder failed: ") + error.what());
    }
}

}  // namespace robot
