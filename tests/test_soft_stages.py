"""Soft stages compute their weighted sum, have its exact gradient, and harden to an ordinary policy."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jointsearch.soft.stages import FASTER_AA_OPS, SoftStages, StageDraw
from search_spaces.augment.apply import apply_draw
from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import DADA_OPS, OPS
from search_spaces.errors import InputError

SMOOTH = ("ShearX", "TranslateY", "Rotate", "Contrast", "Color", "Brightness", "Sharpness", "SamplePairing", "Invert")


def new_stages(ops: tuple[str, ...] = FASTER_AA_OPS, sub_policies: int = 3, stages: int = 2, **options) -> SoftStages:
    return SoftStages(ops, sub_policies, stages, torch.Generator().manual_seed(1), **options)


def a_draw(soft: SoftStages, batch: int = 8, chunk: int = 1, seed: int = 2) -> StageDraw:
    return soft.draw(batch, chunk, torch.Generator().manual_seed(seed))


def test_the_sixteen_ops_of_faster_autoaugment_have_unique_names_and_hold_translate_x_but_no_cutout() -> None:
    assert len(FASTER_AA_OPS) == len(set(FASTER_AA_OPS)) == 16
    assert set(FASTER_AA_OPS) == (set(DADA_OPS) - {"Cutout"}) | {"HorizontalFlip", "SamplePairing"}


def test_an_op_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="names the op TranslateY twice; name it once"):
        new_stages(("TranslateY", "TranslateY"))


def test_a_new_space_has_960_numbers_spread_evenly_between_0_and_1() -> None:
    soft = new_stages(sub_policies=10)
    assert sum(values.numel() for values in soft.parameters()) == 3 * 10 * 2 * 16
    for values in (soft.preference.detach(), soft.probabilities().detach(), soft.magnitudes().detach()):
        # Of 320 uniform numbers: the mean has a standard error of .016, each tenth of them of .017.
        assert abs(float(values.mean()) - 0.5) < 0.07
        assert torch.allclose(values.flatten().histc(10, 0, 1) / 320, torch.tensor(0.1), atol=0.07)


def test_weights_are_the_tempered_softmax_and_add_up_to_1() -> None:
    soft = new_stages(temperature=0.05)
    by_hand = (soft.preference / 0.05).exp() / (soft.preference / 0.05).exp().sum(-1, keepdim=True)
    torch.testing.assert_close(soft.weights(), by_hand)
    torch.testing.assert_close(soft.weights().sum(-1), torch.ones(3, 2))


def test_a_probability_or_magnitude_of_one_half_moves_as_fast_as_its_parameter() -> None:
    soft = new_stages()
    for values, of in ((soft.probability_logits, soft.probabilities), (soft.magnitude_logits, soft.magnitudes)):
        torch.nn.init.zeros_(values)
        (slope,) = torch.autograd.grad(of().sum(), values)
        torch.testing.assert_close(slope, torch.ones_like(slope))


@pytest.mark.parametrize("whole", [False, True], ids=["relaxed", "whole"])
def test_a_stage_is_the_sum_over_its_ops_written_out_by_hand(images: Tensor, whole: bool) -> None:
    soft = new_stages(temperature=0.5)
    draw = a_draw(soft)
    mixed = soft.mixed(images, draw, whole_acts=whole)
    for i in range(0, len(images), 3):
        changed = images[i : i + 1]
        for stage in range(2):
            at = (draw.sub_policy[i], stage)
            total = torch.zeros_like(changed)
            for place, name in enumerate(FASTER_AA_OPS):
                p, u = soft.probabilities()[at][place], draw.act[i, stage, place]
                act = 1 / (1 + ((1 / p - 1) * (1 / u - 1)) ** (1 / 0.1))  # relaxed Bernoulli, temperature .1
                act = (act > 0.5).float() if whole else act
                here = (slice(i, i + 1), stage, place)
                noise = OpNoise(draw.sign[here], draw.position[here], draw.partner[here])
                result = OPS[name](changed, soft.magnitudes()[at][place].reshape(1), noise, images)
                total = total + soft.weights()[at][place] * (act * result + (1 - act) * changed)
            changed = total
        torch.testing.assert_close(mixed[i : i + 1], changed, atol=2e-5, rtol=0)


class Projected(torch.nn.Module):
    """One number out of all pixels, a random direction of them: its gradient is checked in place of all of theirs."""

    def __init__(self, soft: SoftStages, images: Tensor) -> None:
        super().__init__()
        self.soft, self.images, self.drawn = soft, images, a_draw(soft, len(images))
        self.direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(4), dtype=images.dtype)

    def forward(self) -> Tensor:
        return (self.soft.mixed(self.images, self.drawn) * self.direction).sum()


def gradients_agree(soft: SoftStages, images: Tensor, names: tuple[str, ...]) -> bool:
    """Whether autograd and central differences agree on every one of these parameters."""
    projected = Projected(soft, images)
    keys, values = [f"soft.{name}" for name in names], [soft.get_parameter(name) for name in names]
    assert all(bool(one.any()) for one in torch.autograd.grad(projected(), values))

    def objective(*given: Tensor) -> Tensor:
        return torch.func.functional_call(projected, dict(zip(keys, given, strict=True)), ())

    return torch.autograd.gradcheck(objective, values, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_weights_and_probabilities_is_exact_for_every_op(images: Tensor) -> None:
    soft = new_stages(sub_policies=2, stages=1, temperature=0.5, act_temperature=0.5).double()
    small = images[::2, :, 8:14, 8:14].double()
    assert gradients_agree(soft, small, ("preference", "probability_logits"))


def test_the_gradient_of_all_numbers_is_exact_through_both_stages_where_the_ops_are_smooth(images: Tensor) -> None:
    soft = new_stages(SMOOTH, sub_policies=1, temperature=0.5, act_temperature=0.5).double()
    # Between .3 and .7 nothing is clipped at black or white, where finite differences give no slope.
    torch.nn.init.uniform_(soft.magnitude_logits, -0.5, -0.2, generator=torch.Generator().manual_seed(3))
    small = images[2:4, :, 8:14, 8:14].double() * 0.2 + 0.4
    assert gradients_agree(soft, small, ("preference", "probability_logits", "magnitude_logits"))


@pytest.mark.parametrize("seed", range(5))
def test_as_the_temperature_falls_to_0_a_stage_is_its_op_of_the_largest_weight(images: Tensor, seed: int) -> None:
    soft = new_stages(sub_policies=10, temperature=1e-5)
    draw = a_draw(soft, seed=seed)
    largest = soft.preference.argmax(-1)[draw.sub_policy]  # (B, K)
    expected = soft.sampled(draw)
    assert torch.equal(torch.where(expected.op < 0, soft.op[largest], expected.op), soft.op[largest])
    mixed = soft.mixed(images, draw, whole_acts=True)
    torch.testing.assert_close(mixed, apply_draw(images, expected), atol=1e-5, rtol=0)


def test_sampled_stages_show_exactly_one_op_each_with_the_gradient_of_the_weighted_sum(images: Tensor) -> None:
    soft = new_stages(temperature=1.0, stages=1)
    draw = a_draw(soft)
    sampled = soft.mixed(images, draw, sampled=True, whole_acts=True)
    torch.testing.assert_close(sampled, apply_draw(images, soft.sampled(draw)), atol=1e-5, rtol=0)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    slopes = [
        torch.autograd.grad((image * direction).sum(), soft.preference)[0]
        for image in (sampled, soft.mixed(images, draw, whole_acts=True))
    ]
    torch.testing.assert_close(*slopes)
    assert slopes[0].abs().min() > 0


def test_ops_and_acts_are_drawn_as_often_as_their_weights_and_probabilities_say() -> None:
    soft = new_stages(sub_policies=1, stages=1, temperature=0.5)
    batch = 40_000
    draw = a_draw(soft, batch)
    drawn = soft.chosen(draw).flatten().bincount(minlength=16) / batch
    torch.testing.assert_close(drawn, soft.weights().detach()[0, 0], atol=4.5 * 0.5 / batch**0.5, rtol=0)
    acting = soft.acts(draw, whole=True).detach().mean(0)[0]
    torch.testing.assert_close(acting, soft.probabilities().detach()[0, 0], atol=4.5 * 0.5 / batch**0.5, rtol=0)


def test_a_uniform_number_at_the_last_sum_of_weights_still_draws_an_op() -> None:
    soft = new_stages()
    draw = replace(a_draw(soft), choice=torch.full((8, 2), 1 - 2**-24))
    assert int(soft.chosen(draw).max()) <= 15


@pytest.mark.parametrize(("batch", "chunk"), [(64, 8), (20, 8), (5, 8), (7, 1)])
def test_the_images_of_a_chunk_share_their_sub_policy_and_nothing_else(batch: int, chunk: int) -> None:
    soft = new_stages(sub_policies=1000)
    draw = a_draw(soft, batch, chunk)
    assert len(draw.sub_policy) == batch
    runs = draw.sub_policy.split(chunk)
    assert all(len(run.unique()) == 1 for run in runs)
    assert len(draw.sub_policy.unique()) == len(runs)
    assert len(draw.act.unique()) > 0.99 * draw.act.numel()


def test_hardening_takes_the_op_of_the_largest_weight_with_its_own_numbers() -> None:
    soft = new_stages(("Rotate", "Invert", "Color"), sub_policies=2, stages=2)
    with torch.no_grad():
        soft.preference.copy_(torch.tensor([[[0.1, 0.9, 0.2], [0.3, 0.2, 0.8]], [[0.5, 0.5, 0.1], [0.2, 0.7, 0.1]]]))
        soft.probability_logits.copy_((torch.arange(12.0).reshape(2, 2, 3) / 20 + 0.1).logit() / 4)
        soft.magnitude_logits.copy_((torch.arange(12.0).reshape(2, 2, 3) / 20 + 0.2).logit() / 4)
    found = soft.harden()
    rows = [[(one.op, one.probability, one.magnitude) for one in sub.ops] for sub in found.sub_policies]
    assert rows == [
        [("Invert", 0.15, None), ("Color", 0.35, 0.45)],
        [("Rotate", 0.4, 0.5), ("Invert", 0.6, None)],
    ]
    assert [sub.weight for sub in found.sub_policies] == [1.0, 1.0]


def test_the_metrics_of_a_small_space_are_those_computed_by_hand() -> None:
    soft = new_stages(("Rotate", "Invert"), sub_policies=1, stages=2, temperature=1.0)
    with torch.no_grad():
        # Weights 1/4 and 3/4, then 1/2 and 1/2; all probabilities 1/2; the first Rotate hardly turns.
        soft.preference.copy_(torch.tensor([[[1.0, 3.0], [1.0, 1.0]]]).log())
        soft.probability_logits.zero_()
        soft.magnitude_logits.copy_(torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]]))
    metrics = soft.metrics()
    assert metrics["idle_share"] == pytest.approx((0.25 * 1 + 0.75 * 0.5) * 0.5)
    assert metrics["share/Rotate"] == pytest.approx(0.125 + 0.25)
    assert metrics["share/Invert"] == pytest.approx(0.375 + 0.25)
    assert metrics["largest_weight"] == pytest.approx((0.75 + 0.5) / 2)
    # The entropies are log 4 - 3/4 log 3 and log 2.
    assert metrics["effective_ops"] == pytest.approx((4 / 3**0.75 * 2) ** 0.5)
