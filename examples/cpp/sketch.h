// Strokes: read from a file, placed as the encoder was trained to see them, and drawn.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model.h"

namespace robot {

struct Strokes {
    std::vector<double> points;          // [P, 2] x right, y down, any unit
    std::vector<std::int64_t> offsets;   // [S + 1] stroke s is points offsets[s] .. offsets[s + 1] - 1
};

// One stroke a line, as in an SVG polyline: "x,y x,y ..."; commas and spaces are alike, lines that are empty or begin with # are
// left out. Throws std::runtime_error naming file and line: no numbers, an odd count of them, fewer than two points in all.
Strokes read_strokes(const std::string& path);

// The longer side becomes 190 of 256 units, the middle of the sketch that of the canvas; then the canvas is scaled to the
// input's size. Throws std::runtime_error where all points coincide.
std::vector<float> centred_pixels(const Strokes& strokes, const fgsbir::RasterParams& input);

std::vector<std::uint8_t> draw(const Strokes& strokes, const fgsbir::RasterParams& input);        // [S, S]
std::vector<float> encoder_input(const Strokes& strokes, const fgsbir::RasterParams& input);      // [3, S, S]

void write_pgm(const std::vector<std::uint8_t>& image, int width, int height, const std::string& path);

}  // namespace robot
