"""The options of a supernet: each at the values where it changes nothing, and against its definition."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import channel_shuffle, cross_entropy, max_pool2d

from jointsearch.soft.mixed import MixedBody, Mixture
from jointsearch.soft.network import SuperNet, SuperNetSettings, beta_decay
from jointsearch.through_step.record import record_step
from search_spaces.cells.derived import set_drop_path
from search_spaces.cells.ops import CELL_OPS, FactorizedReduce
from search_spaces.cells.skeleton import Skeleton
from search_spaces.cells.space import DARTS, SMALL, CellSpace
from search_spaces.errors import InputError

LITTLE = Skeleton(channels=4, layers=4, num_classes=3, in_chans=2)


def supernet(settings: SuperNetSettings, space: CellSpace = DARTS) -> SuperNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SuperNet(space, LITTLE, torch.Generator().manual_seed(2), settings).double()


def with_the_same_weights(settings: SuperNetSettings) -> tuple[SuperNet, SuperNet]:
    """DARTS's supernet and one with these settings."""
    darts, other = supernet(SuperNetSettings()), supernet(settings)
    _, unexpected = other.load_state_dict(darts.state_dict(), strict=False)
    assert not unexpected
    return darts, other


def some_images(count: int = 4, size: int = 8) -> Tensor:
    return torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def states(channels: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    before, last = torch.randn(2, 3, channels, size, size, generator=generator, dtype=torch.float64)
    return before, last


def mixture(space: CellSpace, **others: Tensor) -> Mixture:
    weights = torch.rand(len(space.edges), len(space.ops), generator=torch.Generator().manual_seed(5))
    return Mixture(weights.double(), **others)


# T-25
def test_the_gradient_of_beta_decay_is_the_softmax_over_the_number_of_edges() -> None:
    logits = torch.randn(14, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(50.0 * beta_decay(logits), logits)
    torch.testing.assert_close(gradient, 50.0 * torch.softmax(logits.detach(), dim=1) / 14, rtol=1e-12, atol=0)


# T-26
def test_an_auxiliary_skip_of_weight_0_changes_no_output() -> None:
    darts, other = with_the_same_weights(SuperNetSettings(auxiliary_skip=True))
    other.skip_weight.zero_()
    torch.testing.assert_close(other(some_images()), darts(some_images()), rtol=0, atol=0)
    other.skip_weight.fill_(0.5)
    assert not torch.allclose(other(some_images()), darts(some_images()))


@pytest.mark.parametrize("is_reduction", [False, True])
def test_an_auxiliary_skip_adds_every_source_to_its_node(is_reduction: bool) -> None:
    body = MixedBody(DARTS, 4, is_reduction, auxiliary_skip=True).double()
    nothing = Mixture(torch.zeros(14, 8, dtype=torch.float64), skip=torch.tensor(0.3, dtype=torch.float64))
    found = list(states(4))
    for node in range(4):
        total = 0
        for edge, (reader, source) in zip(body.edges, DARTS.edges, strict=True):
            if reader == node:
                skip = CELL_OPS["skip_connect"](4, 2 if is_reduction and source < 2 else 1, False).double()
                if isinstance(skip, FactorizedReduce):
                    skip.load_state_dict(edge.auxiliary.first.state_dict(), strict=False)
                total = total + 0.3 * skip(found[source])
        found.append(total)
    torch.testing.assert_close(body(*states(4), nothing), torch.cat(found[2:], dim=1), rtol=1e-9, atol=1e-12)


# T-27
def test_partial_channels_of_share_1_and_edge_weights_1_are_darts() -> None:
    darts, other = with_the_same_weights(SuperNetSettings(channel_share=1))
    mixtures = tuple(Mixture(torch.softmax(logits, 1), torch.ones(14).double()) for logits in other.logits.values())
    torch.testing.assert_close(other(some_images(), mixtures), darts(some_images()), rtol=0, atol=0)


@pytest.mark.parametrize("is_reduction", [False, True])
@pytest.mark.parametrize("size", [7, 8])
def test_partial_channels_are_mixed_joined_and_shuffled_on_every_edge(is_reduction: bool, size: int) -> None:
    body = MixedBody(SMALL, 12, is_reduction, share=4).double()
    edge_weights = torch.rand(5, dtype=torch.float64)
    # On 3 channels alone the body is known; here each edge is told apart by giving all others weight 0.
    found = list(states(12, size))
    mixed = mixture(SMALL, edges=edge_weights)
    for node in range(2):
        total = 0
        for row, (reader, source) in enumerate(SMALL.edges):
            if reader == node:
                total = total + edge_weights[row] * partial_edge(body, row, source, found[source], mixed)
        found.append(total)
    torch.testing.assert_close(body(*states(12, size), mixed), torch.cat(found[2:], dim=1), rtol=1e-9, atol=1e-12)


def partial_edge(body: MixedBody, row: int, source: int, x: Tensor, mixed: Mixture) -> Tensor:
    """One edge as PC-DARTS defines it: a quarter of the channels is mixed, the rest pooled where the edge halves."""
    stride = 2 if body.is_reduction and source < 2 else 1
    total = 0
    for place, op in enumerate(SMALL.ops):
        module = CELL_OPS[op](3, stride, False).double()
        for weight, ours in zip(module.parameters(), candidate_weights(body, row, op), strict=True):
            weight.data.copy_(ours)
        total = total + mixed.ops[row, place] * module(x[:, :3])
    past = max_pool2d(x[:, 3:], 2, 2, ceil_mode=True) if stride == 2 else x[:, 3:]
    return channel_shuffle(torch.cat([total, past], dim=1), 4)


def candidate_weights(body: MixedBody, row: int, op: str) -> list[Tensor]:
    candidates = body.edges[row].candidates
    return list(candidates[op].parameters()) if op in candidates else []


def test_the_edges_of_a_node_share_its_weight_and_its_genotype_heeds_them() -> None:
    network = supernet(SuperNetSettings(channel_share=2))
    normal, _ = network.mixtures()
    of_nodes = normal.edges.split([2, 3, 4, 5])
    torch.testing.assert_close(torch.stack([edges.sum() for edges in of_nodes]), torch.ones(4).double())
    with torch.no_grad():
        network.edge_logits["normal"][-5:] = torch.tensor([0.0, 9.0, 0.0, 8.0, 0.0])
    assert [edge.source for edge in network.harden().normal[3]] == [1, 3]


@pytest.mark.parametrize("share", [0, 3, 1.5])
def test_a_share_that_does_not_divide_the_channels_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="divisor"):
        supernet(SuperNetSettings(channel_share=share))


def test_a_single_path_is_the_whole_mixture_of_its_one_hot_weights() -> None:
    mixture_of_all, single = with_the_same_weights(SuperNetSettings(single_path=True))
    single.draw(torch.Generator().manual_seed(6))
    whole = tuple(Mixture(mixture.ops.detach()) for mixture in single.mixtures())
    assert all(set(row.tolist()) <= {0.0, 1.0} and row.sum() == 1 for mixture in whole for row in mixture.ops)
    torch.testing.assert_close(single(some_images()), mixture_of_all(some_images(), whole), rtol=1e-9, atol=1e-12)


def test_a_single_path_runs_the_drawn_candidates_only() -> None:
    network = supernet(SuperNetSettings(single_path=True))
    network.draw(torch.Generator().manual_seed(7))
    ran: set[str] = set()
    for name, module in network.named_modules():
        if name.startswith("network.cells.0.body.edges.") and name.endswith("norm"):
            module.register_forward_hook(lambda *_, name=name: ran.add(name))
    network(some_images())
    chosen = network.mixtures()[0].chosen
    drawn = [f"network.cells.0.body.edges.{row}.candidates.{DARTS.ops[place]}.norm" for row, place in enumerate(chosen)]
    assert ran == {name for name in drawn if "conv" in name}
    assert 0 < len(ran) < 14


def test_paths_are_drawn_in_proportion_to_the_softmax_of_the_logits() -> None:
    network = supernet(SuperNetSettings(single_path=True), SMALL)
    with torch.no_grad():
        network.logits["normal"].copy_(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]).repeat(5, 1))
    generator, counts = torch.Generator().manual_seed(8), torch.zeros(5)
    for _ in range(2000):
        network.draw(generator, temperature=0.3)
        counts += torch.bincount(torch.tensor(network.mixtures()[0].chosen), minlength=5)
    shares = torch.softmax(network.logits["normal"][0].detach(), 0).float()
    # 10,000 draws: 5 standard deviations of the rarest and of the most frequent
    torch.testing.assert_close(counts / counts.sum(), shares, rtol=0, atol=0.025)


def test_a_drawn_path_sends_its_gradient_to_all_logits_of_an_edge() -> None:
    network = supernet(SuperNetSettings(single_path=True))
    network.draw(torch.Generator().manual_seed(6), temperature=2.0)
    network(some_images()).square().sum().backward()
    logits = network.logits["normal"]
    soft = torch.softmax((logits + network.noise[0]).detach() / 2.0, dim=1)
    chosen = torch.tensor(network.mixtures()[0].chosen)
    for row, place in enumerate(chosen.tolist()):
        # d soft_chosen / d logits, at temperature 2, times one unknown number for each edge
        direction = soft[row, place] * (torch.eye(8, dtype=torch.float64)[place] - soft[row]) / 2.0
        ratio = logits.grad[row] / direction
        torch.testing.assert_close(ratio, ratio[0].expand(8), rtol=1e-6, atol=1e-9)
    assert logits.grad.abs().sum() > 0


def test_a_recorded_step_repeats_its_path_after_another_is_drawn() -> None:
    network = supernet(SuperNetSettings(single_path=True))
    generator = torch.Generator().manual_seed(9)
    network.draw(generator)
    with record_step(network) as record:
        outputs = network(some_images())
    network.draw(generator)
    torch.testing.assert_close(record.frozen()({}, some_images()), outputs.detach(), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(network(some_images()), outputs)


def test_an_edge_into_which_nothing_goes_leaves_zeros_of_the_right_shape() -> None:
    for is_reduction, side in ((False, 8), (True, 4)):
        body = MixedBody(DARTS, 4, is_reduction).double()
        nowhere = Mixture(torch.ones(14, 8).double(), chosen=(0,) * 14)  # none is the first op
        torch.testing.assert_close(body(*states(4), nowhere), torch.zeros(3, 16, side, side).double())


@pytest.mark.parametrize("op", ["dil_conv_3x3", "sep_conv_3x3", "max_pool_3x3", "skip_connect"])
def test_drop_path_drops_whole_images_of_a_candidate_and_enlarges_the_others(op: str) -> None:
    body = MixedBody(CellSpace((op,), 1, "one"), 4, False).double()
    only_first = Mixture(torch.tensor([[1.0], [0.0]]).double())
    before, last = torch.randn(2, 40, 4, 8, 8, dtype=torch.float64)
    whole = body(before, last, only_first)
    set_drop_path(body, 0.25)
    ratio = (body(before, last, only_first) / whole).flatten(1)
    kept = ratio.mean(1) > 0.5
    wanted = torch.where(kept, 1.0 if op == "skip_connect" else 4 / 3, 0.0).double()
    torch.testing.assert_close(ratio, wanted.unsqueeze(1).expand_as(ratio), rtol=1e-6, atol=1e-9)
    assert kept.all() if op == "skip_connect" else 0 < kept.sum() < 40
    torch.testing.assert_close(body.eval()(before, last, only_first), body.eval()(before, last, only_first))


def test_all_options_together_train_every_parameter() -> None:
    network = supernet(SuperNetSettings(channel_share=2, auxiliary_skip=True))
    set_drop_path(network, 0.1)
    loss = cross_entropy(network(some_images(6)), torch.tensor([0, 1, 2, 0, 1, 2])) + beta_decay(
        network.logits["normal"]
    )
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())
