"""Mistakes in what several processes share and in what is said of results; rows of Mutant for tests/mutants.py."""

from tests.mutants_of_copies import OF_COPIES
from tests.mutants_of_populations import OF_POPULATIONS
from tests.mutants_of_tanda import OF_TANDA

TRAINER, ADDED = "jointsearch/loops/trainer.py", "add_up([*losses, *gradients, *statistics])"
TESTS = "tests/test_torchrun.py"

OF_PROCESSES = (
    ("the gradients of several processes are not added up", TRAINER, ADDED, "add_up([*losses, *statistics])", TESTS),
    ("running statistics stay those of one process", TRAINER, ADDED, "add_up([*losses, *gradients])", TESTS),
    (
        "the validation gradient is that of one process",
        "jointsearch/through_step/validation.py",
        "    add_up(gradient)\n",
        "",
        TESTS,
    ),
)

BOARDS, BOARD_TESTS = "jointsearch/runs/boards.py", "tests/test_boards.py"
WORK, WORK_TESTS = "jointsearch/sweeps/work.py", "tests/test_sweeps.py"

OF_SWEEPS = (
    (
        "trainings of a command share their steps in W&B",
        BOARDS,
        'self._run.define_metric(f"{part}/*", step_metric=axis)',
        'self._run.define_metric(f"{part}/*")',
        f"{BOARD_TESTS}::test_one_run_holds_all_trainings_each_with_its_own_steps",
    ),
    (
        "a run that continues is a new run in W&B",
        BOARDS,
        "known = path.read_text() if path.is_file() else secrets.token_hex(8)",
        "known = secrets.token_hex(8)",
        f"{BOARD_TESTS}::test_a_command_that_goes_on_goes_on_in_the_same_wandb_run",
    ),
    (
        "what a killed run had written is not told again",
        "jointsearch/runs/track.py",
        "        tell_again(folder, board)\n",
        "",
        f"{BOARD_TESTS}::test_what_a_killed_run_had_written_is_told_again",
    ),
    (
        "a member of a sweep loses its lock with the sweep",
        WORK,
        "                pass_fds=(lock,),\n",
        "",
        f"{WORK_TESTS}::test_a_member_outlives_a_killed_sweep_and_is_not_begun_twice",
    ),
    (
        "a member with other words counts as finished",
        WORK,
        'if done.get("words") == list(member.words) else None',
        "if done else None",
        f"{WORK_TESTS}::test_a_member_with_other_words_runs_again",
    ),
)

ACCURACY, ACCURACY_TESTS = "jointsearch/metrics/accuracy.py", "tests/test_accuracy.py"
DIFFERENCE, DIFFERENCE_TESTS = "jointsearch/report/difference.py", "tests/test_difference.py tests/test_comparison.py"
SPLITS, BALANCED_TESTS = "jointsearch/data/splits.py", "tests/test_data_balanced.py"

OF_RESULTS = (
    (
        "F1 counts what was predicted only",
        ACCURACY,
        "(2 * right / (held + said))",
        "(right / said.clamp(min=1))",
        ACCURACY_TESTS,
    ),
    ("a bin of calibration ends below its edge", ACCURACY, ".ceil().long().sub(1)", ".long()", ACCURACY_TESTS),
    ("calibration gaps cancel", ACCURACY, "float(gaps.abs().sum())", "abs(float(gaps.sum()))", ACCURACY_TESTS),
    ("p-values are one-sided", DIFFERENCE, "p_value = 2 * float(", "p_value = float(", DIFFERENCE_TESTS),
    ("Holm's method does not step down", DIFFERENCE, "(len(claims) - place) * p_value", "p_value", DIFFERENCE_TESTS),
    (
        "a corrected p-value falls below the one before it",
        DIFFERENCE,
        "highest = max(highest, min(1.0, (len(claims) - place) * p_value))",
        "highest = min(1.0, (len(claims) - place) * p_value)",
        DIFFERENCE_TESTS,
    ),
    (
        "accumulated gradients are those of a mean for each part",
        TRAINER,
        "self._backward(some, theirs, share * len(some) / len(images))",
        "self._backward(some, theirs, share)",
        "tests/test_timm_recipe.py",
    ),
    (
        "a balanced epoch repeats an image before others of its class came",
        SPLITS,
        "rounds = [rows[torch.randperm(len(rows), generator=generator)]",
        "rounds = [rows[torch.randint(len(rows), (len(rows),), generator=generator)]",
        BALANCED_TESTS,
    ),
    (
        "an exported network is not compared with what it was made of",
        "jointsearch/export/model.py",
        "LARGEST_DIFFERENCE = 1e-4",
        "LARGEST_DIFFERENCE = 1e4",
        "tests/test_export_model.py",
    ),
    (
        "a plain step costs one forward pass",
        "jointsearch/report/ledger.py",
        "return PLAIN_STEP * epochs",
        "return epochs",
        "tests/test_comparison_formats.py",
    ),
)

APPLY, DRAWS = "search_spaces/augment/apply.py", "tests/test_policy_draws.py"

OF_DRAWS = (
    (
        "all draws of an image are the same",
        APPLY,
        "found = [_drawn(tables, one) for one in uniform.view(draws, numbers, batch)]",
        "found = [_drawn(tables, uniform.view(draws, numbers, batch)[0]) for _ in range(draws)]",
        DRAWS,
    ),
    (
        "a range of magnitudes begins at nothing",
        APPLY,
        "magnitude = magnitude + tables.span[sub_policy]",
        "magnitude = (magnitude + tables.span[sub_policy])",
        DRAWS,
    ),
    (
        "a range of magnitudes is drawn by the numbers of its places",
        APPLY,
        "uniform[1 + 5 * stages :].T",
        "uniform[1 + 4 * stages : 1 + 5 * stages].T",
        DRAWS,
    ),
    (
        "levels leave out the strongest",
        "search_spaces/levels.py",
        "(place / (count - 1))",
        "(place / count)",
        "tests/test_levels.py",
    ),
)

OF_REVIEWS = (
    (
        "words of a machine make another member of a sweep",
        WORK,
        '"words": list(member.words), "exit_code"',
        '"words": [*member.words, *self.here], "exit_code"',
        f"{WORK_TESTS}::test_words_of_this_machine_do_not_make_another_member",
    ),
    (
        "commands of an agent share a folder",
        "jointsearch/commands/folders.py",
        "repr(words).encode()",
        "b''",
        f"{WORK_TESTS}::test_no_two_commands_share_the_folder_that_an_agent_gives_them",
    ),
    (
        "chance is that of equal classes",
        "jointsearch/report/chance.py",
        "int(told.confusion().sum(1).max())",
        "len(told.labels) // len(told.classes)",
        "tests/test_report_verdict.py",
    ),
    (
        "a budget scales milestones that no schedule reads",
        "jointsearch/loops/recipe.py",
        'if schedule in READ_BY["decay_milestones"]:',
        "if True:",
        "tests/test_timm_recipe.py",
    ),
    (
        "a training that two rows share costs twice",
        "jointsearch/report/page_run.py",
        "if SAME_AS not in (part.result or {})",
        "",
        BOARD_TESTS,
    ),
    (
        "a row of random cells is one, whatever the search space",
        "jointsearch/report/alike.py",
        "if len(drawn_from) > 1}",
        "if len(drawn_from) > 9}",
        "tests/test_comparisons.py",
    ),
    (
        "one lucky seed is the best finding",
        "jointsearch/report/verdict.py",
        "if len(row.values) >= FEWEST_SEEDS]",
        "]",
        "tests/test_comparisons.py",
    ),
    (
        "equal differences are a verdict",
        DIFFERENCE,
        "if spread <= SAME < abs(mean):",
        "if False:",
        DIFFERENCE_TESTS,
    ),
    (
        "the searches of a W&B run are lost",
        "jointsearch/report/trainings_found.py",
        "return Source(run.place, trainings, searches,",
        "return Source(run.place, trainings, (),",
        "tests/test_wandb_runs.py",
    ),
)

OF_RUNS = (*OF_PROCESSES, *OF_SWEEPS, *OF_RESULTS, *OF_DRAWS, *OF_REVIEWS, *OF_POPULATIONS, *OF_TANDA, *OF_COPIES)
