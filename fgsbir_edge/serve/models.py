"""What the API takes and gives. Types are strict: a number in quotes is no number."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fgsbir_edge.gallery.people import MAX_NAME
from fgsbir_edge.serve.options import MAX_BODY, MAX_FILTER, MAX_HITS, MAX_ID, MAX_PAIRS, MAX_POINTS, MAX_STROKES


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("a name has printable characters, not blanks alone")
    return name


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    return text


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
Id = Annotated[int, Field(ge=1, le=MAX_ID, description="a photo's id, as answers give it")]
Count = Annotated[int, Field(ge=1, le=MAX_HITS, description="how many photos")]
Number = Annotated[float, Field(ge=-1e7, le=1e7, allow_inf_nan=False)]
Point = Annotated[list[Number], Field(min_length=2, max_length=4, description="x to the right, y down; what follows is ignored")]
Stroke = Annotated[list[Point], Field(max_length=MAX_POINTS)]
Where = Annotated[
    Annotated[str, Field(max_length=MAX_FILTER)] | dict[str, Any] | None,
    Field(description="only photos that this filter lets through, as text or as an object: docs/gallery.md"),
]
Category = Annotated[str | None, Field(max_length=1000, description="only photos of this category")]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class SketchBody(_Model):
    """A drawing: its strokes in any unit, or an image file."""

    strokes: Annotated[list[Stroke], Field(max_length=MAX_STROKES)] | None = None
    image: Annotated[str, Field(max_length=MAX_BODY), AfterValidator(_base64)] | None = Field(
        None, description="a JPEG, PNG, WebP or BMP file in base64", json_schema_extra={"contentEncoding": "base64"}
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> SketchBody:
        if (self.strokes is None) == (self.image is None):
            raise ValueError("give either strokes or image")
        points = sum(map(len, self.strokes or []))
        if points > MAX_POINTS:
            raise ValueError(f"{points} points, at most {MAX_POINTS} are taken")
        return self


class SearchBody(SketchBody):
    """What to look for."""

    k: Count = 10
    person: Name | None = Field(None, description="by what was learned of this person")
    category: Category = None
    where: Where = None


class FeedbackBody(SearchBody):
    """Which photo a person meant; a new name is a new person."""

    person: Name
    photo: Id


class Pair(SketchBody):
    """A drawing and the photo that it means."""

    photo: Id


class AdaptBody(_Model):
    """Some pairs, learned from in one step."""

    person: Name
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_PAIRS)]


class PersonBody(_Model):
    """Somebody by name."""

    person: Name


class NewPersonBody(_Model):
    """Somebody new: a name, or a guest, who is given one and forgotten later."""

    person: Name | None = None
    guest: bool = False

    @model_validator(mode="after")
    def _named_or_guest(self) -> NewPersonBody:
        if (self.person is None) != self.guest:
            raise ValueError("give either person or guest: true")
        return self


class ErrorBody(BaseModel):
    """What every answer other than success holds."""

    error: str = Field(description="what kind, for programs")
    message: str = Field(description="what was wrong, for people")
    remedy: str = Field(description="how to put it right, for people")


class Health(BaseModel):
    """The gallery can be read."""

    status: str
    photos: int


class Version(BaseModel):
    """Which release, model and backend answer."""

    version: str
    model: str
    backend: str


class Settings(BaseModel):
    """What a page must know."""

    idle_seconds: float
    token_needed: bool
    categories: list[str]
    keeps: bool  # what people show outlasts the server, in a gallery's file


class Photo(BaseModel):
    """A photo of the gallery. An id stands for one content: a photo that changes gets a new one."""

    id: int
    name: str
    category: str | None


class PhotoHit(Photo):
    """A photo that was found; ``distance`` is from 0, alike, to 2, ``confidence`` the probability that it is the one meant."""

    rank: int
    distance: float
    confidence: float | None


class Assessed(BaseModel):
    """Photos, the nearest first, and how sure that is; the latter null where the model has no constants for it."""

    hits: list[PhotoHit]
    photos: int = Field(description="how many the gallery has")
    in_gallery: float | None = Field(description="the probability that the photo meant is among those searched")
    known: bool | None = Field(description="whether that is likely enough; false: perhaps none of these")
    sure: bool | None = Field(description="whether the first hit may be taken without asking")


class Found(Assessed):
    """The same, and by whose hand it was looked for."""

    person: str | None


class PhotoPage(BaseModel):
    """Some photos, in the gallery's order; ``next`` is what to go on ``after``, none at the end."""

    photos: list[Photo]
    total: int
    next: int | None


class Learned(BaseModel):
    """What became of what was shown."""

    person: str
    pairs: int = Field(description="in force now")
    learned: bool = Field(description="false: the model serves this person as it is")
    explanation: str


class Ranks(BaseModel):
    """The place of a photo among all, for one drawing."""

    photo: int
    before: int
    after: int


class Adapted(Learned):
    """The same, with each photo's place before and after."""

    ranks: list[Ranks]


class Answer(Adapted, Assessed):
    """The same, with what the drawing finds now."""


class Person(BaseModel):
    """Somebody whom the gallery knows."""

    person: str
    pairs: int
    guest: bool


class PeoplePage(BaseModel):
    """Some people by name; ``next`` is what to go on ``after``, none at the end."""

    people: list[Person]
    total: int
    next: str | None
