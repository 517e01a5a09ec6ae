"""Every path and anchor that documents and docstrings name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: path.relative_to(ROOT)
)
SOURCES = sorted((ROOT / "align").rglob("*.py"))
PATH = re.compile(r"(?<![\w/.$-])(?:align|tests|recipes|benchmarks|docs)/[\w./-]+?\.\w+(?![\w/])")
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOTTED = re.compile(r"`(align(?:\.\w+)+)`")
NO_MODULE = {"align.rewards"}
"""The group of entry points."""


def anchors(document: Path) -> set[str]:
    """GitHub's names of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_links_of_a_document(document: Path) -> None:
    text = document.read_text()
    lost = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    for target in LINK.findall(text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (document.parent / file).resolve() if file else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            lost.append(target)
    assert not lost


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_of_docstrings(source: Path) -> None:
    text = source.read_text()
    lost = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    lost += [name for name in DOTTED.findall(text) if name not in NO_MODULE and not exists(name)]
    assert not lost


def exists(name: str) -> bool:
    """Whether ``align.a.b`` or ``align.a.b.c`` with c defined in b is there."""
    for module, rest in ((name, ""), (name.rpartition(".")[0], name.rpartition(".")[2])):
        file = ROOT / (module.replace(".", "/") + ".py")
        package = ROOT / module.replace(".", "/") / "__init__.py"
        found = file if file.is_file() else package
        if found.is_file():
            return not rest or re.search(rf"\b{rest}\b", found.read_text()) is not None
    return False
