"""The paths of the API; ``service.py`` does what they ask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from fgsbir_edge.gallery.people import MAX_NAME
from fgsbir_edge.gallery.store import MEMORY
from fgsbir_edge.serve.models import (
    AdaptBody,
    Adapted,
    Answer,
    Category,
    FeedbackBody,
    Found,
    Health,
    Learned,
    Name,
    NewPersonBody,
    PeoplePage,
    Person,
    PersonBody,
    PhotoPage,
    SearchBody,
    Settings,
    Version,
)
from fgsbir_edge.serve.options import MAX_FILTER, MAX_HITS, MAX_ID, MAX_PAGE, VERSION, ServeOptions
from fgsbir_edge.serve.pictures import MAX_SIDE, MIN_SIDE, picture
from fgsbir_edge.serve.problems import Problem
from fgsbir_edge.serve.service import Facts, Kiosk, Question, reader

IMAGES = ("image/png", "image/jpeg", "image/webp", "image/bmp")
JPEG = "image/jpeg"
KEPT = {"Cache-Control": "private, max-age=3600, immutable"}  # an id stands for one content
WRITES = [Depends(HTTPBearer(auto_error=False, description="needed where the server has a token; the gate looks at it"))]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SearchBody.model_json_schema()}, **dict.fromkeys(IMAGES, _BINARY)},
    }
}
_PICTURE: dict[str, Any] = {"response_class": Response, "responses": {200: {"content": {JPEG: _BINARY}}}}

PhotoId = Annotated[int, Path(ge=1, le=MAX_ID)]


def search_routes(kiosk: Kiosk) -> APIRouter:
    """Searching and learning."""
    routes = APIRouter(tags=["search"])

    @routes.post("/search", response_model=Found, openapi_extra=_SEARCH_BODY)
    async def search(
        request: Request,
        k: Annotated[int, Query(ge=1, le=MAX_HITS, description="how many photos, where the body is an image")] = 10,
        person: Annotated[Name | None, Query(description="where the body is an image")] = None,
        category: Annotated[Category, Query(description="where the body is an image")] = None,
        where: Annotated[str | None, Query(max_length=MAX_FILTER, description="where the body is an image")] = None,
    ) -> Facts:
        """The photos nearest to a drawing: its strokes as JSON, or an image file as the body."""
        kind, data = (request.headers.get("content-type") or "").partition(";")[0].strip().lower(), await request.body()
        if kind in IMAGES:
            return await kiosk.search(reader(None, data), Question(k, person, category, where))
        if kind != "application/json":
            raise Problem(415, "UnknownBody", f"a body of type {kind!r}", f"send application/json, or one of {', '.join(IMAGES)}")
        try:
            body = SearchBody.model_validate_json(data)
        except ValidationError as error:
            raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from None
        return await kiosk.search(reader(body.strokes, body.image), _question(body))

    @routes.post("/feedback", response_model=Answer, dependencies=WRITES)
    async def feedback(body: FeedbackBody) -> Facts:
        """Note which photo a person meant by a drawing, learn from all that they have shown, and search again."""
        return await kiosk.feedback(reader(body.strokes, body.image), body.photo, _question(body))

    @routes.post("/adapt", response_model=Adapted, dependencies=WRITES)
    async def adapt(body: AdaptBody) -> Facts:
        """The same for several pairs in one step, which one undo takes back."""
        reads = [reader(pair.strokes, pair.image) for pair in body.pairs]
        return await kiosk.adapt(body.person, reads, [pair.photo for pair in body.pairs])

    return routes


def _question(body: SearchBody) -> Question:
    return Question(body.k, body.person, body.category, body.where)


def gallery_routes(kiosk: Kiosk, options: ServeOptions) -> APIRouter:
    """The server and its photos."""
    routes = APIRouter(tags=["gallery"])

    @routes.get("/health", response_model=Health)
    async def health() -> Facts:
        """Whether the gallery can be read."""
        return {"status": "ok", "photos": await kiosk.worker.run(lambda engine: len(engine.gallery))}

    @routes.get("/version", response_model=Version)
    async def version() -> Facts:
        """Which release, model and backend answer."""
        model, backend = await kiosk.worker.run(lambda engine: (engine.bundle.name, engine.encoder.name))
        return {"version": VERSION, "model": model, "backend": backend}

    @routes.get("/settings", response_model=Settings)
    async def settings() -> Facts:
        """What a page must know."""
        categories, path = await kiosk.worker.run(lambda engine: (engine.gallery.index.categories, engine.gallery.path))
        page = {"idle_seconds": options.idle, "token_needed": options.token is not None}
        return {**page, "categories": categories, "keeps": path != MEMORY}

    @routes.get("/photos", response_model=PhotoPage)
    async def photos(
        after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50
    ) -> Facts:
        """A page of the gallery's photos."""
        return await kiosk.photos(after, limit)

    @routes.get("/photos/{photo}/thumbnail", **_PICTURE)
    async def thumbnail(photo: PhotoId) -> Response:
        """A photo's thumbnail, its longer side at most 128 pixels, from the gallery's file."""
        return Response(await kiosk.thumbnail(photo), media_type=JPEG, headers=KEPT)

    @routes.get("/photos/{photo}/image", **_PICTURE)
    async def image(photo: PhotoId, side: Annotated[int, Query(ge=MIN_SIDE, le=MAX_SIDE)] = 1024) -> Response:
        """A photo, its longer side at most ``side`` pixels, where its file is still what was indexed."""
        item = await kiosk.item(photo)
        return Response(await run_in_threadpool(picture, item, side), media_type=JPEG, headers=KEPT)

    return routes


def people_routes(kiosk: Kiosk) -> APIRouter:
    """The people whom the gallery knows. Names are told in bodies, which stand in nobody's log."""
    routes = APIRouter(prefix="/people", tags=["people"])

    @routes.get("", response_model=PeoplePage)
    async def people(
        after: Annotated[str, Query(max_length=MAX_NAME)] = "", limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100
    ) -> Facts:
        """A page of people."""
        return await kiosk.people(after, limit)

    @routes.post("", response_model=Person, status_code=201, dependencies=WRITES)
    async def add(body: NewPersonBody) -> Facts:
        """Somebody new; a guest is given a name, and is forgotten when the server stops or nobody came back for an hour."""
        return await kiosk.add(body.person)

    @routes.post("/undo", response_model=Learned, dependencies=WRITES)
    async def undo(body: PersonBody) -> Facts:
        """Take back what somebody has shown last."""
        return await kiosk.undo(body.person)

    @routes.post("/forget", status_code=204, dependencies=WRITES)
    async def forget(body: PersonBody) -> None:
        """Delete somebody; nothing of them stays in the gallery's file."""
        await kiosk.forget(body.person)

    return routes
