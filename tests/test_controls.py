"""Every control is the policy that its name says, and every other name gives a one-line error."""

import dataclasses
import importlib.resources
import itertools
from pathlib import Path

import pytest
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment

from search_spaces.augment.table import DADA_OPS, OPS
from search_spaces.controls import AUTOAUGMENT, POLICY_NAMES, RANDAUGMENT_OPS, named_policy, resolve_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

# Every pattern of POLICY_NAMES with its capitals filled in.
NAMES = [name.replace("SEED", "7").replace("DRAWS", "2").replace("N", "3").replace("M", "12") for name in POLICY_NAMES]
PUBLISHED = dict(zip(AUTOAUGMENT, ("CIFAR10", "SVHN", "IMAGENET"), strict=True))


def shares(policy: Policy) -> list[tuple[tuple[OpChoice, ...], float]]:
    total = sum(sub_policy.weight for sub_policy in policy.sub_policies)
    return [(sub_policy.ops, sub_policy.weight / total) for sub_policy in policy.sub_policies]


@pytest.mark.parametrize("name", NAMES)
def test_every_named_policy_survives_its_own_file(name: str, tmp_path: Path) -> None:
    policy = named_policy(name)
    policy.save(tmp_path / "policy.json")
    assert resolve_policy(str(tmp_path / "policy.json")) == policy
    assert resolve_policy(name) == policy


def test_none_changes_nothing_and_autoaugment_is_the_cifar10_table() -> None:
    assert named_policy("none") == named_policy("none", ops=("Rotate",)) == Policy((SubPolicy(()),))
    assert named_policy("autoaugment") == named_policy("autoaugment_cifar10")


@pytest.mark.parametrize("name", AUTOAUGMENT)
def test_an_autoaugment_file_holds_the_table_and_the_strengths_that_torchvision_holds(name: str) -> None:
    theirs = AutoAugment(AutoAugmentPolicy[PUBLISHED[name]])
    side = 331.0
    space = theirs._augmentation_space(10, (int(side), int(side)))
    ours = named_policy(name)
    assert len(ours.sub_policies) == len(theirs.policies) == 25
    assert {sub_policy.weight for sub_policy in ours.sub_policies} == {1.0}
    for sub_policy, row in zip(ours.sub_policies, theirs.policies, strict=True):
        assert [(choice.op, choice.probability) for choice in sub_policy.ops] == [entry[:2] for entry in row]
        for choice, (op, _, level) in zip(sub_policy.ops, row, strict=True):
            assert (choice.magnitude is None) == (level is None)
            if level is None:
                continue
            wanted = float(space[op][0][level])
            amount = float(OPS[op].amount(torch.tensor(choice.magnitude), torch.tensor(1.0)))
            if op.startswith("Translate"):
                assert amount == pytest.approx(min(wanted / side, 0.45), abs=1e-5)
            elif op == "Solarize":
                # torchvision counts from 255, the paper and we from 256: at most one gray level apart.
                assert abs(amount * 255 - wanted) <= 1.0
            else:
                assert amount - (OPS[op].identity if OPS[op].signed else 0) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", AUTOAUGMENT)
def test_the_shipped_files_are_data_of_the_installed_package(name: str) -> None:
    resource = importlib.resources.files("search_spaces").joinpath("policies", f"{name}.json")
    assert Policy.from_json(resource.read_text(encoding="utf-8")).name == name


def test_random_is_25_different_pairs_of_different_ops() -> None:
    policy = named_policy("random", seed=4)
    pairs = [tuple(choice.op for choice in sub_policy.ops) for sub_policy in policy.sub_policies]
    assert len(set(pairs)) == len(pairs) == 25
    assert set(pairs) <= set(itertools.combinations(DADA_OPS, 2))


def test_random_uses_the_seed_of_the_run_unless_its_name_fixes_one() -> None:
    assert named_policy("random", seed=3) == named_policy("random-s3", seed=9) != named_policy("random", seed=9)
    assert named_policy("random", seed=3).name == "random-s3"


def test_random_draws_pairs_probabilities_and_magnitudes_uniformly() -> None:
    policies = [named_policy("random", seed=seed) for seed in range(60)]
    choices = [choice for policy in policies for sub_policy in policy.sub_policies for choice in sub_policy.ops]
    for values in (
        torch.tensor([choice.probability for choice in choices]),
        torch.tensor([choice.magnitude for choice in choices if choice.magnitude is not None]),
    ):
        quarters = torch.histc(values, 4, 0, 1) / len(values)
        # About 2,400 values or more: a quarter's share has a standard deviation of .009.
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.04, rtol=0)
    # Every op is in 14 of the 105 pairs: 60 * 25 * 14 / 105 = 200 times, standard deviation 12.
    counts = [sum(choice.op == op for choice in choices) for op in DADA_OPS]
    assert all(150 < count < 250 for count in counts)


def test_naming_a_policy_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    for name in NAMES:
        named_policy(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_randaugment_draws_from_torchvisions_ops() -> None:
    assert set(RANDAUGMENT_OPS) | {"Identity"} == set(RandAugment()._augmentation_space(31, (32, 32)))
    assert len(RANDAUGMENT_OPS) == 13


@pytest.mark.parametrize("count", [1, 2, 3])
def test_randaugment_applies_every_op_equally_often_at_the_level_named(count: int) -> None:
    policy = named_policy(f"randaugment-n{count}-m9")
    for op in RANDAUGMENT_OPS:
        uses = sum(share * sum(choice.op == op for choice in ops) for ops, share in shares(policy))
        assert uses == pytest.approx(count / 14)
    untouched = sum(share for ops, share in shares(policy) if not ops)
    assert untouched == pytest.approx(14**-count)
    used = {choice for ops, _ in shares(policy) for choice in ops}
    assert {choice.probability for choice in used} == {1.0}
    assert {choice.magnitude for choice in used} == {0.3, None}


def test_the_longest_randaugment_survives_its_own_file(tmp_path: Path) -> None:
    policy = named_policy("randaugment-n3-m7", ops=DADA_OPS)
    policy.save(tmp_path / "policy.json")
    assert resolve_policy(str(tmp_path / "policy.json")) == policy


def test_randaugment_without_numbers_is_two_ops_at_level_nine() -> None:
    assert named_policy("randaugment") == named_policy("randaugment-n2-m9")
    # Draws with replacement: the same op twice is one of the 196 outcomes.
    rotations = [share for ops, share in shares(named_policy("randaugment")) if [c.op for c in ops] == ["Rotate"] * 2]
    assert rotations == pytest.approx([1 / 196])


def test_trivialaugment_draws_one_op_of_fourteen_and_any_magnitude() -> None:
    policy = named_policy("trivialaugment")
    assert max(len(ops) for ops, _ in shares(policy)) == 1
    assert sum(share for ops, share in shares(policy) if not ops) == pytest.approx(1 / 14)
    for op in RANDAUGMENT_OPS:
        [(choice, share)] = [(ops[0], share) for ops, share in shares(policy) if ops and ops[0].op == op]
        assert share == pytest.approx(1 / 14)
        assert choice == OpChoice(op, 1.0, (0.0, 1.0) if OPS[op].has_magnitude else None)


@pytest.mark.parametrize("name", ["random", "random-s1", "randaugment", "trivialaugment"])
def test_ops_replaces_the_list_that_a_control_draws_from(name: str) -> None:
    ops = ("Rotate", "Cutout", "Invert")
    policy = named_policy(name, ops=ops)
    assert {choice.op for sub_policy in policy.sub_policies for choice in sub_policy.ops} == set(ops)


def test_a_random_policy_of_one_op_or_two_is_as_long_as_they_allow() -> None:
    assert [len(s.ops) for s in named_policy("random", ops=("Rotate",)).sub_policies] == [1]
    assert [len(s.ops) for s in named_policy("random", ops=("Rotate", "Invert")).sub_policies] == [2]


def test_a_schedule_file_is_found_by_its_path(tmp_path: Path) -> None:
    schedule = PolicySchedule(((0, named_policy("none")), (5, named_policy("random"))))
    schedule.save(tmp_path / "schedule.json")
    assert resolve_policy(str(tmp_path / "schedule.json")) == schedule


@pytest.mark.parametrize(
    ("text", "ops", "said"),
    [
        ("RandAugment", None, "did you mean randaugment?"),
        ("trivial", None, "did you mean trivialaugment"),
        ("autoaugment-cifar10", None, "did you mean autoaugment_cifar10"),
        ("zzzz", None, "choose one of none, random"),
        ("", None, "choose one of none, random"),
        ("random-s", None, "random-sSEED"),
        ("random-s-1", None, "random-sSEED"),
        ("randaugment-n9-m9", None, "n from 1 to 3"),
        ("randaugment-n0-m9", None, "n from 1 to 3"),
        ("randaugment-n2-m31", None, "m from 0 to 30"),
        ("randaugment-n\u0662-m9", None, "randaugment-nN-mM"),
        ("none\n", None, "did you mean none?"),
        ("missing.json", None, "missing.json is not there"),
        ("folder/missing", None, "folder/missing is not there"),
        ("genotype.py", None, "scripts/show_policy.py policy=FILE save=policy.json"),
        ("autoaugment", ("Rotate",), "leave ops out"),
        ("autoaugment_svhn", ("Rotate",), "leave ops out"),
        ("missing.json", ("Rotate",), "leave ops out"),
        ("randaugment-n3-m9", tuple(OPS), "take n=2 or fewer ops"),
        ("random", ("Rotat",), "did you mean Rotate"),
        ("randaugment", ("Rotate", "Rotate"), "name it once"),
        ("trivialaugment", (), "name at least one of"),
        ("random", (), "name at least one of"),
    ],
)
def test_a_wrong_name_gives_one_line_with_the_remedy(text: str, ops: tuple[str, ...] | None, said: str) -> None:
    with pytest.raises(InputError) as error:
        resolve_policy(text, ops)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_control_cannot_be_changed_afterwards() -> None:
    policy = named_policy("autoaugment")
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.sub_policies = ()  # type: ignore[misc]


def test_the_folder_of_a_search_is_answered_with_the_file_in_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run/search-seed3", "none", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    named_policy("random-s1").save("run/search-seed3/policy.json")
    with pytest.raises(
        InputError, match=r"policy run is a folder; give a policy file, as in run/search-seed3/policy.json"
    ):
        resolve_policy("run")
    with pytest.raises(InputError, match=r"policy empty is a folder; give a policy file$"):
        resolve_policy("empty")
    assert resolve_policy("none") == named_policy("none")  # a run folder has one of that name
