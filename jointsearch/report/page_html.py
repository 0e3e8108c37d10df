"""HTML from values. All text is escaped where it is put in, so that no name in a file can become markup."""

import base64
import hashlib
import html
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMPTY_ELEMENTS = ("meta", "link", "img")
DASH = "-"
LARGEST_PNG = 64  # pixels of a side; larger photographs take a fifth as JPEG
JPEG_QUALITY = 90


class Html(str):
    """Text that is HTML already. It is made in this module only, everything else escapes."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; children are escaped unless they are Html, attributes always. aria_label stands for aria-label."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items())
    inner = "".join(child if isinstance(child, Html) else _escaped(child) for child in children)
    return Html(f"<{name}{written}>" if name in EMPTY_ELEMENTS else f"<{name}{written}>{inner}</{name}>")


def document(title: str, *sections: Html) -> str:
    """A whole page that a browser may not add anything to: no script, no request, no style but its own."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *sections)), lang="en") + "\n"


def table(head: Sequence[object], rows: Iterable[Sequence[object]], words: Collection[int] = (0,)) -> Html:
    """A table that scrolls by itself where it is too wide; the columns in `words` hold words, the others numbers."""

    def line(kind: str, cells: Sequence[object]) -> Html:
        kinds = ["word" if place in words else "number" for place in range(len(cells))]
        return tag("tr", *(tag(kind, cell, class_=name) for cell, name in zip(cells, kinds, strict=True)))

    body = tag("tbody", *(line("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", line("th", head)), body), class_="scroll", tabindex=0)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Terms and what there is to say of each; those with nothing are left out."""
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", said)) for term, said in pairs if said), class_="facts")


def drawing(figure: "Figure", description: str, sharpness: int) -> Html:
    """A drawing on white paper; where it is too wide, it scrolls by itself."""
    file = io.BytesIO()
    # Without the name and version of the program that drew it: the same run gives the same bytes.
    figure.savefig(file, format="png", dpi=sharpness * figure.dpi, metadata={"Software": None})
    width = round(figure.get_figwidth() * figure.dpi)
    image = tag("img", src=_inside(file), alt=description, width=width)
    return tag("div", image, class_="scroll paper", tabindex=0)


def photographs(images: Tensor, description: str) -> Html:
    """Images (M, 3 or 1, H, W) uint8 beside each other."""
    shown = []
    kind = "png" if max(images.shape[-2:]) <= LARGEST_PNG else "jpeg"
    for image in images.permute(0, 2, 3, 1).squeeze(-1).cpu().numpy():  # (H, W, 3), or (H, W) for gray
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, quality=JPEG_QUALITY)
        shown.append(tag("img", src=_inside(file, kind), alt="", width=image.shape[1], height=image.shape[0]))
    return tag("div", *shown, role="img", aria_label=description, class_="photographs")


def _inside(file: io.BytesIO, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def percent(value: float | None) -> str:
    """A share as people read it."""
    return DASH if value is None else f"{value:.1%}"


def amount(value: float | None, form: str = ",.0f") -> str:
    """A number as people read it."""
    return DASH if value is None else format(value, form)


def capitalized(words: str) -> str:
    """Words as they begin a title; what follows stays as it is."""
    return words[:1].upper() + words[1:]


def duration(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return DASH
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _escaped(value: object) -> str:
    # Control characters, half surrogates and marks that turn the direction of writing are shown, not obeyed.
    text = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in str(value))
    return html.escape(text)
