"""From words of a command line, or of a notebook, to checked settings. The only package that uses Hydra.

Hydra combines the YAML files of `configs/`, which hold what differs from the defaults in the code. Which settings exist
is decided by the dataclasses alone: a word that sets another one is refused when they are built.
"""

from jointsearch.compose.files import class_of, content, fits, offered, used_groups
from jointsearch.compose.studies import compose_study, study_of
from jointsearch.compose.values import put
from jointsearch.compose.words import WHOLE, Composed, compose_words
from jointsearch.registry import CONFIGS, groups

__all__ = [
    "CONFIGS",
    "WHOLE",
    "Composed",
    "class_of",
    "compose_study",
    "compose_words",
    "content",
    "fits",
    "groups",
    "offered",
    "put",
    "study_of",
    "used_groups",
]
