"""A reward is measured in float32 or better, even inside code of lower precision."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from jointsearch.through_step.loss import per_image_loss
from jointsearch.through_step.validation import validation_gradient
from tests.through_step_bench import LABELS, REWARDS, STEP_SIZE, noise, recorded, singles, small

__all__ = ["singles"]


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("form", ["autocast", "bf16 images", "float64 direction"])
def test_a_reward_is_the_float32_one_whatever_surrounds_it(
    reward: Callable[..., Tensor], form: str, singles: Tensor
) -> None:
    images = singles.bfloat16().float()
    frozen, direction = recorded(small(), images)
    plain = reward(frozen, direction, images, LABELS, STEP_SIZE)
    around = torch.autocast("cpu", torch.bfloat16) if form == "autocast" else nullcontext()
    inputs = images.bfloat16() if form == "bf16 images" else images
    if form == "float64 direction":
        direction = {name: part.double() for name, part in direction.items()}
    with around:
        surrounded = reward(frozen, direction, inputs, LABELS, STEP_SIZE)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if form == "autocast" else torch.float32)
    assert surrounded.dtype == torch.float32
    assert torch.equal(surrounded, plain)


class Precision(nn.Module):
    """Records how products of float32 are rounded while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.seen: set[str] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.note()
        output = self.layer(images)
        if output.requires_grad:
            output.register_hook(self.note)  # as the backward pass begins
        return output

    def note(self, gradient: Tensor | None = None) -> None:
        self.seen |= {torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision}
        self.seen |= {torch.backends.mkldnn.matmul.fp32_precision}


@pytest.fixture
def low_matmul_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("low_matmul_precision")
@pytest.mark.parametrize("reward", REWARDS)
def test_no_product_is_rounded_to_tf32_or_bf16(reward: Callable[..., Tensor]) -> None:
    network, images = Precision(), noise(8, 4)
    frozen, direction = recorded(network, images)
    network.seen.clear()
    reward(frozen, direction, images, LABELS, STEP_SIZE)
    assert network.seen == {"ieee"}
    # The old and the new settings agree again; torch raises if they do not.
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("low_matmul_precision")
def test_no_product_of_the_validation_gradient_is_rounded_either_way() -> None:
    network = Precision()
    validation_gradient(network, [(noise(8, 4), LABELS)])
    assert network.seen == {"ieee"}
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("reward", REWARDS)
def test_weights_of_low_precision_are_refused_with_the_remedy(reward: Callable[..., Tensor], singles: Tensor) -> None:
    frozen, direction = recorded(small("group", dtype=torch.bfloat16), singles.bfloat16())
    with pytest.raises(ValueError, match=r"bfloat16, in which rewards are noise.*network.float\(\)"):
        reward(frozen, direction, singles, LABELS, STEP_SIZE)


def test_losses_are_taken_in_float32_at_least() -> None:
    outputs = noise(8, 3)
    assert per_image_loss(outputs.bfloat16(), LABELS).dtype == torch.float32
    assert per_image_loss(outputs.double(), LABELS).dtype == torch.float64
