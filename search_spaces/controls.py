"""Untuned policies by name: the controls that every search result is compared with."""

import importlib.resources
import itertools
import os
import re
from collections import Counter
from pathlib import Path

import torch

from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.errors import InputError, nearest
from search_spaces.levels import LEVELS
from search_spaces.plain_json import located, shown, shown_path
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule, load_policy_or_schedule

# The tables published with AutoAugment, with magnitude = level / 9 and two exceptions. AutoAugment's translation ends
# at 150/331 = .4532 of the side and ours at .45: level 8 becomes .8952 and level 9 is clipped to 1. Posterize has whole
# bits, so its magnitudes are quarters. Sub-policies are uniform, and signed ops draw their direction per image.
AUTOAUGMENT = ("autoaugment_cifar10", "autoaugment_svhn", "autoaugment_imagenet")

POLICY_NAMES = (
    "none",
    "random",
    "random-sSEED",
    "randaugment",
    "randaugment-nN-mM",
    "trivialaugment",
    "autoaugment",
    *AUTOAUGMENT,
    "trivialaugment-xDRAWS",
)

# RandAugment has 14 ops: the identity and these 13, which are DADA's fifteen without Invert and Cutout.
RANDAUGMENT_OPS = tuple(op for op in DADA_OPS if op not in ("Invert", "Cutout"))
RANDAUGMENT_DEFAULT = (2, 9)
MAX_RANDAUGMENT_OPS = 3
# All sequences of 3 out of 15 ops and the identity make a file of 0.8 MB; readers refuse files above 1 MB.
MAX_SEQUENCES = 4096

# As many sub-policies as a search of DADA returns: 25 pairs of different ops, all equally likely.
RANDOM_SUB_POLICIES = 25


def named_policy(name: str, ops: tuple[str, ...] | None = None, seed: int = 0) -> Policy:
    """A control by its name (POLICY_NAMES). `ops` replaces its op list; `seed` is used by a `random` without one.

    trivialaugment-x2 draws twice for every image, and so does any other name with -x2 behind it.
    """
    if (match := re.fullmatch(r"(.+)-x([0-9]{1,2})", name)) and not re.search(r"-x[0-9]+$", match[1]):
        once = named_policy(match[1], ops, seed)
        return located(f"policy {shown(name)}", Policy, once.sub_policies, name, int(match[2]))
    if match := re.fullmatch(r"random(?:-s([0-9]{1,9}))?", name):
        return random_policy(DADA_OPS if ops is None else ops, int(match[1]) if match[1] else seed)
    if match := re.fullmatch(r"randaugment(?:-n([0-9]{1,3})-m([0-9]{1,3}))?", name):
        count, level = (int(match[1]), int(match[2])) if match[1] else RANDAUGMENT_DEFAULT
        return randaugment(count, level, RANDAUGMENT_OPS if ops is None else ops)
    if name == "trivialaugment":
        return trivialaugment(RANDAUGMENT_OPS if ops is None else ops)
    if name == "none":
        return Policy((SubPolicy(),), name="none")  # under any list of ops
    fixed = AUTOAUGMENT[0] if name == "autoaugment" else name
    if fixed not in AUTOAUGMENT:
        raise InputError(
            f"policy {shown(name)} is not a known control; give the path of a policy .json file, or a name: "
            f"{nearest(name, POLICY_NAMES)}"
        )
    if ops is not None:
        raise InputError(f"policy {name} has its own ops; leave ops out, or use random, randaugment or trivialaugment")
    return _shipped(fixed)


def is_control(name: str) -> bool:
    """Whether this is the name of a control."""
    try:
        named_policy(name)
    except InputError:
        return False
    return True


def resolve_policy(text: str, ops: tuple[str, ...] | None = None, seed: int = 0) -> Policy | PolicySchedule:
    """The policy that a user named: by the path of a policy or schedule file, or by the name of a control."""
    if os.path.isdir(text) and not is_control(text):
        inside = sorted(Path(text).glob("*/policy.json")) or sorted(Path(text).glob("*.json"))
        remedy = f", as in {shown_path(inside[0])}" if inside else ""
        raise InputError(f"policy {shown_path(text)} is a folder; give a policy file{remedy}")
    if not _looks_like_path(text):
        return named_policy(text, ops, seed)
    if text.lower().endswith((".py", ".txt", ".npz")):
        raise InputError(
            f"policy {shown(text, 200)} is not a .json file; convert a published policy first: "
            "python scripts/show_policy.py policy=FILE save=policy.json (add name=TABLE if the file has several)"
        )
    if ops is not None:
        raise InputError(f"policy file {shown(text, 200)} has its own ops; leave ops out, or name a control")
    return load_policy_or_schedule(text)


def random_policy(ops: tuple[str, ...], seed: int) -> Policy:
    """A random policy in the form of a search result: pairs of different ops, uniform probabilities and magnitudes."""
    ops = check_op_names(ops, "ops of the random policy")
    noise = torch.Generator().manual_seed(seed)
    pairs: list[tuple[str, ...]] = [*itertools.combinations(ops, 2)] or [ops]
    chosen = torch.randperm(len(pairs), generator=noise)[:RANDOM_SUB_POLICIES].tolist()
    # Four digits keep the file readable.
    share = iter(torch.rand(4 * len(chosen), generator=noise, dtype=torch.float64).mul(1e4).round().div(1e4).tolist())
    sub_policies = [SubPolicy(tuple(_choice(op, next(share), next(share)) for op in pairs[n])) for n in chosen]
    return Policy(tuple(sub_policies), name=f"random-s{seed}")


def randaugment(count: int, level: int, ops: tuple[str, ...] = RANDAUGMENT_OPS) -> Policy:
    """`count` ops drawn uniformly, with replacement, from `ops` and the identity, all at level / 30 of our ranges."""
    ops = check_op_names(ops, "ops of randaugment")
    if not 1 <= count <= MAX_RANDAUGMENT_OPS or not 0 <= level <= LEVELS:
        raise InputError(
            f"randaugment has n={count} and m={level}; give n from 1 to {MAX_RANDAUGMENT_OPS} "
            f"and m from 0 to {LEVELS}, as in randaugment-n2-m9"
        )
    if (len(ops) + 1) ** count > MAX_SEQUENCES:
        raise InputError(f"randaugment of {count} out of {len(ops)} ops has too many sequences; take n=2 or fewer ops")
    # Sequences that differ only in the position of the identity do the same: one sub-policy gets their summed weight.
    sequences = itertools.product(("identity", *ops), repeat=count)
    weights = Counter(tuple(op for op in sequence if op != "identity") for sequence in sequences)
    sub_policies = [
        SubPolicy(tuple(_choice(op, 1.0, level / LEVELS) for op in sequence), float(weight))
        for sequence, weight in weights.items()
    ]
    return Policy(tuple(sub_policies), name=f"randaugment-n{count}-m{level}")


def trivialaugment(ops: tuple[str, ...] = RANDAUGMENT_OPS) -> Policy:
    """One op, drawn uniformly from `ops` and the identity, at a magnitude drawn uniformly from 0 to 1.

    The paper draws one of 31 levels. The ranges are those of OPS: the paper's "RA" ranges, not its "Wide" ranges (shear
    .99, rotation 135 degrees).
    """
    ops = check_op_names(ops, "ops of trivialaugment")
    drawn = [OpChoice(op, 1.0, (0.0, 1.0) if OPS[op].has_magnitude else None) for op in ops]
    return Policy((SubPolicy(), *(SubPolicy((choice,)) for choice in drawn)), name="trivialaugment")


def _looks_like_path(text: str) -> bool:
    known = text.lower().endswith((".json", ".py", ".txt", ".npz"))
    return known or "/" in text or "\\" in text or Path(text).is_file()


def _choice(op: str, probability: float, magnitude: float) -> OpChoice:
    return OpChoice(op, probability, magnitude if OPS[op].has_magnitude else None)


def _shipped(name: str) -> Policy:
    text = importlib.resources.files("search_spaces").joinpath("policies", f"{name}.json").read_text(encoding="utf-8")
    return Policy.from_json(text, f"shipped policy {name}")
