"""octoplaned as systemd has it: notifications, watchdog, and the unit file."""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import BIN, ROOT, run

UNIT = ROOT / "config" / "systemd" / "octoplaned.service"


class Manager:
    """The socket that systemd listens on for notifications."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def receive(self, seconds):
        """The lines of the next notification, or None."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return None

    def until(self, line, seconds=30):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if line in (received := self.receive(left) or []):
                return received
        raise AssertionError(f"no {line} in {seconds} s")

    def drain(self):
        while self.receive(0.001) is not None:
            pass


@pytest.fixture
def managed(make_lab):
    lab = make_lab()
    manager = Manager(lab.directory / "notify.sock")
    log = open(lab.directory / "daemon.log", "a")

    def start(watchdog_ms=None):
        environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path)}
        if watchdog_ms:
            environment["WATCHDOG_USEC"] = str(watchdog_ms * 1000)
        lab.daemon = lab.spawn("dp", BIN / "octoplaned", "--config", lab.config, stdout=log, stderr=log, env=environment)
        return lab, manager
    yield start
    manager.socket.close()


def test_ready_comes_when_ports_are_up(managed):
    lab, manager = managed()
    received = manager.until("READY=1")
    # From this moment on it serves, without another try.
    assert "STATUS=3 ports, 1 workers" in received or "STATUS=3 ports, 2 workers" in received, received
    assert all(port["link_up"] for port in lab.json("port", "stats"))
    lab.apply()
    assert lab.ping("pod1", "10.200.0.2") == 3
    # Nobody asked for a watchdog.
    assert manager.receive(1) is None
    lab.daemon.send_signal(signal.SIGTERM)
    manager.until("STOPPING=1", 10)
    assert lab.daemon.wait(20) == 0


def test_not_ready_without_ports(managed):
    lab, manager = managed()
    lab.daemon.kill()
    lab.daemon.wait()
    manager.drain()
    lab.config.write_text(lab.config.read_text().replace("iface=pod2", "iface=nope"))
    lab, manager = managed()
    assert lab.daemon.wait(30) == 1
    assert manager.receive(0.2) is None


PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WALL = 0x40000000


def ptrace(request, tid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, tid, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}, {tid})")


class Frozen:
    """One thread of a process stands still, the others go on: what a debugger does."""

    def __init__(self, tid):
        self.tid = tid

    def __enter__(self):
        ptrace(PTRACE_SEIZE, self.tid)
        ptrace(PTRACE_INTERRUPT, self.tid)
        os.waitpid(self.tid, WALL)

    def __exit__(self, *_):
        ptrace(PTRACE_DETACH, self.tid)


def threads(pid, name):
    tasks = Path(f"/proc/{pid}/task")
    return [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().startswith(name)]


def test_the_watchdog_is_fed_while_every_worker_gets_around(managed):
    lab, manager = managed(watchdog_ms=1000)
    manager.until("READY=1")
    begin = time.monotonic()
    for _ in range(8):
        manager.until("WATCHDOG=1", 2)
    # Four times in each interval.
    assert 1 < time.monotonic() - begin < 4
    workers = threads(lab.daemon.pid, "worker-")
    assert len(workers) == len(lab.json("status")["workers"])
    with Frozen(workers[0]):
        # What was on its way may still come, then no more.
        manager.receive(0.3)
        manager.receive(0.3)
        assert manager.receive(2) is None, "fed although a worker stands still"
        assert lab.octoctl("status").returncode == 0, "the control threads go on"
    manager.until("WATCHDOG=1", 2)
    assert "worker 0 does not get around" in lab.log() and "worker 0 gets around again" in lab.log()
    # Nor if the threads hang that serve the API.
    frozen = [Frozen(tid) for tid in threads(lab.daemon.pid, "control")]
    assert len(frozen) >= 2
    for thread in frozen:
        thread.__enter__()
    manager.drain()
    quiet = manager.receive(1.5)
    for thread in frozen:
        thread.__exit__()
    assert quiet is None, quiet
    manager.until("WATCHDOG=1", 2)
    assert lab.stop() == 0


def test_a_busy_data_plane_feeds_the_watchdog(managed):
    lab, manager = managed(watchdog_ms=1000)
    manager.until("READY=1")
    lab.apply()
    flood = lab.spawn("pod1", "ping", "-f", "-q", "-s", "1200", "-w", "4", "10.200.0.2", stdout=subprocess.DEVNULL)
    for number in range(16, 40):
        lab.octoctl("neigh", "add", f"192.0.2.{number}", "--port", "router", "--mac", "02:00:00:00:00:10")
    gaps, last = [], time.monotonic()
    while flood.poll() is None:
        manager.until("WATCHDOG=1", 2)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
    assert max(gaps[1:]) < 1, max(gaps)
    assert lab.stop() == 0
