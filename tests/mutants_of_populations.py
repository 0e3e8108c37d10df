"""Mistakes in searches by whole trainings; rows of Mutant for tests/mutants.py."""

BOARD, BOARD_TESTS = "jointsearch/runs/job_board.py", "tests/test_job_board.py"
ENGINE, ENGINE_TESTS = "jointsearch/loops/population.py", "tests/test_population.py"
RACE, RACE_TESTS = "jointsearch/searchers/race.py", "tests/test_race.py"
CELLS_TESTS = "tests/test_race_cells.py"
MODEL, METHODS = "jointsearch/searchers/race_model.py", "tests/test_population_methods.py"

OF_POPULATIONS = (
    (
        "the last claim of a job counts",
        BOARD,
        "        if first is None or first.number != trial.number:\n",
        "        if first is None:\n",
        f"{BOARD_TESTS}::test_many_processes_do_every_job_once",
    ),
    (
        "the jobs of a dead process stay its own",
        BOARD,
        "trial.state == TrialState.RUNNING and not self._is_alive(",
        "trial.state == TrialState.RUNNING and not self._of(",
        f"{BOARD_TESTS}::test_the_jobs_of_a_process_that_died_are_taken_over_at_once",
    ),
    (
        "a fold trains on what it judges",
        "jointsearch/data/load.py",
        "if place != fold]",
        "if place >= 0]",
        f"{ENGINE_TESTS}::test_folds_are_disjoint_cover_all_training_images_and_leave_test_images_alone",
    ),
    (
        "a job that continues another one begins anew",
        ENGINE,
        "            continue_from(self._checkpoints(job.start), plan, anew=job.seed is not None)\n",
        "            pass\n",
        f"{ENGINE_TESTS}::test_training_under_the_schedule_of_a_population_repeats_its_best_member_bit_for_bit",
    ),
    (
        "who copies draws anew",
        ENGINE,
        "anew=job.seed is not None",
        "anew=True",
        f"{ENGINE_TESTS}::test_training_under_the_schedule_of_a_population_repeats_its_best_member_bit_for_bit",
    ),
    (
        "the cost of a continued job holds that of the job before",
        "jointsearch/loops/one_job.py",
        '    state["progress"] = state["progress"] | {"forward_equivalents": 0}\n',
        "",
        f"{ENGINE_TESTS}::test_every_population_method_searches_trains_and_reports",
    ),
    (
        "an empty folder counts as a begun job",
        "jointsearch/loops/one_job.py",
        "load_checkpoint(plan.folder / CHECKPOINTS) is not None",
        "(plan.folder / CHECKPOINTS).is_dir()",
        f"{ENGINE_TESTS}::test_a_job_killed_before_its_first_checkpoint_continues_where_it_should",
    ),
    (
        "every arm has the same cells",
        RACE,
        "genotype=self.arms.genotypes.get(chosen.cells)",
        "genotype=next(iter(self.arms.genotypes.values()), None)",
        f"{CELLS_TESTS}::test_cells_are_handed_over_only_if_they_beat_random_ones",
    ),
    (
        "a recipe that leads is taken",
        RACE,
        "is_better = float(mean[best]) > SURE * float(deviation[best])",
        "is_better = True",
        f"{CELLS_TESTS}::test_the_recipe_is_tuned_for_all_arms_alike",
    ),
    (
        "rows train with the recipe as it was given",
        "jointsearch/loops/grid.py",
        "recipe=self.recipe_of(seed).for_copies(copies),",
        "recipe=self.recipe.for_copies(copies),",
        "tests/test_judge.py::test_all_rows_of_a_seed_train_with_the_recipe_that_the_race_chose",
    ),
    (
        "mirroring is tried everywhere",
        "jointsearch/searchers/race_arms.py",
        ' if name != "flip" or not context.mirrored',
        "",
        f"{RACE_TESTS}::test_mirroring_is_tried_only_where_images_are_not_mirrored_anyway",
    ),
    (
        "the race returns the leader whether it is better or not",
        RACE,
        "is_better = float(mean[leader]) > SURE * float(deviation[leader])",
        "is_better = True",
        f"{RACE_TESTS}::test_trivialaugment_is_returned_where_nothing_is_better",
    ),
    (
        "the model knows no folds",
        MODEL,
        "OF_FOLDS * of_folds + OF_MEAN",
        "OF_MEAN",
        f"{RACE_TESTS}::test_the_model_is_exact_gaussian_conditioning_at_one_ratio",
    ),
    (
        "arms share no levels",
        MODEL,
        "of_levels.unsqueeze(2) * (features @ features.T) + torch.diag_embed(own)",
        "torch.diag_embed(own)",
        RACE_TESTS,
    ),
    (
        "of a loss more is better",
        RACE,
        "told.scores.append(self.context.sign * result.score)",
        "told.scores.append(result.score)",
        f"{RACE_TESTS}::test_of_a_loss_less_is_better",
    ),
    (
        "the grid keeps its best single training",
        "jointsearch/searchers/randaugment_grid.py",
        "return max(grid, key=lambda name: fmean(self.scores[name]))",
        "return max(grid, key=lambda name: max(self.scores[name]))",
        f"{METHODS}::test_the_grid_is_every_cell_once_for_every_judge_and_keeps_the_best_mean",
    ),
    (
        "the controller ascends what it should descend",
        "jointsearch/searchers/controller.py",
        "        return -(logs * advantage).mean()\n",
        "        return (logs * advantage).mean()\n",
        f"{METHODS}::test_the_gradient_of_the_controller_is_that_of_the_expected_score",
    ),
    (
        "two ops of PBA act in any order",
        "jointsearch/searchers/pba.py",
        "both = weights @ (times * chances",
        "both = weights @ (chances",
        f"{METHODS}::test_outcomes_are_those_of_going_through_the_ops_in_a_random_order",
    ),
    (
        "the worst members of PBA keep their policies",
        "jointsearch/searchers/pba.py",
        "            target.numbers = changed(source.numbers, self.generator)\n",
        "",
        f"{METHODS}::test_the_worst_quarter_copies_the_best_and_the_schedule_follows_the_weights",
    ),
    (
        "OHL's gradient leaves out the slope of the sigmoid",
        "jointsearch/searchers/ohl.py",
        "(rewards.unsqueeze(1) * (1 - shares) * (draws - expected))",
        "(rewards.unsqueeze(1) * (draws - expected))",
        f"{METHODS}::test_the_gradient_of_ohl_is_that_of_the_log_probability_of_all_draws",
    ),
    (
        "Fast AutoAugment tries at random",
        "jointsearch/searchers/fast_aa.py",
        'if self.settings.sampler == "tpe"',
        'if self.settings.sampler == "random"',
        f"{METHODS}::test_the_parzen_estimator_beats_random_search_on_a_table",
    ),
)
