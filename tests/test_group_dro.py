"""Group DRO against closed forms, and CLAMP's consistency against its formula and a gradient worked out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, softmax

from jointsearch.data.groups import Grouped, Groups
from jointsearch.data.sets import ImageSet
from jointsearch.data.standard import Standard, normalize
from jointsearch.loops import by_group
from jointsearch.loops.recipe import Mixing, Recipe, Timm
from jointsearch.objectives import group_dro
from jointsearch.objectives.clamp import Clamp, inconsistency
from jointsearch.objectives.group_dro import GroupDro, GroupWeights
from search_spaces.errors import InputError

GRAY = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)


def training_set(numbers: Sequence[int], classes: int = 1, attributes: int = 2) -> ImageSet:
    """Images of these groups."""
    groups = Groups(torch.tensor(numbers), tuple("abc"[:attributes]))
    names = tuple("xyz"[:classes])
    return ImageSet(GRAY.expand(len(numbers), -1, -1, -1), groups.numbers // attributes, names, groups=groups)


def begun(numbers: Sequence[int], step_size: float = 0.1, classes: int = 1, **options: Any) -> GroupWeights:
    weights = GroupWeights(step_size, **options)
    weights.begin(training_set(numbers, classes), "group_dro")
    return weights


def descended(of_groups: Any, steps: int = 1500) -> tuple[float, list[float]]:
    """Where gradient descent on q . L of two groups of a number w comes to, and q there."""
    weights, w = begun([0, 1], 0.05), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        weights.loss(torch.stack(of_groups(w)), torch.tensor([0, 1])).backward()
        with torch.no_grad():
            w -= 0.05 * w.grad
            w.grad = None
    return float(w.detach()), weights.weights().flatten().tolist()


def test_where_one_group_is_worst_everywhere_q_goes_to_it_and_w_to_its_minimum() -> None:
    w, q = descended(lambda w: [(w - 1) ** 2 + 5, (w + 1) ** 2])
    assert w == pytest.approx(1, abs=1e-4)
    assert q == pytest.approx([1, 0], abs=1e-4)


def test_where_losses_cross_w_makes_them_equal_and_q_makes_the_gradient_vanish() -> None:
    # (w - 1)^2 = 4 (w + 1)^2 at w = -1/3; q (-8/3) + (1 - q) 16/3 = 0 at q = 2/3.
    w, q = descended(lambda w: [(w - 1) ** 2, 4 * (w + 1) ** 2])
    assert w == pytest.approx(-1 / 3, abs=1e-3)
    assert q == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    # Its mean over images, as without group DRO, is lowest at -3/5, where the losses are 2.56 and 0.64.


def test_a_step_multiplies_q_by_the_exponential_of_mean_losses_and_descends_at_constant_q() -> None:
    weights = begun([0, 0, 0, 1], 0.5)
    losses = torch.tensor([1.0, 3.0, 5.0, 1.0], dtype=torch.float64, requires_grad=True)
    value = weights.loss(losses, torch.tensor([0, 0, 1, 1]))  # means 2 and 3
    raw = torch.tensor([0.5 * 2, 0.5 * 3]).double().exp()
    q = raw / raw.sum()
    torch.testing.assert_close(weights.weights().flatten(), q)
    torch.testing.assert_close(value, q[0] * 2 + q[1] * 3)
    value.backward()
    torch.testing.assert_close(losses.grad, torch.stack([q[0], q[0], q[1], q[1]]) / 2)


def test_a_group_that_is_not_in_the_batch_and_one_without_training_images() -> None:
    weights = begun([0, 0, 1, 3], 1.0, classes=2)  # none of group 2
    weights.loss(torch.tensor([2.0, 2.0]), torch.tensor([0, 3]))
    e2 = float(torch.tensor(2.0).exp())
    assert weights.weights().flatten().tolist() == pytest.approx(
        [e2 / (2 * e2 + 1), 1 / (2 * e2 + 1), 0, e2 / (2 * e2 + 1)]
    )


def test_the_adjustment_makes_small_groups_weigh_more() -> None:
    weights = begun([0] * 100 + [1] * 4, 1.0, adjustment=2.0)
    weights.loss(torch.tensor([1.0, 1.0]), torch.tensor([0, 1]))
    raw = torch.tensor([1 + 2 / 10, 1 + 2 / 2]).exp()
    assert weights.weights().flatten().tolist() == pytest.approx((raw / raw.sum()).tolist())


def test_within_classes_q_is_a_distribution_over_the_attributes_of_each_times_its_share() -> None:
    weights = begun([0] * 5 + [1] * 1 + [2] * 1 + [3] * 3, 1.0, classes=2, within_classes=True)
    assert weights.weights().tolist() == [pytest.approx([0.3, 0.3]), pytest.approx([0.2, 0.2])]
    value = weights.loss(torch.tensor([1.0, 2.0, 9.0, 5.0]), torch.tensor([0, 1, 2, 3]))
    odds = [0.6 * softmax(torch.tensor([1.0, 2.0]), 0), 0.4 * softmax(torch.tensor([9.0, 5.0]), 0)]
    torch.testing.assert_close(weights.weights().float(), torch.stack(odds))
    assert float(value) == pytest.approx(float(odds[0] @ torch.tensor([1.0, 2.0]) + odds[1] @ torch.tensor([9.0, 5.0])))


def test_many_steps_on_large_losses_stay_finite() -> None:
    weights = begun([0, 1], 10.0)
    for _ in range(1000):
        value = weights.loss(torch.tensor([50.0, 1.0]), torch.tensor([0, 1]))
    assert weights.weights().flatten().tolist() == pytest.approx([1, 0])
    assert float(value) == pytest.approx(50)
    assert weights.logs.isfinite().all()


def test_parts_of_a_batch_in_two_processes_give_the_loss_and_gradient_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses, numbers = torch.tensor([1.0, 4.0, 2.0, 3.0, 7.0]), torch.tensor([0, 0, 1, 0, 1])
    whole = begun([0, 1], 0.5)
    given = losses.clone().requires_grad_()
    value = whole.loss(given, numbers)
    value.backward()
    sums, counts = torch.tensor([8.0, 9.0]), torch.tensor([3.0, 2.0])

    def as_if_two(tensors: Sequence[Tensor]) -> None:
        for tensor, total in zip(tensors, (sums, counts), strict=True):
            tensor.copy_(total)

    monkeypatch.setattr(group_dro, "add_up", as_if_two)
    parts, gradients = [], []
    for rows in (slice(0, 2), slice(2, 5)):
        weights, part = begun([0, 1], 0.5), losses[rows].clone().requires_grad_()
        loss = weights.loss(part, numbers[rows]) * (len(part) / 5)  # as Trainer weighs it before it adds up
        loss.backward()
        parts.append(loss)
        gradients.append(part.grad)
        torch.testing.assert_close(weights.weights(), whole.weights())
    torch.testing.assert_close(parts[0] + parts[1], value)
    torch.testing.assert_close(torch.cat(gradients), given.grad)


class Rows(nn.Module):
    """Class logits of images whose first pixel is their row in a table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, images: Tensor) -> Tensor:
        return self.table[(images[:, 0, 0, 0] * 255).round().long()]


def test_the_objective_takes_the_smoothed_cross_entropy_and_rewards_the_plain_one() -> None:
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, images = torch.tensor([0, 1, 2, 1]), (torch.arange(4.0) / 255).view(4, 1, 1, 1)
    told = Grouped(labels, Groups.of(labels, torch.tensor([0, 1, 0, 0]), ("a", "b")))
    objective = GroupDro(GroupWeights(0.0), label_smoothing=0.1)
    objective.begin(training_set([0, 2, 3, 4], classes=3), Standard())
    means = [cross_entropy(table[rows], labels[rows], label_smoothing=0.1) for rows in ([0], [3], [1], [2])]
    torch.testing.assert_close(objective.loss(Rows(table), images, told), torch.stack(means).mean())
    for given in (told, labels):
        torch.testing.assert_close(
            objective.losses(Rows(table), images, given), cross_entropy(table, labels, reduction="none")
        )


def test_the_state_holds_the_weights() -> None:
    first, second = (GroupDro(GroupWeights(0.5)) for _ in range(2))
    for one in (first, second):
        one.begin(training_set([0, 1]), Standard())
    first.group_weights.loss(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    kept = first.state()
    second.restore(kept)
    assert torch.equal(first.group_weights.weights(), second.group_weights.weights())
    before = kept["log_weights"].clone()
    second.group_weights.loss(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    assert torch.equal(kept["log_weights"], before)


# --------------------------------------------------------------------------------------------------------- CLAMP


def drawn(seed: int, count: int = 3) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 4, generator=noise, dtype=torch.float64) * 2 for _ in range(count)]


def test_the_distance_is_a_half_and_two_quarters_of_divergences_from_the_mean_of_the_translations() -> None:
    x, a, b = drawn(0)
    p, p_a, p_b = (one.softmax(1) for one in (x, a, b))
    middle = ((p_a + p_b) / 2).log()
    halves = [kl_div(middle, one, reduction="none").sum(1) for one in (p, p_a, p_b)]
    torch.testing.assert_close(inconsistency(x, [a, b]), halves[0] / 2 + halves[1] / 4 + halves[2] / 4)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_never_negative_and_zero_only_where_all_three_predictions_agree(seed: int) -> None:
    x, a, b = drawn(seed)
    shift = torch.randn(5, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert inconsistency(x, [x + shift, x - shift]).abs().max() < 1e-12
    for other in ((x, a, a), (x, x, a), (x, a, x), (a, x, b)):
        assert (inconsistency(other[0], other[1:]) > 1e-4).all()


def test_its_gradient_is_the_one_worked_out_by_hand() -> None:
    logits = [one.requires_grad_() for one in drawn(1)]
    inconsistency(logits[0], logits[1:]).sum().backward()
    p, p_a, p_b = (one.detach().softmax(1) for one in logits)
    m = (p_a + p_b) / 2
    # In the probabilities: of p it is (log p/m + 1) / 2; of p_z (log p_z/m - p/m) / 4, since the terms of m in both
    # KL(p_z || m) add up to -1/4 and cancel the 1/4 of the product rule.
    slopes = [((p / m).log() + 1) / 2, ((p_a / m).log() - p / m) / 4, ((p_b / m).log() - p / m) / 4]
    for one, of, slope in zip(logits, (p, p_a, p_b), slopes, strict=True):
        torch.testing.assert_close(one.grad, of * (slope - (of * slope).sum(1, keepdim=True)))


def test_clamp_adds_it_to_group_dro_and_translates_the_pixels_that_the_network_sees() -> None:
    standard = Standard(mean=(0.25,), std=(0.5,))
    labels, values = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    told = Grouped(labels, Groups.of(labels, values, ("a", "b")))
    images = normalize((torch.arange(3.0) / 255).view(3, 1, 1, 1), standard)
    table = torch.randn(23, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = nn.Sequential(Denormalized(), Rows(table))
    # Row r becomes 10 + r as attribute a, and 20 + r as b.
    objective = Clamp(GroupWeights(0.0, within_classes=True), 7.0, lambda pixels, _, to: pixels + 10 * (1 + to) / 255)
    objective.begin(training_set([0, 2, 3], classes=2), standard)
    each = cross_entropy(table[:3], labels, reduction="none")
    robust = each[0] / 3 + (each[1] + each[2]) / 3
    apart = inconsistency(table[:3], [table[10:13], table[20:23]]).mean()
    torch.testing.assert_close(objective.loss(network, images, told), robust + 7 * apart)


class Denormalized(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 0.5 + 0.25


@pytest.mark.parametrize("made", [by_group.GroupDro(), by_group.Clamp()], ids=lambda made: made.name)
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mixing", Recipe(mixing=Mixing())),
        ("auxiliary_weight", Recipe(auxiliary_weight=0.4)),
        ("timm.bce_loss", Recipe(timm=Timm(bce_loss=True))),
        ("timm.grad_accum_steps", Recipe(timm=Timm(grad_accum_steps=2))),
    ],
)
def test_what_would_be_wrong_in_silence_is_refused(made: Any, name: str, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=rf"^recipe\.{name} does not go with objective={made.name}.*leave one"):
        made(recipe)


@pytest.mark.parametrize("made", [by_group.GroupDro(), by_group.Clamp()], ids=lambda made: made.name)
def test_data_and_steps_without_groups_are_refused(made: Any) -> None:
    objective = made(Recipe())
    plain = ImageSet(GRAY, torch.tensor([0]), ("x",))
    with pytest.raises(InputError, match=f"objective={made.name} compares groups.*dataset=colored_digits"):
        objective.begin(plain, Standard())
    with pytest.raises(InputError, match=f"objective={made.name} .*hand on batch.groups"):
        objective.loss(nn.Identity(), GRAY, torch.tensor([0]))


def test_clamp_without_a_translator_is_refused() -> None:
    with pytest.raises(InputError, match=r"objective=clamp needs a translator.*objective\.translator"):
        by_group.Clamp()(Recipe()).begin(training_set([0, 1]), Standard())
