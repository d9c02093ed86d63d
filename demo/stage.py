"""How the demonstration speaks to whoever watches."""

import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from demo.proofs import Proof

_WIDTH = 110
"""Where nobody's terminal says otherwise."""


class _Stage(Console):
    def on_broken_pipe(self) -> None:
        """Go on failing: whoever plays takes the stage down, and then ends."""
        raise  # noqa: PLE0704  it is called where the error is caught


console = _Stage(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)

_started = time.monotonic()


def scene(number: int, title: str) -> None:
    """Begin a scene."""
    console.print()
    console.rule(f"[bold]{number}  {title}[/bold]", align="left", style="cyan")


def tell(text: str) -> None:
    """Tell what happens."""
    console.print(f"[dim]{text}[/dim]")


def command(where: str, line: str) -> None:
    """Show a command before it runs."""
    console.print(f"[cyan]{where}[/cyan] $ [bold]{line}[/bold]")


def output(done: "subprocess.CompletedProcess[str]") -> None:
    """Show what a command printed."""
    for line in (done.stdout + done.stderr).splitlines():
        console.print(f"  {line}", markup=False)


def closing_table(proofs: list[Proof]) -> None:
    """Show what was proved, and by what it was seen."""
    table = Table(title="What was proved, and what was seen", title_justify="left", expand=False)
    table.add_column("")
    table.add_column("claim")
    table.add_column("observed", overflow="fold")
    for proof in proofs:
        mark = "[green]holds[/green]" if proof.holds else "[bold red]FAILS[/bold red]"
        table.add_row(mark, proof.claim, proof.observed)
    console.print()
    console.print(table)
    held = sum(proof.holds for proof in proofs)
    seconds = time.monotonic() - _started
    console.print(f"{held} of {len(proofs)} claims hold; {seconds:.0f} seconds.")
