"""An IKE daemon that only remembers: what Target does to it is what the tests look at."""

import queue
import threading
from collections import defaultdict

from carnet.errors import IKESilentError, IPsecError
from carnet.ipsec.driver import Capabilities, Change, TunnelEvent, TunnelStatus
from carnet.ipsec.spec import Mode, Role
from carnet.objectives import Objective

_GONE = None


class FakeDriver:
    """Everything is public to the tests; `running` is whether the daemon answers."""

    name = "fake"
    resumes = True

    def __init__(self, ppk=True, objectives=(Objective.ESP,)):
        self.running = True
        self.objectives = objectives
        self.ppk = ppk
        self.userspace = False
        self.specs = {}
        self.installs = []
        self.secrets = set()
        self.up_names = set()
        self.less_than_agreed = set()
        self.too_many = set()
        self.swept = []
        self.refusals_to_remove = []
        self.watches = []
        self.calls = []
        self.forgotten = defaultdict(threading.Event)
        self.lock = threading.Lock()
        self.before_install = lambda: None

    def _answer(self, call):
        if not self.running:
            raise IPsecError("The fake daemon does not answer; start it.")
        with self.lock:
            self.calls.append(call)

    def capabilities(self):
        self._answer("capabilities")
        return Capabilities(
            driver=self.name,
            version="0",
            ike_versions=(2,),
            objectives=self.objectives,
            modes=tuple(Mode),
            ppk=self.ppk,
            userspace=self.userspace,
        )

    def answers(self):
        return self.running

    def install(self, spec):
        self.before_install()
        self._answer("install")
        self.specs[spec.name] = spec
        self.installs.append(spec)
        self.secrets.add(spec.name)

    def up(self, spec):
        raise NotImplementedError

    def confirm(self, spec):
        self._answer("confirm")
        agreed = self.specs.get(spec.name)
        if agreed is not None and spec.name not in self.up_names:
            self._drop(spec.name)
            raise IKESilentError("The tunnel went down again as it came up.")
        if spec.name in self.less_than_agreed or agreed is None:
            self._drop(spec.name)
            raise IPsecError("The tunnel is less than was agreed.")
        return self._status(spec.name)

    def refuse_many(self, name):
        self._answer("refuse_many")
        if name in self.too_many:
            raise IPsecError("The tunnel has too many SAs.")

    def forget_secrets(self, name):
        self._answer("forget_secrets")
        self.secrets.discard(name)
        self.forgotten[name].set()

    def down(self, name):
        self._answer("down")
        if self.refusals_to_remove:
            raise IPsecError(self.refusals_to_remove.pop())
        self._drop(name)

    def _drop(self, name):
        self.specs.pop(name, None)
        self.secrets.discard(name)
        self.up_names.discard(name)

    def installed(self):
        self._answer("installed")
        return frozenset(self.specs)

    remembered = installed

    def status(self):
        self._answer("status")
        return [self._status(name) for name in sorted(self.up_names)]

    def _status(self, name):
        return TunnelStatus(
            name=name,
            role=Role.TARGET,
            established=True,
            local_address="198.51.100.2",
            remote_address="203.0.113.7",
            virtual_address=self.specs[name].virtual_address,
            ike_suite="",
            child_suite="",
            encapsulated=False,
            ppk=True,
            bytes_in=0,
            bytes_out=0,
            established_seconds=0,
        )

    def resumable(self):
        self._answer("resumable")
        return frozenset(self.secrets - self.up_names)

    def resume(self, name):
        raise NotImplementedError

    def take_leave(self, name):
        raise NotImplementedError

    def sweep(self, keep):
        self._answer("sweep")
        installed = set(self.specs)
        doomed = sorted(installed - keep())
        for name in doomed:
            self._drop(name)
        self.swept += doomed
        return doomed

    def watch(self):
        self._answer("watch")
        events = queue.Queue()
        self.watches.append(events)
        return iter(events.get, _GONE)

    def close(self):
        for events in self.watches:
            events.put(_GONE)

    def render(self, spec):
        raise NotImplementedError

    # What happens to the daemon from outside.

    def comes_up(self, name):
        """The Client's IKE came."""
        self.up_names.add(name)
        self.tell(name, Change.UP)

    def changes(self, name):
        """Its Client has begun something with it, or rekeyed or moved it."""
        self.tell(name, Change.ANEW)

    def goes_down(self, name):
        """The peer closed the tunnel."""
        self.up_names.discard(name)
        self.tell(name, Change.DOWN)

    def falls_silent(self, name):
        """The peer does not answer any more."""
        self.up_names.discard(name)
        self.tell(name, Change.LOST)

    def tell(self, name, change):
        self.watches[-1].put(TunnelEvent(name, change))

    def crashes(self):
        """All that was in its memory is lost."""
        self.running = False
        self.specs.clear()
        self.secrets.clear()
        self.up_names.clear()
        self.close()

    def starts(self):
        self.running = True
