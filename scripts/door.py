"""The one door to Hydra: command line in, plain checked data out; a user's mistake is one line and exit code 2."""

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jointsearch.checkpoint import CheckpointError
from jointsearch.loops.resumable import Interrupted
from search_spaces.errors import InputError, nearest

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FORBIDDEN = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "hydra.", "hydra/")
OPTIONAL_GROUPS = ("preset", "experiment")
NOTHING = tuple(f"{group}=null" for group in OPTIONAL_GROUPS)  # as it is by itself; Hydra does not take it
FOR_ANY_CHOICE = (*OPTIONAL_GROUPS, "dataset")  # what a preset says of data is meant for whatever data are chosen
SUBJECTS = {"benchmark": "task", "compare": "run", "export_policy": "policy", "report": "run", "show_policy": "policy"}
DISK_ERROR = 74
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main: Callable[[dict[str, Any]], None], config_name: str, arguments: Sequence[str] | None = None) -> int:
    """Compose the configuration, hand it to `main` as plain data, and turn what goes wrong into an exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if {"-h", "--help"} & set(arguments):
            print(_help(config_name))
            return 0
        if "--cfg" in arguments:  # with what has to be given still missing
            config = compose_plain(config_name, [one for one in arguments if one not in ("--cfg", "job")], whole=False)
            print(OmegaConf.to_yaml(OmegaConf.create(config)), end="")
            return 0
        main(compose_plain(config_name, arguments))
    except InputError as error:
        return _fail(str(error), 2)
    except CheckpointError as error:
        return _fail(str(error), DISK_ERROR)
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = error.filename or "a file of the run"
        return _fail(f"{what} cannot be written ({error.strerror}); free some space, then go on with run=", DISK_ERROR)
    except Interrupted as interrupted:
        return _fail(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished before is kept, the same command with run= goes on", 130)
    return 0


def compose_plain(config_name: str, words: Sequence[str], whole: bool = True) -> dict[str, Any]:
    """A configuration as plain dicts and lists; the words come from a user and are not trusted."""
    overrides = [_setting(word, config_name, words) for word in words if word not in NOTHING]
    for override in overrides:
        key, _, value = override.partition("=")
        if not value.strip("'\"") and not key.startswith("~"):  # as of run=$RUN where RUN is not set
            raise InputError(f"{key}= is empty; leave it out, or give a value")
        found = [word for word in FORBIDDEN if word in key] + [word for word in ("${", "_target_") if word in value]
        if found:
            raise InputError(f"{override} holds {found[0]}, which is not allowed on the command line; leave it out")
        try:
            several = OverridesParser.create().parse_override(override).is_sweep_override()
        except HydraException as error:
            remedy = "close brackets and quotes, and quote a value that holds = or brackets: 'run=\"a=b\"'"
            raise InputError(f"{override} cannot be read ({_first_line(error)}); {remedy}") from None
        if several:
            raise InputError(
                f"{override} holds several values; put brackets around them, as in {key}=[{value}], or quotes where "
                f"they are one: \"{key}='{', '.join(value.split(','))}'\""
            )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            _check_choices(config_name, overrides)
            _check_fits(config_name, overrides)
            config = compose(config_name=config_name, overrides=list(overrides))
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=whole)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_one_line(error, config_name, overrides)) from None
    _check_overruled(dict(plain), overrides)
    return {str(key): value for key, value in dict(plain).items()}


def _setting(word: str, config_name: str, words: Sequence[str]) -> str:
    """A word of the command line as name=value; that which a script is about may come without its name."""
    if "=" in word or word.startswith("~"):
        return word
    if word.startswith("-"):
        raise InputError(f"{word} is not an option; settings are written name=value, and --help lists them")
    subject = SUBJECTS.get(config_name)
    if subject is None:
        raise InputError(f"{word} is not a setting; settings are written name=value, as in seeds=[0]")
    if others := [other for other in words if other != word and (other.startswith(f"{subject}=") or "=" not in other)]:
        raise InputError(f"{word} stands beside {others[0]}, and only one of them can be {subject}=; name the other")
    return f"{subject}={word}"


def _check_choices(config_name: str, overrides: Sequence[str]) -> None:
    # Hydra takes an unknown choice of an optional group (preset=...) for none at all, without a word.
    for override in overrides:
        name, _, value = override.partition("=")
        group = CONFIGS / name
        known = sorted(path.stem for path in group.glob("*.yaml")) if group.is_dir() else []
        if known and name not in _sets(CONFIGS / f"{config_name}.yaml"):
            use = " or ".join(_scripts_with(name))
            raise InputError(f"{override} is not for scripts/{config_name}.py; use it with {use}")
        if known and value not in known:
            raise InputError(f"{name}={value} is not known; {nearest(value, known)}")


def _check_fits(config_name: str, overrides: Sequence[str]) -> None:
    for override in overrides:
        group, _, name = override.partition("=")
        if group in OPTIONAL_GROUPS and not _fits(group, name, config_name):
            scripts = [one for one in _scripts_with(group) if _fits(group, name, Path(one).stem)]
            raise InputError(f"{override} is not for scripts/{config_name}.py; use it with {' or '.join(scripts)}")


def _fits(group: str, name: str, config_name: str) -> bool:
    """Whether a script has every setting that a preset or an experiment sets."""
    known = _sets(CONFIGS / f"{config_name}.yaml")
    return group in known and _sets(CONFIGS / group / f"{name}.yaml") <= known


def _sets(path: Path) -> set[str]:
    """The settings and groups that a configuration names, with those it is built on."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    keys = set(content) - {"defaults"}
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):  # "override /search: policy" and "optional preset: null" too
            keys |= {name.split()[-1].strip("/").rpartition("@")[2] for name in entry}
        elif entry != "_self_":
            keys |= _sets(path.with_stem(entry))
    return keys


def _scripts_with(name: str) -> list[str]:
    """The scripts that have a setting or a group."""
    return [f"scripts/{path.stem}.py" for path in sorted(CONFIGS.glob("*.yaml")) if name in _sets(path)]


def _check_overruled(config: dict[Any, Any], overrides: Sequence[str]) -> None:
    # Hydra lets a preset win over a choice written beside it, without a word: the control would be the search itself.
    given = {name.lstrip("+~"): value for name, _, value in (one.partition("=") for one in overrides)}
    for name, value in given.items():
        folder, _, package = name.partition("@")
        now = config.get(package or folder)
        if folder in FOR_ANY_CHOICE or not (CONFIGS / folder).is_dir() or not isinstance(now, dict):
            continue
        wanted, group = _content(CONFIGS / folder / f"{value}.yaml"), package or folder
        lost = [key for key in wanted if now.get(key) != wanted[key] and f"{group}.{key}" not in given]
        if lost:
            whole = [f"{one}={given[one]}" for one in OPTIONAL_GROUPS if one in given]
            by = " and ".join(whole) or f"search={config.get('search')} of dataset={config['dataset']['name']}"
            own = "" if "name" in lost else f" and set what should differ, as in {group}.{lost[0]}={wanted[lost[0]]}"
            raise InputError(f"{by} would overrule {name}={value} in {', '.join(lost)}; leave one of them out{own}")


def _content(path: Path) -> dict[str, Any]:
    """The settings of a configuration of a group, with those it is built on."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    bases = [entry for entry in content.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return {key: value for base in bases for key, value in _content(path.with_stem(base)).items()} | content


def _one_line(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    first = _first_line(error)
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    names = {override: override.lstrip("+~").partition("=")[0] for override in overrides}
    for override in sorted(overrides, key=lambda one: -len(names[one])):  # searcher.name is not meant by search
        name = names[override]
        if key == name or name in first:
            choices = [one for one in overrides if (CONFIGS / one.partition("=")[0]).is_dir()]
            known = _keys(OmegaConf.to_container(_composed(config_name, choices)))
            inside = [one for one in known if one.startswith(f"{name}.")]
            if inside:
                return f"{override} would replace a group of settings; set one of them, as in {inside[0]}="
            return f"{override} cannot be set ({first}); {_remedy(name, known, config_name)}"
    return f"{first}; see --help"


def _remedy(name: str, known: list[str], config_name: str) -> str:
    group, _, key = name.partition(".")
    scripts = _scripts_with(group)
    if scripts and f"scripts/{config_name}.py" not in scripts:
        return f"it is a setting of {' and '.join(scripts)}"
    owners = [path.stem for path in sorted((CONFIGS / group).glob("*.yaml")) if key in _content(path)]
    return f"use it with {group}={' or '.join(owners)}" if owners else nearest(name, known)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())


def _composed(config_name: str, overrides: list[str]) -> Any:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose(config_name=config_name, overrides=overrides)


def _keys(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict):
        return []
    return [key for name, value in data.items() for key in (f"{prefix}{name}", *_keys(value, f"{prefix}{name}."))]


def _help(config_name: str) -> str:
    groups = {
        path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in CONFIGS.iterdir() if path.is_dir()
    }
    used = (CONFIGS / f"{config_name}.yaml").read_text(encoding="utf-8")
    for group in OPTIONAL_GROUPS:
        groups[group] = [name for name in groups[group] if _fits(group, name, config_name)]
    lines = [used.rstrip(), "", "Groups (group=name):"]
    lines += [f"  {group}: {', '.join(names)}" for group, names in sorted(groups.items()) if f" {group}:" in used]
    lines += ["", "Settings inside a group are written group.setting=value; --cfg prints the whole configuration."]
    return "\n".join(lines)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
