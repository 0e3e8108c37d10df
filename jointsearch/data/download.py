"""Downloads a published data file and verifies its checksum. A failed download leaves no file."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from jointsearch.data.files import shown
from search_spaces.errors import InputError

MAX_DOWNLOAD_BYTES = 2**31  # the largest file, the extra images of SVHN, has 1.3 GB


def fetch(url: str, md5: str, target: Path) -> None:
    """Download to a temporary name, compare the checksum, then give the file its name."""
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{shown(url)} is no web address; give one that starts with https://")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        digest = _stream(url, partial)
        if digest != md5:
            raise InputError(f"{url} has the MD5 checksum {digest}, but {md5} is published; try again later")
        partial.replace(target)
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"{url} cannot be downloaded ({shown(str(error))}); put the file at {target} yourself"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _stream(url: str, partial: Path) -> str:
    """Write the response into a new file, and return its MD5 checksum."""
    checksum = hashlib.md5(usedforsecurity=False)
    total = 0
    with urllib.request.urlopen(url, timeout=60) as answer, partial.open("xb") as file:
        while chunk := answer.read(2**20):
            total += len(chunk)
            if total > MAX_DOWNLOAD_BYTES:
                raise InputError(f"{url} sends more than {MAX_DOWNLOAD_BYTES:,} bytes; download it yourself")
            checksum.update(chunk)
            file.write(chunk)
    return checksum.hexdigest()
