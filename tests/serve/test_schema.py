"""The API beside its own description: schemathesis makes requests up from /openapi.json, well-formed and not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.serve.running import SECONDS

CALLS = [
    ("GET", "/health"),
    ("GET", "/version"),
    ("GET", "/settings"),
    ("GET", "/photos"),
    ("GET", "/photos/{photo}/thumbnail"),
    ("GET", "/photos/{photo}/image"),
    ("GET", "/people"),
    ("POST", "/people"),
    ("POST", "/people/undo"),
    ("POST", "/people/forget"),
    ("POST", "/search"),
    ("POST", "/feedback"),
    ("POST", "/adapt"),
]
EXAMPLES = 25


def test_the_description_is_complete(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert {(method.upper(), path) for path, ways in described["paths"].items() for method in ways} == set(CALLS)
    for ways in described["paths"].values():
        for way in ways.values():
            assert way["description"]
            assert {"4XX", "5XX"} <= set(way["responses"])
            assert "422" not in way["responses"], "FastAPI's own error object"
    search = described["paths"]["/search"]["post"]["requestBody"]["content"]
    assert {"application/json", "image/png", "image/jpeg"} <= set(search)


@pytest.fixture
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():  # of the tool itself
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.usefixtures("_quiet")
def test_answers_are_as_described(client: httpx.Client, method: str, path: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install '.[browser]'")
    from hypothesis import HealthCheck, given, settings
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as openapi_checks

    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operation = schema[path][method]
    kept = [
        checks.not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
    ]
    modes = [schemathesis.GenerationMode.POSITIVE]
    if "parameters" in operation.definition.raw or "requestBody" in operation.definition.raw:
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    for mode in modes:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: object) -> None:
            case.call_and_validate(base_url=str(client.base_url), checks=kept, timeout=SECONDS)  # type: ignore[attr-defined]

        ask()
