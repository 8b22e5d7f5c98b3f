"""The documentation names what is there: its menu, its links and its reference. ``make docs`` builds it, with stricter checks."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.snippets import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NAMED = sorted(
    set(re.findall(r"^::: ([\w.]+)$", "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md")), re.M))
)


def test_the_menu_has_every_page_once() -> None:
    menu = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(menu) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = DOCS / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}, which is not there"


@pytest.mark.parametrize("name", NAMED)
def test_the_reference_names_what_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute) if attribute[0].isupper() else importlib.import_module(name)
