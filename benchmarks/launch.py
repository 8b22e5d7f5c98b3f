"""Run one command and say how it went: ``python benchmarks/launch.py COMMAND...`` prints JSON, or ends with 1 and says why.

A process of its own, and a small one, because the highest memory that Linux tells of a process includes what its parent had when
it was started.
"""

import json
import os
import subprocess
import sys
import time


def main(command: list[str]) -> int:
    """Seconds until the command's first word on stdout, of the processor until its end, and its highest memory in KiB."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        wall = time.perf_counter() - began
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
    if not first or process.returncode:
        sys.stderr.write(f"ended with {process.returncode} and {'something' if first else 'nothing'} on stdout\n")
        return 1
    sys.stdout.write(json.dumps({"wall": wall, "processor": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
