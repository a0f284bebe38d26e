"""Programming under traffic, and mistakes."""

import json
import subprocess
import time

import pytest

from conftest import BIN, Pings, wait


def test_one_bad_entry_among_thousands(lab):
    # Not the revision: neighbours are learned meanwhile.
    before = lab.json("endpoint", "list"), lab.json("route", "list")
    state = {"endpoints": [
        {"id": n, "port": "pod1", "mac": "02:00:00:00:00:01", "identity": 1001, "addresses": [f"10.9.{n >> 8}.{n & 255}"]}
        for n in range(1, 5001)]}
    state["endpoints"][4710]["addresses"] = ["10.9.0.1"]
    result = lab.apply(state, check=False)
    assert result.returncode == 1
    assert "endpoints[4710]" in result.stderr and "10.9.0.1 belongs to endpoint 1" in result.stderr
    state["endpoints"][4710] = {**state["endpoints"][4710], "addresses": ["10.9.0.999"]}
    result = lab.apply(state, check=False)
    assert result.returncode == 1 and "endpoints[4710]" in result.stderr and "10.9.0.999" in result.stderr
    state["endpoints"][4710]["addresss"] = []
    result = lab.apply(state, check=False)
    assert result.returncode == 2 and "addresss" in result.stderr
    assert (lab.json("endpoint", "list"), lab.json("route", "list")) == before
    assert lab.ping("pod1", "10.200.0.2") == 3


def test_apply_is_declarative(lab):
    assert "no changes" in lab.apply().stdout
    state = json.loads(json.dumps(lab.state))
    state["endpoints"][1]["addresses"] = ["10.200.0.22"]
    del state["routes"][1]
    dry = lab.octoctl("apply", "--dry-run", "-f", "-", input=json.dumps(state))
    assert "2 objects would change" in dry.stdout
    assert lab.ping("pod1", "10.200.0.2") == 3
    done = lab.apply(state).stdout
    assert "- route ::/0" in done and "~ endpoint 2" in done and "10.200.0.22" in done
    lab.inside("pod2", "ip", "address", "add", "10.200.0.22/32", "dev", "eth0")
    assert lab.ping("pod1", "10.200.0.22") == 3
    assert lab.ping("pod1", "10.200.0.2", 1) == 0
    exported = lab.octoctl("export").stdout
    assert "no changes" in lab.octoctl("apply", "-f", "-", input=exported).stdout


def test_verbs(lab):
    out = lab.octoctl("endpoint", "add", "7", "--port", "pod2", "--mac", "02:00:00:00:00:02", "--identity", "1002",
                      "--address", "10.200.0.7", "--name", "test/seven").stdout
    assert "+ endpoint 7 test/seven" in out
    assert lab.json("endpoint", "get", "7")["addresses"] == ["10.200.0.7"]
    lab.octoctl("endpoint", "del", "7")
    result = lab.octoctl("endpoint", "get", "7", check=False)
    assert result.returncode == 1 and "endpoint 7: not found" in result.stderr
    lab.octoctl("route", "add", "198.51.100.0/24", "--blackhole")
    lab.octoctl("neigh", "add", "192.0.2.99", "--port", "router", "--mac", "02:00:00:00:00:99")
    assert any(route["prefix"] == "198.51.100.0/24" for route in lab.json("route", "list"))
    assert not [it for it in lab.json("neigh", "list") if it["address"] == "192.0.2.99" and it["learned"] is True]
    assert lab.octoctl("route", "del", "198.51.100.0/25", check=False).returncode == 1
    bad = lab.octoctl("endpoint", "add", "8", "--port", "nowhere", "--mac", "02:00:00:00:00:02", "--identity", "1",
                      "--address", "10.1.1.1", check=False)
    assert bad.returncode == 1 and 'there is no port "nowhere"' in bad.stderr
    assert lab.octoctl("no-such-verb", check=False).returncode == 2
    for shell in ("bash", "zsh", "fish"):
        assert "octoctl" in lab.octoctl("completion", shell).stdout
    lost = subprocess.run([str(BIN / "octoctl"), "--socket", "/nonexistent", "status"],
                          capture_output=True, text=True)
    assert lost.returncode == 3 and "cannot connect to /nonexistent" in lost.stderr


def test_objects_of_the_state_file(lab):
    state = json.loads(json.dumps(lab.state))
    state |= {
        "node": {"addresses": ["192.0.2.10"], "policy_mode": "never"},
        "ipcache": [{"prefix": "10.1.0.0/16", "identity": 2000, "tunnel_endpoint": "192.0.2.11"}],
        "services": [{"name": "a/x:80", "protocol": "tcp", "frontends": [{"address": "203.0.113.1", "port": 80}],
                      "backends": [{"address": "10.200.0.2", "port": 8080}]}],
        "policies": [{"endpoint": 1, "entries": [{"direction": "egress", "identity": 1002}]}],
        "egress_gateways": [{"source": "10.200.0.1/32", "destination": "0.0.0.0/0", "gateway": "excluded"}],
        "authentications": [{"local_identity": 1001, "remote_identity": 1002, "auth_type": 1, "expires": 4000000000}],
    }
    assert "6 objects changed (6 new" in lab.apply(state).stdout
    assert lab.json("service", "get", "a/x:80")["backends"][0]["address"] == "10.200.0.2"
    assert lab.json("node", "get")["policy_mode"] == "never"
    exported = lab.octoctl("export").stdout
    assert "no changes" in lab.octoctl("apply", "-f", "-", input=exported).stdout
    assert lab.ping("pod1", "10.200.0.2") == 3
    assert "(0 new, 0 different, 6 gone)" in lab.apply().stdout


def test_authentications_let_pass_until_they_expire(lab):
    lab.octoctl("policy", "add", "-f", "-", input=json.dumps({
        "endpoint": 2, "enforce_ingress": True,
        "entries": [{"direction": "ingress", "identity": 1001, "auth_type": 1, "auth_explicit": True}]}))
    assert lab.no_answer("pod1", "10.200.0.2") and lab.drops()[189] >= 3
    # ICMP has its own identity for each run of ping, so each asks anew.
    lab.octoctl("auth", "add", "1002", "1001", "--seconds", "20")
    assert lab.ping("pod1", "10.200.0.2") == 3
    wait(lambda: not lab.json("auth", "list"), 90)
    assert lab.no_answer("pod1", "10.200.0.2")


@pytest.mark.timeout(1500)
def test_a_hundred_thousand_endpoints_without_stopping_traffic(make_lab):
    lab = make_lab()
    # Slowness is not what is tested.
    lab.config.write_text(lab.config.read_text().replace("[control]\n", "[control]\nrequest_timeout_s = 600\n"))
    lab.start()
    lab.apply()
    state = json.loads(json.dumps(lab.state))
    state["endpoints"] += [
        {"id": n + 10, "port": "pod1", "mac": "02:00:00:00:00:01", "identity": 1001,
         "addresses": [f"10.{50 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", f"fd00:300::{n >> 16:x}:{n & 0xffff:x}"]}
        for n in range(100_000)]
    text = json.dumps(state)
    pings = Pings(lab, "pod1", "10.200.0.2")
    pings.more()
    start = time.monotonic()
    result = lab.octoctl("apply", "-f", "-", input=text, timeout=600)
    took = time.monotonic() - start
    assert "100000 objects changed" in result.stdout
    count, missing = pings.stop()
    print(f"100,000 endpoints in {took:.1f} s, {len(missing)} of {count} pings lost")
    assert len(missing) <= 2, missing
    assert lab.json("status")["tables"][0]["used"] == 100_002
    lab.apply(timeout=600)
    assert lab.json("status")["tables"][0]["used"] == 2


def test_watch(lab):
    watch = lab.spawn("dp", BIN / "octoctl", "--socket", lab.socket, "-o", "json", "watch",
                      "--initial", stdout=subprocess.PIPE, text=True)
    seen = []
    def read_until(predicate):
        while True:
            seen.append(json.loads(watch.stdout.readline()))
            if predicate(seen[-1]):
                return
    read_until(lambda e: e.get("route", {}).get("prefix") == "::/0")
    assert {e["endpoint"]["id"] for e in seen if "endpoint" in e} == {1, 2}
    lab.octoctl("route", "add", "198.51.100.0/24", "--blackhole")
    read_until(lambda e: e.get("route", {}).get("prefix") == "198.51.100.0/24" and not e["removed"])
    lab.octoctl("route", "del", "198.51.100.0/24")
    read_until(lambda e: e.get("route", {}).get("prefix") == "198.51.100.0/24" and e["removed"])


def test_check_config_names_line_and_key(make_lab):
    lab = make_lab()
    text = lab.config.read_text().replace("reachable_s = 2", "reachable_s = 2\nretyr_ms = 5").replace('role = "uplink"', 'role = "uplnk"')
    lab.config.write_text(text)
    binary = BIN / "octoplaned"
    result = subprocess.run([str(binary), "--check-config", "--config", str(lab.config)], capture_output=True, text=True)
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert any("retyr_ms" in line and "retry_ms" in line for line in lines), lines
    assert any("uplnk" in line and f"{lab.config}:" in line for line in lines), lines
