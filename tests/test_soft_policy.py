"""A soft policy equals its starting policy at first, learns shares, probabilities and magnitudes, and hardens."""

import math
from dataclasses import replace

import pytest
import torch

from jointsearch.estimators.draw import draw_noise
from jointsearch.estimators.reinforce import Reinforce
from jointsearch.searchers.spaces import Start
from jointsearch.soft.mixture import apply_blended, candidate_scores, pushed
from jointsearch.soft.policy import SoftPolicy
from search_spaces.augment.apply import PolicyDraw, apply_draw, draw_policy
from search_spaces.augment.table import DADA_OPS, OPS
from search_spaces.controls import named_policy, random_policy
from search_spaces.errors import InputError
from search_spaces.levels import with_levels
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule
from search_spaces.spaces import PAIRINGS, pairs

COUNTS = {"unordered": 105, "unordered_repeated": 120, "ordered": 210, "ordered_repeated": 225}


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_a_space_holds_as_many_pairs_as_there_are_and_none_twice(pairing: str) -> None:
    space = pairs(pairing=pairing)
    names = [tuple(choice.op for choice in sub_policy.ops) for sub_policy in space.sub_policies]
    assert len(names) == len(set(names)) == COUNTS[pairing]
    assert {name for pair in names for name in pair} == set(DADA_OPS)


def test_unordered_pairs_stand_in_the_order_of_the_ops() -> None:
    names = [tuple(choice.op for choice in sub_policy.ops) for sub_policy in pairs().sub_policies]
    assert all(DADA_OPS.index(first) < DADA_OPS.index(second) for first, second in names)


def test_a_single_op_makes_no_pair_of_different_ops() -> None:
    with pytest.raises(InputError, match="need two of them, but ops holds only Rotate; name more"):
        pairs(("Rotate",))
    assert len(pairs(("Rotate",), "ordered_repeated").sub_policies) == 1


def test_a_search_may_start_from_any_policy_but_no_schedule(tmp_path) -> None:
    assert Start().policy() == with_levels(named_policy("trivialaugment"))
    with pytest.raises(InputError, match="start=autoaugment-x2 draws 2 times for an image"):
        Start("autoaugment-x2").policy()
    for wrong in (named_policy("trivialaugment"), named_policy("autoaugment-x2")):
        with pytest.raises(InputError, match="has no numbers that gradients could move"):
            SoftPolicy(wrong)
    random_policy(DADA_OPS, 3).save(tmp_path / "mine.json")
    assert Start(str(tmp_path / "mine.json")).policy() == random_policy(DADA_OPS, 3)
    PolicySchedule(((0, pairs()), (1, named_policy("none")))).save(tmp_path / "schedule.json")
    with pytest.raises(InputError, match=r"schedule.json is a schedule; a search starts from one policy, name one"):
        Start(str(tmp_path / "schedule.json")).policy()


STARTS = {
    "pairs": pairs(),
    "trivialaugment": with_levels(named_policy("trivialaugment")),
    "random": random_policy(DADA_OPS, 0),
    "autoaugment": named_policy("autoaugment"),
    "weighted": Policy(
        (
            SubPolicy((OpChoice("Rotate", 0.25, 0.75),), 3.0),
            SubPolicy((), 1.0),
            SubPolicy((OpChoice("Invert", 0.0), OpChoice("Equalize", 1.0))),
        )
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
def test_sub_policies_of_weight_zero_are_left_out(weighted: bool) -> None:
    drawn, never = SubPolicy((OpChoice("Rotate", 0.5, 0.5),)), SubPolicy((OpChoice("Invert", 0.5),), 0.0)
    soft = SoftPolicy(Policy((never, drawn)))
    assert [one.ops[0].op for one in soft.harden(weighted=weighted).sub_policies] == ["Rotate"]


@pytest.mark.parametrize("share", ["none", "ops"])
@pytest.mark.parametrize("start_share", [0.0, 0.3])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_before_anything_is_learned_it_hardens_to_its_start(start: Policy, share: str, start_share: float) -> None:
    hard = SoftPolicy(start, share=share, start_share=start_share).harden(None, weighted=True)
    total = sum(sub_policy.weight for sub_policy in start.sub_policies)
    found = {tuple(choice.op for choice in sub_policy.ops): sub_policy for sub_policy in hard.sub_policies}
    assert len(hard.sub_policies) == len(start.sub_policies)
    for sub_policy in start.sub_policies if len(found) == len(start.sub_policies) else ():
        other = found[tuple(choice.op for choice in sub_policy.ops)]
        assert other.weight == pytest.approx(sub_policy.weight / total, abs=1e-6)
        for mine, theirs in zip(sub_policy.ops, other.ops, strict=True):
            # A learned share never starts closer to 0 or 1 than .01; one of exactly 0 or 1 is kept.
            assert theirs.probability == pytest.approx(mine.probability, abs=0.011)
            assert mine.magnitude is None or theirs.magnitude == pytest.approx(mine.magnitude, abs=0.011)


@pytest.mark.parametrize("steepness", [1.0, 4.0])
def test_numbers_start_alike_and_move_as_much_faster_as_asked_for(steepness: float) -> None:
    soft = SoftPolicy(pairs(), steepness=steepness)
    shares = soft.logits().act.sigmoid()[0, 0], soft.magnitudes()[0, 0]
    for share, parameter in zip(shares, (soft.probability_logits, soft.magnitude_logits), strict=True):
        assert share.item() == pytest.approx(0.5)
        (slope,) = torch.autograd.grad(share, parameter)
        assert float(slope[0, 0]) == pytest.approx(steepness / 4)  # 1 with 4, as if the share itself were learned


def test_probabilities_of_exactly_0_and_1_never_move() -> None:
    soft = SoftPolicy(STARTS["weighted"])
    soft.logits().act.sum().backward()
    assert soft.probability_logits.grad.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert soft.logits().act.sigmoid().detach().round(decimals=6).tolist() == [[0.25, 0], [0, 0], [0, 1]]


def test_magnitudes_of_ops_without_an_amount_stay_out_of_the_policy() -> None:
    hard = SoftPolicy(pairs()).harden(None)
    assert {choice.op for sub in hard.sub_policies for choice in sub.ops if choice.magnitude is None} == {
        name for name in DADA_OPS if not OPS[name].has_magnitude
    }


def test_the_largest_shares_are_kept_in_their_order_and_weighted_on_demand() -> None:
    soft = SoftPolicy(pairs())
    with torch.no_grad():
        soft.preference[7], soft.preference[3] = 2.0, 1.0
    uniform, weighted = soft.harden(2), soft.harden(2, weighted=True)
    names = [tuple(choice.op for choice in sub_policy.ops) for sub_policy in uniform.sub_policies]
    space = [tuple(choice.op for choice in sub_policy.ops) for sub_policy in pairs().sub_policies]
    assert names == [space[7], space[3]]
    assert [sub_policy.weight for sub_policy in uniform.sub_policies] == [1, 1]
    first, second = (sub_policy.weight for sub_policy in weighted.sub_policies)
    assert first / second == pytest.approx(math.e)


def test_a_shared_logit_moves_every_sub_policy_that_holds_the_op_in_that_stage() -> None:
    soft = SoftPolicy(pairs(), share="ops")
    rotate = list(OPS).index("Rotate")
    with torch.no_grad():
        soft.preference[0, rotate] = 1.0
    shares = soft.log_shares().detach().exp()
    first = soft.op[:, 0] == rotate
    ratio = shares[first].mean() / shares[~first].mean()
    assert float(ratio) == pytest.approx(math.e, rel=1e-5)
    assert float(shares[~first].std()) == pytest.approx(0, abs=1e-7)


def test_what_is_kept_of_the_start_stays_whatever_is_learned() -> None:
    soft = SoftPolicy(pairs(), start_share=0.21)
    with torch.no_grad():
        soft.preference[0] = 100.0
    shares = soft.log_shares().detach().exp()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    assert shares[1:].tolist() == pytest.approx([0.21 / 105] * 104)


def test_entropy_counts_the_sub_policies_in_use() -> None:
    soft = SoftPolicy(pairs())
    assert float(soft.entropy().detach().exp()) == pytest.approx(105, rel=1e-5)
    with torch.no_grad():
        soft.preference[:4] = 50.0
    assert float(soft.entropy().detach().exp()) == pytest.approx(4, rel=1e-5)


def test_the_divergence_from_the_start_by_hand() -> None:
    weights = {"Rotate": 2.0, "ShearX": 1.0, "Solarize": 1.0}
    soft = SoftPolicy(Policy(tuple(SubPolicy((OpChoice(op, 1.0, 0.5),), weight) for op, weight in weights.items())))
    assert float(soft.divergence().detach()) == 0
    with torch.no_grad():
        soft.preference.copy_(torch.tensor([0.25, 0.25, 0.5]).log() - soft.start_logits)
    by_hand = 0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)
    assert float(soft.divergence().detach()) == pytest.approx(by_hand)
    alike = SoftPolicy(pairs())
    with torch.no_grad():
        alike.preference.copy_(torch.linspace(-1, 1, 105))
    assert float(alike.divergence().detach()) == pytest.approx(
        math.log(105) - float(alike.entropy().detach()), rel=1e-4
    )


def test_idle_draws_are_counted_with_their_share() -> None:
    policy = Policy(
        (
            SubPolicy((OpChoice("Rotate", 0.5, 0.5), OpChoice("Invert", 0.25))),  # leaves 3 of 8 images unchanged
            SubPolicy((OpChoice("Rotate", 0.5, 0.02),)),  # always leaves images nearly unchanged
            SubPolicy(()),
        )
    )
    assert float(SoftPolicy(policy).idle_share()) == pytest.approx((3 / 8 + 1 + 1) / 3, abs=1e-4)


def drawn(soft: SoftPolicy, count: int, seed: int = 0) -> PolicyDraw:
    noise = torch.Generator().manual_seed(seed)
    logits = soft.logits()
    draw = Reinforce()(logits, draw_noise(logits, count, "hierarchical", noise))
    return soft.draw(draw.sub_policy, draw.acts, noise)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_soft_and_finished_policies_draw_the_same_distribution(start: Policy) -> None:
    count = 20_000
    soft, hard = drawn(SoftPolicy(start), count), draw_policy(start, count, torch.Generator().manual_seed(1))
    for stage in range(start.stages):
        frequencies = torch.stack([(one.op[:, stage] + 1).bincount(minlength=len(OPS) + 1) for one in (soft, hard)])
        spread = (frequencies.sum(0) / 2).clamp(min=1).sqrt()
        assert float(((frequencies[0] - frequencies[1]) / spread).abs().max()) < 6
    assert abs(float(soft.sign.mean())) < 0.05


def test_pushed_images_are_the_augmented_ones_with_a_slope_of_one_per_acting_op(images: torch.Tensor) -> None:
    soft = SoftPolicy(pairs())
    draw = drawn(soft, len(images))
    moved = pushed(images, draw)
    torch.testing.assert_close(moved, apply_draw(images, replace(draw, magnitude=draw.magnitude.detach())))
    (slope,) = torch.autograd.grad(moved.sum(), draw.magnitude)
    pixels = images[0].numel()
    torch.testing.assert_close(slope, (draw.op >= 0).float() * pixels)


def test_blended_images_are_the_augmented_ones_and_carry_the_slope_of_a_bit(images: torch.Tensor) -> None:
    soft = SoftPolicy(pairs())
    noise = torch.Generator().manual_seed(4)
    sub_policy = torch.randint(105, (len(images),), generator=noise)
    acts = (torch.rand(len(images), 2, generator=noise) < 0.5).float().requires_grad_()
    with torch.no_grad():
        draw = soft.draw(sub_policy, acts, noise)
    blended = apply_blended(images, draw, soft.op[sub_policy], acts, apply_draw)
    torch.testing.assert_close(blended, apply_draw(images, draw), atol=1e-6, rtol=0)
    (slope,) = torch.autograd.grad((blended * images).sum(), acts)
    # The second bit's slope by hand: the image with the second op minus the image without it.
    both = replace(draw, op=torch.stack([draw.op[:, 0], soft.op[sub_policy, 1]], 1))
    first = replace(draw, op=torch.stack([draw.op[:, 0], torch.full_like(draw.op[:, 0], -1)], 1))
    by_hand = ((apply_draw(images, both) - apply_draw(images, first)) * images).flatten(1).sum(1)
    torch.testing.assert_close(slope[:, 1], by_hand, atol=1e-3, rtol=1e-4)


def test_the_score_of_a_candidate_is_its_own_image_times_the_gradient(images: torch.Tensor) -> None:
    soft = SoftPolicy(pairs(DADA_OPS[:6]))
    noise = torch.Generator().manual_seed(5)
    sub_policies, batch = len(soft.visits), len(images)
    acts = (torch.rand(batch, sub_policies, 2, generator=noise) < 0.7).float()
    gradient = torch.randn(images.shape, generator=noise)
    draw = soft.draw(torch.zeros(batch, dtype=torch.long), acts[:, 0], noise)
    scores = candidate_scores(soft, images, draw, acts, gradient)
    for n in range(sub_policies):
        op = torch.where(acts[:, n] > 0, soft.op[n], -1)
        one = replace(draw, op=op, magnitude=soft.magnitudes().detach()[n].expand(batch, -1))
        torch.testing.assert_close(scores[:, n], (apply_draw(images, one) * gradient).flatten(1).sum(1))


def test_numbers_that_do_not_learn_are_drawn_and_found_unchanged() -> None:
    ops = (OpChoice("Rotate", 0.998, 2 / 7), OpChoice("Color", 1 / 300, 0.5))
    start = Policy((SubPolicy(ops),))
    soft = SoftPolicy(start, learn_probability=False, learn_magnitude=False)
    assert soft.logits().act.sigmoid().tolist()[0] == pytest.approx([0.998, 1 / 300], rel=1e-4)
    assert soft.harden() == start
