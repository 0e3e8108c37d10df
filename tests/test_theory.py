"""What docs/theory.md claims, beside closed forms, enumeration and other libraries."""

import itertools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jointsearch.benchmarks.theory import compositions, demos, kernel, linear, same_class
from jointsearch.benchmarks.theory.demo import Demo, order_of, plus_minus
from jointsearch.benchmarks.theory.digits import changed, drawn_digits, targets_of
from jointsearch.benchmarks.theory.drawn import Panel, Rows, figure
from jointsearch.commands.command import run

FLOAT = torch.float64


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


# The kernel view


@pytest.mark.parametrize(
    ("words", "angles", "order"), [("even", kernel.even_angles, 4), ("skewed", kernel.skewed_angles, 3)]
)
def test_the_error_of_the_expansion_is_a_power_of_the_magnitude(words: str, angles: object, order: int) -> None:
    first, second = zip(*kernel.toy_errors("logistic", angles), strict=True)  # type: ignore[arg-type]
    small = kernel.ANGLES[-3:]
    assert order_of(small, first[-3:]) == pytest.approx(2, abs=0.02)
    assert order_of(small, second[-3:]) == pytest.approx(order, abs=0.06)


def test_what_the_expansion_leaves_out_begins_with_the_third_moment() -> None:
    weights, targets, points = (
        torch.tensor([1.0, 2.0], dtype=FLOAT),
        torch.tensor([1.0, -1.0, 1.0], dtype=FLOAT),
        drawn(3, 2),
    )
    angles, chances = kernel.skewed_angles(1e-3)
    outputs = kernel.turned(points, angles) @ weights
    found = kernel.expansion(outputs, chances, targets, kernel.LOSSES["logistic"])
    middle = (chances @ outputs).requires_grad_()
    slope = (1 + (-targets * middle).exp()).log().sum()
    for _ in range(3):
        [slope] = torch.autograd.grad(slope.sum(), middle, create_graph=True)
    rest = (slope.detach() * (chances @ (outputs - middle.detach()) ** 3)).mean() / 6
    assert found.exact - found.with_variance == pytest.approx(rest.item(), rel=0.01)


@pytest.mark.parametrize("angles", [kernel.even_angles, kernel.skewed_angles])
def test_squared_loss_is_its_two_terms_exactly(angles: object) -> None:
    assert max(second for _, second in kernel.toy_errors("squared", angles)) < 1e-14  # type: ignore[arg-type]


@pytest.mark.parametrize("name", kernel.LOSSES)
def test_the_curvature_of_a_loss_is_its_second_derivative(name: str) -> None:
    loss, targets = kernel.LOSSES[name], torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=FLOAT)
    outputs = torch.tensor([0.3, 2.0, -1.5, 0.0], dtype=FLOAT, requires_grad=True)
    [slope] = torch.autograd.grad(loss.value(outputs, targets).sum(), outputs, create_graph=True)
    [curvature] = torch.autograd.grad(slope.sum(), outputs)
    assert torch.allclose(loss.curvature(outputs, targets), curvature)


@pytest.mark.parametrize("largest", [0.1, 1.0, 3.0])
def test_average_and_variance_of_even_angles_are_those_of_the_integrals(largest: float) -> None:
    point, weights = torch.tensor([[0.6, 0.8]], dtype=FLOAT), torch.tensor([1.0, 2.0], dtype=FLOAT)
    angles, chances = kernel.even_angles(largest)
    outputs = (kernel.turned(point, angles) @ weights)[:, 0]
    along, across = 0.6 * 1 + 0.8 * 2, -0.8 * 1 + 0.6 * 2  # the output is along * cos + across * sin
    shrunk, double = math.sin(largest) / largest, math.sin(2 * largest) / (2 * largest)
    mean = along * shrunk
    variance = along**2 * ((1 + double) / 2 - shrunk**2) + across**2 * (1 - double) / 2
    assert float(chances @ outputs) == pytest.approx(mean)
    assert float(chances @ (outputs - mean) ** 2) == pytest.approx(variance)
    noise = np.random.default_rng(0).uniform(-largest, largest, 200_000)
    copies = along * np.cos(noise) + across * np.sin(noise)
    assert copies.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(noise)))
    assert copies.var() == pytest.approx(variance, rel=0.03)


def test_finitely_many_copies_are_off_by_what_sampling_theory_says() -> None:
    for draws in (10, 1000):
        assert kernel.finite_samples(draws) == pytest.approx((1, 1), abs=0.15)
    assert kernel.finite_samples(3, repeats=40_000) == pytest.approx((1, 1), abs=0.02)


def test_both_terms_are_the_regression_on_all_copies() -> None:
    train, test = drawn_digits(3, kernel.TRAIN, 1000)
    amounts = torch.linspace(-0.5, 0.5, 5, dtype=FLOAT)
    copies = torch.cat([changed(kernel.TURNED, train.images, one.expand(len(train.images))) for one in amounts])
    points = np.hstack([copies.flatten(1).numpy(), np.ones((len(copies), 1))])
    punished = np.vstack([points / math.sqrt(len(points)), math.sqrt(kernel.DECAY) * np.eye(65)])
    labels = np.vstack([train.targets.repeat(5, 1).numpy() / math.sqrt(len(points)), np.zeros((65, 10))])
    weights = np.linalg.lstsq(punished, labels, rcond=None)[0]
    outputs = np.hstack([test.pixels.numpy(), np.ones((1000, 1))]) @ weights
    wrong = 100 * float((outputs.argmax(1) != test.labels.numpy()).mean())
    assert kernel.errors_by_term(kernel.TURNED, 0.5, seed=3)[3] == pytest.approx(wrong)


# Linear theory


@pytest.mark.parametrize("seed", range(8))
def test_a_point_lowers_the_error_if_and_only_if_it_leaves_the_span(seed: int) -> None:
    sizes = np.random.default_rng(seed)
    dimensions = int(sizes.integers(3, 15))
    points, truth = drawn(int(sizes.integers(1, dimensions)), dimensions, seed=seed), drawn(dimensions, seed=seed + 50)
    inside = drawn(len(points), seed=seed + 100) @ points
    outside = drawn(dimensions, seed=seed + 150)
    assert abs(float(linear.fall(points, truth, inside[None], 0.0))) < 1e-10
    fitted, *_ = np.linalg.lstsq(points.numpy(), (points @ truth).numpy(), rcond=None)
    within, *_ = np.linalg.lstsq(points.numpy().T, outside.numpy(), rcond=None)
    rest = outside.numpy() - points.numpy().T @ within
    wrong_by = float(outside.numpy() @ (truth.numpy() - fitted))
    assert float(linear.fall(points, truth, outside[None], 0.0)) == pytest.approx(wrong_by**2 / float(rest @ rest))
    assert wrong_by**2 > 0


def test_a_point_outside_of_the_span_is_worth_nothing_where_the_model_is_right_already() -> None:
    points, truth = torch.eye(4, dtype=FLOAT)[:2], torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=FLOAT)
    assert float(linear.fall(points, truth, torch.eye(4, dtype=FLOAT)[3:], 0.0)) == pytest.approx(0, abs=1e-12)
    assert float(linear.fall(points, truth, torch.eye(4, dtype=FLOAT)[2:3], 0.0)) == pytest.approx(9)


def test_with_decay_a_point_in_the_span_is_worth_the_square_of_the_decay() -> None:
    falls = [float(linear.fall(*linear.drawn_toy(1, 0.0), decay)) for decay in (1e-2, 1e-3, 1e-4)]
    assert min(falls) > 0
    assert order_of((1e-2, 1e-3, 1e-4), falls) == pytest.approx(2, abs=0.02)


def by_pairs(points: Tensor, labels: Tensor, decay: float, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Ridge regression on mixed pairs of points, over shares that are all as likely."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    second, cross = 0.0, 0.0
    for (i, j), (node, weight) in itertools.product(pairs, zip(nodes, weights, strict=True)):
        share = (1 + node) / 2
        point, label = (share * some[i].numpy() + (1 - share) * some[j].numpy() for some in (points, labels))
        second = second + weight / 2 / len(pairs) * np.outer(point, point)
        cross = cross + weight / 2 / len(pairs) * np.multiply.outer(point, label)
    return np.linalg.solve(second + decay * np.eye(points.shape[1]), cross)


def test_mixup_is_the_regression_on_all_mixed_pairs() -> None:
    points, labels = drawn(6, 3) + 1, drawn(6, seed=1) + 2  # not centred
    expected = by_pairs(points, labels, 0.1, list(itertools.product(range(6), repeat=2)))
    assert linear.mixup_weights(points, labels, 1.0, 0.1).numpy() == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0, 5.0])
def test_mixup_of_centred_data_is_more_decay_and_nothing_else(alpha: float) -> None:
    points, labels = linear.noisy_data(0)
    mixed = linear.mixup_weights(points, labels, alpha, 0.3)
    alone = linear.mixup_weights(points, labels, 0.0, linear.mixup_decay(0.3, alpha))
    assert torch.allclose(mixed, alone)
    assert torch.allclose(mixed, linear.drawn_mixup(points, labels, alpha, 0.3, seed=0), atol=0.03)


def test_mixup_shrinks_the_weights_and_does_nothing_without_decay() -> None:
    data = linear.noisy_data(1)
    lengths = [float(linear.mixup_weights(*data, alpha, 0.3).norm()) for alpha in (0.0, 0.1, 1.0, 10.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 1.1 * lengths[-1]
    assert torch.allclose(linear.mixup_weights(*data, 1.0, 0.0), linear.mixup_weights(*data, 0.0, 0.0))


# Two ops


def error_of(*shortcuts: np.ndarray) -> float:
    """The shortest weights of points (1, v) with label 1 err by d^2 / (1 + d^2): d is how far 0 is from a line of v."""
    first, last = shortcuts[0], shortcuts[-1]
    along = last - first
    share = -first @ along / (along @ along) if along.any() else 0.0
    squared = float(((first + share * along) ** 2).sum())
    return squared / (1 + squared)


@pytest.mark.parametrize("degrees", [0, 20, 45, 74, 90, 130])
def test_the_interaction_of_two_mirrors_is_that_of_the_distances_of_lines(degrees: float) -> None:
    angle, point = math.radians(degrees), np.ones(2)
    first, second = (
        np.eye(2) - 2 * np.outer(one, one)
        for one in (np.array([1.0, 0.0]), np.array([math.cos(angle), math.sin(angle)]))
    )
    errors = [error_of(point, copy) for copy in (point, first @ point, second @ point, second @ first @ point)]
    assert linear.interaction_at(degrees) == pytest.approx(errors[1] + errors[2] - errors[0] - errors[3])


def test_the_second_op_acts_on_what_the_first_has_made() -> None:
    point = torch.tensor([1.0, 1.0, 2.0], dtype=FLOAT)
    blank = torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=FLOAT))
    swap = torch.eye(3, dtype=FLOAT)[[0, 2, 1]]
    errors = [
        error_of(np.array([1.0, 2.0]), np.array(copy)) for copy in ([1.0, 2.0], [0.0, 2.0], [2.0, 1.0], [2.0, 0.0])
    ]
    found = linear.interaction(point, blank, swap, torch.eye(3, dtype=FLOAT)[0])
    assert float(found) == pytest.approx(errors[1] + errors[2] - errors[0] - errors[3])


def test_the_interaction_has_both_signs() -> None:
    assert linear.interaction_at(0) == pytest.approx(-1 / 3)  # the second mirror undoes the first
    assert linear.interaction_at(90) == pytest.approx(1 / 3)  # each breaks one of two shortcuts
    assert 0.2 < linear.positive_share(2) < 0.45


def test_a_mirror_leaves_the_label_as_it_is() -> None:
    point, truth = linear.one_point(5)
    copies = linear.mirror(drawn(7, 5)) @ point
    assert torch.allclose(copies @ truth, point @ truth)
    assert (copies - point).norm(dim=1).min() > 0.01


def test_the_interaction_of_two_ops_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {(): 20.0, ("Rotate",): 15.0, ("ShearX",): 18.0, ("Rotate", "ShearX"): 12.0}
    monkeypatch.setattr(compositions, "STRONGEST", {"Rotate": 1.0, "ShearX": 1.0})
    monkeypatch.setattr(compositions, "wrong_with", lambda ops, seed: [wrong[ops] + seed, wrong[ops] * 2])
    found = compositions.interactions(compositions.wrong_by_ops(range(3)))
    assert {ops: values.tolist() for ops, values in found.items()} == {("Rotate", "ShearX"): [[1.0, 2.0]] * 3}


def test_copies_go_through_all_ops_and_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compositions, "STRONGEST", {"Rotate": 0.0, "Invert": 1.0})  # the first does nothing
    train, _ = drawn_digits(0, 7, 0)
    points, targets = compositions.with_copies(("Rotate", "Invert"), train, torch.Generator().manual_seed(0))
    first, *copies = points.split(7)
    assert torch.equal(first, train.pixels)
    assert len(copies) == compositions.COPIES
    assert all(torch.allclose(copy, 1 - train.pixels) for copy in copies)
    assert torch.equal(targets, targets_of(train.labels).repeat(1 + compositions.COPIES, 1))
    assert len(compositions.with_copies((), train, torch.Generator())[0]) == 7


def test_copies_differ_by_their_draws() -> None:
    train, _ = drawn_digits(0, 7, 0)
    points, _ = compositions.with_copies(("Rotate", "Cutout"), train, torch.Generator().manual_seed(0))
    assert all(not torch.equal(*pair) for pair in itertools.combinations(points.split(7), 2))


@pytest.mark.slow
def test_the_same_two_ops_are_less_than_their_sum_for_one_learner_and_more_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shifts = ("TranslateX", "TranslateY")
    monkeypatch.setattr(compositions, "STRONGEST", {op: compositions.STRONGEST[op] for op in shifts})
    straight, curved = compositions.interactions(compositions.wrong_by_ops(range(10)))[shifts].mean(0).tolist()
    assert straight < 0 < curved


# Digits of the same class


def test_moments_of_mixed_digits_are_those_of_all_pairs_of_a_class() -> None:
    points, labels = drawn(8, 3) + 1, torch.tensor([0, 0, 0, 1, 1, 4, 4, 4])
    second, cross = same_class.same_class_moments(points, labels, 1.0)
    pairs = [(i, j) for i, j in itertools.product(range(8), repeat=2) if labels[i] == labels[j]]
    # Every image is as often in a pair, whatever its class.
    weighted = [pair for pair in pairs for _ in range(6 // int((labels == labels[pair[0]]).sum()))]
    expected = by_pairs(points, targets_of(labels), 0.2, weighted)
    assert torch.linalg.solve(second + 0.2 * torch.eye(3), cross).numpy() == pytest.approx(expected)


def test_a_digit_is_mixed_with_any_of_its_class_and_with_no_other() -> None:
    labels = torch.tensor([[3, 1, 3, 1, 3], [0, 0, 0, 9, 0]])
    images = torch.eye(5).expand(2, 5, 5)
    noise, met = torch.Generator().manual_seed(0), torch.zeros(2, 5, 5)
    for _ in range(2000):
        mixed = same_class.mixed_within(images, labels, noise)
        assert torch.allclose(mixed.sum(-1), torch.ones(2, 5))
        met += mixed / 2000
    same = (labels[:, :, None] == labels[:, None]).float()
    expected = torch.eye(5) / 2 + same / same.sum(-1, keepdim=True) / 2
    assert torch.allclose(met, expected, atol=0.03)
    assert not met[same == 0].any()


def test_the_mean_of_the_spreads_is_the_variance() -> None:
    outputs = drawn(5, 4, 10)
    variance = np.var(outputs.numpy(), axis=0, ddof=1).sum(-1).mean()
    assert float(same_class.spreads(outputs).mean()) == pytest.approx(variance)


def test_networks_that_train_side_by_side_train_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_class, "STEPS", 40)
    sets, test = same_class.training_sets(50, range(2))
    found = same_class.network_outputs(sets, test, mixed=False)
    noise = torch.Generator().manual_seed(0)
    first = torch.randn(2, 64, 64, generator=noise) / 8
    last = torch.randn(2, 64, 10, generator=noise) / 8
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        for layer, weight in ((network[0], first[1]), (network[2], last[1])):
            layer.weight.copy_(weight.T)
            layer.bias.zero_()
    optimizer = torch.optim.Adam(network.parameters(), lr=same_class.STEP_SIZE)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(sets[1].pixels.float()), sets[1].labels).backward()
        optimizer.step()
    assert torch.allclose(found[1], network(test.pixels.float()).softmax(-1), atol=1e-4)


def test_mixing_lowers_the_variance_of_the_linear_model_on_few_images_and_raises_it_on_more() -> None:
    changes = []
    for size in (50, 200):
        sets, test = same_class.training_sets(size, range(10))
        before, after = (same_class.spreads(same_class.ridge_outputs(sets, test, mixed)) for mixed in (False, True))
        changes.append(float(after.mean() / before.mean()))
    assert changes[0] < 0.95 < 1.05 < changes[1]


@pytest.mark.slow
def test_mixing_lowers_the_variance_of_networks() -> None:
    sets, test = same_class.training_sets(200, range(10))
    before, after = (same_class.spreads(same_class.network_outputs(sets, test, mixed)) for mixed in (False, True))
    assert float(after.mean()) < float(before.mean())


# Figures and command


def test_a_figure_draws_every_curve_row_and_name() -> None:
    curves = {"one": [(0.0, 1.0), (1.0, 2.0)], "<two>": [(0.0, 2.0), (1.0, 0.0)]}
    groups = {"a": {"x": (1.0, 0.5), "y": (-1.0, 0.1)}, "b": {"x": (0.0, 0.5), "y": (2.0, 0.1)}}
    drawing = figure([Panel("curves", curves, "time"), Rows("rows", groups, "points")], "both")
    root = ElementTree.fromstring(drawing)
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"curves", "one", "<two>", "time", "rows", "x", "y", "a", "b", "points"} <= set(texts)
    assert drawing.count("<polyline") == 2
    assert drawing.count('r="2.5"') == 4


def test_a_mean_has_the_interval_of_student() -> None:
    assert plus_minus(torch.tensor([1.0, 2.0, 3.0])) == "+2.00 ± 2.48"  # 4.303 / sqrt(3)


def test_the_command_prints_tables_and_draws_into_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Demo("mine", "Mine", ("| a |",), (Panel("p", {"c": [(0.0, 0.0), (1.0, 1.0)]}, "x"),))
    monkeypatch.setattr(demos, "DEMOS", (lambda seeds: made,))
    assert run("benchmark", ["theory", f"figures={tmp_path / 'new'}"]) == 0
    printed = capsys.readouterr().out
    assert "## Mine" in printed
    assert "| a |" in printed
    assert (tmp_path / "new" / "theory_mine.svg").exists()
