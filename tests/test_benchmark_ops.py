"""The table of ops says what is so: errors, promises and calls are measured, and what breaks one is found."""

import sys
from dataclasses import replace

import pytest
import torch
from kornia.enhance import adjust_brightness_accumulative, posterize
from torch import Tensor

from jointsearch.benchmarks import ops
from jointsearch.benchmarks.contracts import Function, broken_promises, gradients, op_arguments
from jointsearch.benchmarks.kornia_functions import COUNTERPARTS, uses
from jointsearch.benchmarks.ops import PIL_OPS, Error, OpRow, compare_ops, errors, ops_table
from search_spaces.augment.op import AugOp, per_image
from search_spaces.augment.table import OPS

EVERY_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
COSTS = {(32, False): (1.0, 0.5), (32, True): (1.0, 1.05), (224, False): (1.0, 1.0), (224, True): (1.0, 1.0)}
ROW = OpRow("Color", "enhance.color", False, (), ("images",), (Error(1, 0.4, 0), Error(1, 0.4, 0)), COSTS)


def test_every_op_has_a_counterpart_and_all_but_cutout_a_picture_of_pil() -> None:
    assert set(COUNTERPARTS) == set(OPS)
    assert set(PIL_OPS) == set(OPS) - {"Cutout"}


@EVERY_OP
def test_our_functions_keep_every_promise(op: AugOp) -> None:
    assert broken_promises(op, op.fn) == []
    assert set(gradients(op, op.fn)) == ({"amount", "images"} if op.has_magnitude else {"images"})


@EVERY_OP
def test_ours_is_at_most_one_level_off_pil(op: AugOp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "SIZES", {32: 16, 224: 2})
    found = errors(op, (op.fn, COUNTERPARTS[op.name].call))
    assert (found is None) == (op.name == "Cutout")
    assert found is None or (found[0].largest <= 1 and found[0].mean < 0.51 and found[0].flat <= 1)


def batch_mean(images: Tensor, amount: Tensor) -> Tensor:
    return images * amount.mean()


def waits(images: Tensor, amount: Tensor) -> Tensor:
    return images * per_image(amount) * torch.tensor([1.0]).to(images)


BREAKS: dict[str, tuple[str, Function]] = {
    "fails on 2x8x8, 5x8x8": ("Color", COUNTERPARTS["Color"].call),
    "magnitude 0 changes pixels by 255 levels": ("Brightness", lambda images, amount: 1 - images * per_image(amount)),
    "off its images one by one": ("Brightness", batch_mean),
    "one amount for a whole batch": ("Brightness", lambda images, amount: images * amount.reshape(())),
    "no gradient to the amount": ("Brightness", lambda images, amount: images * per_image(amount.detach())),
    "no gradient to the amount and images": ("Brightness", lambda images, amount: images.detach()),
    "no gradient to the images": ("Brightness", lambda images, amount: images.detach() * per_image(amount)),
    "1e-6 below a level is 16 levels off": ("Posterize", lambda images, amount: posterize(images, amount.round())),
    "1e-6 below a level is 161 levels off": ("Equalize", COUNTERPARTS["Equalize"].call),
    "makes a GPU wait": ("Brightness", waits),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_function_that_breaks_a_promise_is_found(message: str) -> None:
    name, function = BREAKS[message]
    assert any(broken.endswith(message) for broken in broken_promises(OPS[name], function))


def test_reading_a_number_from_a_tensor_makes_a_gpu_wait() -> None:
    def reads(images: Tensor, amount: Tensor) -> Tensor:
        return images * per_image(amount) + 0 * amount.detach()[0].item()

    assert broken_promises(OPS["Brightness"], reads) == ["makes a GPU wait"]


def test_an_error_is_counted_in_levels() -> None:
    def three_off(images: Tensor, amount: Tensor) -> Tensor:
        return 1 - images.clamp(min=3 / 255) + 3 / 255

    ours, theirs = errors(OPS["Invert"], (OPS["Invert"].fn, three_off)) or ()
    assert ours == Error(0, 0, 0)
    assert theirs.largest == 3
    assert 2.5 < theirs.mean <= 3
    assert theirs.flat == 3


def test_which_function_an_op_calls_is_seen_and_the_profiler_comes_back() -> None:
    arguments = op_arguments(OPS["Brightness"], torch.rand(2, 3, 4, 4))
    before = sys.getprofile()
    assert uses(OPS["Brightness"], adjust_brightness_accumulative, arguments)
    assert not uses(OPS["Brightness"], posterize, arguments)
    assert sys.getprofile() is before


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"used": True}, "kornia"),
        ({}, "ours: for no reason, use that of kornia"),
        ({"seconds": COSTS | {(224, True): (1.0, 1.2)}}, "ours: costs up to 1.2 times as much"),
        ({"broken": ("fails on 2x8x8",)}, "ours: fails on 2x8x8"),
        ({"errors": (Error(1, 0.4, 0), Error(9, 1.4, 0))}, "ours: 1 levels further from PIL"),
        ({"errors": (Error(1, 0.4, 0), Error(1, 0.4, 7))}, "ours: a flat picture is 7 levels from PIL's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kornias_function_is_used_or_the_row_says_why_not(change: dict[str, object], verdict: str) -> None:
    assert replace(ROW, **change).verdict == verdict  # type: ignore[arg-type]


def test_the_table_has_a_row_for_every_op_and_the_threads_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "SIZES", {16: 2, 24: 2})
    before = torch.get_num_threads()
    lines = ops_table(rounds=1, block_seconds=0.0).splitlines()
    assert torch.get_num_threads() == before
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in OPS]
    assert len({line.count(" | ") for line in lines}) == 1
    assert all(" | kornia |" in line or " | ours: " in line for line in lines[2:])


def test_a_row_times_both_forward_and_backward_at_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "SIZES", {16: 2, 96: 16})
    (row,) = compare_ops(3, 0.02, ["Rotate"])
    assert set(row.seconds) == {(16, False), (16, True), (96, False), (96, True)}
    assert row.seconds[96, True][0] > row.seconds[96, False][0] > row.seconds[16, False][0]
