"""The starting point of a policy search: all candidate sub-policies with their initial probabilities and magnitudes.

It is an ordinary Policy, so that a search can also start from TrivialAugment or from a finished policy.
"""

import itertools

from search_spaces.augment.table import DADA_OPS, OPS, check_op_names
from search_spaces.errors import InputError, nearest
from search_spaces.policy import OpChoice, Policy, SubPolicy

# Ways to pair 15 ops. DADA's paper says all combinations; its code uses the 105 unordered pairs.
PAIRINGS = {
    "unordered": lambda ops: itertools.combinations(ops, 2),  # 105
    "unordered_repeated": lambda ops: itertools.combinations_with_replacement(ops, 2),  # 120
    "ordered": lambda ops: itertools.permutations(ops, 2),  # 210
    "ordered_repeated": lambda ops: itertools.product(ops, repeat=2),  # 225
}


def pairs(
    ops: tuple[str, ...] = DADA_OPS, pairing: str = "unordered", probability: float = 0.5, magnitude: float = 0.5
) -> Policy:
    """All pairs of ops, equally likely, all with one probability and magnitude. The defaults give DADA's space."""
    ops = check_op_names(ops, "ops of the policy space")
    if pairing not in PAIRINGS:
        raise InputError(f"pairing is {pairing!r}; {nearest(pairing, PAIRINGS)}")
    sub_policies = tuple(
        SubPolicy(tuple(OpChoice(op, probability, magnitude if OPS[op].has_magnitude else None) for op in pair))
        for pair in PAIRINGS[pairing](ops)
    )
    if not sub_policies:
        raise InputError(f"pairs of different ops need two of them, but ops holds only {ops[0]}; name more ops")
    return Policy(sub_policies, name=f"{pairing} pairs")
