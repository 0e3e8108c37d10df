"""Downloads a published data file and verifies its checksum. A failed download leaves no file."""

import contextlib
import fcntl
import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path

from jointsearch.data.files import is_ignored, shown
from search_spaces.errors import InputError

MAX_DOWNLOAD_BYTES = 2**31  # the largest file, the extra images of SVHN, has 1.3 GB

logger = logging.getLogger(__name__)


def fetch(url: str, md5: str, target: Path, megabytes: int) -> None:
    """Download to a temporary name, compare the checksum, then rename. A failed download leaves nothing behind."""
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{shown(url)} is no web address; give one that starts with https://")
    logger.warning("Downloading %s (%d MB) to %s; dataset.download=false forbids it", url, megabytes, target.parent)
    _remove_unfinished(target)
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _stream(url, partial)
        if digest != md5:
            raise InputError(f"{url} has the MD5 checksum {digest}, but {md5} is published; try again later")
        partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise InputError(
            f"{url} cannot be downloaded ({shown(str(error))}); put the file at {target} yourself, or set dataset.path "
            "to where it is"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def check_place(place: Path, own: Collection[str], name: str) -> None:
    """Refuse to download into a folder that holds other files than the data set's own: its path may be mistyped."""
    there = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    others = [one for one in there if not is_ignored(one) and one not in own]
    if others:
        raise InputError(
            f"{shown(str(place))} holds other files, as {shown(others[0])}, and not all of {name}; nothing is "
            "downloaded there: set dataset.path to where the data are, or to a new folder"
        )


def _remove_unfinished(target: Path) -> None:
    """Remove what killed downloads left. A download that still runs holds a lock on its file."""
    for path in target.parent.glob(f".{target.name}.*.part"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _stream(url: str, partial: Path) -> str:
    """Write the response into a new file, and return its MD5 checksum."""
    checksum = hashlib.md5(usedforsecurity=False)
    total = 0
    with urllib.request.urlopen(url, timeout=60) as answer, partial.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        while chunk := answer.read(2**20):
            total += len(chunk)
            if total > MAX_DOWNLOAD_BYTES:
                raise InputError(f"{url} sends more than {MAX_DOWNLOAD_BYTES:,} bytes; download it yourself")
            checksum.update(chunk)
            file.write(chunk)
    return checksum.hexdigest()
