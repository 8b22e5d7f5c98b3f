"""Photos that a fleet of devices shares, in a collection of a Qdrant server; adapters and re-ranking stay on each device."""

from __future__ import annotations

from fgsbir_edge.remote.fleet import Fleet
from fgsbir_edge.remote.publish import PublishReport
from fgsbir_edge.remote.server import FleetOptions

__all__ = ["Fleet", "FleetOptions", "PublishReport"]
