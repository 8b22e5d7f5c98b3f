"""A pytest plugin: under an emulator Hypothesis is not to complain that making examples is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("emulated", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("emulated")
