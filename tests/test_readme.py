"""The map agrees with the land: what README.md and CONTRIBUTING.md name exists, and what exists is named."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests import contracts

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TABLES = README.split("## Two commands")[0]
COURSE = re.search(r"## The course\n(.*?)\n## ", README, re.DOTALL)[1]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_within_the_repository_resolves(page):
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_names_every_method():
    """poison and fit are not methods of a paper but what all of them go through."""
    methods = {
        f"drmlib/{file}.py" for file in contracts.files() if file.is_method and file.name not in ("poison", "fit")
    }
    assert methods == set(re.findall(r"\]\((drmlib/[^)]+)\)", TABLES)) - {"drmlib/attacks/targets.py"}


def test_the_course_names_every_notebook():
    named = re.findall(r"\]\((notebooks/[^)]+)\)", COURSE)
    assert named == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert all(link in named for link in re.findall(r"\]\((notebooks/[^)]+)\)", TABLES))


def test_the_course_counts_from_00_to_18():
    assert re.findall(r"^\|[^|]*\| (\d\d) \|", COURSE, re.MULTILINE) == [f"{number:02}" for number in range(19)]


def test_the_picture_speaks_without_being_seen():
    root = ElementTree.parse(ROOT / "docs/flow.svg").getroot()
    title, description = (root.find(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc"))
    assert title.text and len(description.text) > 100
    assert root.get("role") == "img"
    assert len(re.search(r"!\[([^\]]*)\]\(docs/flow.svg\)", README)[1]) > 100, "the picture has no alternative text"


def test_the_snippet_runs():
    """On fewer faces and with fewer steps than printed: what is tested is that names and arguments exist."""
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    shorter = {
        "6000": "128",
        "[:500]": "[:64]",
        "drmguard(model, faces": "drmguard(explore_steps=3, steps=3, model=model, images=faces",
    }
    for old, new in shorter.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    scope: dict = {}
    exec(snippet, scope)
    assert 0 <= scope["found"].score <= 1
