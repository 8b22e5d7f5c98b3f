// The bundle's encoder.onnx by ONNX Runtime's C++ API; built where that is found (FGSBIR_ROBOT_HAS_ENCODER).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace robot {

class Encoder {
  public:
    // Throws std::runtime_error where the file is no encoder.
    explicit Encoder(const std::string& path, int threads = 1);
    ~Encoder();

    // Normalised pixels [B, 3, S, S] to features [B, C].
    std::vector<float> encode(std::vector<float>& pixels, std::int64_t count, std::int64_t size);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace robot
