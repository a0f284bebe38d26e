"""What is programmed, across restarts of the daemon: what comes again, and what is said when it cannot."""

import os
import subprocess
import time

import pytest

grpc = pytest.importorskip("grpc", reason="python3-grpcio is missing")
pytest.importorskip("google.protobuf", reason="python3-protobuf is missing")
from bare import daemon  # noqa: E402, F401


def endpoint(it, number, port="pod"):
    return {"put_endpoint": it.Endpoint(id=number, port=port, mac="02:00:00:00:00:01", identity=1000,
                                        addresses=[f"10.0.{number >> 8}.{number & 255}"])}


def start(daemon):
    daemon.spawn()
    return daemon.client()


def test_added_ports_come_again(daemon):  # noqa: F811
    it = start(daemon)
    for name, device in ("a", "net_null7,size=128"), ("b", "net_null8"), ("c", "net_null9"):
        it.call_AddPort(it.AddPortRequest(name=name, role=it.ROLE_POD, device=device, rx_descriptors=64, mtu=1400))
    it.apply(endpoint(it, 1, "a"), endpoint(it, 2, "b"), endpoint(it, 3))
    it.apply({"set_port": it.Port(name="b", mtu=1300, admin_up=False)})
    it.call_RemovePort(it.RemovePortRequest(name="c"))
    revision, _ = it.state()
    daemon.kill()
    it = start(daemon)
    now, found = it.state()
    assert now == revision
    ports = {port.name: (port.mtu, port.admin_up) for port in found["port"]}
    assert ports == {"uplink": (1500, True), "pod": (1500, True), "a": (1400, True), "b": (1300, False)}
    assert [(e.id, e.port) for e in found["endpoint"]] == [(1, "a"), (2, "b"), (3, "pod")]
    # They are as they were asked for, and go as others do.
    again = it.AddPortRequest(name="a", role=it.ROLE_POD, device="net_null7,size=128", rx_descriptors=64, mtu=1400)
    assert it.call_AddPort(again).existed
    it.apply({"remove_endpoint": 1})
    it.call_RemovePort(it.RemovePortRequest(name="a"))
    daemon.kill()
    it = start(daemon)
    assert {port.name for port in it.state()[1]["port"]} == {"uplink", "pod", "b"}
    assert daemon.stop() == 0


def test_a_device_that_is_gone_takes_its_endpoints_along(daemon):  # noqa: F811
    it = start(daemon)
    name = f"ob{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    try:
        request = it.AddPortRequest(name="a", role=it.ROLE_POD, device=f"net_af_packet7,iface={name}", rx_descriptors=64)
        it.call_AddPort(request)
        it.apply(endpoint(it, 1, "a"), endpoint(it, 2))
        daemon.kill()
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
    it = start(daemon)
    _, found = it.state()
    assert [e.id for e in found["endpoint"]] == [2]
    assert "port a is not there any more" in daemon.log() and "endpoint 1 () on port a" in daemon.log()
    daemon.kill()
    before = daemon.log()
    it = start(daemon)
    assert [e.id for e in it.state()[1]["endpoint"]] == [2]
    assert daemon.log() == before, "it is told once"


@pytest.mark.parametrize("what", ["damaged", "two daemons"])
def test_refused_with_the_name_of_the_file(daemon, what):  # noqa: F811
    it = start(daemon)
    it.apply(*(endpoint(it, n) for n in range(1, 500)))
    first = None
    if what == "damaged":
        assert daemon.stop() == 0
        file = daemon.directory / "state" / "state.redb"
        data = bytearray(file.read_bytes())
        for at in range(0, len(data), 512):
            data[at] ^= 0xff
        file.write_bytes(data)
    else:
        first = daemon.process
        daemon.config.write_text(daemon.config.read_text().replace("control.sock", "other.sock"))
    try:
        daemon.spawn()
        assert daemon.process.wait(20) == 1
        log = daemon.log()
        if what == "damaged":
            assert f"{file}: the file is damaged" in log and "Move it away to start with empty tables" in log, log
            assert "panicked" not in log
        else:
            assert f"{daemon.directory}/state: another daemon keeps its state there" in log, log
    finally:
        if first:
            first.kill()
            first.wait(10)


def test_a_full_disk(daemon):  # noqa: F811
    state = daemon.directory / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "octoplane-test", state], check=True)
    try:
        it = start(daemon)
        it.apply(endpoint(it, 1))
        # What is on its way when the disk gets full is in effect.
        fill(state / "ballast")
        with pytest.raises(grpc.RpcError) as error:
            for n in range(2, 100):
                it.apply(*(endpoint(it, 100 * n + m) for m in range(100)))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "in effect, but was not saved" in error.value.details() and "state.redb" in error.value.details()
        # From then on nothing is begun.
        with pytest.raises(grpc.RpcError) as error:
            it.apply(endpoint(it, 60_000))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "nothing was changed" in error.value.details()
        with pytest.raises(grpc.RpcError) as error:
            it.call_GetEndpoint(it.GetEndpointRequest(id=60_000))
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        # With room again it goes on by itself.
        (state / "ballast").unlink()
        deadline = 100
        while True:
            try:
                it.apply(endpoint(it, 60_000))
                break
            except grpc.RpcError:
                deadline -= 1
                assert deadline, daemon.log()
                time.sleep(0.1)
        revision, found = it.state()
        daemon.kill()
        now, again = start(daemon).state()
        assert (now, again["endpoint"]) == (revision, found["endpoint"])
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        subprocess.run(["umount", state], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
