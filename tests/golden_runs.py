"""Small runs of every method, as hashes: two commits that print the same lines compute the same bits.

    python tests/golden_runs.py                    # of this checkout
    python tests/golden_runs.py ../other relax     # of another one, only runs whose name holds "relax"

A line per search or training: the hash of its metrics of every epoch, its policy, its genotype and its final figures.
Lines depend on the machine and the version of torch. Digits, one thread, about five minutes in all.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURES = ("test_accuracy_last", "test_accuracy_selected", "selected_epoch", "forward_equivalents", "skipped_steps")

# Words that older commits, before jointsearch/study.py, wrote otherwise.
OLDER = {
    "recipe.mixing.mixup=0.2": "recipe.mixup=0.2",
    "recipe.mixing.cutmix=1.0": "recipe.cutmix=1.0",
    "recipe.warmup.epochs=1": "recipe.warmup_epochs=1",
    "searcher.stabilize.reward_scale=loss": "searcher.reward_scale=loss",
    "searcher.stabilize.draws_per_validation=2": "searcher.draws_per_validation=2",
    "searcher.stabilize.entropy_bonus=0.01": "searcher.entropy_bonus=0.01",
    "searcher.stabilize.validation_batches=2": "searcher.validation_batches=2",
    "searcher.rewards.epsilon=0": "searcher.through_step=jvp",
    "preset=joint_trivialaugment": "preset=default",
    "cells.layers=3": "cells.layers=3 cells.auxiliary=false",
}

ALWAYS = ["dataset=digits", "seeds=[1]", "threads=1", "device=cpu"]
SEARCH = [*ALWAYS, "search_recipe.epochs=2", "search_recipe.batch_size=32", "recipe.epochs=2"]
POLICY = [*SEARCH, "network=wide_resnet16_1"]
CELLS = [*SEARCH, *(f"supernet.{one}" for one in ("space=small", "channels=4", "layers=3"))]
# In bf16 the gradient of a dilated depthwise convolution differs from run to run on some processors.
CELLS += ["cells.channels=4", "cells.layers=3", "recipe.precision=float32"]
SMALL_MAPS = ["recipe.auxiliary_weight=0"]  # the second classifier wants larger ones
GRADIENTS = ["search=policy", "searcher=differentiable", "policy_space=pairs", *POLICY, "retrain=false"]
TRAINING = [*ALWAYS, "network=wide_resnet16_1", "recipe.epochs=3", "recipe.evaluate_every=2"]

# Each run: a script, and what follows it on the command line.
RUNS = {
    "dada2020_relax": ("joint_search", ["preset=dada2020_relax", *POLICY]),
    "dada2020_gumbel": ("joint_search", ["preset=dada2020_gumbel", *POLICY, "retrain=false"]),
    "kashima2021": ("joint_search", ["preset=kashima2021", *CELLS]),
    "darts2019_first": ("joint_search", ["preset=darts2019_first", *CELLS, "retrain=false"]),
    "darts2019_second": ("joint_search", ["preset=darts2019_second", *CELLS, *SMALL_MAPS, "controls=[none@random]"]),
    "faster_aa2020": ("joint_search", ["preset=faster_aa2020", *POLICY]),
    "tanda2017": ("joint_search", ["preset=tanda2017", *POLICY]),
    "separate2021": ("joint_search", ["preset=separate2021", *CELLS, "network=wide_resnet16_1", "policy_epochs=2"]),
    "joint_trivialaugment": ("joint_search", ["preset=joint_trivialaugment", *CELLS]),
    "joint_relax_second": (
        "joint_search", ["policy_space=pairs", "estimator=relax", "architecture.order=second", *CELLS, "retrain=false"]
    ),
    "gradients_reinforce": ("joint_search", [*GRADIENTS, "estimator=reinforce"]),
    "gradients_jvp": ("joint_search", [*GRADIENTS, "estimator=relax", "searcher.rewards.epsilon=0"]),
    "gradients_levers": ("joint_search", [
        *GRADIENTS, "estimator=reinforce", "searcher.stabilize.reward_scale=loss",
        "searcher.stabilize.draws_per_validation=2",
        "searcher.stabilize.validation_batches=2", "searcher.stabilize.entropy_bonus=0.01",
    ]),
    "shuffled": ("joint_search", [
        "search=policy", "searcher=shuffled_reward", "policy_space=trivialaugment", "estimator=reinforce", *POLICY,
        "retrain=false",
    ]),
    "random": ("joint_search", ["search=policy", "searcher=random", *POLICY, "retrain=false"]),
    "first_order": ("joint_search", ["search=policy", "searcher=first_order", *POLICY, "retrain=false"]),
    "trials": ("joint_search", [
        "search=policy", *POLICY, "search_recipe.epochs=4", "searcher.measurements=2", "searcher.trial_steps=3"
    ]),
    "table": ("joint_search", [
        "search=policy", "searcher=table", *POLICY, "searcher.from_epoch=1", "searcher.every=2", "searcher.levels=1",
        "retrain=false",
    ]),
    "retrain": ("retrain", ["policy=trivialaugment", "controls=[none,autoaugment]", *TRAINING]),
    "retrain_mixing": ("retrain", [
        "policy=randaugment", "controls=[]", *TRAINING, "recipe.mixing.mixup=0.2", "recipe.mixing.cutmix=1.0",
        "recipe.label_smoothing=0.1", "recipe.ema_decay=0.9", "recipe.warmup.epochs=1", "recipe.drop_rate=0.1",
    ]),
    "retrain_cells": ("retrain", [
        "policy=none", "controls=[]", "genotype=DARTS_V2", *ALWAYS, *SMALL_MAPS, "recipe=cells", "recipe.epochs=2",
        "recipe.precision=float32", "cells.channels=4", "cells.layers=3",
    ]),
    "retrain_auxiliary": ("retrain", [
        "policy=none", "controls=[]", "genotype=DARTS_V2", "dataset=shapes", *ALWAYS[1:], "recipe=cells",
        "recipe.epochs=1", "recipe.precision=float32", "cells.channels=4", "cells.layers=4",
    ]),
}  # fmt: skip


def digest(content: bytes) -> str:
    """The first characters of a SHA-256, or a dash for nothing."""
    return hashlib.sha256(content).hexdigest()[:12] if content else "-"


def outcome(folder: Path) -> str:
    """What a search or a training came to. Older commits call the policy that a search found found.json."""
    policy, genotype = folder / "policy.json", folder / "genotype.json"
    if (folder / "found.json").is_file():
        policy = folder / "found.json"
    files = [path.read_bytes() if path.is_file() else b"" for path in (folder / "metrics.jsonl", policy, genotype)]
    # The line after the last epoch holds test scores: those that every commit has are among the figures.
    files[0] = b"".join(line for line in files[0].splitlines(keepends=True) if b'"epoch"' in line)
    result = json.loads((folder / "result.json").read_text())
    searched = "skipped_steps" in result  # a search selects an epoch by another rule
    names = FIGURES[:2] + FIGURES[3:] if searched else FIGURES
    figures = json.dumps({name: result[name] for name in names if name in result})
    return " ".join(map(digest, (*files, figures.encode())))


def run(checkout: Path, name: str, folder: Path) -> None:
    """Carry out one run with the code of a checkout, and print a line for each of its parts."""
    script, words = RUNS[name]
    if not (checkout / "jointsearch" / "study.py").is_file():
        words = [older for word in words for older in OLDER.get(word, word).split()]
    if "retrain=false" in words:
        words = [word for word in words if not word.startswith(("recipe.", "controls="))]
    command = [sys.executable, str(checkout / "scripts" / f"{script}.py"), *words, f"run={folder}"]
    done = subprocess.run(
        command, check=False, cwd=folder.parent, env={"PYTHONPATH": str(checkout)}, capture_output=True, text=True
    )
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip()[-500:]}", flush=True)
        return
    for path in sorted(folder.glob("**/metrics.jsonl")):
        print(f"{name}/{path.parent.relative_to(folder)} {outcome(path.parent)}", flush=True)


def main() -> None:
    """Carry out the runs that are named, or all."""
    words = sys.argv[1:]
    checkout = Path(words.pop(0) if words else Path(__file__).parents[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        for name in RUNS:
            if not words or any(word in name for word in words):
                run(checkout, name, Path(scratch) / name)


if __name__ == "__main__":
    main()
