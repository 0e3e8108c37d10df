"""A study from words of a command line, or of a notebook, and from Python values."""

import logging
import re
from dataclasses import fields
from typing import Any

from jointsearch.compose.budget import with_budget
from jointsearch.compose.files import names_of, readers
from jointsearch.compose.proposals import proposals_of
from jointsearch.compose.words import Composed, compose_words
from jointsearch.registry import CONFIGS
from jointsearch.search_kinds import PolicyOnly, trains_by_recipe
from jointsearch.settings import TARGET, build, is_settings, meant, names_within, target_class
from jointsearch.study import Study
from search_spaces.errors import InputError

logger = logging.getLogger(__name__)


def compose_study(*words: str, **settings: Any) -> Study:
    """A study from words of the command line and from Python values: numbers, texts, sequences, or settings objects.

    compose_study("search=policy", "network=wide_resnet16_1", dataset="digits", seeds=(0,))
    """
    if "run" in settings or any(word.startswith("run=") for word in words):
        raise InputError(
            'run is no setting of a study; leave it out here, and name the folder in run_study(study, "X")'
        )
    composed = compose_words("joint_search", words, settings)
    try:
        return study_of(composed)
    except InputError as error:
        raise InputError(composed.explained(str(error))) from None


def study_of(composed: Composed) -> Study:
    """The study of a configuration of joint_search.py, with its epochs multiplied by the budget."""
    try:
        study = build(Study, nested(composed))
    except InputError as error:
        raise InputError(as_typed(str(error))) from None
    judge = getattr(study.search, "judge", None)  # the recipe is that of its trainings, too
    by_trainings = judge is not None or trains_by_recipe(getattr(study.search, "searcher", None))
    unread = ("controls",) if by_trainings else ("recipe", "controls")
    of_trainings = sorted(name for name in composed.typed if name.partition(".")[0] in unread)
    if of_trainings and not study.retrain:
        raise InputError(
            f"{', '.join(of_trainings)} {'is' if len(of_trainings) == 1 else 'are'} for trainings, and retrain=false "
            "makes none; leave that out, or give it to scripts/retrain.py later"
        )
    study = with_budget(study, composed.values.get("budget", 1.0))
    for note in composed.notes:
        logger.warning(note)
    return study


def as_typed(message: str) -> str:
    """An error with every setting by the name that the command line has for it."""
    inner = re.sub(r"(?<![\w.])search[.](searcher[.])?(policy_space|estimator)\b", r"\2", message)
    return re.sub(r"(?<![\w.])search[.](?=[a-z])", "", inner)


def nested(composed: Composed) -> dict[str, Any]:
    """The configuration with every group inside of the settings that hold it."""
    of_command = ("run", "budget", "plugins")
    config = {name: value for name, value in composed.values.items() if value != {} and name not in of_command}
    kinds = [_class(config["search"])]
    if "proposals" in names_of(kinds[0]) and "proposals" in config:
        config["proposals"] = proposals_of(config["proposals"], lambda composed: build(Study, nested(composed)).search)
    if "searcher" in names_of(kinds[0]) and config.get("searcher") is not None:
        kinds.append(_class(config["searcher"]))
        if trains_by_recipe(kinds[1]) and not issubclass(kinds[0], PolicyOnly):
            raise InputError(
                f"{kinds[1].__name__} trains a network as it is by recipe=; use search=policy, or judge=race beside a "
                "searcher inside one training"
            )
        config["searcher"] = _with(config["searcher"], config)
    config["search"] = _with(config["search"], config)
    unread = [name for name in config if name not in names_of(Study)]
    if wrong := [name for name in unread if name in composed.named or not (CONFIGS / name).is_dir()]:
        this = " and ".join(cls.__name__ for cls in kinds)
        use, culprit = readers(wrong[0]), composed.by(wrong[0])
        remedy = f"leave {culprit or 'it'} out, or use it with {use}" if use else meant(wrong[0], _typed_names(kinds))
        holder = next((name for name in ("searcher", "search") if is_settings(config.get(name))), None)
        if holder and use:
            remedy = f"set it in the object that is given as {holder}"
        raise InputError(f"{', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not read by {this}; {remedy}")
    return {name: value for name, value in config.items() if name in names_of(Study)}


def _typed_names(kinds: list[type]) -> list[str]:
    """Every setting of a study, and of these classes of search and searcher, as the command line has it."""
    own = [name for name in names_within(Study) if name.partition(".")[0] != "search"]
    kind, *searcher = kinds
    own += [name for name in names_within(kind) if not (searcher and name.startswith("searcher."))]
    inner = [name for cls in searcher for name in names_within(cls)]
    return [*own, *(name if name.startswith(("policy_space.", "estimator.")) else f"searcher.{name}" for name in inner)]


def _class(settings: Any) -> type:
    """The class of settings, plain or an object."""
    return type(settings) if is_settings(settings) else target_class(settings[TARGET])


def _with(settings: Any, config: dict[str, Any]) -> Any:
    """Settings with those of their fields that stand beside them in the configuration, which loses them."""
    if is_settings(settings):
        return settings
    cls = target_class(settings[TARGET])
    for item in fields(cls):
        if item.name in settings and isinstance(config.get(item.name), dict):
            raise InputError(
                f"{item.name} is a group of its own; write {item.name}=... or {item.name}.SETTING=..., without the "
                "name of another group before it"
            )
    return settings | {item.name: config.pop(item.name) for item in fields(cls) if item.name in config}
