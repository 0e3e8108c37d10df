"""A real Chromium opens the report: nothing is complained of, asked for, broken or cut off, light or dark."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointsearch.report.page import write_report
from tests.browser import Page, new_page
from tests.report_bench import write_hostile_run, write_run

MAKERS = {"joint": lambda folder: write_run(folder, "joint"), "hostile": write_hostile_run}
BROKEN = "[...document.images].filter(image => !(image.complete && image.naturalWidth)).length"
# 4.5 to 1 is what WCAG 2.2 asks for (AA).
CONTRAST = 4.5


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with new_page() as opened:
        yield opened


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS.keys())
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(request.param(tmp_path_factory.mktemp("run")))


def luminance(color: str) -> float:
    """Of rgb(r, g, b), as WCAG defines it."""
    levels = np.array([float(part) for part in color.strip("rgb()").split(",")]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_opens_without_a_word_a_request_or_a_broken_image(page: Page, report: Path, width: int, dark: bool) -> None:
    page.look(width, dark)
    page.open(report)
    assert page.requests() == [report.as_uri()]
    assert page.value("document.images.length") >= 24
    page.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.value(BROKEN) == 0
    assert page.value("document.documentElement.scrollWidth") <= width
    picture = np.array(Image.open(io.BytesIO(page.picture())).convert("L"))
    assert (picture[:5].mean() < 60) == dark
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    for place in ("h1", "p.faint", "dt", "td", "th", ".charts figcaption span"):
        ink = page.value(f"getComputedStyle(document.querySelector('{place}')).color")
        darker, lighter = sorted((luminance(paper), luminance(ink)))
        assert (lighter + 0.05) / (darker + 0.05) >= CONTRAST, place
    assert page.complaints() == []
    assert page.value("document.scripts.length + document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0


def test_the_browser_would_have_seen_what_must_not_be(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="missing.png"><script>console.log("a word")</script>')
    page.open(bad)
    assert page.requests() == [bad.as_uri(), (tmp_path / "missing.png").as_uri()]
    assert page.value(BROKEN) == 1
    assert {event["method"] for event in page.complaints()} == {"Runtime.consoleAPICalled", "Log.entryAdded"}


def test_a_page_of_ours_refuses_what_was_put_into_it_afterwards(page: Page, report: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(b"")
    changed = tmp_path / "changed.html"
    planted = '<script>document.title = "taken"</script><img src="other.png"><style>h1 { color: red }</style>'
    changed.write_text(report.read_text().replace("<header>", f"<header>{planted}"))
    page.open(changed)
    refused = [event["params"] for event in page.events if event["method"] == "Network.loadingFailed"]
    assert [one["blockedReason"] for one in refused] == ["csp"]
    assert page.value("document.title") != "taken"
    assert page.value("getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 0, 0)"
    assert len(page.complaints()) == 3
