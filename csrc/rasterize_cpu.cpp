#include "rasterize.h"

#include <algorithm>
#include <string>

#include "parallel.h"
#include "raster_output.h"
#include "raster_pens.h"

namespace fgsbir {
namespace {

constexpr std::int64_t kGroup = 8;                 // sketches that a thread takes at once
constexpr std::size_t kKeptBytes = 16U << 20;      // a larger canvas is given back after the call

void check_offsets(const std::int64_t* offsets, std::int64_t count, std::int64_t end, const char* name, const char* what) {
    if (offsets[0] != 0) refuse_raster(std::string(name) + "[0] is " + std::to_string(offsets[0]) + ", expected 0");
    for (std::int64_t i = 0; i < count; ++i) {
        if (offsets[i] > offsets[i + 1]) {
            refuse_raster(std::string(name) + " falls at index " + std::to_string(i + 1) + "; offsets must never decrease");
        }
    }
    if (offsets[count] != end) {
        refuse_raster(std::string(name) + " ends at " + std::to_string(offsets[count]) + ", expected " + std::to_string(end) +
                      ", the number of " + what);
    }
}

void check(const SketchBatchView& sketches, const RasterParams& params) {
    check_settings(params);
    check_offsets(sketches.sketch_offsets, sketches.num_sketches, sketches.num_strokes, "sketch_offsets", "items it indexes");
    check_offsets(sketches.stroke_offsets, sketches.num_strokes, sketches.num_points, "stroke_offsets", "items it indexes");
    check_points(sketches.points, sketches.num_points);
}

void check(const SketchBatchView& sketches, const PrefixView& prefixes) {
    check_offsets(prefixes.prefix_offsets, sketches.num_sketches, prefixes.num_prefixes, "prefix_offsets", "prefixes");
    for (std::int64_t b = 0; b < sketches.num_sketches; ++b) {
        const std::int64_t all = sketches.stroke_offsets[sketches.sketch_offsets[b + 1]] - sketches.stroke_offsets[sketches.sketch_offsets[b]];
        std::int64_t before = 0;
        for (std::int64_t q = prefixes.prefix_offsets[b]; q < prefixes.prefix_offsets[b + 1]; ++q) {
            const std::int64_t points = prefixes.points[q];
            if (points < before || points > all) {
                refuse_raster("prefix " + std::to_string(q) + " has " + std::to_string(points) + " points, expected " +
                              std::to_string(before) + " to " + std::to_string(all) + ": prefixes of a sketch grow up to its " +
                              "number of points");
            }
            before = points;
        }
    }
}

// A pen of this thread. It is kept between calls, and always blank between sketches.
template <typename Pen>
class OwnPen {
  public:
    explicit OwnPen(const RasterParams& params) { pen().set_up(params, raster_kernels()); }
    ~OwnPen() {
        if (pen().bytes() > kKeptBytes) pen() = Pen();
    }
    OwnPen(const OwnPen&) = delete;
    OwnPen& operator=(const OwnPen&) = delete;

    Pen& pen() {
        thread_local Pen own;
        return own;
    }
};

void write_last(BitPen& pen, const PixelWriter& writer) {
    pen.write(writer);
    pen.reset();
}
void write_last(SoftPen& pen, const PixelWriter& writer) { pen.write_and_reset(writer); }

template <typename Pen, typename Draw>
void for_each_sketch(std::int64_t count, const RasterParams& params, const Draw& draw) {
    run_workers((count + kGroup - 1) / kGroup, params.threads, [&](ItemQueue& queue) {
        OwnPen<Pen> own(params);
        Pen& pen = own.pen();
        for (std::int64_t group = 0; queue.take(group);) {
            for (std::int64_t b = group * kGroup; b < std::min(count, (group + 1) * kGroup); ++b) draw(pen, b);
        }
    });
}

// Draws points [from, to) of a stroke that begins at point `start`; the point before `from` is where the pen stands.
template <typename Pen>
void draw_part(Pen& pen, const float* points, std::int64_t start, std::int64_t from, std::int64_t to) {
    if (from >= to) return;
    const std::int64_t first = from > start ? from - 1 : from;
    pen.stroke(points + 2 * first, to - first);
}

template <typename Pen>
void draw_batch(const SketchBatchView& s, const RasterParams& params, const OutputTable& table, void* out) {
    for_each_sketch<Pen>(s.num_sketches, params, [&](Pen& pen, std::int64_t b) {
        for (std::int64_t stroke = s.sketch_offsets[b]; stroke < s.sketch_offsets[b + 1]; ++stroke) {
            draw_part(pen, s.points, s.stroke_offsets[stroke], s.stroke_offsets[stroke], s.stroke_offsets[stroke + 1]);
        }
        write_last(pen, table.writer(out, b, s.num_sketches));
    });
}

template <typename Pen>
void draw_prefixes(const SketchBatchView& s, const PrefixView& p, const RasterParams& params, const OutputTable& table, void* out) {
    for_each_sketch<Pen>(s.num_sketches, params, [&](Pen& pen, std::int64_t b) {
        std::int64_t stroke = s.sketch_offsets[b], drawn = s.stroke_offsets[stroke];
        const std::int64_t begin = drawn;
        for (std::int64_t q = p.prefix_offsets[b]; q < p.prefix_offsets[b + 1]; ++q) {
            const std::int64_t end = begin + p.points[q];
            while (drawn < end) {
                while (s.stroke_offsets[stroke + 1] <= drawn) ++stroke;
                const std::int64_t stop = std::min(end, s.stroke_offsets[stroke + 1]);
                draw_part(pen, s.points, s.stroke_offsets[stroke], drawn, stop);
                drawn = stop;
            }
            pen.write(table.writer(out, q, p.num_prefixes));
        }
        pen.reset();
    });
}

}  // namespace

void rasterize(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out) {
    check(sketches, params);
    const OutputTable table(params, format);
    if (params.style == RasterStyle::bresenham) {
        draw_batch<BitPen>(sketches, params, table, out);
    } else {
        draw_batch<SoftPen>(sketches, params, table, out);
    }
}

void rasterize_prefixes(const SketchBatchView& sketches, const PrefixView& prefixes, const RasterParams& params, PixelFormat format,
                        void* out) {
    check(sketches, params);
    check(sketches, prefixes);
    const OutputTable table(params, format);
    if (params.style == RasterStyle::bresenham) {
        draw_prefixes<BitPen>(sketches, prefixes, params, table, out);
    } else {
        draw_prefixes<SoftPen>(sketches, prefixes, params, table, out);
    }
}

}  // namespace fgsbir
