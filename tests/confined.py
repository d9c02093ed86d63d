"""Run a command as its unit confines it, as far as that goes without systemd.

`python -m tests.confined CAPABILITIES COMMAND…`: these capabilities (`none`, `net_admin`)
and no way to others, and no memory that is writable and executable (CapabilityBoundingSet,
NoNewPrivileges, MemoryDenyWriteExecute).
"""

import ctypes
import os
import sys

PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

if __name__ == "__main__":
    # An older kernel knows nothing of it (before 6.3); then only the rest is tried.
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    capabilities, *command = sys.argv[1:]
    held = "-all" if capabilities == "none" else f"-all,+{capabilities}"
    confine = ["setpriv", f"--bounding-set={held}", f"--inh-caps={held}", "--no-new-privs", "--"]
    os.execvp(confine[0], confine + command)  # noqa: S606
