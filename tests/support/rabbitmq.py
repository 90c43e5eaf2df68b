"""A real RabbitMQ in a private directory, without a service manager: for tests, demonstrations and benchmarks.

Everything it writes, its ports, its Erlang cookie and even its port mapper (epmd) are its own, so several run side by
side, and one may be killed without mercy. `python -m tests.support.rabbitmq` starts one and prints its URL.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

READY_WITHIN_S = 120.0
"""about 6 s alone on two cores; several times that on a busy machine"""

REMEDY = "RabbitMQ is not installed; on Debian: apt-get install rabbitmq-server"

CONFIGURATION = """
log.console = false
raft.wal_max_size_bytes = 67108864
"""


class RabbitMQ:
    """A broker process. Start it, use `url`, stop it; `kill` and `restart` keep ports and data."""

    def __init__(self) -> None:
        self._script = find_server()
        self._directory = Path(tempfile.mkdtemp(prefix="swapferry-rabbitmq-"))
        self._port, self._dist_port, self._epmd_port = free_ports(3)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Returns when it answers AMQP. Raises `RuntimeError` with the end of its log when it does not."""
        for name in ("mnesia", "log"):
            (self._directory / name).mkdir(exist_ok=True)
        (self._directory / "rabbitmq.conf").write_text(CONFIGURATION)
        (self._directory / "environment").touch()
        if self._epmd is None:
            # In the foreground and ours: the one that Erlang would start detaches itself and outlives everybody.
            epmd = shutil.which("epmd") or "/usr/bin/epmd"
            self._epmd = self._spawn([epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"])
            _wait_until(lambda: _accepts(self._epmd_port), self._epmd, "epmd")
        self._server = self._spawn([str(self._script)])
        try:
            _wait_until(lambda: _speaks_amqp(self._port), self._server, "RabbitMQ")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self._output_end()}") from None

    def write_names(self) -> None:
        """Let it write which quorum queues there are, before a `kill`.

        RabbitMQ (3.10 at least) writes the name of a new quorum queue to its own directory (a dets table) up to half a
        second after it confirmed the declaration. Killed within that time it starts an empty member without a leader.
        """
        self.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._server is not None:
            _kill_group(self._server)
            self._server = None

    def restart(self) -> None:
        """Start again after `kill`, with the same URL and data."""
        self.start()

    def stop(self) -> None:
        """End it and its port mapper, and remove all it wrote."""
        self.kill()
        if self._epmd is not None:
            _kill_group(self._epmd)
            self._epmd = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl against this broker; returns what it printed."""
        command = [str(self._script.with_name("rabbitmqctl")), "--quiet", *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> "RabbitMQ":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _spawn(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with (self._directory / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a group of its own, to be killed as one
            )

    def _environment(self) -> dict[str, str]:
        private = {
            "RABBITMQ_NODENAME": f"swapferry-{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            "RABBITMQ_PID_FILE": str(self._directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self._directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._directory / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self._directory / "feature_flags"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "HOME": str(self._directory),  # the Erlang cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {**kept, **private}

    def _output_end(self) -> str:
        files = [self._directory / "output", *sorted((self._directory / "log").glob("*.log"))]
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in files if file.exists())


def find_server() -> Path:
    """The server script itself; the one in sbin of Debian is a wrapper that insists on another user and directory."""
    candidates = [Path(line) for line in _package_files() if line.endswith("/bin/rabbitmq-server")]
    candidates += [Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), Path(shutil.which("rabbitmq-server") or "/nowhere")]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise RuntimeError(REMEDY)


def _package_files() -> Sequence[str]:
    dpkg = shutil.which("dpkg")
    if dpkg is None:
        return ()
    return subprocess.run([dpkg, "-L", "rabbitmq-server"], capture_output=True, text=True, check=False).stdout.splitlines()


def free_ports(count: int) -> Sequence[int]:
    """Ports of the loopback interface that nobody has now; all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while not holds():
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with exit code {process.returncode} before it was ready")
        if time.monotonic() > give_up:
            raise RuntimeError(f"{name} was not ready within {READY_WITHIN_S:.0f} s")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    """It opens its listener last of all; a method frame (type 1) in answer to our protocol header is Connection.Start."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a group that we made and wait until nobody of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise RuntimeError(f"process group {process.pid} does not end")


def main() -> None:
    """Start one, print its URL, wait for a signal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), RabbitMQ() as broker:
        sys.stdout.write(f"{broker.url}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
