"""Break the code on purpose, one way after another, and see that a test fails each time: python tests/mutants.py

The twelve known mistakes of these estimators, and what else is easily got wrong in a search. Every mutant is applied to a
copy of the project, where the tests named with it must fail; unchanged, they must pass.
"""
# ruff: noqa: E501  the mutants are whole lines of code

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutants_of_runs import OF_RUNS

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """One defect: in `file`, `good` becomes `bad`; some test of `tests` has to notice."""

    name: str
    file: str
    good: str
    bad: str
    tests: str


MUTANTS = (
    Mutant(
        "alpha score x N*K (released code)",
        "jointsearch/estimators/sample.py",
        "return rows(self.sub_policy_logits.log_softmax(-1), self.sub_policy)",
        "return rows(self.sub_policy_logits.log_softmax(-1), self.sub_policy) * self.bits[0].numel()",
        "tests/test_estimators.py",
    ),
    Mutant(
        "joint surrogate, selected bits only",
        "jointsearch/estimators/sample.py",
        "return log_probability_of_acts(self.act_logits, self.bits).flatten(1).sum(1)",
        "return log_probability_of_acts(rows(self.act_logits, self.sub_policy) if self.bits.dim() == 3 else self.act_logits, self.acts).sum(1)",
        "tests/test_estimators_unbiased.py",
    ),
    Mutant(
        "theta detached in v'",
        "jointsearch/estimators/sample.py",
        "return -sign * (logsigmoid(-sign * logits - torch.log(mirrored)) + torch.log1p(-mirrored))",
        "return logits - logits.detach() - sign * (logsigmoid(-sign * logits.detach() - torch.log(mirrored)) + torch.log1p(-mirrored))",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "p detached in z~",
        "jointsearch/estimators/sample.py",
        "fresh = relaxed_sub_policy(logits, uniform)",
        "fresh = relaxed_sub_policy(logits.detach(), uniform)",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "v reuses u, sub-policy",
        "jointsearch/estimators/relax.py",
        "sample.sub_policy, noise.sub_policy_given)",
        "sample.sub_policy, noise.sub_policy)",
        "tests/test_estimators_unbiased.py",
    ),
    Mutant(
        "v reuses u, acts",
        "jointsearch/estimators/relax.py",
        "sample.bits, noise.act_given)",
        "sample.bits, noise.act)",
        "tests/test_estimators_unbiased.py",
    ),
    Mutant(
        "threshold z > 0.5",
        "jointsearch/estimators/sample.py",
        "bits = (act_scores > 0).to(act_scores.dtype)",
        "bits = (act_scores > 0.5).to(act_scores.dtype)",
        "tests/test_estimators.py",
    ),
    Mutant(
        "beta and 1 - beta swapped in v'",
        "jointsearch/estimators/sample.py",
        "return -sign * (logsigmoid(-sign * logits - torch.log(mirrored)) + torch.log1p(-mirrored))",
        "return 2 * logits - sign * (logsigmoid(sign * logits - torch.log(mirrored)) + torch.log1p(-mirrored))",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "Eq. 14 literal (z^ / sum z^, no softmax)",
        "jointsearch/estimators/relax.py",
        "weights, weights_given = (torch.softmax(z / self.temperature, -1) for z in (sample.relaxed_sub_policy, given))",
        "weights, weights_given = torch.softmax(sample.relaxed_sub_policy / self.temperature, -1), given / given.sum(-1, keepdim=True)",
        "tests/test_estimators_unbiased.py",
    ),
    Mutant(
        "missing grad c(z~)",
        "jointsearch/estimators/relax.py",
        "return surrogate(relaxed) - surrogate(relaxed_given) - surrogate(relaxed_given.detach()) * score",
        "return surrogate(relaxed) - surrogate(relaxed_given.detach()) - surrogate(relaxed_given.detach()) * score",
        "tests/test_estimators_unbiased.py",
    ),
    Mutant(
        "unnormalised p",
        "jointsearch/estimators/sample.py",
        "fresh = relaxed_sub_policy(logits, uniform)",
        "fresh = logits - torch.log(-torch.log(uniform))",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "z~ not conditioned, sub-policy",
        "jointsearch/estimators/sample.py",
        "return torch.where(is_given, largest, others)",
        "return fresh",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "z~ not conditioned, acts",
        "jointsearch/estimators/sample.py",
        "return -sign * (logsigmoid(-sign * logits - torch.log(mirrored)) + torch.log1p(-mirrored))",
        "return relaxed_acts(logits, uniform)",
        "tests/test_estimators_sample.py",
    ),
    Mutant(
        "create_graph dropped in the variance",
        "jointsearch/estimators/relax.py",
        "gradients = torch.autograd.grad(terms.sum(), own, create_graph=True)",
        "gradients = torch.autograd.grad(terms.sum(), own, retain_graph=True)",
        "tests/test_estimators_variance.py",
    ),
    Mutant(
        "sign of the step size",
        "jointsearch/through_step/sides.py",
        "return -step_size / (2 * self.reach)",
        "return step_size / (2 * self.reach)",
        "tests/test_through_step.py",
    ),
    Mutant(
        "step size missing, as released",
        "jointsearch/through_step/sides.py",
        "return -step_size / (2 * self.reach)",
        "return -1 / (2 * self.reach)",
        "tests/test_through_step.py",
    ),
    Mutant(
        "epsilon not divided by the norm of v",
        "jointsearch/through_step/sides.py",
        "reach = epsilon / v.norm.clamp_min(SHORTEST)",
        "reach = torch.full_like(v.norm, epsilon)",
        "tests/test_through_step.py",
    ),
    Mutant(
        "factor 2 of the width missing",
        "jointsearch/through_step/sides.py",
        "return -step_size / (2 * self.reach)",
        "return -step_size / self.reach",
        "tests/test_through_step.py",
    ),
    Mutant(
        "buffers polluted by rewards",
        "jointsearch/through_step/record.py",
        "buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}",
        "buffers = self.buffers",
        "tests/test_through_step_record.py",
    ),
    Mutant(
        "buffers polluted by validation images",
        "jointsearch/through_step/validation.py",
        "buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}",
        "buffers = dict(network.named_buffers())",
        "tests/test_searcher.py",
    ),
    Mutant(
        "dropout noise not shared",
        "jointsearch/through_step/record.py",
        "            if self.noise:\n",
        "            if False:\n",
        "tests/test_through_step.py tests/test_through_step_record.py",
    ),
    Mutant(
        "another draw is applied than the one credited",
        "jointsearch/searchers/drawn_policy.py",
        "ops = self.soft.draw(draw.sub_policy.expand(batch), acts, self.noise)",
        "ops = self.soft.draw(draw.sub_policy.expand(batch).roll(1), acts, self.noise)",
        "tests/test_searcher.py",
    ),
    Mutant(
        "cells climb the validation loss",
        "jointsearch/searchers/differentiable.py",
        "validation = sum((gradient[name] * leaf).sum()",
        "validation = sum(-(gradient[name] * leaf).sum()",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "cells climb through the training step",
        "jointsearch/searchers/differentiable.py",
        "return rewards.mean().cpu(), rewards.detach(), cost",
        "return -rewards.mean().cpu(), rewards.detach(), cost",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "every image carries the whole gradient of the architecture",
        "jointsearch/through_step/direction.py",
        "slope = (gradient * shared).sum() / len(values)",
        "slope = (gradient * shared).sum()",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "cells learn before their epoch",
        "jointsearch/searchers/cell_learner.py",
        "return at.epoch >= self.settings.from_epoch",
        "return True",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "beta-decay does not rise",
        "jointsearch/searchers/cell_learner.py",
        "return self.remedies.beta_decay * progress * penalty",
        "return self.remedies.beta_decay * penalty",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "frozen policy moves under an entropy bonus",
        "jointsearch/searchers/differentiable.py",
        "learned = self.descend(objective, leaves, measured, policy)",
        "learned = self.descend(objective, leaves, measured, self.policy)",
        "tests/test_joint_searcher.py tests/test_through_step_architecture.py",
    ),
    Mutant(
        "gain of a trial has the other sign",
        "jointsearch/searchers/gains.py",
        "errors[0] - errors",
        "errors - errors[0]",
        "tests/test_table_trials.py",
    ),
    Mutant(
        "steps of a trial are kept",
        "jointsearch/searchers/gains.py",
        "with self.train_step.undone():",
        "if True:",
        "tests/test_table_trials.py",
    ),
    Mutant(
        "trials are validated in training mode",
        "jointsearch/searchers/gains.py",
        "    network.eval()\n    losses",
        "    losses",
        "tests/test_table_trials.py",
    ),
    Mutant(
        "batch statistics are frozen where cells learn through the step",
        "jointsearch/through_step/record.py",
        "        return self._function(self._buffers, self._modes)",
        "        return self.frozen()",
        "tests/test_real_step.py",
    ),
    Mutant(
        "live and frozen rewards are exchanged",
        "jointsearch/searchers/differentiable.py",
        'ways.statistics == "live"',
        'ways.statistics != "live"',
        "tests/test_one_step_of_presets.py",
    ),
    Mutant(
        "rewards of another loss are those of the cross entropy",
        "jointsearch/searchers/differentiable.py",
        "record_step(self.network, self.context.image_losses)",
        "record_step(self.network)",
        "tests/test_task.py",
    ),
    Mutant(
        "rows of a trial meet noise of their own",
        "jointsearch/searchers/gains.py",
        "noise = noise.clone_state()\n        with",
        "with",
        "tests/test_table_trials.py",
    ),
    Mutant(
        "surrogates guess rewards as small as they are",
        "jointsearch/estimators/relax.py",
        "return torch.where(mean_square > 0, mean_square, 1.0).sqrt()",
        "return torch.ones_like(mean_square)",
        "tests/test_estimators_variance.py",
    ),
    Mutant(
        "a running baseline that never sees a reward",
        "jointsearch/searchers/policy_learner.py",
        "self.estimator.observe(credits)",
        "pass",
        "tests/test_searcher.py",
    ),
    Mutant(
        "dealt gradients of magnitudes have the other sign",
        "jointsearch/searchers/policy_learner.py",
        "return (gradient[owner.to(gradient.device)] * batch.changed).sum()",
        "return -(gradient[owner.to(gradient.device)] * batch.changed).sum()",
        "tests/test_searcher.py",
    ),
    Mutant(
        "a later op brings back what an earlier one pushed out",
        "search_spaces/augment/objects.py",
        "frames = [_moved_corners(frame, matrix) for matrix in later[:-1]]",
        "frames = [_moved_corners(frame, matrix) for matrix in later[:1]]",
        "tests/test_objects.py",
    ),
    Mutant(
        "a mirrored box keeps its place",
        "jointsearch/augmenters/objects.py",
        "torch.stack([width - x1, y0, width - x0, y1], -1)",
        "torch.stack([x0, y0, x1, y1], -1)",
        "tests/test_object_sets.py",
    ),
    Mutant(
        "boxes are found in pixels of the scaled image",
        "jointsearch/metrics/coco.py",
        "scale = torch.tensor([width / w, height / h], dtype=torch.float64).repeat(2)",
        "scale = torch.ones(4, dtype=torch.float64)",
        "tests/test_coco_metric.py",
    ),
    Mutant(
        "a crowd counts as missed",
        "jointsearch/metrics/coco.py",
        '"iscrowd": int(one.crowd[row]),',
        '"iscrowd": 0,',
        "tests/test_coco_metric.py",
    ),
    Mutant(
        "VOC counts from 0",
        "jointsearch/data/voc.py",
        "corners = (x0 - first_pixel, y0 - first_pixel,",
        "corners = (x0, y0,",
        "tests/test_object_readers.py",
    ),
    Mutant(
        "frozen BatchNorm follows the images",
        "jointsearch/networks/detectors.py",
        "if isinstance(part, _BatchNorm) and weights and not any(weights):",
        "if isinstance(part, _BatchNorm) and weights and not weights:",
        "tests/test_detectors.py",
    ),
    Mutant(
        "a detector's regions are drawn anew after a kill",
        "jointsearch/runs/checkpoint.py",
        "torch.set_rng_state(",
        "torch.manual_seed(0) or torch.get_rng_state(",
        "tests/test_detect_kills.py",
    ),
    *(Mutant(*row) for row in OF_RUNS),
)


def main(names: list[str]) -> int:
    """Run the mutants of these names, or all, and print what each came to; 0 if all were noticed."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if missing := set(names) - {mutant.name for mutant in chosen}:
        print(f"no mutant is called {', '.join(sorted(missing))}; they are {', '.join(one.name for one in MUTANTS)}")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "project"
        shutil.copytree(REPOSITORY, copy, ignore=left_out)
        for tests in sorted({mutant.tests for mutant in chosen}):
            if fails(copy, tests):
                print(f"{tests} fails without any mutant; mend it first")
                return 1
        survived = [mutant.name for mutant in chosen if not noticed(copy, mutant)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants were noticed")
    return 1 if survived else 0


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy does without. Of the folders called runs, only the one beside the packages holds results."""
    of_results = {".git", "runs", "results"} if Path(folder) == REPOSITORY else set()
    return set(names) & {"__pycache__", *of_results}


def noticed(copy: Path, mutant: Mutant) -> bool:
    """Whether the tests fail with the defect in place; the file is mended afterwards."""
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.good) != 1:
        print(f"{mutant.name}: {mutant.file} holds its line {text.count(mutant.good)} times, not once", flush=True)
        return False
    path.write_text(text.replace(mutant.good, mutant.bad), encoding="utf-8")
    failed = fails(copy, mutant.tests)
    path.write_text(text, encoding="utf-8")
    print(f"{mutant.name}: {'noticed' if failed else 'SURVIVED'}", flush=True)
    return failed


def fails(copy: Path, tests: str) -> bool:
    """Whether a test fails; anything else that ends pytest early is no answer."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with code {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
