// Vector sketches to pixels. Plain C++17: no Python, no Torch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

namespace fgsbir {

enum class RasterStyle {
    // Integer segments of one pixel, then one dilation by the 3x3 cross: bit-exact with the rasteriser the FG-SBIR papers trained on.
    bresenham = 0,
    // Coverage of round-capped segments: clamp(1/2 + line_width/2 - distance(pixel centre, segment), 0, 1), the largest over all.
    antialias = 1,
};

// Largest |coordinate| accepted, in pixels: products of two segment lengths still fit into 64 bits.
constexpr float kMaxCoordinate = 1e9F;
constexpr int kMaxSide = 32768;           // pixels
constexpr float kMaxLineWidth = 10000.0F; // pixels

// A batch in two levels: stroke s is points[stroke_offsets[s] : stroke_offsets[s+1]], sketch b is the strokes
// sketch_offsets[b] : sketch_offsets[b+1]. Both offset arrays start at 0, never fall and end at the number of what they index.
struct SketchBatchView {
    const float* points;                // [P, 2] x right, y down, in pixels; pixel (i, j) has its centre at x = i, y = j
    std::int64_t num_points;            // P
    const std::int64_t* stroke_offsets; // [S + 1]
    std::int64_t num_strokes;           // S
    const std::int64_t* sketch_offsets; // [B + 1]
    std::int64_t num_sketches;          // B
};

struct RasterParams {
    int height = 256;  // H, pixels
    int width = 256;   // W, pixels
    RasterStyle style = RasterStyle::bresenham;
    float line_width = 2.0F;  // pixels, antialias only
    bool dark = false;        // false: ink v is written as v (light strokes on black); true: as 255 - v
    std::array<float, 3> mean{0.0F, 0.0F, 0.0F};
    std::array<float, 3> stddev{1.0F, 1.0F, 1.0F};
    int threads = 1;
};

// What is written for one sketch, or one prefix.
enum class PixelFormat {
    bytes = 0,   // uint8   [H, W]     v, or 255 - v when dark
    floats = 1,  // float32 [3, H, W]  (byte / 255 - mean[c]) / stddev[c], as byte * (1 / 255 stddev) - mean / stddev in float32
    halves = 2,  // float16 [3, H, W]  the same, rounded to nearest even
};

// Draws every sketch on its own canvas: out is [B, H, W] or [B, 3, H, W] of the given format. Pixels are whole ink values v in
// 0..255; coverage is rounded half up.
//
// In bresenham style coordinates are rounded half to even; row 0 and column 0 are left out before the dilation (which may still
// reach them), as in the papers' code. Parts of a segment outside the canvas cost nothing and do not shift the parts inside.
// The result does not depend on the number of threads or on the processor's instruction set. Throws std::invalid_argument on bad
// sizes, offsets or coordinates; nothing is written in that case.
void rasterize(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out);

// Images of growing beginnings of sketches: image q of sketch b (q from prefix_offsets[b] to prefix_offsets[b+1]) shows its first
// points[q] points, over all its strokes; a stroke that is cut ends at the cut. Each segment is drawn once.
struct PrefixView {
    const std::int64_t* points;          // [Q] 0..points of the sketch, never falling within a sketch
    const std::int64_t* prefix_offsets;  // [B + 1]
    std::int64_t num_prefixes;           // Q
};

// out is [Q, H, W] or [Q, 3, H, W]. Each image is what rasterize() gives for that beginning alone.
void rasterize_prefixes(const SketchBatchView& sketches, const PrefixView& prefixes, const RasterParams& params, PixelFormat format,
                        void* out);

// One canvas that strokes are added to while somebody draws. Adding costs what the new segments cost, whatever is there already.
class Canvas {
  public:
    // `params.threads` is not used. Throws std::invalid_argument on bad settings.
    explicit Canvas(const RasterParams& params);
    Canvas(Canvas&&) noexcept;
    Canvas& operator=(Canvas&&) noexcept;
    ~Canvas();

    // Draws a stroke of points [n, 2] in pixels. With `continues` its first point is joined to the last one drawn (if any).
    // Throws std::invalid_argument on bad coordinates; nothing is drawn then.
    void add(const float* points, std::int64_t num_points, bool continues);
    // The image so far, as rasterize() would give for all strokes at once.
    void write(PixelFormat format, void* out);
    void clear();
    const RasterParams& params() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace fgsbir
