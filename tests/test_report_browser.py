"""A real Chromium opens the report: nothing is complained of, asked for, broken or cut off, light or dark."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointsearch.data.load import load_splits
from jointsearch.report.page import write_report
from tests.browser import Page, new_page
from tests.report_bench import DIGITS, HOSTILE, write, write_hostile_run, write_metrics, write_run


def write_whole_run(folder: Path) -> Path:
    """A joint search with all colors and shades; its trainings left predictions, of classes with odd names."""
    write_run(folder, "joint")
    for seed in (0, 1):
        ops = {f"share/op {place}": place for place in range(9)}
        told = [{"epoch": epoch, **{op: 0.02 * epoch * place for op, place in ops.items()}} for epoch in (1, 2, 3)]
        write_metrics(folder / f"search-seed{seed}" / "metrics.jsonl", told)
    labels = load_splits(DIGITS, 0).test.labels.tolist()
    # Of digit n, n tenths are taken for the next one.
    predicted = [(label + (place % 10 < label)) % 10 for place, label in enumerate(labels)]
    classes = [HOSTILE, "<script>alert(1)</script>", "long" * 30, "\u202ebackwards", *"abcdef"]
    confidence = [(place % 100) / 100 for place in range(len(labels))]
    predictions = {"classes": classes, "labels": labels, "predicted": predicted, "confidence": confidence}
    for seed in (0, 1):
        write(folder / "found" / f"seed{seed}" / "predictions.json", predictions)
        write(folder / "found" / f"seed{seed}" / "model.json", {"classes": classes})
    return folder


MAKERS = {"joint": write_whole_run, "hostile": write_hostile_run}
MOST_BYTES = 5_000_000
# Words that begin or end beyond the page, where no box scrolls to them.
CUT = """[...document.querySelectorAll('body *')].filter(part => !part.closest('.scroll, pre, details:not([open])'))
  .filter(part => part.getBoundingClientRect().right > innerWidth + 1 || part.getBoundingClientRect().left < -1)
  .map(part => part.tagName + '.' + part.className)"""
BROKEN = "[...document.images].filter(image => !(image.complete && image.naturalWidth)).length"
# 4.5 to 1 is what WCAG 2.2 asks for (AA), and 3 to 1 for lines and dots that carry meaning.
CONTRAST, CONTRAST_OF_DRAWINGS = 4.5, 3.0
# Ink and paper of all elements with words of their own, and of all curves and dots, each pair once. A paper that is a
# gradient, as of a table that scrolls, lies over the page's own.
COLORS = """[...new Map([...document.querySelectorAll('body *')].filter(part => part.matches('.line, .dot, .chance') ||
  [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(part => {
    const drawn = part.matches('.line, .dot, .chance'), style = getComputedStyle(part)
    let under = part
    while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement
    const paper = getComputedStyle(under).backgroundColor
    const ink = !part.closest('svg') ? style.color : part.matches('.dot') || !drawn ? style.fill : style.stroke
    const faded = Number(style.opacity) * (part.matches('.dot') ? Number(style.fillOpacity) : 1)
    const place = part.tagName + '.' + part.getAttribute('class')
    return [[ink, paper, faded, drawn].join(), [ink, paper, faded, drawn, place]]
  })).values()]"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with new_page() as opened:
        yield opened


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS.keys())
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(request.param(tmp_path_factory.mktemp("run")))


def levels(color: str) -> np.ndarray:
    """Of rgb(r, g, b), from 0 to 255."""
    return np.array([float(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")])


def contrast(ink: np.ndarray, paper: np.ndarray) -> float:
    """Of two colors, as WCAG defines it."""
    shares = np.stack([ink, paper]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted((linear @ [0.2126, 0.7152, 0.0722]).tolist())
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    # https://webaim.org/resources/contrastchecker: black 21, #777777 on white 4.48.
    assert contrast(levels("rgb(0, 0, 0)"), levels("rgb(255, 255, 255)")) == pytest.approx(21)
    assert contrast(levels("rgb(119, 119, 119)"), levels("rgb(255, 255, 255)")) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_opens_without_a_word_a_request_or_a_broken_image(page: Page, report: Path, width: int, dark: bool) -> None:
    page.look(width, dark)
    page.open(report)
    assert page.requests() == [report.as_uri()]
    assert page.value("document.images.length") >= 24
    page.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.value(BROKEN) == 0
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(CUT) == []
    assert report.stat().st_size < MOST_BYTES
    picture = np.array(Image.open(io.BytesIO(page.picture())).convert("L"))
    assert (picture[:5].mean() < 60) == dark
    colors = page.value(COLORS)
    assert len(colors) >= 6
    for ink, paper, opacity, drawn, place in colors:
        seen = opacity * levels(ink) + (1 - opacity) * levels(paper)
        wanted = CONTRAST_OF_DRAWINGS if drawn else CONTRAST
        if "rest" not in place:  # curves that are not told apart
            assert contrast(seen, levels(paper)) >= wanted, (ink, paper, opacity, place)
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
