"""Which QEMU to run: the system's, or one that is unpacked beside it."""

import os
import shutil
from pathlib import Path

import attrs

from paging.errors import GuestError

_BINARY = "qemu-system-x86_64"


@attrs.frozen(kw_only=True)
class QemuBuild:
    """A QEMU. With a `root`, the binary, its libraries and its data are those under this directory."""

    binary: Path
    root: Path | None = None

    @classmethod
    def system(cls) -> "QemuBuild":
        """The one in the search path. Raises `GuestError` that says what to install."""
        found = shutil.which(_BINARY)
        if found is None:
            raise GuestError(f"{_BINARY} is not installed: apt-get install qemu-system-x86")
        return cls(binary=Path(found))

    @classmethod
    def unpacked(cls, root: Path) -> "QemuBuild":
        """One that was unpacked as a Debian package under `root`."""
        binary = root / "usr/bin" / _BINARY
        if not binary.exists():
            raise GuestError(f"no QEMU in {root}: python -m paging.native.build --qemu10")
        return cls(binary=binary, root=root)

    def open_root(self) -> int | None:
        """A descriptor of the root, by which an unprivileged process reaches files under directories that it may not pass."""
        return None if self.root is None else os.open(self.root, os.O_PATH | os.O_DIRECTORY)
