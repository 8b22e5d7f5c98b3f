// Hot loops of rasterize_cpu.cpp, compiled once for each instruction set. Include nothing here that holds inline functions.

namespace fgsbir::FGSBIR_ISA {}
