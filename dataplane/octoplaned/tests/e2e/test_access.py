"""Who may use the control services: users and groups on the socket, certificates over TCP, and what one client can do to
others."""

import grp
import json
import os
import shutil
import subprocess
import time

import pytest

from conftest import BIN, run, wait

# Groups that every Debian has, and a user of none of them.
ALL, READ = "daemon", "games"
NOBODY = 65534


def gid(name):
    return grp.getgrnam(name).gr_gid


@pytest.fixture
def start(make_lab):
    """A running lab whose socket and octoctl other users can reach, with more keys in [control]."""
    def make(control):
        lab = make_lab()
        for directory in (lab.directory, lab.directory.parent):
            directory.chmod(0o755)
        shutil.copy(BIN / "octoctl", lab.directory / "octoctl")
        lab.config.write_text(lab.config.read_text().replace("[control]\n", f"[control]\n{control}\n"))
        lab.start()
        lab.apply()
        return lab
    return make


def octoctl_as(lab, uid, gids, *arguments):
    """As a user whose first group is its own, and who is in these groups besides."""
    groups = ["--groups", ",".join(map(str, gids))] if gids else ["--clear-groups"]
    return run("setpriv", "--reuid", uid, "--regid", uid, *groups, lab.directory / "octoctl", "--socket", lab.socket,
               *arguments, check=False, cwd="/")


def test_users_and_groups(start):
    lab = start(f'socket_group = "{ALL}"\nread_group = "{READ}"')
    assert lab.octoctl("endpoint", "list").returncode == 0
    # The group: everything.
    for arguments in (["endpoint", "list"], ["endpoint", "del", "2"], ["flow", "list"], ["watch", "--help"]):
        result = octoctl_as(lab, NOBODY, [gid(ALL)], *arguments)
        assert result.returncode == 0, result.stderr
    # The other group: it reads.
    for arguments in (["endpoint", "list"], ["status"], ["port", "stats"], ["drops"], ["export"]):
        result = octoctl_as(lab, NOBODY, [gid(READ)], *arguments)
        assert result.returncode == 0, result.stderr
    for arguments, needed in ((["endpoint", "del", "1"], "program"), (["flow", "flush", "--all"], "program"),
                              (["port", "del", "pod1"], "program"), (["flow", "list"], "debug")):
        result = octoctl_as(lab, NOBODY, [gid(READ)], *arguments)
        assert result.returncode == 1, result
        assert f'is for clients that may "{needed}"; user {NOBODY} may read' in result.stderr, result.stderr
    assert [endpoint["id"] for endpoint in lab.json("endpoint", "list")] == [1], "nothing was changed"
    # Nobody else, whoever they are.
    for groups in ([], [gid("mail")]):
        result = octoctl_as(lab, NOBODY, groups, "status")
        assert result.returncode == 3 and "Permission denied" in result.stderr, result


def test_debug_for_the_second_group(start):
    lab = start(f'read_group = "{READ}"\nread_group_may = ["read", "debug"]')
    result = octoctl_as(lab, NOBODY, [gid(READ)], "flow", "list")
    assert result.returncode == 0, result.stderr
    assert octoctl_as(lab, NOBODY, [gid(READ)], "endpoint", "del", "1").returncode == 1
    # Without socket_group it is the daemon's own group that may do everything: here root's.
    assert octoctl_as(lab, NOBODY, [0], "endpoint", "del", "1").returncode == 0


def test_an_unknown_group(make_lab):
    lab = make_lab()
    lab.config.write_text(lab.config.read_text().replace("[control]\n", '[control]\nread_group = "no-such"\n'))
    result = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, check=False)
    assert result.returncode == 1
    assert 'control.read_group: there is no group "no-such"' in result.stderr


# What a hostile member of the reading group does: all the connections it gets, on each of them as many requests as go, answers
# that are never read, and garbage.
HOSTILE = """
import socket, struct, sys, time
path = sys.argv[1]
def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
def literal(name, value):
    return b"\\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
headers = (b"\\x83\\x86" + literal(b":path", b"/octoplane.v1.Config/ListEndpoints") + literal(b":authority", b"x")
           + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers"))
end = time.monotonic() + float(sys.argv[2])
hoard, opened, refused = [], 0, 0
print("begin", flush=True)
while time.monotonic() < end:
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        s.connect(path)
        opened += 1
        kind = opened % 3
        if kind == 0:
            s.sendall(b"\\x00" * 4096)
        elif kind == 1:
            s.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
            for n in range(200):
                s.sendall(frame(1, 4, 1 + 2 * n, headers) + frame(0, 1, 1 + 2 * n, b"\\x00" * 5))
        hoard.append(s)
    except OSError:
        refused += 1
print(opened, refused, flush=True)
time.sleep(1)
"""


def test_a_hostile_client_is_in_nobodys_way(start):
    lab = start(f'read_group = "{READ}"\nclient_connections = 32\nclient_requests = 64\nclient_requests_per_second = 500')
    cores = {worker["core"] for worker in lab.json("status")["workers"]}
    drops = sum(lab.drops().values())

    def slowest(first):
        """Of twenty pairs of root's requests, which program and ask."""
        found = 0
        for number in range(first, first + 20):
            begin = time.monotonic()
            lab.octoctl("neigh", "add", f"192.0.2.{number}", "--port", "router", "--mac", "02:00:00:00:00:10")
            lab.octoctl("status")
            found = max(found, time.monotonic() - begin)
        return found
    usual = slowest(10)
    attackers = [
        subprocess.Popen(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", str(gid(READ)), "/usr/bin/python3",
                          "-c", HOSTILE, str(lab.socket), "6"], stdout=subprocess.PIPE, text=True, cwd="/")
        for _ in range(2)]
    lab.processes += attackers
    for attacker in attackers:
        assert attacker.stdout.readline() == "begin\n"
    time.sleep(0.5)
    # Root programs and asks as before, pods talk as before.
    under_attack = slowest(40)
    assert under_attack < max(3, 10 * usual), (under_attack, usual)
    assert lab.ping("pod1", "10.200.0.2", 20) == 20
    for attacker in attackers:
        opened, refused = map(int, attacker.communicate(timeout=120)[0].split())
        print(f"{opened} connections opened, {refused} refused, slowest pair of requests of root: {under_attack:.3f} s, "
              f"{usual:.3f} s before")
        assert opened > 50
    # No control thread was on a worker's CPU, unless there is one only.
    if len(os.sched_getaffinity(0)) > 1:
        tasks = f"/proc/{daemon_pid(lab)}/task"
        looked_at = 0
        for task in os.listdir(tasks):
            try:
                with open(f"{tasks}/{task}/comm") as comm, open(f"{tasks}/{task}/status") as status:
                    name, lines = comm.read(), status.readlines()
            except (FileNotFoundError, ProcessLookupError):
                # It has ended meanwhile.
                continue
            if name.startswith("control"):
                allowed = next(line for line in lines if line.startswith("Cpus_allowed_list")).split()[1]
                assert not cores & cpus(allowed), (allowed, cores)
                looked_at += 1
        assert looked_at > 0
    assert sum(lab.drops().values()) - drops < 50
    assert lab.stop() == 0, lab.log()


def daemon_pid(lab):
    # `ip netns exec` becomes the daemon.
    return lab.daemon.pid


def cpus(text):
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def openssl(*arguments, directory):
    run("openssl", *arguments, cwd=directory)


@pytest.fixture
def certificates(tmp_path):
    """Two authorities; certificates of the first: server, agent (DNS), viewer (SPIFFE URI), joe (common name), stranger."""
    def authority(name):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout",
                f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                directory=tmp_path)

    def issue(name, subject, alternative, by="ca", usage="clientAuth"):
        (tmp_path / f"{name}.ext").write_text(f"extendedKeyUsage={usage}\n"
                                              + (f"subjectAltName={alternative}\n" if alternative else ""))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", subject, directory=tmp_path)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.crt", "-CAkey", f"{by}.key", "-CAcreateserial", "-days",
                "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt", directory=tmp_path)

    authority("ca")
    authority("otherca")
    issue("server", "/CN=octoplaned", "IP:127.0.0.1,DNS:localhost", usage="serverAuth")
    issue("agent", "/CN=whatever", "DNS:agent.example")
    issue("viewer", "/CN=whatever", "URI:spiffe://cluster.example/viewer")
    issue("joe", "/CN=Joe", None)
    # The name that matters is that of the configuration's kind: a common name is no DNS name.
    issue("stranger", "/CN=agent.example", "DNS:stranger.example")
    issue("impostor", "/CN=agent", "DNS:agent.example", by="otherca")
    return tmp_path


CLIENT = """
import sys
import grpc
address, directory, name, method = sys.argv[1:5]
read = lambda file: open(f"{directory}/{file}", "rb").read()
if name == "plain":
    channel = grpc.insecure_channel(address)
elif name == "none":
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(read("ca.crt")))
else:
    credentials = grpc.ssl_channel_credentials(read("ca.crt"), read(f"{name}.key"), read(f"{name}.crt"))
    channel = grpc.secure_channel(address, credentials)
call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
try:
    call(b"", timeout=20)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


def ask(lab, port, directory, name, method="/octoplane.v1.Stats/GetStatus", address="127.0.0.1"):
    result = lab.inside("dp", "/usr/bin/python3", "-c", CLIENT, f"{address}:{port}", directory, name, method)
    return result.stdout.strip()


APPLY = "/octoplane.v1.Config/Apply"


def test_mutual_tls(start, certificates):
    files = {kind: certificates / file
             for kind, file in (("certificate", "server.crt"), ("key", "server.key"), ("client_ca", "ca.crt"))}
    keys = ", ".join(f'{kind} = "{path}"' for kind, path in files.items())
    clients = ('[{ name = "dns:agent.example", may = ["read", "program"] }, '
               '{ name = "uri:spiffe://cluster.example/viewer", may = ["read"] }, { name = "cn:Joe", may = ["debug"] }]')
    lab = start(f'tcp = {{ listen = "127.0.0.1:9443", {keys}, clients = {clients} }}')

    def asked(name, method="/octoplane.v1.Stats/GetStatus"):
        return ask(lab, 9443, certificates, name, method)

    assert asked("agent") == "OK"
    assert asked("agent", APPLY) == "OK"
    assert asked("viewer") == "OK"
    assert asked("viewer", APPLY) == ('PERMISSION_DENIED /octoplane.v1.Config/Apply is for clients that may "program"; '
                                      "uri:spiffe://cluster.example/viewer may read")
    assert asked("joe").startswith("PERMISSION_DENIED") and asked("joe").endswith("cn:Joe may debug")
    refused = asked("stranger")
    assert refused.startswith("PERMISSION_DENIED") and "control.tcp.clients does not name may nothing" in refused
    for name in ("impostor", "none", "plain"):
        assert asked(name).startswith("UNAVAILABLE"), name
    # openssl as a client: TLS 1.1 is refused, 1.3 has HTTP/2.
    def handshake(version):
        return lab.inside("dp", "openssl", "s_client", "-connect", "127.0.0.1:9443", version, "-alpn", "h2", "-CAfile",
                          certificates / "ca.crt", "-cert", certificates / "agent.crt", "-key", certificates / "agent.key",
                          check=False, input="", errors="replace")
    good = handshake("-tls1_3").stdout
    assert "ALPN protocol: h2" in good and "Verify return code: 0" in good
    assert "Cipher is (NONE)" in handshake("-tls1_1").stdout
    # octoctl speaks it as well.
    tls = ["--server", "https://127.0.0.1:9443", "--tls-ca", certificates / "ca.crt", "--tls-certificate",
           certificates / "agent.crt", "--tls-key", certificates / "agent.key"]
    result = lab.inside("dp", BIN / "octoctl", *tls, "-o", "json", "endpoint", "list")
    assert [endpoint["id"] for endpoint in json.loads(result.stdout)] == [1, 2]

    # Whoever does not finish a handshake, is in nobody's way for long.
    script = ("import socket, time\n"
              "held = [socket.create_connection(('127.0.0.1', 9443)) for _ in range(64)]\n"
              "print('begin', flush=True)\ntime.sleep(1000)\n")
    lab.spawn("dp", "/usr/bin/python3", "-c", script, stdout=subprocess.PIPE, text=True).stdout.readline()
    assert lab.octoctl("status").returncode == 0
    wait(lambda: asked("agent") == "OK")

    # Certificates are renewed while it runs.
    shutil.copy(certificates / "otherca.crt", certificates / "ca-new.crt")
    os.replace(certificates / "ca-new.crt", files["client_ca"])
    shutil.copy(certificates / "otherca.crt", certificates / "keep.crt")
    wait(lambda: asked("agent").startswith("UNAVAILABLE"))
    assert lab.stop() == 0, lab.log()


def test_the_management_wire(start, tmp_path):
    lab = start("")
    lab.stop()
    for number, wire, end in ((1, "wire0", "far"), (2, "side0", "aside")):
        lab.cable(end, f"02:00:00:00:09:0{number}")
        lab.inside("dp", "ip", "link", "set", end, "name", wire)
        lab.inside("dp", "ip", "address", "add", f"192.168.{number}.1/24", "dev", wire)
        lab.inside("dp", "ip", "link", "set", wire, "up")
        lab.inside(end, "ip", "address", "add", f"192.168.{number}.2/24", "dev", "eth0")
    lab.inside("aside", "ip", "route", "add", "default", "via", "192.168.2.1")
    lab.inside("far", "ip", "route", "add", "default", "via", "192.168.1.1")
    text = lab.config.read_text()
    assert "[control]\n" in text
    lab.config.write_text(text.replace(
        "[control]\n",
        '[control]\ntcp = { listen = "192.168.1.1:9443", management_interface = "wire0", may = ["read"] }\n'))
    lab.start()

    def asked(where, method="/octoplane.v1.Stats/GetStatus"):
        result = lab.inside(where, "/usr/bin/python3", "-c", CLIENT, "192.168.1.1:9443", tmp_path, "plain", method)
        return result.stdout.strip()

    assert asked("far") == "OK"
    assert asked("far", APPLY) == ('PERMISSION_DENIED /octoplane.v1.Config/Apply is for clients that may "program"; '
                                   "192.168.1.2 may read")
    assert lab.inside("aside", "ping", "-c", 1, "-W", 2, "192.168.1.1").returncode == 0, "the address is reached"
    assert asked("aside").startswith("UNAVAILABLE"), "but not by way of another interface"
    assert asked("dp").startswith("UNAVAILABLE"), "nor from here, where there is the socket"
    assert lab.stop() == 0, lab.log()
    # Without TLS and without the setting the configuration is refused.
    lab.config.write_text(text.replace("[control]\n", '[control]\ntcp = { listen = "192.168.1.1:9443" }\n'))
    result = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, "--check-config", check=False)
    assert result.returncode == 2
    assert "control.tcp.listen: would be open to everybody on the network" in result.stderr
    # An interface that is not there.
    lab.config.write_text(text.replace(
        "[control]\n", '[control]\ntcp = { listen = "192.168.1.1:9443", management_interface = "nope0", may = ["read"] }\n'))
    result = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, check=False)
    assert result.returncode == 1 and "control.tcp.management_interface: nope0" in result.stderr, result.stderr
