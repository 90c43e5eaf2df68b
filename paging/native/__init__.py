"""What is not Python: the preload library for QEMU, the test guest, and the parts of a Linux guest. Built into `build/`.

    python -m paging.native.build              preload library and test guest
    python -m paging.native.build --linux      kernel and initramfs of the Linux guest
    python -m paging.native.build --qemu10     QEMU 10 beside the system's QEMU
"""

from pathlib import Path

SOURCES = Path(__file__).resolve().parent
BUILD = SOURCES.parents[1] / "build"

SHIM = BUILD / "native" / "shim.so"
TEST_GUEST = BUILD / "native" / "guest.elf"
LINUX_KERNEL = BUILD / "linux" / "vmlinuz"
LINUX_INITRD = BUILD / "linux" / "initrd.gz"
QEMU10 = BUILD / "qemu10" / "root"
