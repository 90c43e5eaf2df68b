"""What can go wrong in the page path, sorted by what the caller has to do about it."""


class PagingError(Exception):
    """Root of all errors of this package."""


class DeviceError(PagingError):
    """A swap device cannot be used: missing, busy, truncated, foreign superblock, I/O error. Names path and remedy."""


class SlotUnreadable(PagingError):
    """One slot's content cannot be given to the guest (I/O error or wrong checksum). Names page, slot and device."""

    def __init__(self, page: int, slot: int, device: str, why: str) -> None:
        self.page, self.slot, self.device, self.why = page, slot, device, why
        super().__init__(f"page {page} in slot {slot} of device {device} is unreadable: {why}; the fault stays unanswered")


class OutOfSlots(PagingError):
    """A page has to go out and no armed slot is free."""


class GuestError(PagingError):
    """The guest's machine (QEMU, its pager) did not do what was asked; the message says which step and its last words."""


class MachineGone(GuestError):
    """The guest's machine is not there any more: QEMU or its memory ended by itself. Its last words are in the message."""


class DeviceRefused(GuestError):
    """The guest has a virtual device that pins memory (DATAPLANE 11.1) and cannot be paged; names it and the reason."""


class TransferError(PagingError):
    """The data channel broke, was refused, or delivered something else than the manifest says."""
