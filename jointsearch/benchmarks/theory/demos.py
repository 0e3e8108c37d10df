"""All demonstrations of docs/theory.md: what they measured as lines to print, and their figures as files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jointsearch.benchmarks.theory.chain import chain_demo
from jointsearch.benchmarks.theory.compositions import compositions_demo
from jointsearch.benchmarks.theory.drawn import figure
from jointsearch.benchmarks.theory.kernel import kernel_demo
from jointsearch.benchmarks.theory.linear import linear_demo
from jointsearch.benchmarks.theory.same_class import same_class_demo

DEMOS = (kernel_demo, linear_demo, compositions_demo, same_class_demo, chain_demo)


def theory_lines(seeds: Sequence[int], folder: str | None = None) -> Iterator[str]:
    """The tables of each demonstration as it is done; figures are written where a folder is given."""
    for measured in DEMOS:
        demo = measured(seeds)
        yield f"## {demo.title}\n"
        yield from (f"{table}\n" for table in demo.tables)
        if folder:
            file = Path(folder) / f"theory_{demo.name}.svg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(figure(demo.panels, demo.title), encoding="utf-8")
            yield f"{file}\n"
