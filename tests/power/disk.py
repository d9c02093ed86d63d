"""What is on a disk when the power fails: a replay of a record, by what POSIX promises.

A file's content is kept from its last fsync or fdatasync; a name, made, renamed or
removed, from the fsync of its directory. What was written after that is there, is not,
or is there in part, as the file system likes.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


@dataclass(eq=False)
class Inode:
    """A file's content as programs see it, and as it is on the disk for certain."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    loose: list[tuple[int, bytes]] = field(default_factory=list)
    """Written since the last sync: where, and what."""

    def write(self, offset, data):
        end = offset + len(data)
        if len(self.now) < offset:
            self.now.extend(bytes(offset - len(self.now)))
        self.now[offset:end] = data
        self.loose.append((offset, bytes(data)))

    def truncate(self, size):
        del self.now[size:]
        self.now.extend(bytes(size - len(self.now)))

    def sync(self):
        self.synced = bytes(self.now)
        self.loose.clear()

    def torn(self, chance):
        """Return the synced content and any of the sectors written since."""
        data = bytearray(self.synced)
        for offset, written in self.loose:
            for start in range(0, len(written), SECTOR):
                if chance.random() < 0.5:
                    part = written[start : start + SECTOR]
                    at = offset + start
                    data.extend(bytes(max(0, at - len(data))))
                    data[at : at + len(part)] = part
        return bytes(data)


class Disk:
    """The files below one directory."""

    def __init__(self, root: Path, before: Path) -> None:
        """Begin with what is below `before`, a copy of `root` as it was."""
        self._root = root
        self._names: dict[str, Inode | None] = {}
        """What programs see: a file, or None for a directory."""
        for path in before.rglob("*"):
            inode = None
            if path.is_file():
                inode = Inode(bytearray(path.read_bytes()))
                inode.sync()
            self._names[str(root / path.relative_to(before))] = inode
        self._kept = dict(self._names)
        self._offsets: dict[tuple[int, str], int] = {}

    def replay(self, call) -> None:
        """Do what the process did."""
        handler = _HANDLERS.get(call.name)
        if handler:
            handler(self, call)

    def _file(self, path):
        return self._names.get(path.removesuffix("(deleted)"))

    def _open(self, call):
        path = _path(call, call.texts[0])
        if not self._is_below(path):
            return
        if "O_CREAT" in call.arguments and path not in self._names:
            self._names[path] = Inode()
        inode = self._file(path)
        if inode is not None and "O_TRUNC" in call.arguments:
            inode.truncate(0)
        size = len(inode.now) if inode is not None and "O_APPEND" in call.arguments else 0
        self._offsets[call.result, path] = size

    def _write(self, call):
        inode = self._file(call.of)
        if inode is None:
            return
        offset = self._offsets.get((call.fd, call.of), 0)
        inode.write(offset, call.texts[0][: call.result])
        self._offsets[call.fd, call.of] = offset + call.result

    def _pwrite(self, call):
        inode = self._file(call.of)
        if inode is not None:
            inode.write(int(call.arguments.rsplit(", ", 1)[1]), call.texts[0][: call.result])

    def _seek(self, call):
        self._offsets[call.fd, call.of] = call.result

    def _truncate(self, call):
        inode = self._file(call.of)
        if inode is not None:
            inode.truncate(int(call.arguments.rsplit(", ", 1)[1]))

    def _sync(self, call):
        inode = self._file(call.of)
        if inode is not None:
            inode.sync()
        else:
            self._keep_names(call.of)

    def _keep_names(self, directory):
        for path in {*self._names, *self._kept}:
            if str(Path(path).parent) == directory:
                if path in self._names:
                    self._kept[path] = self._names[path]
                else:
                    self._kept.pop(path)

    def _sync_below(self, call):
        """Sync what may be a file system of its own, and nothing besides."""
        for path, inode in self._names.items():
            if inode is not None and path.startswith(f"{call.of}/"):
                inode.sync()
        for directory in {str(Path(path).parent) for path in {*self._names, *self._kept}}:
            if f"{directory}/".startswith(f"{call.of}/"):
                self._keep_names(directory)

    def _rename(self, call):
        old, new = (_path(call, text) for text in call.texts)
        if old in self._names:
            self._names[new] = self._names.pop(old)

    def _unlink(self, call):
        self._names.pop(_path(call, call.texts[0]), None)

    def _mkdir(self, call):
        path = _path(call, call.texts[0])
        if self._is_below(path):
            self._names[path] = None

    def _is_below(self, path):
        return path.startswith(f"{self._root}/")

    def after_power_loss(self, seed: int) -> dict[str, bytes | None]:
        """Return what a machine may find: the least that is promised, or any more of it.

        Seed 0: nothing that was not synced. 1: every name, and no content that was not
        synced. 2: every content, and no name that was not synced. Others: by chance.
        """
        chance = random.Random(seed)  # noqa: S311  the same each time
        names = self._names if seed == 1 else self._kept
        if seed > 2:
            names = self._some_names(chance)

        def content(inode):
            if seed <= 1:
                return inode.synced
            return bytes(inode.now) if seed == 2 else inode.torn(chance)

        found = {path: None if each is None else content(each) for path, each in names.items()}
        return {path: data for path, data in found.items() if _is_reached(path, found, self._root)}

    def _some_names(self, chance):
        some = dict(self._kept)
        for path in sorted({*self._names, *self._kept}):
            if chance.random() < 0.5:
                some.pop(path, None)
                if path in self._names:
                    some[path] = self._names[path]
        return some


def _is_reached(path, found, root):
    parent = str(Path(path).parent)
    return parent == str(root) or (parent in found and _is_reached(parent, found, root))


def _path(call, text):
    """An absolute path; those that we replay all are, or are of the directory descriptor."""
    path = os.fsdecode(text)
    return path if path.startswith("/") else f"{call.of}/{path}"


def write_out(found: dict[str, bytes | None], root: Path, place: Path) -> None:
    """Put what a machine finds into a directory of the test's own."""
    place.mkdir()
    for path, data in sorted(found.items()):
        copy = place / Path(path).relative_to(root)
        if data is None:
            copy.mkdir(mode=0o700)
        else:
            copy.touch(mode=0o600)
            copy.write_bytes(data)


_HANDLERS = {
    "openat": Disk._open,
    "write": Disk._write,
    "pwrite64": Disk._pwrite,
    "lseek": Disk._seek,
    "ftruncate": Disk._truncate,
    "fsync": Disk._sync,
    "fdatasync": Disk._sync,
    "syncfs": Disk._sync_below,
    "rename": Disk._rename,
    "renameat": Disk._rename,
    "renameat2": Disk._rename,
    "unlink": Disk._unlink,
    "unlinkat": Disk._unlink,
    "mkdir": Disk._mkdir,
    "mkdirat": Disk._mkdir,
}
