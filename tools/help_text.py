"""Writes down what `carnet --help` tells: `python -m tools.help_text`, or `make help-text`.

click makes it from the commands, and takes longer to be loaded than all else that `--help` does.
A test tells where the text is not click's any more.
"""

from pathlib import Path

from click.testing import CliRunner

from token_client.cli import cli

MODULE = Path(__file__).parents[1] / "token_client" / "help_text.py"
_PREAMBLE = '"""What `carnet --help` tells; written by `make help-text`."""'


def told() -> str:
    """Return what click tells, where there is no terminal."""
    return CliRunner(env={"COLUMNS": None}).invoke(cli, ["--help"], prog_name="carnet").output


def main() -> None:
    """Write the module anew."""
    MODULE.write_text(f'{_PREAMBLE}\n\nTEXT = """\\\n{told()}"""\n')


if __name__ == "__main__":
    main()
