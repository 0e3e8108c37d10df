"""Mistakes in the search of sequences; rows of Mutant for tests/mutants.py."""

SEARCHER, GENERATORS, TESTS = (
    "jointsearch/searchers/tanda.py",
    "jointsearch/searchers/sequences.py",
    "tests/test_tanda.py",
)
EXACT = f"{TESTS}::test_the_expected_gradient_of_all_pairs_of_sequences_is_that_of_the_exact_expectation"
REWARD = f"{TESTS}::test_a_reward_is_what_a_step_takes_off_the_loss_and_the_nearness_of_its_image"
RESUMED = f"{TESTS}::test_an_lstm_keeps_the_contract_too"

OF_TANDA = (
    (
        "the baseline of a sequence counts its own reward",
        GENERATORS,
        "(ahead.sum(0) - ahead) / max(count - 1, 1)",
        "ahead.mean(0)",
        EXACT,
    ),
    (
        "a function is credited with what came before it",
        GENERATORS,
        "for reward in rewards.flip(1).unbind(1):",
        "for reward in rewards.unbind(1):",
        EXACT,
    ),
    (
        "the LSTM is given its first function throughout",
        "jointsearch/searchers/controller.py",
        "            inputs = self.embeddings",
        "            inputs = inputs if place else self.embeddings",
        f"{TESTS}::test_only_the_lstm_lets_a_function_depend_on_those_before_it_and_on_all_of_them",
    ),
    (
        "a mean field's policy draws once",
        GENERATORS,
        'name="found", draws=self.length)',
        'name="found")',
        f"{TESTS}::test_a_mean_field_gives_its_functions_with_their_probabilities_drawn_as_often_as_a_sequence_is_long",
    ),
    (
        "the generator is rewarded for being found out",
        SEARCHER,
        "costs.append(softplus(-scores) ",
        "costs.append(softplus(scores) ",
        REWARD,
    ),
    (
        "nearness to the original is rewarded",
        SEARCHER,
        " + settings.diversity_weight / (distance + FLOOR))",
        " - settings.diversity_weight / (distance + FLOOR))",
        REWARD,
    ),
    (
        "every step of a sequence is cropped anew",
        SEARCHER,
        "            self.noise.set_state(began)\n",
        "",
        REWARD,
    ),
    (
        "rewards go by the statistics of the batch",
        SEARCHER,
        "        self.discriminator.eval()\n",
        "",
        f"{TESTS}::test_rewards_change_nothing_in_the_discriminator_and_none_depends_on_other_images",
    ),
    (
        "real images are called transformed and the other way round",
        SEARCHER,
        "softplus(-scores[:count]).mean() + softplus(scores[count:]).mean()",
        "softplus(scores[:count]).mean() + softplus(-scores[count:]).mean()",
        f"{TESTS}::test_the_discriminator_learns_to_give_1_to_real_images_and_0_to_transformed_ones",
    ),
    (
        "shuffled rewards are not",
        SEARCHER,
        "rewards = rewards[torch.randperm(",
        "_ = rewards[torch.randperm(",
        f"{TESTS}::test_shuffled_rewards_are_the_same_ones_dealt_to_other_sequences",
    ),
    (
        "the generator's optimizer is not restored",
        SEARCHER,
        '        self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        RESUMED,
    ),
    (
        "the discriminator's one output is not restored",
        SEARCHER,
        '        self.discriminator.head.load_state_dict(state["head"])\n',
        "",
        RESUMED,
    ),
)
