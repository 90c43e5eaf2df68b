"""The parts of the QEMU guest that need no QEMU: command line, refused devices, the cap on its state, the pager's wire."""

import asyncio
import socket
from pathlib import Path

import pytest

from paging.errors import DeviceError, DeviceRefused, GuestError, PagingError, SlotUnreadable
from paging.frames import STATE_BYTES_MAX
from paging.guest import Definition, Disk, Seat, Workload
from paging.pager_wire import Decoder, decode_error, encode, encode_error
from paging.qemu import QemuGuest
from paging.qemu_command import Inherited, command, disk_socket_path
from paging.qemu_console import Console, fields
from paging.qemu_devices import BlockNode, check_machine
from paging.qemu_state import drain

DEFINITION = Definition(vm="web", memory_bytes=64 << 20, resident_bytes=16 << 20, workload=Workload(fill_bytes=8192, seed=3))
INHERITED = Inherited(ram=5, kernel=6, qmp=7, console=8)


def words_of(definition: Definition, inherited: Inherited = INHERITED, *, is_incoming: bool = False) -> list[str]:
    return command("qemu", definition, inherited, accelerator="tcg", is_incoming=is_incoming)


def test_ram_is_a_named_shared_file_that_qemu_inherits():
    words = words_of(DEFINITION)

    assert "memory-backend-file,id=ram0,size=67108864,mem-path=/proc/self/fd/5,share=on" in words
    assert "-S" in words
    assert words[words.index("-append") + 1] == "fill=2 hot=0 writes=0 checks=0 seed=3"


def test_a_staged_machine_waits_for_its_state():
    assert words_of(DEFINITION, is_incoming=True)[-2:] == ["-incoming", "defer"]


def test_a_disk_is_reached_by_its_inherited_socket():
    disk = Disk(url="nbd+unix:///export?socket=/run/disk.sock", read_only=True)
    definition = Definition(vm="web", memory_bytes=64 << 20, resident_bytes=16 << 20, boot="linux", disks=(disk,), nics=1)
    inherited = Inherited(ram=5, kernel=6, qmp=7, console=8, disk_sockets=(9,))

    assert disk_socket_path(disk) == "/run/disk.sock"
    words = words_of(definition, inherited)

    assert "driver=nbd,node-name=disk0,server.type=unix,server.path=/proc/self/fd/9,export=export,read-only=on" in words
    assert "virtio-net-pci,netdev=net0,id=nic0,romfile=" in words


def test_a_unix_disk_without_a_socket_is_an_error():
    with pytest.raises(GuestError, match="socket=PATH"):
        disk_socket_path(Disk(url="nbd+unix:///export"))


@pytest.mark.parametrize(
    ("types", "nodes", "named"),
    [
        (["virtio-blk-pci", "vfio-pci"], [], "vfio-pci"),
        (["virtio-balloon-pci"], [], "virtio-balloon-pci"),
        (["vhost-user-fs-pci"], [], "vhost-user-fs-pci"),
        (["ivshmem-plain"], [], "ivshmem-plain"),
        ([], [BlockNode("root", "host_device", False)], "root"),
        ([], [BlockNode("root", "file", True)], "root"),
        ([], [BlockNode("fast", "io_uring", False)], "fast"),
    ],
)
def test_a_device_that_pins_or_bypasses_memory_is_refused_by_name(types: list[str], nodes: list[BlockNode], named: str):
    with pytest.raises(DeviceRefused, match=f"{named}.*refused"):
        check_machine("web", types, nodes)


def test_ordinary_devices_are_not_refused():
    check_machine("web", ["virtio-blk-pci", "virtio-net-pci", "isa-serial"], [BlockNode("disk0", "nbd", True)])


async def test_a_device_state_beyond_the_cap_is_an_error_and_not_read_to_its_end():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    with ours, theirs:
        endless = asyncio.ensure_future(loop.sock_sendall(theirs, bytes(2 * STATE_BYTES_MAX)))

        with pytest.raises(GuestError, match="RAM travels in it"):
            await drain(ours)

        assert not endless.done()
        endless.cancel()


async def test_a_device_state_is_read_to_its_end():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        theirs.sendall(b"state")
        theirs.close()

        assert await drain(ours) == b"state"


def test_frames_come_out_of_any_pieces_of_a_stream():
    values = [[1, "done", {"slots": b"\0\1"}], [0, "stalled", "page 7"]]
    decoder, stream = Decoder(), b"".join(map(encode, values))

    assert [value for index in range(len(stream)) for value in decoder.feed(stream[index : index + 1])] == values


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DeviceError("no such file"), DeviceError),
        (SlotUnreadable(1, 2, "cold", "wrong checksum"), PagingError),
        (OSError(5, "input/output error"), GuestError),
    ],
)
def test_an_error_crosses_the_socket_with_kind_and_sentence(error: Exception, kind: type[PagingError]):
    raised = decode_error(*encode_error(error))

    assert type(raised) is kind
    assert str(error) in str(raised)


async def console() -> tuple[Console, socket.socket]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return Console("web", reader, writer), theirs


async def test_messages_are_told_from_signs_of_life():
    one, guest = await console()
    guest.sendall(b"\nready pages=3\n....\nfilled pages=3\n..")

    assert fields(await one.hear("filled")) == {"pages": 3}
    assert list(one.lines) == ["ready pages=3", "filled pages=3"]
    await one.close()
    guest.close()


async def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_one():
    one, guest = await console()
    asked = asyncio.ensure_future(one.ask("verify", "verified"))
    await asyncio.to_thread(guest.recv, 100)
    asked.cancel()
    await asyncio.wait([asked])

    again = asyncio.ensure_future(one.ask("verify", "verified"))
    await asyncio.to_thread(guest.recv, 100)
    guest.sendall(b"verified bad=1\nverified bad=0\n")

    assert await again == "verified bad=0"
    await one.close()
    guest.close()


async def test_a_guest_that_is_silent_is_an_error_with_its_last_words():
    one, guest = await console()
    guest.sendall(b"filled pages=3\n")
    await one.hear("filled")

    with pytest.raises(GuestError, match=r"silent .* 'verified'.* 'filled pages=3'"):
        await one.ask("verify", "verified", silence_s=0.01)

    await one.close()
    guest.close()


def test_a_stall_ends_with_its_pager_since_only_the_successor_knows_whether_it_goes_on(tmp_path: Path):
    heard: list[str] = []
    guest = QemuGuest(Seat(instance="web@h1.1", definition=DEFINITION, directory=tmp_path, devices=()))
    guest.watch(lambda what, _sentence: heard.append(what))

    for what in ("pager-ended", "stalled", "pager-ended", "pager-restarted", "pager-ended"):
        guest._hear(what, "page 7")

    assert heard == ["stalled", "unstalled"]
