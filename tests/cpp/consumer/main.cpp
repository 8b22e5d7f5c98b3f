// Draws one diagonal line with the installed library, at once and piece by piece, and takes one step of adaptation. The exit status
// says whether all came out as it should.
#include <fgsbir/adapt.h>
#include <fgsbir/rasterize.h>

#include <cstdint>
#include <vector>

int main() {
    const float points[] = {4.0F, 4.0F, 12.0F, 12.0F};
    const std::int64_t strokes[] = {0, 2}, sketches[] = {0, 1};
    fgsbir::RasterParams params;
    params.height = params.width = 16;
    std::vector<std::uint8_t> image(16 * 16);
    fgsbir::rasterize({points, 2, strokes, 1, sketches, 1}, params, fgsbir::PixelFormat::bytes, image.data());

    fgsbir::Canvas canvas(params);
    canvas.add(points, 1, false);
    canvas.add(points + 2, 1, true);
    std::vector<std::uint8_t> grown(image.size());
    canvas.write(fgsbir::PixelFormat::bytes, grown.data());

    const float outputs[] = {1.0F, 0.0F, 0.0F, 1.0F, 1.0F, 1.0F}, gram[9] = {2, 1, 1, 1, 2, 1, 1, 1, 2}, step = 0.1F;
    const std::int32_t triplet[] = {0, 1, 2};
    const std::uint8_t moves[] = {1, 1, 1};
    float coefficients[6], moved[6];
    double losses[2];
    fgsbir::adapt<float>({outputs, gram, triplet, moves, &step, 3, 2, 1, 1, 0.3F, 10.0F}, coefficients, moved, losses);
    return image[8 * 16 + 8] == 255 && image[0] == 0 && grown == image && losses[1] < losses[0] ? 0 : 1;
}
