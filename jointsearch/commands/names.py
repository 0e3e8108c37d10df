"""What a command is called: messages name the script, or the installed command where that was typed."""

import re
from contextvars import ContextVar

# The commands, by the module that carries them out, which has a script of its own too.
COMMANDS = {
    "search": "joint_search",
    "retrain": "retrain",
    "detect": "detect",
    "predict": "predict",
    "sweep": "sweep",
    "compare": "compare",
    "report": "report",
    "show": "show_policy",
    "export": "export_policy",
    "export_model": "export_model",
    "check": "check_data",
    "translator": "translator",
    "benchmark": "benchmark",
}
INSTALLED = ContextVar("INSTALLED", default=False)  # whether `jointsearch COMMAND` was typed
SCRIPT = re.compile(rf"(?<![\w./-])(?:python )?(?:scripts/)?({'|'.join(COMMANDS.values())})[.]py\b")


def as_started(text: str) -> str:
    """A text that names scripts, with the words that start them where this program was started otherwise."""
    words = {module: f"jointsearch {word}" for word, module in COMMANDS.items()}
    return SCRIPT.sub(lambda found: words[found[1]], text) if INSTALLED.get() else text
