"""How to choose, and how to measure what a choice is worth. The scripts are thin mains over these functions."""

from jointsearch.data.check import check_data
from jointsearch.data.load import DataSettings, load_splits
from jointsearch.data.standard import Standard
from jointsearch.front_end import augment
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.trials import Grid, run_grid
from jointsearch.networks.create import create_network
from jointsearch.report.comparison import Comparison, compare

__all__ = [
    "Comparison",
    "DataSettings",
    "Grid",
    "Recipe",
    "Standard",
    "augment",
    "check_data",
    "compare",
    "create_network",
    "load_splits",
    "run_grid",
]
