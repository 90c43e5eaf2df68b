"""A swap device that is open only while it is used: a pager keeps no descriptor of a device that it does not need any more."""

import errno
import threading
from collections.abc import Sequence

from paging.device import DevicePath, SlotDevice
from paging.errors import DeviceError
from paging.file_device import FileDevice


class DeviceOnDemand(SlotDevice):
    """Opens when it is made, to say who it is, and again when it is used after `close`. Threads may share it."""

    def __init__(self, where: DevicePath) -> None:
        """Raises `DeviceError` as `FileDevice.open` does."""
        self._where = where
        self._opening = threading.Lock()
        self._open: FileDevice | None = FileDevice.open(where)
        self.identity = self._open.identity

    @property
    def is_open(self) -> bool:
        """Whether there is a descriptor of it."""
        return self._open is not None

    def read(self, slot: int) -> bytes:
        """See `SlotDevice`."""
        return self._device().read(slot)

    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        """See `SlotDevice`."""
        self._device().write(slot, pages)

    def flush(self) -> None:
        """See `SlotDevice`."""
        self._device().flush()

    def close(self) -> None:
        """Give the descriptor back; nobody may be using it now."""
        with self._opening:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def _device(self) -> FileDevice:
        opened = self._open
        return opened if opened is not None else self._open_again()

    def _open_again(self) -> FileDevice:
        with self._opening:
            if self._open is None:
                try:
                    self._open = FileDevice.open(self._where)
                except DeviceError as error:
                    raise OSError(errno.ENODEV, str(error)) from error
            return self._open
