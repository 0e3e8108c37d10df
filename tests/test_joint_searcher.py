"""Joint search is policy search and DARTS in one step: with either frozen it is the other, to the bit."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from jointsearch.data.standard import Standard, normalize
from jointsearch.estimators.reinforce import ReinforceSettings
from jointsearch.loops.grid import SEED
from jointsearch.networks.supernet import supernet
from jointsearch.protocols import Context, SearcherSettings
from jointsearch.search_kinds import POLICY_FOLDER, CellsAlone, OneAfterTheOther
from jointsearch.searchers import differentiable
from jointsearch.searchers.cell_learner import AgainstCollapse, ArchitectureSettings, CellLearner
from jointsearch.searchers.differentiable import CellsOnly, Differentiable, DifferentiableSearcher
from jointsearch.searchers.rewards import Rewards, Stabilize
from jointsearch.searchers.spaces import Start, one_policy
from jointsearch.soft.network import SuperNet
from jointsearch.stages import FOUND
from jointsearch.through_step.hessian import largest_eigenvalue
from jointsearch.through_step.record import record_step
from jointsearch.through_step.sides import losses_on_both_sides
from jointsearch.through_step.validation import validation_gradient
from search_spaces.cells.derive import derive
from search_spaces.controls import named_policy
from search_spaces.levels import with_levels
from search_spaces.policy import Policy
from search_spaces.spaces import pairs
from tests.search_bench import CLASSES, STEP_SIZE, Descent, batch_of, moment

STANDARD = Standard()
NEVER = 1000  # an epoch that does not come


def new_network(**options: Any) -> SuperNet:
    torch.manual_seed(4)
    return supernet("small", channels=4, layers=3, num_classes=CLASSES, in_chans=1, **options)


def started(
    settings: SearcherSettings, cells: ArchitectureSettings | None, network: SuperNet | None = None
) -> DifferentiableSearcher:
    network = new_network() if network is None else network
    learner = None if cells is None else CellLearner(cells, network)
    noise = torch.Generator().manual_seed(6)
    return settings.start(Context(network, Descent(network), STANDARD, noise, epochs=4, cells=learner))


def new_searcher(
    search: str = "joint",
    start: str = "trivialaugment",
    policy: dict[str, Any] | None = None,
    cells: dict[str, Any] | None = None,
    network: SuperNet | None = None,
) -> DifferentiableSearcher:
    """Of policy and cells, of the "policy" alone, or of the "architecture" under a policy that stays."""
    architecture = None if search == "policy" else ArchitectureSettings(**({"learning_rate": 0.05} | (cells or {})))
    if search == "architecture":
        return started(CellsOnly(one_policy(start, None)), architecture, network)
    options: dict[str, Any] = {"magnitude_gradient": "none"} | (policy or {})
    space = Start(start, learn_magnitude=options["magnitude_gradient"] != "none")
    return started(Differentiable(policy_space=space, estimator=ReinforceSettings(), **options), architecture, network)


def steps(searcher: DifferentiableSearcher, count: int = 4) -> DifferentiableSearcher:
    for epoch in range(count):
        searcher.step(batch_of(16, epoch), [batch_of(16, 50 + epoch)], moment(epoch))
    return searcher


def snapshot(searcher: DifferentiableSearcher) -> dict[str, Tensor]:
    soft = {f"policy.{name}": value for name, value in searcher.drawn.soft.state_dict().items()}
    return {name: value.clone() for name, value in (soft | searcher.network.state_dict()).items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def moved(searcher: DifferentiableSearcher, fresh: DifferentiableSearcher) -> set[str]:
    before, after = snapshot(fresh), snapshot(searcher)
    return {name for name in before if not torch.equal(before[name], after[name])}


ARCHITECTURE = {"logits.normal", "logits.reduction"}


def test_joint_search_moves_policy_cells_and_weights() -> None:
    found = moved(steps(new_searcher()), new_searcher())
    assert found >= ARCHITECTURE | {"policy.preference", "network.stem.conv.weight"}


def test_with_the_cells_frozen_it_is_policy_search() -> None:
    joint = steps(new_searcher("joint", cells={"from_epoch": NEVER}))
    assert_same(snapshot(joint), snapshot(steps(new_searcher("policy"))))
    assert moved(joint, new_searcher()) & ARCHITECTURE == set()


@pytest.mark.parametrize("order", ["first", "second"])
def test_with_the_policy_frozen_it_is_the_search_of_cells(order: str) -> None:
    cells = {"order": order}
    policy = {"from_epoch": NEVER, "stabilize": Stabilize(entropy_bonus=0.1)}
    joint = steps(new_searcher("joint", policy=policy, cells=cells))
    alone = snapshot(steps(new_searcher("architecture", cells=cells)))
    alone["policy.preference"] = torch.zeros_like(snapshot(joint)["policy.preference"])  # one for each sub-policy
    assert_same(snapshot(joint), alone)
    assert "policy.preference" not in moved(joint, new_searcher())


@pytest.mark.parametrize("start", [named_policy("autoaugment"), named_policy("trivialaugment"), pairs()])
def test_a_search_of_cells_leaves_the_policy_as_it_starts(start: Policy) -> None:
    searcher = steps(started(CellsOnly(start), ArchitectureSettings()), 1)
    assert searcher.found().policy == start
    magnitudes = with_levels(start).tables.magnitude
    torch.testing.assert_close(searcher.drawn.soft.magnitudes(), magnitudes, rtol=0, atol=0)


def plain_darts() -> dict[str, Tensor]:
    """DARTS, first order, written down once more: a step of the weights, then one of the architecture."""
    network = new_network()
    train, logits = Descent(network), list(network.architecture().values())
    optimizer = torch.optim.Adam(logits, 0.05, betas=(0.5, 0.999), weight_decay=1e-3)
    for epoch in range(4):
        images, judge = batch_of(16, epoch), batch_of(16, 50 + epoch)
        train(normalize(images.images, STANDARD), images.labels)
        network.train()
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        for one in logits:
            one.requires_grad_()
        loss = cross_entropy(network(normalize(judge.images, STANDARD)), judge.labels)
        gradients = torch.autograd.grad(loss, logits)
        for one, gradient in zip(logits, gradients, strict=True):
            one.requires_grad_(False)
            one.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_without_augmentation_the_search_of_cells_is_darts() -> None:
    found = snapshot(steps(new_searcher("architecture", start="none")))
    expected = plain_darts()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    fresh = new_network().state_dict()
    assert all(float((expected[name] - fresh[name]).abs().max()) > 0.05 for name in ARCHITECTURE)


def test_the_separate_baseline_under_a_uniform_policy_is_the_search_of_cells_under_it(tmp_path: Path) -> None:
    path = tmp_path / POLICY_FOLDER / FOUND.replace(SEED, "3")
    path.parent.mkdir(parents=True)
    named_policy("trivialaugment").save(path)
    _, second = OneAfterTheOther().stages()
    (alone,) = CellsAlone(policy="trivialaugment").stages()
    assert replace(second, searcher=alone.searcher, settings={}) == replace(alone, settings={})
    cells = ArchitectureSettings(learning_rate=0.05)
    separate, expected = (steps(started(stage.searcher(tmp_path, 3), cells)) for stage in (second, alone))
    assert_same(snapshot(separate), snapshot(expected))
    assert moved(separate, started(second.searcher(tmp_path, 3), cells)) >= ARCHITECTURE


def gradients_of(searcher: DifferentiableSearcher) -> dict[str, Tensor]:
    """What each group got in one step that moves nothing."""
    kept: dict[str, Tensor] = {}
    if searcher.policy is not None:
        searcher.policy.optimizer = torch.optim.SGD(searcher.drawn.soft.parameters(), lr=0.0)
    assert searcher.cells is not None
    descend = searcher.cells.descend

    def watched(leaves: dict[str, Tensor]) -> None:
        kept.update({name: leaf.grad.clone() for name, leaf in leaves.items()})
        descend(leaves)

    searcher.cells.descend = watched  # type: ignore[method-assign]
    searcher.step(batch_of(32), [batch_of(32, 9)], moment())
    soft = searcher.drawn.soft
    named = {name: parameter.grad for name, parameter in soft.named_parameters() if parameter.grad is not None}
    return kept | {name: gradient.clone() for name, gradient in named.items()}


def test_one_backward_gives_each_group_what_a_backward_of_its_own_gives(tmp_path: Path) -> None:
    start = tmp_path / "start.json"
    start.write_text(
        '{"format": "jointsearch-policy", "version": 1, "sub_policies": ['
        '{"weight": 1, "ops": [{"op": "Rotate", "probability": 0.5, "magnitude": 0.4}]},'
        '{"weight": 1, "ops": [{"op": "Brightness", "probability": 0.7, "magnitude": 0.6}]}]}'
    )

    def searcher(search: str, magnitudes: str, order: str) -> DifferentiableSearcher:
        return new_searcher(search, str(start), {"magnitude_gradient": magnitudes}, {"order": order})

    together = gradients_of(searcher("joint", "pathwise", "second"))
    assert set(together) == ARCHITECTURE | {"preference", "probability_logits", "magnitude_logits"}
    cells = gradients_of(searcher("architecture", "none", "second"))
    policy = searcher("joint", "pathwise", "first")
    policies = gradients_of(policy)
    for name in ARCHITECTURE:
        torch.testing.assert_close(together[name], cells[name], rtol=1e-4, atol=1e-7)
    for name in ("preference", "probability_logits", "magnitude_logits"):
        torch.testing.assert_close(together[name], policies[name], rtol=1e-4, atol=1e-8)
        assert float(together[name].abs().max()) > 0


def test_the_second_order_differs_from_the_first() -> None:
    first, second = (
        gradients_of(new_searcher("architecture", cells={"order": order})) for order in ("first", "second")
    )
    change = torch.cat([(first[name] - second[name]).flatten() for name in ARCHITECTURE]).norm()
    assert float(change) > 1e-3


def test_the_second_order_is_the_first_plus_what_cells_do_through_the_training_step() -> None:
    found = gradients_of(new_searcher("architecture", start="none", cells={"order": "second"}))
    network, train, judge = new_network(), batch_of(32), batch_of(32, 9)
    step = Descent(network)
    leaves = {name: one.detach().requires_grad_() for name, one in network.architecture().items()}
    images = normalize(train.images, STANDARD)
    with record_step(network) as record:
        step(images, train.labels)
    gradient = validation_gradient(network, [(normalize(judge.images, STANDARD), judge.labels)], leaves)
    v = {name: part for name, part in gradient.items() if name not in leaves}
    # Not by double backward, which misses the kinks of ReLU that lie between both sides: in a supernet of 16 channels
    # the two differ by 0.65 to 3.4 of their size. On a smooth network they agree (test_through_step_architecture.py).
    sides = losses_on_both_sides(record.live(), v, images, train.labels, architecture=leaves)
    through = torch.autograd.grad(sides.rewards(STEP_SIZE).mean(), list(leaves.values()))
    for name, part in zip(leaves, through, strict=True):
        torch.testing.assert_close(found[name], gradient[name] + part, rtol=1e-3, atol=1e-6)
        assert float(part.norm()) > 0.05 * float(found[name].norm())


def test_with_frozen_rewards_the_second_order_has_two_passes_and_their_gradient_of_its_own() -> None:
    def searcher(statistics: str) -> DifferentiableSearcher:
        return new_searcher(policy={"rewards": Rewards(statistics=statistics)}, cells={"order": "second"})

    assert searcher("frozen").step(batch_of(16), [batch_of(16, 9)], moment()).forward_equivalents == 10 + 2
    found, wanted = gradients_of(searcher("frozen")), gradients_of(searcher("live"))
    for name in ARCHITECTURE:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found["preference"], wanted["preference"], rtol=0.01)


@pytest.mark.parametrize(
    ("search", "order", "magnitudes", "cost"),
    [
        ("joint", "first", "none", 8),
        ("joint", "first", "pathwise", 10),
        ("joint", "second", "none", 10),
        ("architecture", "first", "none", 5),
        ("architecture", "second", "none", 10),
        ("policy", "first", "none", 8),
    ],
)
def test_a_step_costs_what_it_says(search: str, order: str, magnitudes: str, cost: int) -> None:
    searcher = new_searcher(search, policy={"magnitude_gradient": magnitudes}, cells={"order": order})
    assert searcher.step(batch_of(16), [batch_of(16, 9)], moment()).forward_equivalents == cost


def test_beta_decay_rises_and_its_gradient_is_the_softmax_of_every_edge() -> None:
    learner = new_searcher("architecture", cells={"against_collapse": AgainstCollapse(beta_decay=8.0)}).cells
    assert learner is not None
    leaves = learner.leaves()
    edges = sum(len(leaf) for leaf in leaves.values())
    for progress in (0.0, 0.25, 1.0):
        gradients = torch.autograd.grad(learner.penalty(leaves, progress), list(leaves.values()))
        for leaf, gradient in zip(leaves.values(), gradients, strict=True):
            torch.testing.assert_close(gradient, 8.0 * progress * leaf.detach().softmax(1) / edges)


def test_beta_decay_pulls_logits_together() -> None:
    def spread(beta_decay: float) -> float:
        remedy = AgainstCollapse(beta_decay=beta_decay)
        searcher = steps(new_searcher("architecture", cells={"against_collapse": remedy, "weight_decay": 0.0}), 8)
        return float(searcher.network.logits["normal"].std())  # type: ignore[union-attr]

    assert spread(100.0) < 0.8 * spread(0.0)


def test_a_loss_that_is_no_number_moves_neither_policy_nor_cells() -> None:
    searcher = new_searcher()
    before = snapshot(searcher)
    train = batch_of(16)

    class Broken(Descent):
        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            loss = super().__call__(images, labels)
            with torch.no_grad():
                next(searcher.network.parameters()).fill_(torch.nan)
            return loss

    searcher.context = replace(searcher.context, train_step=Broken(searcher.network))
    assert searcher.step(train, [batch_of(16, 9)], moment()).skipped is True
    after = snapshot(searcher)
    for name in (*ARCHITECTURE, "policy.preference"):
        assert torch.equal(before[name], after[name])


@pytest.mark.parametrize("channel_share", [None, 2])
def test_the_weights_it_tells_are_those_that_the_cells_are_derived_from(channel_share: int | None) -> None:
    network = new_network(channel_share=channel_share)
    for number, logits in enumerate(network.architecture().values()):
        with torch.no_grad():
            logits.copy_(torch.randn(logits.shape, generator=torch.Generator().manual_seed(number)))
    searcher = new_searcher(network=network)
    found = searcher.found()
    weights = (torch.tensor(found.facts[f"weights/{kind}"]) for kind in ("normal", "reduction"))
    assert derive(network.space, *weights) == found.genotype


@pytest.mark.parametrize("option", ["single_path", "auxiliary_skip"])
def test_what_a_supernet_draws_or_fades_follows_the_search(option: str) -> None:
    network = new_network(**{option: True})
    searcher = steps(new_searcher(network=network), 3)
    if option == "auxiliary_skip":
        assert float(network.skip_weight) == pytest.approx(1 / 3)  # the third epoch of four
    else:
        assert float(network.temperature) == pytest.approx(3.4)
        assert bool(network.noise.any())
    assert searcher.found().genotype is not None


MONITOR = {"against_collapse": AgainstCollapse(hessian_monitor=True)}


@pytest.mark.slow
def test_watching_the_hessian_changes_nothing_else_and_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    sharpest = partial(largest_eigenvalue, iterations=3)
    monkeypatch.setattr(differentiable, "largest_eigenvalue", sharpest)
    watched, plain = steps(new_searcher(cells=MONITOR)), steps(new_searcher())
    sharpness = watched.found().facts["hessian_largest"]
    watched.network.eval()  # as an evaluation leaves it
    assert watched.found().facts["hessian_largest"] == sharpness
    assert not watched.network.training
    watched.network.train()  # in which a search measures
    noise = torch.Generator().manual_seed(0)
    assert sharpness == float(sharpest(watched.network, watched.last_validation, watched.cells.logits, noise))
    assert isinstance(sharpness, float)
    assert sharpness != 0
    assert_same(snapshot(watched), snapshot(plain))
    assert "hessian_largest" not in plain.found().facts
    again = new_searcher(cells=MONITOR)
    again.network.load_state_dict(watched.network.state_dict())
    again.restore(watched.state())
    assert again.found().facts == watched.found().facts


def test_a_cap_on_skip_connections_holds_for_what_is_found() -> None:
    searcher = new_searcher(cells={"against_collapse": AgainstCollapse(most_skips=1)})
    place = searcher.network.space.ops.index("skip_connect")  # type: ignore[union-attr]
    with torch.no_grad():
        searcher.network.logits["normal"][:, place] += 5  # type: ignore[index]
    genotype = searcher.found().genotype
    assert genotype is not None
    assert sum(edge.op == "skip_connect" for node in genotype.normal for edge in node) == 1
    assert searcher.found().facts["normal_skips"] == 4  # the monitor sees what the cap hides
