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

from conftest import BIN, ROOT, af_xdp, run

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
    manager.until("STOPPING=1")
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
        manager.until("WATCHDOG=1")
    # Four times in each interval as a rule, and not all at once; systemd needs one.
    assert 1 < time.monotonic() - begin < 8
    workers = threads(lab.daemon.pid, "worker-")
    assert len(workers) == len(lab.json("status")["workers"])
    with Frozen(workers[0]):
        # What was on its way may still come, then no more.
        manager.drain()
        manager.receive(2)
        assert manager.receive(3) is None, "fed although a worker stands still"
        assert lab.octoctl("status").returncode == 0, "the control threads go on"
    manager.until("WATCHDOG=1")
    assert "worker 0 does not get around" in lab.log() and "worker 0 gets around again" in lab.log()
    # Nor if the threads hang that serve the API.
    frozen = [Frozen(tid) for tid in threads(lab.daemon.pid, "control")]
    assert len(frozen) >= 2
    for thread in frozen:
        thread.__enter__()
    manager.drain()
    # As above: one may have been on its way.
    manager.receive(0.5)
    quiet = manager.receive(1.5)
    for thread in frozen:
        thread.__exit__()
    assert quiet is None, quiet
    manager.until("WATCHDOG=1")
    assert lab.stop() == 0


def test_a_busy_data_plane_feeds_the_watchdog(managed):
    interval = 8
    lab, manager = managed(watchdog_ms=1000 * interval)
    manager.until("READY=1")
    lab.apply()
    flood = lab.spawn("pod1", "ping", "-f", "-q", "-s", "1200", "-w", "1000", "10.200.0.2", stdout=subprocess.DEVNULL)
    for number in range(16, 40):
        lab.octoctl("neigh", "add", f"192.0.2.{number}", "--port", "router", "--mac", "02:00:00:00:00:10")
    manager.drain()
    # Whoever asks for it in an interval is fed in it, four times as a rule.
    for _ in range(8):
        manager.until("WATCHDOG=1", interval)
    assert flood.poll() is None, "it was busy all the time"
    flood.terminate()
    assert lab.stop() == 0


AF_XDP = UNIT.parent / "octoplaned.service.d" / "af-xdp.conf"


def settings(key, *more):
    """All that the unit says of a key, in order, and what files besides it say."""
    return [line.split("=", 1)[1]
            for file in (UNIT, *more) for line in file.read_text().splitlines() if line.startswith(f"{key}=")]


needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")


@needs_analyze
def test_the_units_are_valid(tmp_path):
    for unit in sorted(UNIT.parent.glob("*.service")):
        # Programs are looked for where they are; nothing is installed here.
        text = unit.read_text().replace("/usr/bin/octoplaned", str(BIN.resolve() / "octoplaned"))
        text = text.replace("/usr/lib/octoplane/", f"{ROOT / 'scripts'}/")
        (tmp_path / unit.name).write_text(text)
    for unit in tmp_path.iterdir():
        result = run("systemd-analyze", "verify", "--man=no", unit, check=False)
        said = [line for line in (result.stdout + result.stderr).splitlines() if "octoplane" in line]
        assert result.returncode == 0 and not said, said


@needs_analyze
def test_the_exposure_is_what_the_readme_says(tmp_path):
    said = re.findall(r"exposure level \*\*([0-9.]+)\*\*", (UNIT.parent / "README.md").read_text())
    for more, level in zip(([], [AF_XDP]), said, strict=True):
        directory = tmp_path / str(len(more))
        (directory / "octoplaned.service.d").mkdir(parents=True)
        shutil.copy(UNIT, directory)
        for file in more:
            shutil.copy(file, directory / "octoplaned.service.d")
        result = run("systemd-analyze", "security", "--offline=true", "--no-pager", directory / UNIT.name)
        found = re.search(r"Overall exposure level for octoplaned.service: ([0-9.]+)", result.stdout).group(1)
        assert found == level, more


def test_order_and_restart():
    assert settings("Type") == ["notify"]
    after = " ".join(settings("After")).split()
    # What the specification calls the DPU's set-up (octeon-systems, 1.11: the agent of the PCIe endpoint).
    assert "setup-dpu.service" in after and "octoplane-devices.service" in after
    assert settings("Restart") == ["always"] and settings("RestartPreventExitStatus") == ["2"]
    seconds = float(settings("WatchdogSec")[0].removesuffix("s"))
    assert 1 <= seconds <= 30


# What the unit allows, as far as it can be had without systemd: capabilities, no new privileges, no writable code, a file
# system that is read-only but for one directory. The kernel's number of PR_SET_MDWE is 65 (Linux 6.3).
CONFINED = """
set -eu
mount --make-rprivate /
mount --bind "$DIRECTORY" "$DIRECTORY"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
mount -o remount,bind,ro /
if touch /octoplane-test 2>/dev/null; then exit 99; fi
exec setpriv --bounding-set "$CAPABILITIES" --inh-caps=-all --ambient-caps=-all --no-new-privs \
    /usr/bin/python3 -c '
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])' strace -D -f -qq -o "$DIRECTORY/calls" "$@"
"""


def allowed_calls(*more):
    """The system calls that the unit lets through, by systemd's own lists."""
    def group(name):
        lines = run("systemd-analyze", "syscall-filter", name).stdout.splitlines()[1:]
        names = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
        return set().union(*(group(name) if name.startswith("@") else {name} for name in names)) if names else set()

    calls = set()
    for setting in settings("SystemCallFilter", *more):
        remove = setting.startswith("~")
        for word in setting.removeprefix("~").split():
            named = group(word) if word.startswith("@") else {word}
            calls = calls - named if remove else calls | named
    return calls


@needs_analyze
@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
@pytest.mark.parametrize("driver", ["net_af_packet", "net_af_xdp"])
def test_the_restrictions_let_it_work(make_lab, driver):
    if driver == "net_af_xdp" and not af_xdp():
        pytest.skip("no AF_XDP here")
    lab = make_lab(driver=driver)
    # A group of another than ours, as the unit's capability CHOWN is there for.
    lab.config.write_text(lab.config.read_text().replace(
        "[control]\n", '[control]\nsocket_group = "daemon"\nread_group = "games"\n'))
    more = [AF_XDP] if driver == "net_af_xdp" else []
    names = [name.removeprefix("CAP_").lower() for name in " ".join(settings("CapabilityBoundingSet", *more)).split()]
    capabilities = ",".join(["-all"] + [f"+{name}" for name in names])
    log = open(lab.directory / "daemon.log", "a")
    lab.daemon = lab.spawn("dp", "sh", "-c", CONFINED, "sh", BIN.resolve() / "octoplaned", "--config", lab.config,
                           stdout=log, stderr=log,
                           env={**os.environ, "DIRECTORY": str(lab.directory), "CAPABILITIES": capabilities})
    deadline = time.monotonic() + 120
    while lab.octoctl("status", check=False).returncode != 0:
        assert lab.daemon.poll() is None and time.monotonic() < deadline, lab.log()
        time.sleep(0.1)
    lab.apply()
    assert lab.ping("pod1", "10.200.0.2") == 3 and lab.ping("pod1", "2001:db8::fe") == 3
    # Ports come and go.
    lab.cable("pod3", "02:00:00:00:00:03")
    lab.octoctl("port", "add", "pod3", "--role", "pod", "--device", f"{driver}9,iface=pod3")
    lab.octoctl("port", "del", "pod3")
    # It is really confined.
    status = Path(f"/proc/{lab.daemon.pid}/status").read_text()
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    # As in Linux's include/uapi/linux/capability.h.
    numbers = {"chown": 0, "net_admin": 12, "net_raw": 13, "ipc_lock": 14, "sys_admin": 21, "perfmon": 38, "bpf": 39}
    bits = sum(1 << numbers[name] for name in names)
    assert int(re.search(r"^CapEff:\t([0-9a-f]+)$", status, re.M).group(1), 16) == bits
    lab.daemon.send_signal(signal.SIGTERM)
    assert lab.daemon.wait(60) == 0, lab.log()
    text = (lab.directory / "calls").read_text()
    # Up to its execution, it is the test that calls.
    text = text[text.index("execve("):]
    calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z0-9_]+)[( ]", text, re.M)) - {"resumed"}
    assert len(calls) > 40
    for call in calls - allowed_calls(*more):
        # What is refused without the list as well, and the daemon works all the same (a driver tries for iopl when it is
        # loaded).
        results = re.findall(rf"^\d+ +{call}\(.* = (.*)$", text, re.M)
        assert results and all(re.search("EPERM|ENOSYS", result) for result in results), (call, results)
    families = set(re.findall(r"socket\((AF_\w+)", text))
    named = set(settings("RestrictAddressFamilies")[0].split())
    assert families <= named, families - named
    assert {"AF_UNIX"} < families
