"""Mistakes in copies of images, their teachers and Adversarial AutoAugment; rows of Mutant for tests/mutants.py."""

TEACHERS, STEPS, SEARCHER = (
    "jointsearch/augmenters/teachers.py",
    "jointsearch/loops/copies_steps.py",
    "jointsearch/searchers/adversarial.py",
)
COPIES, ADVERSARIAL = "tests/test_copies.py", "tests/test_adversarial.py"
HALVES = f"{COPIES}::test_each_teacher_judges_the_half_that_it_does_not_learn"
KNOWN = f"{COPIES}::test_the_hardest_copy_is_one_that_a_teacher_knows_and_teachers_see_no_policy"
ASCENDS = f"{ADVERSARIAL}::test_the_controller_ascends_normalized_losses_times_log_probabilities_and_entropy"
ANEW = f"{ADVERSARIAL}::test_the_moving_means_of_an_epoch_begin_anew"
REPLACED = f"{ADVERSARIAL}::test_copies_that_no_teacher_knows_are_replaced_and_teachers_learn"

OF_COPIES = (
    (
        "a teacher judges what it learned",
        TEACHERS,
        "zip(self.trained, reversed(halves_of(plain)), strict=True)",
        "zip(self.trained, halves_of(plain), strict=True)",
        HALVES,
    ),
    ("a teacher judges in training mode", TEACHERS, "    teacher.network().eval()\n", "", HALVES),
    ("a teacher's rate stays that of its first step", TEACHERS, "at.epoch * at.steps + at.step", "0", HALVES),
    (
        "the hardest copy is one that no teacher knows",
        STEPS,
        "keep(losses, known, ",
        "keep(losses, torch.ones_like(known), ",
        KNOWN,
    ),
    (
        "a teacher learns under the policy",
        STEPS,
        "plain = self.plain(train, self.network, at, self.noise)",
        "plain = self.augmenter(train, self.network, at, self.noise)",
        KNOWN,
    ),
    (
        "all copies have the weight of one",
        "jointsearch/loops/trainer.py",
        "self._gradients(images, labels, 1 / len(copies))",
        "self._gradients(images, labels, 1.0)",
        f"{COPIES}::test_a_step_on_copies_is_a_step_on_the_large_batch_where_no_statistics_are_shared",
    ),
    (
        "rewards are not normalized",
        SEARCHER,
        "rewards = normalized((self.losses / self.weight).double().cpu())",
        "rewards = (self.losses / self.weight).double().cpu()",
        ASCENDS,
    ),
    ("the controller lowers its entropy", SEARCHER, "- ENTROPY * entropies", "+ ENTROPY * entropies", ASCENDS),
    ("the controller descends the loss", SEARCHER, "loss = -(rewards", "loss = (rewards", ASCENDS),
    (
        "losses of an epoch go on in the next",
        SEARCHER,
        "self.losses, self.weight = torch.zeros_like(self.losses), 0.0",
        "pass",
        ANEW,
    ),
    (
        "copies that no teacher knows train all the same",
        SEARCHER,
        "copies = list(guarded(together, self.teachers.guard(together, plain, at), plain))",
        "copies = list(together)",
        REPLACED,
    ),
    (
        "a short schedule ends early",
        SEARCHER,
        "length = self.settings.copies if self.settings.short else 1",
        "length = 1",
        f"{ADVERSARIAL}::test_a_short_schedule_is_as_long_as_a_training_on_one_copy",
    ),
)
