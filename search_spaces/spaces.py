"""Where a policy search starts: every sub-policy that may be chosen, itself a policy with its first numbers.

A space is a policy, so that a search can also start from TrivialAugment or from somebody's finished policy.
"""

import itertools

from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError, nearest
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Which pairs of 15 ops (mission P2): DADA's text says all combinations, its code takes the 105.
PAIRINGS = {
    "unordered": lambda ops: itertools.combinations(ops, 2),  # 105
    "unordered_repeated": lambda ops: itertools.combinations_with_replacement(ops, 2),  # 120
    "ordered": lambda ops: itertools.permutations(ops, 2),  # 210
    "ordered_repeated": lambda ops: itertools.product(ops, repeat=2),  # 225
}


def pairs(
    ops: tuple[str, ...] = DADA_OPS, pairing: str = "unordered", probability: float = 0.5, magnitude: float = 0.5
) -> Policy:
    """All pairs of ops, equally likely, with the same probability and magnitude everywhere: DADA's space by default."""
    ops = check_op_names(ops, "ops of the policy space")
    if pairing not in PAIRINGS:
        raise InputError(f"pairing is {pairing!r}; {nearest(pairing, PAIRINGS)}")
    sub_policies = tuple(
        SubPolicy(tuple(OpChoice(op, probability, magnitude if OPS[op].has_magnitude else None) for op in pair))
        for pair in PAIRINGS[pairing](ops)
    )
    if not sub_policies:
        raise InputError(f"pairs of different ops need two of them, and ops holds only {ops[0]}; name more ops")
    return Policy(sub_policies, name=f"{pairing} pairs")


def starting_policy(
    start: str, ops: tuple[str, ...] | None, pairing: str, probability: float, magnitude: float
) -> Policy:
    """`pairs`, or any control or policy file that a search may start from."""
    if start == "pairs":
        return pairs(DADA_OPS if ops is None else ops, pairing, probability, magnitude)
    policy = resolve_policy(start, ops)
    if not isinstance(policy, Policy):
        raise InputError(f"policy_space.start={start} is a schedule; a search starts from one policy, name one")
    return policy
