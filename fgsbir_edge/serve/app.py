"""The HTTP API and the page, as an ASGI application."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fgsbir_edge.errors import FgsbirError
from fgsbir_edge.serve.gate import Gate
from fgsbir_edge.serve.models import ErrorBody
from fgsbir_edge.serve.options import VERSION, ServeOptions
from fgsbir_edge.serve.page_files import START, page_files
from fgsbir_edge.serve.problems import OWN, Problem, problem_of
from fgsbir_edge.serve.routes import gallery_routes, people_routes, search_routes
from fgsbir_edge.serve.service import Kiosk

_log = logging.getLogger(__name__)

DESCRIPTION = """Find the photo that a drawing means, and learn from people which one they meant.

Photos go by number, never by path. Whatever is not a success is one object, `{error, message, remedy}`."""
REMEDIES = {404: "see /openapi.json for what there is", 405: "see /openapi.json for the methods there are"}


def create_app(kiosk: Kiosk, options: ServeOptions) -> Gate:
    """The application over a kiosk, which it closes in the end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        kiosk.close()

    responses: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
    app = FastAPI(
        title="fgsbir_edge",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,  # they would be fetched from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses=responses,
    )
    app.include_router(search_routes(kiosk))
    app.include_router(gallery_routes(kiosk, options))
    app.include_router(people_routes(kiosk))
    _add_page(app)
    _add_handlers(app, kiosk.gallery_path)
    return Gate(app, options)


def _add_page(app: FastAPI) -> None:
    files = page_files()

    async def page(name: str = START) -> Response:
        if name not in files:
            raise HTTPException(404, "Not Found")
        return Response(files[name].data, media_type=files[name].type, headers={"Cache-Control": "no-cache"})

    app.add_api_route("/", page, include_in_schema=False, response_class=Response)
    app.add_api_route("/page/{name}", page, include_in_schema=False, response_class=Response)


def _add_handlers(app: FastAPI, gallery: str) -> None:
    """Every way to fail ends in the same object."""

    def on(kind: type[Exception], made: Callable[[Any], Problem]) -> None:
        async def handle(_: Request, error: Exception) -> Response:
            problem = made(error)
            return JSONResponse(problem.body, problem.status, headers=problem.headers)

        app.add_exception_handler(kind, handle)

    on(Problem, lambda error: error)
    on(FgsbirError, lambda error: problem_of(error, gallery))
    on(RequestValidationError, _invalid)
    on(HTTPException, _refused)
    on(Exception, lambda _: Problem(500, "InternalError", "the server has failed at this", OWN))


def _invalid(error: RequestValidationError) -> Problem:
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3]]
    return Problem(422, "InvalidRequest", "; ".join(faults), "send what /openapi.json describes")


def _refused(error: HTTPException) -> Problem:
    kind = error.detail.replace(" ", "") if error.status_code in REMEDIES else "BadRequest"
    remedy = REMEDIES.get(error.status_code, "send what /openapi.json describes")
    return Problem(error.status_code, kind, error.detail, remedy, dict(error.headers or {}))
