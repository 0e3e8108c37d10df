"""What the tests of searches and whole studies share: small studies on digits, and their searches without the rest."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from jointsearch.data.datasets import Digits
from jointsearch.data.load import Loaded
from jointsearch.loops.plan import NewStepSearcher, try_plan
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.search import search
from jointsearch.protocols import Objective, SearcherSettings, TrainStep
from jointsearch.search_kinds import PolicyOnly
from jointsearch.searchers.differentiable import Differentiable
from jointsearch.searchers.spaces import Pairs
from jointsearch.study import Prepared, Study

SPACE = Pairs(ops=("Rotate", "Invert", "Brightness", "TranslateX"))  # 6 pairs
DIGITS = Digits(reduced=500, validation=0)
QUICK = SearchRecipe(epochs=1, batch_size=50, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, clip_gradient=0.0)
SEARCH = Path("search-seed3")


def differentiable(**changes: Any) -> Differentiable:
    """Gradient-based search in a small space."""
    return Differentiable(**{"policy_space": SPACE} | changes)


def search_study(
    searcher: SearcherSettings | None = None,
    recipe: SearchRecipe = QUICK,
    network: str = "tiny_cnn",
    **changes: Any,
) -> Study:
    """A study of one seed that ends with the policy found."""
    kind = PolicyOnly(differentiable() if searcher is None else searcher, network, recipe)
    return Study(**{"dataset": DIGITS, "search": kind, "seeds": (3,), "retrain": False, "device": "cpu"} | changes)


def run_searches(
    study: Study,
    folder: Path | str,
    recipe: Recipe | None = None,
    watch: Callable[[NewStepSearcher], NewStepSearcher] = lambda new_searcher: new_searcher,
    tried: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """The searches of a study as `run_study` makes them, `tried` or without any check before, and no report after.

    `recipe` may hold what a SearchRecipe leaves out, as averaged weights; options are those of Plan.
    """
    prepared = Prepared(study, Path(folder), Loaded(study.dataset), study.search.stages(), options)
    results = []
    for stage in prepared.stages:
        for seed in study.seeds:
            plan = stage.plan(prepared, seed, prepared.folder)
            plan = plan if recipe is None else replace(plan, recipe=recipe)
            new_searcher = watch(stage.new_searcher(prepared.folder, seed, study.dataset.standard))
            splits = prepared.loaded.search_splits(seed, *stage.share)
            if tried:
                try_plan(plan, splits, stage.new_searcher(None, seed, study.dataset.standard))
            results.append({"seed": seed, **search(plan, splits, new_searcher, study.select_epoch)})
    return results


@dataclass
class Stopping:
    """A training step that is killed in the middle of one of its calls."""

    train_step: TrainStep
    stop_at: int | None
    calls: int = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.train_step(images, labels)

    def undone(self) -> AbstractContextManager[None]:
        return self.train_step.undone()

    def begin_part(self, part: int, parts: int) -> None:
        self.train_step.begin_part(part, parts)

    @property
    def objective(self) -> Objective:
        return self.train_step.objective
