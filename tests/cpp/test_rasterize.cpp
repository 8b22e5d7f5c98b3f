#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "rasterize.h"

namespace {

using fgsbir::PixelFormat;
using fgsbir::RasterParams;
using fgsbir::RasterStyle;

// Owns what a SketchBatchView points at; every stroke list is one sketch.
struct Batch {
    std::vector<float> points;
    std::vector<std::int64_t> strokes{0}, sketches{0};

    Batch& stroke(std::initializer_list<float> xy) {
        points.insert(points.end(), xy);
        strokes.push_back(static_cast<std::int64_t>(points.size() / 2));
        return *this;
    }
    Batch& end_sketch() {
        sketches.push_back(static_cast<std::int64_t>(strokes.size()) - 1);
        return *this;
    }
    fgsbir::SketchBatchView view() const {
        return {points.data(),   static_cast<std::int64_t>(points.size() / 2),      strokes.data(),
                static_cast<std::int64_t>(strokes.size()) - 1, sketches.data(), static_cast<std::int64_t>(sketches.size()) - 1};
    }
};

RasterParams params(int height, int width, RasterStyle style = RasterStyle::bresenham) {
    RasterParams p;
    p.height = height;
    p.width = width;
    p.style = style;
    return p;
}

std::vector<std::uint8_t> draw(const Batch& batch, const RasterParams& p) {
    std::vector<std::uint8_t> image((batch.sketches.size() - 1) * static_cast<std::size_t>(p.height * p.width), 77);
    fgsbir::rasterize(batch.view(), p, PixelFormat::bytes, image.data());
    return image;
}

// The published facts of a sketch that the papers' own code drew (METHODS D.2).
void golden_sketch() {
    Batch batch;
    batch.stroke({40.4F, 40.6F, 200.2F, 60.1F, 119.5F, 200.5F}).stroke({30, 128, 220, 128}).stroke({128, 30, 128, 31}).end_sketch();
    const auto image = draw(batch, params(256, 256));
    int count = 0, top = 255, bottom = 0, left = 255, right = 0;
    double sum_x = 0, sum_y = 0;
    for (int y = 0; y < 256; ++y) {
        for (int x = 0; x < 256; ++x) {
            if (image[static_cast<std::size_t>(y * 256 + x)] == 0) continue;
            ++count;
            sum_x += x;
            sum_y += y;
            top = std::min(top, y);
            bottom = std::max(bottom, y);
            left = std::min(left, x);
            right = std::max(right, x);
        }
    }
    CHECK(count == 1477);
    CHECK(top == 29 && bottom == 201 && left == 29 && right == 221);
    CHECK(std::abs(sum_x / count - 132.8707) < 1e-4);
    CHECK(std::abs(sum_y / count - 102.9208) < 1e-4);
}

// Row 0 and column 0 are never drawn, only reached by the dilation.
void frame() {
    Batch batch;
    batch.stroke({0, 5}).end_sketch().stroke({1, 5}).end_sketch().stroke({7, 7}).end_sketch().stroke({8, 7}).end_sketch();
    const auto image = draw(batch, params(8, 8));
    const auto ink = [&](int sketch) { return std::count(image.begin() + 64 * sketch, image.begin() + 64 * (sketch + 1), 255); };
    CHECK(ink(0) == 0);
    CHECK(ink(1) == 5);
    CHECK(ink(2) == 3);
    CHECK(ink(3) == 0);
}

// A segment from far outside takes the pixels of the same line; extremes neither hang nor overflow.
void far_coordinates() {
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        Batch near, far;
        near.stroke({-1, 20, 64, 20}).stroke({10, -1, 10, 64}).stroke({-1, -1, 64, 64}).end_sketch();
        far.stroke({-1e9F, 20, 1e9F, 20}).stroke({10, -1e9F, 10, 1e9F}).stroke({-1e9F, -1e9F, 1e9F, 1e9F}).end_sketch();
        CHECK(draw(near, params(64, 64, style)) == draw(far, params(64, 64, style)));

        Batch corners;
        for (const float x : {-1e9F, 0.0F, 1e9F}) {
            for (const float y : {-1e9F, 3.0F, 1e9F}) corners.stroke({x, y, -x + 1, y}).stroke({x, y, 31, -y}).stroke({x, y, 5, 6});
        }
        corners.end_sketch();
        CHECK(draw(corners, params(64, 64, style)).size() == 64 * 64);
    }
}

void antialias_coverage() {
    Batch batch;
    batch.stroke({4, 8, 12, 8}).end_sketch();
    RasterParams p = params(16, 16, RasterStyle::antialias);
    p.line_width = 2.5F;  // full to 0.75 pixels from the line, nothing from 1.75 on
    const auto image = draw(batch, p);
    CHECK(image[8 * 16 + 8] == 255);
    CHECK(image[7 * 16 + 8] == 191 && image[9 * 16 + 8] == 191);  // 0.75 * 255 = 191.25
    CHECK(image[6 * 16 + 8] == 0);
    CHECK(image[8 * 16 + 3] == 191 && image[8 * 16 + 2] == 0);
    CHECK(image[7 * 16 + 3] == 86);  // (1.75 - sqrt 2) * 255 = 85.6: the cap is round
}

void outputs_agree() {
    Batch batch;
    batch.stroke({4, 8, 12, 9}).stroke({2, 2}).end_sketch().end_sketch().stroke({1, 1, 14, 14, 3, 9}).end_sketch();
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        RasterParams p = params(16, 20, style);
        const auto light = draw(batch, p);
        CHECK(std::count(light.begin() + 320, light.begin() + 640, 0) == 320);  // a sketch without strokes is blank
        p.dark = true;
        p.threads = 3;
        const auto dark = draw(batch, p);
        p.mean = {0.1F, 0.5F, 0.9F};
        p.stddev = {0.25F, 0.5F, 2.0F};
        std::vector<float> planes(3 * light.size(), -99.0F);
        fgsbir::rasterize(batch.view(), p, PixelFormat::floats, planes.data());
        bool inverse = true, normalised = true;
        for (std::size_t i = 0; i < light.size(); ++i) {
            inverse &= light[i] + dark[i] == 255;
            for (std::size_t c = 0; c < 3; ++c) {
                const float value = planes[(i / 320 * 3 + c) * 320 + i % 320];
                normalised &= std::abs(value - (static_cast<float>(dark[i]) / 255.0F - p.mean[c]) / p.stddev[c]) < 1e-6F;
            }
        }
        CHECK(inverse);
        CHECK(normalised);
    }
}

// A scribble of many strokes, in and out of the canvas.
Batch scribble() {
    Batch batch;
    std::uint32_t state = 7;
    const auto next = [&] { return static_cast<float>((state = state * 1664525U + 1013904223U) >> 8) * (90.0F / (1U << 24)) - 10.0F; };
    for (int stroke = 0; stroke < 12; ++stroke) {
        for (int i = 0; i < 40; ++i) batch.points.insert(batch.points.end(), {next(), next()});
        batch.strokes.push_back(static_cast<std::int64_t>(batch.points.size() / 2));
    }
    return batch.end_sketch();
}

// Prefixes are batches that end earlier, a canvas that grows shows the same, and bytes beyond the image stay as they are.
void prefixes_and_canvas() {
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        for (const int width : {1, 63, 64, 70}) {
            const RasterParams p = params(66, width, style);
            const Batch batch = scribble();
            const std::int64_t counts[] = {0, 1, 2, 40, 41, 100, 480}, offsets[] = {0, 7};
            const std::size_t plane = static_cast<std::size_t>(p.height * p.width);
            std::vector<std::uint8_t> images(7 * plane + 1, 99);
            fgsbir::rasterize_prefixes(batch.view(), {counts, offsets, 7}, p, PixelFormat::bytes, images.data());
            CHECK(images.back() == 99);
            fgsbir::Canvas canvas(p);
            std::int64_t drawn = 0;
            for (std::size_t q = 0; q < 7; ++q) {
                Batch part = batch;
                part.points.resize(static_cast<std::size_t>(2 * counts[q]));
                part.strokes = {0};
                for (std::int64_t end = 40; end < counts[q]; end += 40) part.strokes.push_back(end);
                if (counts[q] > 0) part.strokes.push_back(counts[q]);
                part.sketches = {0, static_cast<std::int64_t>(part.strokes.size()) - 1};
                for (; drawn < counts[q]; ++drawn) canvas.add(batch.points.data() + 2 * drawn, 1, drawn % 40 != 0);
                std::vector<std::uint8_t> grown(plane);
                canvas.write(PixelFormat::bytes, grown.data());
                const auto expected = draw(part, p);
                CHECK(std::equal(expected.begin(), expected.end(), images.begin() + static_cast<std::ptrdiff_t>(q * plane)));
                CHECK(grown == expected);
            }
            canvas.clear();
            std::vector<std::uint8_t> blank(plane, 1);
            canvas.write(PixelFormat::bytes, blank.data());
            CHECK(std::count(blank.begin(), blank.end(), 0) == static_cast<std::ptrdiff_t>(plane));
        }
    }
}

// The same bytes on every processor and instruction set: these sums were taken on x86-64 with AVX-512.
void same_everywhere() {
    const auto sum = [](const void* data, std::size_t size) {  // FNV-1a
        std::uint64_t hash = 0xCBF29CE484222325U;
        for (std::size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<const std::uint8_t*>(data)[i]) * 0x100000001B3U;
        return hash;
    };
    const Batch batch = scribble();
    std::vector<std::uint64_t> sums;
    for (const RasterStyle style : {RasterStyle::bresenham, RasterStyle::antialias}) {
        RasterParams p = params(70, 75, style);
        p.line_width = 2.3F;
        p.mean = {0.485F, 0.456F, 0.406F};
        p.stddev = {0.229F, 0.224F, 0.225F};
        const auto bytes = draw(batch, p);
        std::vector<float> floats(3 * bytes.size());
        std::vector<std::uint16_t> halves(3 * bytes.size());
        fgsbir::rasterize(batch.view(), p, PixelFormat::floats, floats.data());
        fgsbir::rasterize(batch.view(), p, PixelFormat::halves, halves.data());
        sums.push_back(sum(bytes.data(), bytes.size()));
        sums.push_back(sum(floats.data(), 4 * floats.size()));
        sums.push_back(sum(halves.data(), 2 * halves.size()));
    }
    const std::vector<std::uint64_t> expected{0xCC6872C17ED924B3U, 0x2574CACF1606EC65U, 0x7DEA174DCB93C93DU,
                                             0x0C27A3AC8EEF3CA1U, 0x7B9522285B0AAC5BU, 0x897D0ED89380ACA9U};
    CHECK(sums == expected);
    if (sums != expected) {
        for (const std::uint64_t found : sums) std::fprintf(stderr, "0x%016llXU\n", static_cast<unsigned long long>(found));
    }
}

void refusals() {
    Batch good;
    good.stroke({1, 1, 2, 2}).end_sketch();
    const auto bad = [&](auto change) {
        Batch batch = good;
        RasterParams p = params(8, 8, RasterStyle::antialias);
        change(batch, p);
        std::vector<std::uint8_t> image(64);
        CHECK_THROWS(fgsbir::rasterize(batch.view(), p, PixelFormat::bytes, image.data()), std::invalid_argument);
    };
    bad([](Batch& b, RasterParams&) { b.points[3] = std::numeric_limits<float>::quiet_NaN(); });
    bad([](Batch& b, RasterParams&) { b.points[0] = -std::numeric_limits<float>::infinity(); });
    bad([](Batch& b, RasterParams&) { b.points[0] = 2e9F; });
    bad([](Batch& b, RasterParams&) { b.strokes = {0, 3}; });
    bad([](Batch& b, RasterParams&) { b.strokes = {1, 2}; });
    bad([](Batch& b, RasterParams&) { b.strokes = {0, 3, 2}; b.sketches = {0, 2}; });
    bad([](Batch& b, RasterParams&) { b.sketches = {0, 2}; });
    bad([](Batch&, RasterParams& p) { p.threads = 0; });
    bad([](Batch&, RasterParams& p) { p.height = 0; });
    bad([](Batch&, RasterParams& p) { p.width = fgsbir::kMaxSide + 1; });
    bad([](Batch&, RasterParams& p) { p.line_width = 0; });
    bad([](Batch&, RasterParams& p) { p.style = static_cast<RasterStyle>(2); });
    RasterParams p = params(8, 8);
    p.stddev[1] = 0;
    std::vector<float> planes(3 * 64);
    CHECK_THROWS(fgsbir::rasterize(good.view(), p, PixelFormat::floats, planes.data()), std::invalid_argument);
}

}  // namespace

int main() {
    golden_sketch();
    frame();
    far_coordinates();
    antialias_coverage();
    outputs_agree();
    prefixes_and_canvas();
    same_everywhere();
    refusals();
    return check::finish();
}
