"""On what a row was measured, and what: the machine, and the commit of the repository.

Ciphers, interpreters and disks are not slower by the same factor on another machine, so
ratios are compared on one machine alone.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_CODE = (".", ":!bench/results", ":!docs")
"""What makes a difference: not what a run writes."""


def machine() -> str:
    """Return processors, kernel and Python, as far as they are told."""
    return (
        f"{os.cpu_count()} processors{_model(Path('/proc/cpuinfo').read_text())}, "
        f"kernel {platform.release()}, Python {platform.python_version()}"
    )


def _model(text: str) -> str:
    """Return the model (proc_cpuinfo(5)), and AMX, which a bare name leaves open."""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    amx = " with AMX" if re.search(r"^flags\s*:.* amx_tile\b", text, re.MULTILINE) else ""
    return f" ({model[1]}{amx})" if model else ""


def commit() -> str:
    """Return the commit that is checked out, and whether code differs; nothing without Git."""
    if shutil.which("git") is None:
        return ""
    found = _git("rev-parse", "--short", "HEAD")
    if found.returncode:
        return ""
    changed = _git("diff", "--quiet", "HEAD", "--", *_CODE).returncode
    return found.stdout.strip() + (" with changes" if changed else "")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    # In the lab's user namespace the repository may seem to be another user's.
    argv = ["git", "-c", "safe.directory=*", "-C", str(_ROOT), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)
