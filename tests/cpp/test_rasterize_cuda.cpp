// The raster kernels against the CPU core: lines bit for bit, coverage within one level, whatever the tiles. Compiled twice: for
// the emulator, and for a GPU where there is a CUDA compiler (skipped there without a device).
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/launch.cuh"
#include "cuda/raster_launch.h"
#include "rasterize.h"
#include "rasterize_cuda.h"

namespace {

using fgsbir::PixelFormat;
using fgsbir::RasterParams;
using fgsbir::RasterStyle;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

#ifdef FGSBIR_CUDA_EMULATION
bool emulate(bool shuffle) {
    cuda_emulation::settings().shuffle = shuffle;
    cuda_emulation::settings().seed = 11;
    return true;
}
int races() { return cuda_emulation::races(); }
#else
bool emulate(bool shuffle) { return !shuffle; }  // a GPU runs its threads in its own order
int races() { return 0; }
#endif

// Device memory, `skew` bytes after an address that is a multiple of 16, and no byte more than asked for: reading or writing past
// it shows under AddressSanitizer and compute-sanitizer.
class Memory {
  public:
    explicit Memory(std::size_t bytes, std::size_t skew = 0) : bytes_(bytes), skew_(skew) {
        fgsbir::cuda::check(cudaMalloc(&memory_, std::max<std::size_t>(bytes + skew, 1)), "cudaMalloc");
    }
    template <typename T>
    explicit Memory(const std::vector<T>& values) : Memory(values.size() * sizeof(T)) {
        copy(memory_, values.data(), bytes_, cudaMemcpyHostToDevice);
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { cudaFree(memory_); }

    void* data() const { return memory_ + skew_; }
    void fill(int value) { fgsbir::cuda::check(cudaMemsetAsync(memory_, value, bytes_ + skew_, nullptr), "cudaMemset"); }
    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> values(bytes_);
        copy(values.data(), data(), bytes_, cudaMemcpyDeviceToHost);
        return values;
    }

  private:
    static void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
        if (bytes == 0) return;
        fgsbir::cuda::check(cudaMemcpyAsync(to, from, bytes, kind, nullptr), "cudaMemcpy");
        fgsbir::cuda::check(cudaStreamSynchronize(nullptr), "cudaMemcpy");
    }
    std::size_t bytes_, skew_;
    unsigned char* memory_ = nullptr;
};

struct Batch {
    std::vector<float> points;
    std::vector<std::int64_t> strokes{0}, sketches{0};

    void stroke(const std::vector<float>& xy) {
        points.insert(points.end(), xy.begin(), xy.end());
        strokes.push_back(static_cast<std::int64_t>(points.size() / 2));
    }
    void end_sketch() { sketches.push_back(static_cast<std::int64_t>(strokes.size()) - 1); }
    std::int64_t count() const { return static_cast<std::int64_t>(sketches.size()) - 1; }
    fgsbir::SketchBatchView view() const {
        return {points.data(),   static_cast<std::int64_t>(points.size() / 2),
                strokes.data(),  static_cast<std::int64_t>(strokes.size()) - 1,
                sketches.data(), count()};
    }
};

// A copy of a batch in device memory.
class DeviceBatch {
  public:
    explicit DeviceBatch(const Batch& batch)
        : points_(batch.points), strokes_(batch.strokes), sketches_(batch.sketches), view_(batch.view()) {
        view_.points = static_cast<const float*>(points_.data());
        view_.stroke_offsets = static_cast<const std::int64_t*>(strokes_.data());
        view_.sketch_offsets = static_cast<const std::int64_t*>(sketches_.data());
    }
    const fgsbir::SketchBatchView& view() const { return view_; }

  private:
    Memory points_, strokes_, sketches_;
    fgsbir::SketchBatchView view_;
};

using Image = std::vector<unsigned char>;  // output of any format

std::size_t element_bytes(PixelFormat format) { return format == PixelFormat::bytes ? 1 : format == PixelFormat::floats ? 4 : 2; }
std::size_t output_bytes(const RasterParams& p, PixelFormat format, std::int64_t count) {
    return static_cast<std::size_t>(count) * static_cast<std::size_t>(p.height) * static_cast<std::size_t>(p.width) *
           (format == PixelFormat::bytes ? 1 : 3) * element_bytes(format);
}

Image on_cpu(const Batch& batch, const RasterParams& p, PixelFormat format = PixelFormat::bytes) {
    Image image(output_bytes(p, format, batch.count()));
    fgsbir::rasterize(batch.view(), p, format, image.data());
    return image;
}

// With tiles of at most that height, or of the height that rasterize_cuda chooses (0). `skew`: elements that the output lies off
// a multiple of 16 bytes.
Image on_gpu(const Batch& batch, const RasterParams& p, PixelFormat format = PixelFormat::bytes, int tile_height = 0,
             int skew = 0) {
    const DeviceBatch copy(batch);
    Memory out(output_bytes(p, format, batch.count()), static_cast<std::size_t>(skew) * element_bytes(format));
    out.fill(0x5A);  // is never drawn
    if (tile_height == 0) {
        fgsbir::rasterize_cuda(copy.view(), p, format, out.data(), nullptr);
    } else {
        auto task = fgsbir::cuda::make_raster_task(copy.view(), p, format, out.data());
        const unsigned blocks = fgsbir::cuda::lay_out_tiles(task, tile_height);
        fgsbir::cuda::launch_raster(task, p.style, format, blocks, nullptr);
    }
    return out.bytes();
}

// Largest difference in levels of 255 of two byte images.
int apart(const Image& a, const Image& b) {
    int most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
    return most;
}

bool agree(RasterStyle style, const Image& expected, const Image& drawn) {
    return style == RasterStyle::bresenham ? drawn == expected : apart(expected, drawn) <= 1;
}

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    int upto(int n) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(n)); }  // 0..n-1
    float between(float low, float high) {
        return low + (high - low) * static_cast<float>(engine_() >> 40) / static_cast<float>(std::uint64_t{1} << 24);
    }

  private:
    std::mt19937_64 engine_;
};

// Short and long strokes, dots, empty strokes, empty sketches, now and then coordinates far away or exactly between two pixels.
Batch random_batch(Random& random, int sketches, int height, int width) {
    Batch batch;
    for (int b = 0; b < sketches; ++b) {
        const int strokes = random.upto(7);
        for (int s = 0; s < strokes; ++s) {
            std::vector<float> xy;
            const int points = random.upto(8) == 0 ? 0 : 1 + random.upto(random.upto(4) == 0 ? 90 : 12);
            const float w = static_cast<float>(width), h = static_cast<float>(height), step = random.upto(3) == 0 ? w : 9.0F;
            float x = random.between(-0.2F * w, 1.2F * w), y = random.between(-0.2F * h, 1.2F * h);
            for (int i = 0; i < points; ++i) {
                const int kind = random.upto(40);
                if (kind == 0) x = random.between(-1e9F, 1e9F);
                if (kind == 1) y = random.between(-1e5F, 1e5F);
                if (kind == 2) x = std::floor(x) + 0.5F;
                if (kind == 3) y = random.between(-9000.0F, 9000.0F);
                xy.push_back(x);
                xy.push_back(y);
                if (std::abs(x) > 2 * w) x = random.between(0.0F, w);
                if (std::abs(y) > 2 * h) y = random.between(0.0F, h);
                x += random.between(-step, step);
                y += random.between(-step, step);
                if (kind == 4) y = xy[xy.size() - 1];
                if (kind == 5) x = xy[xy.size() - 2];
            }
            batch.stroke(xy);
        }
        batch.end_sketch();
    }
    return batch;
}

RasterParams random_params(Random& random, RasterStyle style) {
    static const int sides[] = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 127, 128, 224, 255, 256, 257, 272, 299, 300};
    RasterParams p;
    p.height = sides[random.upto(static_cast<int>(std::size(sides)))];
    p.width = sides[random.upto(static_cast<int>(std::size(sides)))];
    p.style = style;
    p.dark = random.upto(2) == 0;
    p.line_width = random.upto(6) == 0 ? random.between(5.0F, 90.0F) : random.between(0.1F, 4.0F);
    p.mean = {0.485F, 0.456F, 0.406F};
    p.stddev = {0.229F, 0.224F, 0.225F};
    return p;
}

constexpr PixelFormat kFormats[] = {PixelFormat::bytes, PixelFormat::floats, PixelFormat::halves};
constexpr int kTileHeights[] = {1, 5, 16, 32};

void lines_are_bit_exact(std::uint64_t seed, int rounds) {
    Random random(seed);
    for (int round = 0; round < rounds; ++round) {
        const RasterParams p = random_params(random, RasterStyle::bresenham);
        const Batch batch = random_batch(random, 1 + random.upto(3), p.height, p.width);
        const PixelFormat format = kFormats[random.upto(3)];
        const int tile_height = random.upto(3) == 0 ? 256 : kTileHeights[random.upto(4)];
        CHECK(on_gpu(batch, p, format, tile_height, random.upto(2) == 0 ? 0 : random.upto(16)) == on_cpu(batch, p, format));
    }
}

// Bytes within one level of the CPU's; floats are exactly the function of these bytes that the CPU uses, halves are the floats
// rounded.
void coverage_is_within_one_level(std::uint64_t seed, int rounds) {
    Random random(seed);
    std::size_t different = 0, all = 0;
    for (int round = 0; round < rounds; ++round) {
        const RasterParams p = random_params(random, RasterStyle::antialias);
        const int tile_height = kTileHeights[random.upto(4)];
        const Batch batch = random_batch(random, 1 + random.upto(2), p.height, p.width);
        const Image expected = on_cpu(batch, p), drawn = on_gpu(batch, p, PixelFormat::bytes, tile_height, random.upto(16));
        CHECK(apart(expected, drawn) <= 1);
        for (std::size_t i = 0; i < drawn.size(); ++i) different += drawn[i] != expected[i] ? 1 : 0;
        all += drawn.size();

        const Image floats = on_gpu(batch, p, PixelFormat::floats, tile_height, random.upto(4));
        const std::size_t plane = static_cast<std::size_t>(p.height) * static_cast<std::size_t>(p.width);
        bool same = true;
        for (std::size_t c = 0; c < 3; ++c) {
            const auto scale = static_cast<float>(1.0 / (255.0 * static_cast<double>(p.stddev[c])));
            const auto shift = static_cast<float>(-static_cast<double>(p.mean[c]) / static_cast<double>(p.stddev[c]));
            for (std::size_t i = 0; i < drawn.size(); ++i) {
                float value;
                std::memcpy(&value, floats.data() + 4 * ((i / plane * 3 + c) * plane + i % plane), 4);
                const float product = static_cast<float>(drawn[i]) * scale;  // not fused: the tests are compiled so
                same = same && value == product + shift;
            }
        }
        CHECK(same);
        const Image halves = on_gpu(batch, p, PixelFormat::halves, tile_height, random.upto(8));
        for (std::size_t i = 0; same && i < floats.size() / 4; ++i) {
            float value;
            std::uint16_t half;
            std::memcpy(&value, floats.data() + 4 * i, 4);
            std::memcpy(&half, halves.data() + 2 * i, 2);
            same = half == __half_as_ushort(__float2half_rn(value));
        }
        CHECK(same);
    }
    CHECK(different * 100 < all);  // levels differ in few pixels, where rounding falls the other way
}

// Far more points than a block looks at between two barriers, and strokes that begin around those barriers.
void many_segments() {
    Random random(77);
    Batch batch;
    for (const int points : {2047, 1, 1, 2046, 2, 60}) {
        std::vector<float> xy;
        for (int i = 0; i < points; ++i) {
            const float around = static_cast<float>(i % 80);
            xy.push_back(around + random.between(-3.0F, 9.0F));
            xy.push_back(80.0F - around + random.between(-9.0F, 3.0F));
        }
        batch.stroke(xy);
    }
    batch.end_sketch();
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        RasterParams p;
        p.height = p.width = 80;
        p.style = style;
        CHECK(agree(style, on_cpu(batch, p), on_gpu(batch, p, PixelFormat::bytes, 32)));
    }
}

// Wide images: several tiles side by side, long segments across all of them.
void wide_images() {
    Random random(5);
    for (const int width : {768, 1001}) {
        const Batch batch = random_batch(random, 2, 40, width);
        for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
            RasterParams p;
            p.height = 40;
            p.width = width;
            p.style = style;
            CHECK(agree(style, on_cpu(batch, p), on_gpu(batch, p)));
        }
    }
}

// Dots, level and upright lines on both sides of the borders between tiles, where ink comes from the neighbour's pixels alone.
void tile_borders() {
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        RasterParams p;
        p.height = 64;
        p.width = 520;
        p.style = style;
        Batch batch;
        for (const float x : {0.0F, 1.0F, 254.0F, 255.0F, 256.0F, 257.0F, 511.0F, 512.0F, 519.0F, 520.0F}) {
            for (const float y : {0.0F, 1.0F, 15.0F, 16.0F, 17.0F, 31.0F, 32.0F, 63.0F, 64.0F}) {
                batch.stroke({x, y});
                batch.end_sketch();
            }
            batch.stroke({x, 3, x, 60});
            batch.end_sketch();
        }
        for (const float y : {15.0F, 16.0F, 32.0F, 47.0F}) {
            batch.stroke({3, y, 515, y});
            batch.end_sketch();
        }
        CHECK(agree(style, on_cpu(batch, p), on_gpu(batch, p, PixelFormat::bytes, 16)));
    }
}

// A device's data cannot be checked beforehand: nonsense draws something or nothing, but stays inside its arrays.
void nonsense_is_contained() {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        RasterParams p;
        p.height = p.width = 48;
        p.style = style;
        Batch good, bad;
        good.stroke({1, 1, 20, 20});
        good.stroke({30, 5, 5, 30});
        good.end_sketch();
        bad.stroke({1, 1, 20, 20, nan, 7, infinite, 9, 3e38F, 2, 2e9F, -2e9F});
        bad.stroke({30, 5, 5, 30});
        bad.stroke({nan, nan});
        bad.end_sketch();
        CHECK(on_gpu(bad, p) == on_gpu(good, p));  // the unsound segments are left out, the rest is drawn

        const std::int64_t most = std::numeric_limits<std::int64_t>::max(), least = std::numeric_limits<std::int64_t>::min();
        for (const auto& strokes :
             {std::vector<std::int64_t>{0, 999, 3}, {-7, 2, 2}, {most, least, 4}, {4, 2, 0}, {0, 2, most}}) {
            Batch odd = good;
            odd.strokes = strokes;
            CHECK(on_gpu(odd, p).size() == 48 * 48);
        }
        for (const auto& sketches : {std::vector<std::int64_t>{0, 999}, {-5, 1}, {2, 0}, {most, least}, {least, most}}) {
            Batch odd = good;
            odd.sketches = sketches;
            CHECK(on_gpu(odd, p).size() == 48 * 48);
        }
    }
}

void settings_are_checked() {
    Batch batch;
    batch.stroke({1, 1, 2, 2});
    batch.end_sketch();
    RasterParams good;
    good.height = good.width = 8;
    const auto refused = [&](auto change, PixelFormat format, int skew_bytes = 0) {
        RasterParams p = good;
        change(p);
        const DeviceBatch copy(batch);
        const Memory out(4096, static_cast<std::size_t>(skew_bytes));
        CHECK_THROWS(fgsbir::rasterize_cuda(copy.view(), p, format, out.data(), nullptr), std::invalid_argument);
    };
    refused([](RasterParams& p) { p.height = 0; }, PixelFormat::bytes);
    refused([](RasterParams& p) { p.width = fgsbir::kMaxSide + 1; }, PixelFormat::bytes);
    refused([](RasterParams& p) { p.style = static_cast<RasterStyle>(9); }, PixelFormat::bytes);
    refused([](RasterParams& p) { p.stddev[1] = 0; }, PixelFormat::floats);
    refused([](RasterParams&) {}, static_cast<PixelFormat>(5));
    refused([](RasterParams&) {}, PixelFormat::floats, 2);
    refused([](RasterParams&) {}, PixelFormat::halves, 1);
    auto huge = batch.view();
    huge.num_sketches = std::int64_t{1} << 32;
    CHECK_THROWS(fgsbir::rasterize_cuda(huge, good, PixelFormat::bytes, nullptr, nullptr), std::invalid_argument);
    auto none = batch.view();
    none.num_sketches = 0;
    fgsbir::rasterize_cuda(none, good, PixelFormat::bytes, nullptr, nullptr);  // nothing to do, nothing touched
}

// What check_sketches_cuda says of a batch; empty: that it is sound.
std::string fault(const Batch& batch) {
    const DeviceBatch copy(batch);
    try {
        fgsbir::check_sketches_cuda(copy.view(), nullptr);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return {};
}

void faults_are_named() {
    Random random(3);
    Batch good = random_batch(random, 3, 50, 50);
    good.stroke({1, 2, 3, 4, 5, 6});
    good.end_sketch();
    CHECK(fault(good).empty());
    CHECK(fault(Batch{}).empty());
    const auto names = [&](auto change, const std::string& words) {
        Batch bad = good;
        change(bad);
        return fault(bad).find(words) != std::string::npos;
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::size_t last = good.points.size() / 2 - 1;
    CHECK(names([&](Batch& b) { b.points[2 * last + 1] = nan; }, "points[" + std::to_string(last) + "]"));
    CHECK(names([&](Batch& b) { b.points[0] = b.points[2 * last] = -2e9F; }, "points[0]"));
    CHECK(names([](Batch& b) { b.strokes[0] = 1; }, "stroke_offsets[0]"));
    CHECK(names([](Batch& b) { b.strokes.back() -= 1; }, "stroke_offsets does not end at"));
    CHECK(names([](Batch& b) { b.strokes[b.strokes.size() - 2] += 9; },
                "stroke_offsets falls at index " + std::to_string(good.strokes.size() - 1)));
    CHECK(names([](Batch& b) { b.sketches[1] = 99; }, "sketch_offsets falls at index 2"));
    CHECK(names([](Batch& b) { b.sketches.back() += 1; }, "sketch_offsets does not end at"));
}

void tiles_follow_the_batch() {
    fgsbir::cuda::RasterTask task{};
    task.height = task.width = 256;
    const auto height = [&](std::int64_t sketches, RasterStyle style, int multiprocessors) {
        task.sketches.num_sketches = sketches;
        return fgsbir::cuda::choose_tile_height(task, style, multiprocessors);
    };
    CHECK(height(4096, RasterStyle::bresenham, 132) == 256);
    CHECK(height(4096, RasterStyle::antialias, 132) == 32);
    CHECK(height(1, RasterStyle::bresenham, 16) == 16);
    CHECK(height(16, RasterStyle::bresenham, 16) == 64);
    CHECK(fgsbir::cuda::lay_out_tiles(task, 64) == 64);
    task.width = 257;
    CHECK(fgsbir::cuda::lay_out_tiles(task, 100) == 16 * 2 * 3);
}

}  // namespace

int main(int argc, char** argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "skipped: no GPU\n");
        return kSkipped;
    }
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 40;
    for (const bool shuffle : {false, true}) {
        if (!emulate(shuffle)) continue;
        lines_are_bit_exact(shuffle ? 1 : 2, rounds);
        coverage_is_within_one_level(shuffle ? 3 : 4, rounds / 2);
        many_segments();
        wide_images();
        nonsense_is_contained();
    }
    tile_borders();
    settings_are_checked();
    faults_are_named();
    tiles_follow_the_batch();
    CHECK(races() == 0);
    return check::finish();
}
