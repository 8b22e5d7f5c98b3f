"""Work on a GPU that is recorded once and replayed: one launch in the place of one for each kernel and copy."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable

from fgsbir_edge.errors import DeviceError
from fgsbir_edge.gpu_stream import GpuStream, Recording

MAX_RECORDINGS = 8  # batches of other sizes push out the one that was used longest ago
_log = logging.getLogger(__name__)


class Replay:
    """Recordings of one piece of work, by what its addresses and shapes depend on.

    ``refused`` says why nothing is recorded any more: a library put something into the stream that CUDA does not record. Work is
    then put into the stream anew each time, which gives the same results.
    """

    def __init__(self, stream: GpuStream, limit: int = MAX_RECORDINGS) -> None:
        self.refused: str | None = None
        self.recorded = 0  # so far
        self._stream, self._limit = stream, limit
        self._known: OrderedDict[Hashable, Recording] = OrderedDict()

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Put ``work`` into the stream: recorded under ``key`` before, or as it is, and then recorded for the next time.

        The first time is never a recording, because libraries allocate and choose kernels in their first run over a shape. Waits
        for the work when it records, otherwise for nothing. Raises what ``work`` raises, and DeviceError.
        """
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            known.replay()
            return
        work()
        if self.refused is None:
            self._stream.synchronize()
            self._record(key, work)

    def forget(self) -> None:
        """Drop all recordings: for when memory that they name has moved."""
        self._known.clear()

    def _record(self, key: Hashable, work: Callable[[], None]) -> None:
        try:
            self._known[key] = self._stream.record(work)
        except DeviceError as error:
            self.refused = str(error)
            _log.warning("the encoder's work cannot be recorded and is started kernel by kernel instead: %s", error)
            return
        self.recorded += 1
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
