"""An office whose traveller is an ordinary user, from become_ordinary() on."""

from collections.abc import Sequence

from lab.machine import Machine
from lab.ordinary import ALICE, GROUP, admit, as_user, environment, give
from lab.process import Process
from tests.lab.offices import AtWork

ALLOWED = "name_servers = true\n"


class OrdinaryAtWork(AtWork):
    """What is run on the client's machine, by command(), is then run without privileges."""

    helper: Process
    user: int | None = None
    confined: Sequence[str] = ()
    """What runs the helper, and takes from it what it shall not have."""

    def become_ordinary(self, *others: int) -> None:
        """Give the traveller's things to a user of the machine, and have root run the helper."""
        client = self.world.client
        admit(client, ALICE, *others)
        self.world.directory.chmod(0o711)
        for directory in (client.directory, self.world.token):
            give(directory, ALICE)
        self.start_helper()
        self.user = ALICE

    def start_helper(self, text: str = ALLOWED, before: Sequence[str] | None = None) -> None:
        """Start the helper with these lines in its configuration, by what runs `before` it."""
        before = self.confined if before is None else before
        config = self.world.client.path("/run/helper.toml")
        config.write_text(f'group = "{GROUP}"\nvici = "/run/charon.vici"\n{text}')
        config.chmod(0o600)
        self.helper = self.world.client.start(
            [*before, "carnet-helper", "--config", "/run/helper.toml", "serve"],
            log="../helper.log",
        )
        self.helper.wait_for_line('"event": "ready"')

    def command(self, machine: Machine, *argv: str, extra=None, **given):
        if machine is self.world.client and self.user is not None:
            argv = (*as_user(self.user), *argv)
            extra = environment(self.user) | (extra or {})
        return super().command(machine, *argv, extra=extra, **given)
