"""Which files of this folder share one boot of a guest kernel.

A boot takes its seconds until the first test runs: the kernel, its modules, and Python, which
loads slowly there. Each line of BOOTS is one; a worker of the tests runs it from its first
file to its last. They begin before anything shorter, and every other one shares a processor
(lab.guest): the first and the third take about as long together as the second and the fourth.
"""

BOOTS = (
    ("test_connect",),
    ("test_life_in_kernel",),
    ("test_matrix", "test_gate_in_kernel"),
    ("test_pairings", "test_two_halves", "test_strongswan_in_kernel"),
)
"""Files by name, in their order."""

EARLY = (
    *("tests/token/test_stress.py", "tests/token/test_presence.py"),
    *("tests/unit/test_vectors.py", "tests/unit/test_host_sender.py"),
)
"""Long files that would come last by their names: one worker alone would be at them in the end.

Those that mostly wait do so while guests have the processors.
"""

_FOLDER = "tests/guest/"
_PLACES = {
    f"{_FOLDER}{name}.py": (number, place)
    for number, names in enumerate(BOOTS)
    for place, name in enumerate(names)
}


def file_of(nodeid: str) -> str:
    """Return the file of a test, from the repository's root."""
    return nodeid.split("::", 1)[0]


def scope_of(nodeid: str) -> str:
    """Return what is run by one worker, without a break: a file, or the files of a boot."""
    file = file_of(nodeid)
    return f"{_FOLDER}{_PLACES[file][0]}" if file in _PLACES else file


def order_of(nodeid: str) -> tuple[int, int]:
    """Sort tests by this, and those of each boot are together, and before all others."""
    file = file_of(nodeid)
    return _PLACES.get(file, (len(BOOTS), int(file not in EARLY)))
