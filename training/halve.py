"""A generator's checkpoint at half its size, weights of 16 bits: ``python -m training.halve --checkpoint G --out FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fgsbir_edge.console import put_json, run
from training.generation.checkpoint import write_halved


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m training.halve", description=__doc__)
    options.add_argument("--checkpoint", type=Path, required=True, help="of training.generator, .safetensors")
    options.add_argument("--out", type=Path, required=True, help="checkpoint to write, as good as any other to training.generate")
    arguments = options.parse_args()

    def start() -> int:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_halved(arguments.checkpoint, arguments.out)
        put_json({"checkpoint": str(arguments.out), "bytes": arguments.out.stat().st_size})
        return 0

    return run(start)


if __name__ == "__main__":
    sys.exit(main())
