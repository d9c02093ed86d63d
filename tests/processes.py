"""Processes that see one token: SoftHSM2 reads its configuration once a process."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_context = get_context("forkserver")
# Loaded once, not in each of them; a PKCS#11 module is loaded after the fork.
_context.set_forkserver_preload(["tests.provisioning.tokens"])


def process_of_its_own(enter, *arguments):
    """Return a pool of one new process, in which `enter` is called first."""
    return ProcessPoolExecutor(1, mp_context=_context, initializer=enter, initargs=arguments)
