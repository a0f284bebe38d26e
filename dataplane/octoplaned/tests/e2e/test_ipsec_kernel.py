"""A Linux kernel as the other node: user-mode-linux with a VXLAN device and `ip xfrm`, set up as Cilium does it."""

import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Lab, Pings, answered, ping_command, wait
from test_services import get, serve

UML = shutil.which("linux.uml")
HERE = Path(__file__).resolve().parent
OURS, THEIRS = "192.0.2.1", "192.0.2.254"
BOOT = {OURS: "11111111-1111-1111-1111-111111111111", THEIRS: "22222222-2222-2222-2222-222222222222"}
GLOBAL = {3: bytes(range(20)), 4: bytes(range(0x40, 0x54))}

pytestmark = pytest.mark.skipif(
    UML is None or os.geteuid() != 0, reason="NOT RUN: ESP with a real kernel needs root and user-mode-linux (Debian package)")


def derived(key, src, dst):
    """Key and salt of one direction (specification, 1.9), made without the code under test."""
    pack = lambda addr: bytes(int(byte) for byte in addr.split("."))
    data = GLOBAL[key] + pack(src) + pack(dst) + BOOT[src].encode() + BOOT[dst].encode()
    return "0x" + hashlib.sha256(data).digest()[:20].hex()


class Kernel:
    """A kernel whose one interface is that of a namespace."""

    def __init__(self, lab, namespace):
        lab.inside(namespace, "ip", "address", "flush", "dev", "eth0")
        # Frames on the cable are the guest's: the namespace itself must not answer.
        lab.inside(namespace, "ip", "link", "set", "eth0", "arp", "off")
        # There the guest's memory is a file.
        environment = {**os.environ, "TMPDIR": str(lab.directory), "HOME": str(lab.directory)}
        command = (UML, "mem=96M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={HERE}/uml/init",
                   "con=null", "con0=fd:0,fd:1", "vec0:transport=raw,ifname=eth0,depth=128", f"umid={lab.prefix}", "quiet")
        # Its threads are processes that have its output, too: they are ended together.
        self.process = lab.spawn(namespace, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 env=environment, start_new_session=True)
        self.output = b""
        self._until("ready")

    def _until(self, word):
        """What it says before a line that begins with the word, and the rest of that line. It has a minute."""
        deadline = time.monotonic() + 60
        pattern = re.compile(rf"^{word} (.*)\r?\n".encode(), re.MULTILINE)
        while not (found := pattern.search(self.output)):
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            read = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not read:
                self.close()
                why = "ended" if readable else "says nothing any more"
                raise AssertionError(f"the peer's kernel {why}: {self.output[-4000:].decode(errors='replace')}")
            self.output += read
        said, self.output = self.output[:found.start()], self.output[found.end():]
        return found.group(1).decode().strip(), said.decode(errors="replace")

    def do(self, line, check=True):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        status, said = self._until("done")
        assert not check or status == "0", f"{line}: {said}"
        return said

    def close(self):
        """Pulls the plug: it has nothing to lose, and powering off may take forever."""
        if self.process.returncode is None:
            # Also when the first process has ended: until it is waited for, its number is nobody else's.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)


def sa(kernel, verb, key, src, dst):
    kernel.do(f"ip xfrm state {verb} src {src} dst {dst} proto esp spi {key} reqid 1 mode tunnel replay-window 1024 flag esn "
              f"aead 'rfc4106(gcm(aes))' {derived(key, src, dst)} 128")


def policies(kernel, key):
    for direction, src, dst in (("out", THEIRS, OURS), ("in", OURS, THEIRS)):
        spi = f"spi {key}" if direction == "out" else ""
        kernel.do(f"ip xfrm policy update src {src}/32 dst {dst}/32 dir {direction} "
                  f"tmpl src {src} dst {dst} proto esp {spi} reqid 1 mode tunnel")


@pytest.fixture
def nodes(tmp_path):
    lab = Lab.__new__(Lab)
    lab.processes, lab.namespaces = [], []
    lab.__init__(tmp_path)
    kernel = None
    try:
        keys = tmp_path / "keys"
        keys.write_text(f"3+ rfc4106(gcm(aes)) {GLOBAL[3].hex()} 128\n")
        lab.config.write_text(lab.config.read_text().replace("[[ports]]", f"""[ipsec]
key_file = "{keys}"
directory = "{tmp_path}/ipsec"
boot_id = "{BOOT[OURS]}"
strict = true
rotation_s = 60

[[ports]]""", 1))
        lab.patient()
        lab.start()
        kernel = Kernel(lab, "router")
        kernel.do(f"ip link set vec0 address 02:00:00:00:00:fe mtu 1500 up; ip address add {THEIRS}/24 dev vec0")
        lab.apply({**lab.state, "routes": [{"prefix": "192.0.2.0/24", "port": "router"}],
                   "node": {"addresses": [OURS], "routing": "tunnel", "tunnel": {"local4": OURS}},
                   "ipcache": [{"prefix": "10.201.0.7/32", "identity": 1001, "tunnel_endpoint": THEIRS, "key": 3}]})
        lab.octoctl("ipsec", "node", "add", THEIRS, "--key", "3", "--boot-id", BOOT[THEIRS])
        ours = next(port["mac"] for port in lab.json("port", "list") if port["name"] == "pod1")
        # One VNI, pod 1's identity, for both directions; frames in the tunnel are addressed to our end of the pod's cable.
        kernel.do(f"ip link add vx0 address {ours} mtu 1390 type vxlan id 1001 local {THEIRS} remote {OURS} dstport 8472 && "
                  "ip link set vx0 up && ip address add 10.201.0.7/32 dev vx0 && "
                  "ip route replace 10.200.0.1/32 dev vx0 src 10.201.0.7 && "
                  "ip neigh replace 10.200.0.1 lladdr 02:00:00:00:00:77 dev vx0")
        for src, dst in ((THEIRS, OURS), (OURS, THEIRS)):
            sa(kernel, "add", 3, src, dst)
        policies(kernel, 3)
        yield lab, kernel, keys
    finally:
        if kernel:
            kernel.close()
        lab.close()


@pytest.mark.timeout(900)
def test_ping_tcp_and_rotation(nodes):
    lab, kernel, keys = nodes
    context = lambda: kernel.do("ip -s xfrm state; cat /proc/net/xfrm_stat", check=False) + lab.octoctl(
        "ipsec", "counters").stdout + lab.octoctl("drops").stdout
    assert lab.ping("pod1", "10.201.0.7", 5) == 5, context()
    said = kernel.do(" ".join(ping_command("10.200.0.1", 5)), check=False)
    assert answered(said) >= set(range(1, 6)), said + context()
    # TCP, full segments, both ways: much more than a window.
    serve(lab, "pod1", 8000, "x" * 100_000)
    body = kernel.do("curl -s -m 50 http://10.200.0.1:8000/ | wc -c", check=False)
    assert int(body.split()[0]) > 100_000, body + context()
    kernel.do("(cd /usr/bin; exec /usr/bin/python3 -m http.server 8001 >/dev/null 2>&1) &")
    kernel.do("for try in $(seq 50); do curl -s -o /dev/null http://10.201.0.7:8001/ && break; sleep 0.2; done")
    answer = get(lab, "pod1", "http://10.201.0.7:8001/", 50)
    assert answer and len(answer) > 10_000, context()

    # A second key, as the order of section 1.9 has it: both have it before either announces it.
    for src, dst in ((THEIRS, OURS), (OURS, THEIRS)):
        sa(kernel, "add", 4, src, dst)
    pings = Pings(lab, "pod1", "10.201.0.7", "-i", "0.02")
    pings.more()
    keys.write_text(f"4+ rfc4106(gcm(aes)) {GLOBAL[4].hex()} 128\n")
    wait(lambda: lab.json("ipsec", "status")["key"] == 4, text=lab.log)
    lab.octoctl("ipsec", "node", "add", THEIRS, "--key", "4", "--boot-id", BOOT[THEIRS])
    policies(kernel, 4)
    # Both keys had much to do by now.
    pings.more(150)
    count, missing = pings.stop()
    assert count >= 220 and not missing, f"{missing} of {count}\n" + context()
    counted = {(sa["direction"], sa["spi"]): sa["packets"] for sa in lab.json("ipsec", "sa", "list")}
    assert counted[("outbound", 4)] > 50 and counted[("inbound", 4)] > 50, counted
    assert not lab.json("ipsec", "counters")["inbound"], context()
    # The kernel found nothing wrong with any packet.
    wrong = [line.split() for line in kernel.do("cat /proc/net/xfrm_stat").splitlines() if not line.endswith("\t0")]
    assert all(count == "0" for _, count in wrong), wrong

    # What the kernel sends in the clear is refused.
    kernel.do("ip xfrm policy flush")
    assert "0 received" in kernel.do("ping -n -c 2 -i 0.05 -W 1 10.200.0.1", check=False)
    assert lab.drops()[195] >= 2
