"""A bundle's encoder as a TensorRT engine on this device: ``python -m export.tensorrt --bundle DIR --variant fp16``.

The same as ``fgsbir-edge engine build``, which a device has without this checkout.
"""

from __future__ import annotations

import sys

from fgsbir_edge.cli import main

if __name__ == "__main__":
    sys.exit(main(["engine", "build", *sys.argv[1:]]))
