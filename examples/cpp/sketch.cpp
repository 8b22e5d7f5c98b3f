#include "sketch.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace robot {
namespace {

constexpr double kCanvas = 256.0, kLongSide = 190.0, kMinExtent = 1e-9, kMaxCoordinate = 1e7;
constexpr std::size_t kMaxPoints = 100000;

template <typename Value>
std::vector<Value> rasterized(const Strokes& strokes, const fgsbir::RasterParams& input, fgsbir::PixelFormat format, int planes) {
    const std::vector<float> pixels = centred_pixels(strokes, input);
    const std::int64_t count = static_cast<std::int64_t>(strokes.offsets.size()) - 1, sketches[] = {0, count};
    std::vector<Value> image(static_cast<std::size_t>(planes) * static_cast<std::size_t>(input.height) *
                             static_cast<std::size_t>(input.width));
    fgsbir::rasterize({pixels.data(), strokes.offsets.back(), strokes.offsets.data(), count, sketches, 1}, input, format,
                      image.data());
    return image;
}

}  // namespace

Strokes read_strokes(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": cannot be read; check the path");
    Strokes strokes;
    strokes.offsets.push_back(0);
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
        const auto refuse = [&](const std::string& what) {
            throw std::runtime_error(path + ", line " + std::to_string(number) + ": " + what);
        };
        if (line.empty() || line[0] == '#') continue;
        std::replace(line.begin(), line.end(), ',', ' ');
        std::istringstream words(line);
        for (std::string word; words >> word;) {
            char* end = nullptr;
            const double value = std::strtod(word.c_str(), &end);
            if (*end != '\0' || !(std::abs(value) <= kMaxCoordinate)) refuse("\"" + word + "\" is no coordinate, expected x,y x,y ...");
            strokes.points.push_back(value);
        }
        if (strokes.points.size() % 2 != 0) refuse("has an x without a y");
        if (strokes.points.size() > 2 * kMaxPoints) refuse("more than 100000 points; thin the sketch first");
        const auto points = static_cast<std::int64_t>(strokes.points.size() / 2);
        if (points > strokes.offsets.back()) strokes.offsets.push_back(points);
    }
    if (strokes.points.size() < 4) throw std::runtime_error(path + ": fewer than two points; draw a line");
    return strokes;
}

std::vector<float> centred_pixels(const Strokes& strokes, const fgsbir::RasterParams& input) {
    double low[2], high[2];
    std::fill(low, low + 2, std::numeric_limits<double>::infinity());
    std::fill(high, high + 2, -std::numeric_limits<double>::infinity());
    for (std::size_t i = 0; i < strokes.points.size(); ++i) {
        low[i % 2] = std::min(low[i % 2], strokes.points[i]);
        high[i % 2] = std::max(high[i % 2], strokes.points[i]);
    }
    const double extent = std::max(high[0] - low[0], high[1] - low[1]);
    if (!(extent >= kMinExtent)) throw std::runtime_error("all points of a sketch coincide; draw a line");
    const double scale = kLongSide / extent, side[] = {static_cast<double>(input.width), static_cast<double>(input.height)};
    std::vector<float> pixels(strokes.points.size());
    for (std::size_t i = 0; i < pixels.size(); ++i) {
        const double middle = (low[i % 2] + high[i % 2]) / 2;
        const double pixel = ((strokes.points[i] - middle) * scale + kCanvas / 2) * (side[i % 2] / kCanvas);
        pixels[i] = static_cast<float>(input.style == fgsbir::RasterStyle::bresenham ? std::nearbyint(pixel) : pixel);
    }
    return pixels;
}

std::vector<std::uint8_t> draw(const Strokes& strokes, const fgsbir::RasterParams& input) {
    return rasterized<std::uint8_t>(strokes, input, fgsbir::PixelFormat::bytes, 1);
}

std::vector<float> encoder_input(const Strokes& strokes, const fgsbir::RasterParams& input) {
    return rasterized<float>(strokes, input, fgsbir::PixelFormat::floats, 3);
}

void write_pgm(const std::vector<std::uint8_t>& image, int width, int height, const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    file << "P5\n" << width << ' ' << height << "\n255\n";
    file.write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
    if (!file.flush()) throw std::runtime_error(path + ": cannot be written; choose a writable folder with free space");
}

}  // namespace robot
