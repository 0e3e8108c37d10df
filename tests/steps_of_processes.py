"""What a step costs a process: alone, and beside others that torchrun started. Run it in the project's folder.

python -m tests.steps_of_processes
torchrun --standalone --nproc_per_node 2 -m tests.steps_of_processes
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from jointsearch.data.datasets import Shapes
from jointsearch.data.load import Loaded
from jointsearch.distributed import is_first, processes, together
from jointsearch.loops.plan import NewStepSearcher, Plan, new_trainer
from jointsearch.loops.recipe import Recipe, SearchRecipe
from jointsearch.loops.retrain import plain_steps
from jointsearch.loops.trainer import StepOf
from jointsearch.protocols import Moment
from jointsearch.randomness import own_global_randomness
from jointsearch.search_kinds import Joint, SupernetSettings
from jointsearch.study import Prepared, Study
from search_spaces.controls import named_policy

STEPS = 6
SHAPES = Shapes()
RECIPE = Recipe(epochs=10, batch_size=128, precision="float32")
JOINT = Joint(supernet=SupernetSettings("small", 8, 3), search_recipe=SearchRecipe(batch_size=64))


def measure(name: str, plan: Plan, splits: Any, new_searcher: NewStepSearcher) -> None:
    """Take steps on one batch, and print the median of the time that they took."""
    with own_global_randomness(0):
        trainer = new_trainer(plan, splits, plan.device)
        trainer.trained.train()
        searcher = new_searcher(trainer.trained, StepOf(trainer, lambda: 0), torch.Generator().manual_seed(0))
        [batch] = splits.train.batches(torch.arange(plan.recipe.batch_size), plan.recipe.batch_size)
        busy, passed = [], []
        for _ in range(STEPS):
            began = time.process_time(), time.perf_counter()
            searcher.step(batch, [batch] * searcher.needs.batches, Moment(5, 0, 10, 10, 0.05))
            busy.append(time.process_time() - began[0])
            passed.append(time.perf_counter() - began[1])
    if is_first():
        milliseconds = [round(1000 * statistics.median(times)) for times in (busy, passed)]
        print(f"{name}, {processes()} process(es): {milliseconds[0]} ms of CPU, {milliseconds[1]} ms by the clock")


def main() -> None:
    """Measure a training without and with a policy, and a joint search."""
    torch.set_num_threads(1)
    splits = Loaded(SHAPES).splits(0)
    for policy in ("none", "trivialaugment"):
        plan = Plan(Path(), "wide_resnet16_2", RECIPE, SHAPES.standard, 0, named_policy(policy))
        measure(f"training under {policy}", plan, splits, plain_steps(plan))
    study = Study(dataset=SHAPES, search=JOINT, seeds=(0,), retrain=False)
    [stage] = JOINT.stages()
    prepared = Prepared(study, Path(), Loaded(SHAPES), (stage,), {})
    measure("joint search", stage.plan(prepared, 0, None), splits, stage.new_searcher(None, 0, SHAPES.standard))


if __name__ == "__main__":
    with together():
        main()
