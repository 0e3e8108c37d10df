"""Mistakes in what several processes share; rows of Mutant for tests/mutants.py."""

TRAINER, ADDED = "jointsearch/loops/trainer.py", "add_up([loss, *gradients, *statistics])"
TESTS = "tests/test_torchrun.py"

OF_PROCESSES = (
    ("the gradients of several processes are not added up", TRAINER, ADDED, "add_up([loss, *statistics])", TESTS),
    ("running statistics stay those of one process", TRAINER, ADDED, "add_up([loss, *gradients])", TESTS),
    (
        "the validation gradient is that of one process",
        "jointsearch/through_step/validation.py",
        "    add_up(gradient)\n",
        "",
        TESTS,
    ),
)
