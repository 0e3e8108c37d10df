"""Child processes for tests of kills: forked from one server that has imported all that they need."""

import multiprocessing
from multiprocessing.context import ForkServerContext

import optuna.storages
import optuna.storages.journal  # noqa: F401
import pytest  # noqa: F401  imported for the fork server, like all below
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401

import jointsearch.study  # noqa: F401
import tests.kills
import tests.runs_bench  # noqa: F401


def forkserver() -> ForkServerContext:
    """Starts a child in 0.1 s, where Python alone takes 6; the first one also starts the server."""
    # A process has one server, and what is preloaded counts only before its start: all test files name the same.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
