"""Who of this machine's users is a member of the helper's group, as its databases have it.

Whoever has subordinate user ids (subuid(5)) is as many users to the kernel as she likes, all with
the groups that she has. None of them is in the databases: so she counts as one.
"""

import grp
import os
import pwd
from collections.abc import Callable
from contextlib import suppress


def number_of(group: str) -> int:
    """Return a group's number. Raises KeyError if there is none of that name."""
    return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid


def members_of(group: str) -> Callable[[int], bool]:
    """Return what tells whether a user id is root's or a member's, asked anew each time."""
    return lambda uid: uid == 0 or _is_member(uid, group)


def _is_member(uid: int, group: str) -> bool:
    try:
        user, number = pwd.getpwuid(uid), number_of(group)
    except (KeyError, OSError):
        return False
    with suppress(
        KeyError, OSError
    ):  # the group's own list, for which no directory on a network is asked
        if user.pw_gid == number or user.pw_name in grp.getgrgid(number).gr_mem:
            return True
    try:
        if number in os.getgrouplist(user.pw_name, user.pw_gid):
            return True
        return any(_is_called(uid, each) for each in grp.getgrgid(number).gr_mem)
    except (KeyError, OSError):
        return False


def _is_called(uid: int, name: str) -> bool:
    """Tell whether that is a name of hers too: of one user id there may be several."""
    try:
        return pwd.getpwnam(name).pw_uid == uid
    except KeyError:
        return False
