"""What benchmarks measure, by name, and the words of joint_search.py that give it."""

from jointsearch.benchmarks.shapes import OPS

# What is measured, and what has to be written after joint_search.py to get it.
GRADIENTS = ["search=policy", "searcher=differentiable", "estimator=reinforce"]
SHUFFLED = ["search=policy", "searcher=shuffled_reward", "estimator=reinforce"]
SEARCHES = {
    "gradients, ours": GRADIENTS,
    "gradients, ours, sampled or fixed magnitudes": [*GRADIENTS, "searcher.magnitude_gradient=none"],
    "gradients, ours, frozen statistics": [*GRADIENTS, "searcher.rewards.statistics=frozen"],
    "dada2020_relax": ["preset=dada2020_relax"],
    "dada2020_gumbel": ["preset=dada2020_gumbel"],
    "faster_aa2020": ["preset=faster_aa2020"],
}
# Of a supernet; measured with network=supernet batch_size=64.
CELL_SEARCHES = {
    "joint, default": ["search=joint"],
    "joint, architecture second order": ["search=joint", "architecture.order=second"],
    "DARTS, first order": ["search=architecture"],
    "DARTS, second order": ["search=architecture", "architecture.order=second"],
    "kashima2021": ["preset=kashima2021"],
}

PLANTED = {
    "gradients, ours": GRADIENTS,
    "gradients, ours, estimator=relax": [*GRADIENTS, "estimator=relax"],
    "dada2020_relax": ["preset=dada2020_relax"],
    "dada2020_relax, always the same validation batch": [
        "preset=dada2020_relax", "searcher.published=code"
    ],
    "shuffled_reward": SHUFFLED,
    "random": ["search=policy", "searcher=random"],
    "by trials": ["search=policy", "searcher=trials"],
}  # fmt: skip

# Policy and cells together. 320 steps draw every pair too rarely: the pairs of an op share what is learned about it.
# Half of the images stay under the starting policy, or else, once the op that helps leads in one stage, it is never
# drawn in the other. In a supernet a few images with large losses decide the mean reward: ranks count all images alike.
BY_OPS = [
    "search=joint", "policy_space.share=ops", "policy_space.pairing=ordered", "searcher.stabilize.start_share=0.5"
]  # fmt: skip
RANKS = "searcher.stabilize.reward_scale=rank"
PLANTED_CELLS = {
    "joint, relax, ranks of rewards": [*BY_OPS, "estimator=relax", RANKS],
    "joint, reinforce, ranks of rewards": [*BY_OPS, "estimator=reinforce", RANKS],
    "joint, gumbel": [*BY_OPS, "estimator=gumbel"],
    "joint, relax, rewards as they are": [*BY_OPS, "estimator=relax"],
    "joint, relax, ranks of rewards, shuffled": [*BY_OPS, "estimator=relax", RANKS, "searcher.shuffled=true"],
    "joint, relax, as search=joint has it": ["search=joint", "estimator=relax"],
}  # fmt: skip
# On the same planted data: each by itself beside "gradients, ours", and another search without gradients.
LEVERS = {
    "from the second half of the steps on": [*GRADIENTS, "searcher.from_epoch=20"],
    "four draws for each validation gradient": [*GRADIENTS, "searcher.stabilize.draws_per_validation=4"],
    "four validation batches": [*GRADIENTS, "searcher.stabilize.validation_batches=4"],
    "rewards over losses": [*GRADIENTS, "searcher.stabilize.reward_scale=loss"],
    "ranks of rewards": [*GRADIENTS, "searcher.stabilize.reward_scale=rank"],
    "one logit for each op": [*GRADIENTS, "policy_space.share=ops"],
    "entropy bonus": [*GRADIENTS, "searcher.stabilize.entropy_bonus=0.01"],
    "half of the draws stay": [*GRADIENTS, "searcher.stabilize.start_share=0.5"],
    "from TrivialAugment on": [*GRADIENTS, "policy_space=trivialaugment"],
    "table of rewards of one step": ["search=policy", "searcher=table"],
}


# With the ops that drawn shapes must not have beside DADA's; 60 epochs are 420 steps.
ON_SHAPES = ["search=policy", f"policy_space.ops=[{','.join(OPS)}]"]
TRIALS = ["searcher=trials", "searcher.measurements=12", "searcher.trial_steps=30", "searcher.validation_batches=7"]
SHAPES = {
    "trials": ["searcher=trials"],
    "the same, longer": TRIALS,
    "longer, shuffled": [*TRIALS, "searcher.shuffled=true"],
    "table, rewards of one step": ["searcher=table", "searcher.from_epoch=30", "searcher.every=4"],
    "gradients": ["searcher=differentiable", "estimator=reinforce"],
}  # fmt: skip
