// The hot loops of the rasteriser behind one table of functions for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fgsbir {

// Integer lines, one bit a pixel. Row y begins at bits + y * stride and its pixel x is bit x % 64 of word x / 64. Words between rows
// (at least one), one word before and after all rows, and the rows -1 and `height` are always zero: the dilation sees them.
struct BitCanvas {
    std::uint64_t* bits;
    std::ptrdiff_t stride;  // words, at least ceil(width / 64) + 1
    int width, height;      // pixels
    int top, bottom;        // rows that may hold ink; top > bottom: none
};

// Coverage, one byte a pixel, light ink on zero. Row y begins at ink + y * stride; the bytes from `width` to `stride` (at least 64)
// and three rows below the last may be written and mean nothing.
struct SoftCanvas {
    std::uint8_t* ink;
    std::ptrdiff_t stride;  // bytes
    int width, height;      // pixels
    int top, bottom;        // rows that may hold ink; top > bottom: none
    float reach;            // distance at which coverage ends, pixels: 1/2 + line_width / 2
};

// How ink becomes output elements of 1, 2 or 4 bytes. Elements of one or three planes, `plane` elements apart.
struct PixelWriter {
    void* image;          // element (0, 0) of the first plane
    std::int64_t plane;   // elements of a plane, height * width
    int planes;           // 1 or 3
    int element;          // bytes of an element: 1, 2 or 4
    bool stream;          // write around the cache: the output is too large to be read from it
    const std::uint32_t* table;  // [planes, 256] the element for every ink value, in its low bytes
    const float* scale;   // [planes] float32 output is v * scale + shift, v the byte; bytes and halves come from the table
    const float* shift;
    bool dark;            // v is 255 - ink
};

struct RasterKernels {
    // One stroke of n >= 1 points [n, 2]: n - 1 segments, or a dot. Grows top and bottom.
    void (*draw_lines)(BitCanvas& canvas, const float* points, std::int64_t n);
    // The dilation by the 3x3 cross of words [begin, end) of the canvas's bits into the same places of `grown`. Bits of the words
    // between rows mean nothing there.
    void (*dilate)(const BitCanvas& canvas, std::uint64_t* grown, std::ptrdiff_t begin, std::ptrdiff_t end);
    // Rows [0, height) of grown bits to output; outside rows [top, bottom] everything is blank.
    void (*write_bits)(const BitCanvas& canvas, const std::uint64_t* grown, int top, int bottom, const PixelWriter& writer);

    void (*draw_soft)(SoftCanvas& canvas, const float* points, std::int64_t n);
    // To output. With `clear` the canvas is blank afterwards.
    void (*write_soft)(SoftCanvas& canvas, const PixelWriter& writer, bool clear);
};

namespace baseline {
extern const RasterKernels raster_kernels;
}
namespace avx2 {
extern const RasterKernels raster_kernels;
}
namespace avx512 {
extern const RasterKernels raster_kernels;
}

}  // namespace fgsbir
