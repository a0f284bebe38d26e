"""A data plane with pods and a router in network namespaces of its own, for one test."""

import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
BIN = Path(os.environ.get("OCTOPLANE_BIN", ROOT / "target" / "debug"))
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"

_labs = itertools.count()


def run(*command, check=True, timeout=120, **kwargs):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, **kwargs)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def wait(what, seconds=60, text=lambda: ""):
    """Waits until `what` is something, and returns it. The limit is for what never comes, not for what is slow."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, text()
        time.sleep(0.02)
    return found


def ping_command(target, count, *more):
    """A ping whose last answer has as much time as the first. With -W alone, ping waits after its last request no longer than
    twice what the slowest answer took; with a deadline it goes on until so many were answered, and may send more."""
    limit = ["-w", 20 + count // 10] if count > 1 else ["-W", 2]
    return [str(word) for word in ("ping", "-n", "-c", count, "-i", "0.05", *limit, *more, target)]


def answered(output):
    """Numbers of the pings that were answered, by what ping wrote."""
    return {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+) ", output)}


def gaps(numbers):
    """Numbers from 1 that are missing below the last one: those after it may be under way."""
    return sorted(set(range(1, max(numbers, default=0))) - numbers)


def af_xdp():
    """Whether kernel and DPDK have AF_XDP."""
    return subprocess.run([ROOT / "scripts" / "lib" / "has-af-xdp"], capture_output=True).returncode == 0


class Lab:
    """Namespaces `PREFIX-NAME`; the far ends of their cables lie in `PREFIX-dp`, where the daemon runs."""

    def __init__(self, directory, host=False, poll="adaptive", driver="net_af_packet", cores=None, cni=""):
        # Unique on the machine, so that tests can run side by side.
        self.prefix = f"ot{os.getpid()}x{next(_labs)}"
        self.directory = Path(directory)
        self.socket = self.directory / "control.sock"
        # Nothing is kept unless a test says so.
        self.kept, self.connections = "", ""
        self.config = self.directory / "octoplaned.toml"
        self.processes = []
        self.daemon = None
        self.namespaces = []
        self.host = host
        self.poll = poll
        self.driver = driver
        self.cores = cores
        self.cni = cni
        self._build()

    def _build(self):
        self._namespace("dp")
        self.inside("dp", "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.disable_ipv6=1",
                    "net.ipv6.conf.default.disable_ipv6=1")
        for index in (1, 2):
            self.pod(index)
        self.cable("router", "02:00:00:00:00:fe")
        self.inside("router", "ip", "address", "add", "192.0.2.254/24", "dev", "eth0")
        self.inside("router", "ip", "-6", "address", "add", "2001:db8::fe/64", "dev", "eth0", "nodad")
        self.inside("router", "ip", "route", "add", "10.200.0.0/16", "via", "192.0.2.1")
        self.inside("router", "ip", "-6", "route", "add", "fd00:200::/64", "via", "2001:db8::1")
        ports = [("pod1", "pod", ""), ("pod2", "pod", ""),
                 ("router", "uplink", 'addresses = ["192.0.2.1/24", "2001:db8::1/64"]')]
        if self.host:
            self.cable("kernel", "02:00:00:00:00:aa")
            self.inside("kernel", "ip", "address", "add", "192.0.2.1/32", "dev", "eth0")
            self.inside("kernel", "ip", "route", "add", "default", "dev", "eth0", "src", "192.0.2.1")
            ports.append(("kernel", "host", ""))
        text = [
            "[memory]", "hugepages = false", f'[workers]\npoll = "{self.poll}"',
            f"cores = {self.cores}\ncontrol_cores = [{self.cores[0]}]" if self.cores else "",
            f'[control]\nsocket = "{self.socket}"',
            f'[state]\ndirectory = "{self.kept}"\nconnections = "{self.connections}"',
            "[neighbours]\nretry_ms = 200\nreachable_s = 2",
            f'[cni]\ndirectory = "{self.directory}/attachments"\n{self.cni}',
        ]
        for number, (name, role, more) in enumerate(ports):
            text.append(f'[[ports]]\nname = "{name}"\nrole = "{role}"\n'
                        f'device = "{self.driver}{number},iface={name}"\n{more}')
        self.config.write_text("\n".join(text) + "\n")
        self.state = {
            "endpoints": [
                {"id": i, "name": f"test/pod{i}", "port": f"pod{i}", "mac": f"02:00:00:00:00:0{i}",
                 "identity": 1000 + i, "addresses": [f"10.200.0.{i}", f"fd00:200::{i}"]} for i in (1, 2)
            ],
            "routes": [{"prefix": "0.0.0.0/0", "via": "192.0.2.254", "port": "router"},
                       {"prefix": "::/0", "via": "2001:db8::fe", "port": "router"}],
        }

    def pod(self, index):
        """A pod with its cable; the data plane does not know it yet."""
        pod = f"pod{index}"
        self.cable(pod, f"02:00:00:00:00:0{index}")
        self.inside(pod, "ip", "address", "add", f"10.200.0.{index}/32", "dev", "eth0")
        self.inside(pod, "ip", "-6", "address", "add", f"fd00:200::{index}/128", "dev", "eth0", "nodad")
        self.inside(pod, "ip", "route", "add", GATEWAY4, "dev", "eth0", "scope", "link")
        self.inside(pod, "ip", "route", "add", "default", "via", GATEWAY4, "dev", "eth0")
        self.inside(pod, "ip", "-6", "route", "add", "default", "via", GATEWAY6, "dev", "eth0")

    def _namespace(self, name):
        run("ip", "netns", "add", f"{self.prefix}-{name}")
        self.namespaces.append(name)
        self.inside(name, "ip", "link", "set", "lo", "up")

    def cable(self, name, mac):
        self._namespace(name)
        self.recable(name, mac)

    def recable(self, name, mac):
        """A cable to a namespace that is there."""
        run("ip", "link", "add", name, "netns", f"{self.prefix}-dp", "type", "veth",
            "peer", "name", "eth0", "netns", f"{self.prefix}-{name}")
        self.inside("dp", "ip", "link", "set", name, "up")
        self.inside(name, "ip", "link", "set", "eth0", "address", mac)
        self.inside(name, "ip", "link", "set", "eth0", "up")
        self.inside(name, "ethtool", "-K", "eth0", "tx", "off")

    def command(self, name, *command):
        return ["ip", "netns", "exec", f"{self.prefix}-{name}", *map(str, command)]

    def inside(self, name, *command, **kwargs):
        return run(*self.command(name, *command), **kwargs)

    def spawn(self, name, *command, **kwargs):
        process = subprocess.Popen(self.command(name, *command), **kwargs)
        self.processes.append(process)
        return process

    def patient(self):
        """Gives neighbours as long as they have by default: some are emulated machines."""
        hasty = "[neighbours]\nretry_ms = 200\nreachable_s = 2\n"
        text = self.config.read_text()
        assert hasty in text
        self.config.write_text(text.replace(hasty, ""))

    def start(self):
        log = open(self.directory / "daemon.log", "a")
        self.daemon = self.spawn("dp", BIN / "octoplaned", "--config", self.config, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.octoctl("status", check=False).returncode != 0:
            assert self.daemon.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def log(self):
        return (self.directory / "daemon.log").read_text()

    def octoctl(self, *arguments, **kwargs):
        return run(BIN / "octoctl", "--socket", self.socket, *arguments, **kwargs)

    def octoctl_spawn(self, *arguments, **kwargs):
        return self.spawn("dp", BIN / "octoctl", "--socket", self.socket, *arguments, **kwargs)

    def json(self, *arguments):
        return json.loads(self.octoctl("-o", "json", *arguments).stdout)

    def apply(self, state=None, **kwargs):
        return self.octoctl("apply", "-f", "-", input=json.dumps(state or self.state), **kwargs)

    def drops(self):
        totals = {}
        for drop in self.json("drops"):
            totals[drop["code"]] = totals.get(drop["code"], 0) + drop["packets"]
        return totals

    def worker(self, field):
        return sum(worker[field] for worker in self.json("status")["workers"])

    def ping(self, pod, target, count=3, *more):
        """How many of the pings 1 to `count` were answered."""
        command = ping_command(target, count, *more)
        found = answered(self.inside(pod, *command, check=False, timeout=60 + count).stdout)
        return len(found & set(range(1, count + 1)))

    def no_answer(self, pod, target, *more):
        """Whether none of the pings of two seconds is answered."""
        return not answered(self.inside(pod, *ping_command(target, 3, "-w", 2, *more), check=False).stdout)

    def listening(self, name, port):
        """Waits until somebody listens on a TCP port in a namespace."""
        wait(lambda: self.inside(name, "ss", "-ltnH", f"sport = :{port}").stdout)

    def stop(self):
        """An ordered stop; returns the exit status."""
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(60)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in self.namespaces:
            run("ip", "netns", "del", f"{self.prefix}-{name}", check=False)


class Pings:
    """Pings from a pod that go on until they are told to stop."""

    def __init__(self, lab, pod, target, *options):
        # Not a pipe, which would be full one day.
        self.output = lab.directory / f"pings-{len(lab.processes)}"
        with open(self.output, "w") as file:
            self.process = lab.spawn(pod, "ping", "-n", *(options or ("-i", "0.01")), target, stdout=file,
                                     stderr=subprocess.STDOUT)

    def answered(self):
        return answered(self.output.read_text())

    def more(self, count=50):
        """Waits until so many more are answered."""
        goal = len(self.answered()) + count
        wait(lambda: len(self.answered()) >= goal, text=lambda: self.output.read_text()[-2000:])

    def stop(self):
        """Ends them, after some more. Returns how many were answered, and which were not though later ones were."""
        self.more(20)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        found = self.answered()
        return len(found), gaps(found)


@pytest.fixture
def make_lab():
    labs = []
    with tempfile.TemporaryDirectory(prefix="octoplane-") as directory:
        def make(**kwargs):
            place = Path(directory) / str(len(labs))
            place.mkdir()
            # Listed first: a lab that fails half-way is taken down, too.
            lab = Lab.__new__(Lab)
            labs.append(lab)
            lab.processes, lab.namespaces = [], []
            lab.__init__(place, **kwargs)
            return lab
        try:
            yield make
        finally:
            for lab in labs:
                lab.close()


@pytest.fixture
def lab(make_lab):
    lab = make_lab()
    lab.start()
    lab.apply()
    return lab


def pytest_terminal_summary(terminalreporter):
    """What tests measured is for people to see, also when they pass."""
    said = [(report.nodeid.rsplit("/", 1)[-1], report.capstdout.strip())
            for report in terminalreporter.getreports("passed") if report.when == "call" and report.capstdout.strip()]
    if said:
        terminalreporter.section("measured on the way")
    for name, text in said:
        terminalreporter.write_line(f"{name}\n    " + text.replace("\n", "\n    "))
