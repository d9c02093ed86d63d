"""Fuzz one decoder: `python -m tests.fuzz NAME [libFuzzer's options]`; its corpus comes first."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["carnet", "token_client", "host_agent", "target_agent"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.corpus import seeds


def main(name: str, corpus: str, *options: str) -> None:
    """Write the seeds into the corpus, and fuzz; ends the process."""
    target = TARGETS[name]
    for number, seed in enumerate((*target.seeds, *seeds(name))):
        Path(corpus, f"seed-{number:03}").write_bytes(seed)
    arguments = [name, corpus, f"-max_len={target.most}", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([*arguments, *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
