"""scripts/hugepages on a machine that is a directory."""

import subprocess
from pathlib import Path

import pytest

from machine import Machine

SCRIPT = Path(__file__).resolve().parents[1] / "hugepages"


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    machine.small = machine.hugepages(2048, 10)
    machine.large = machine.hugepages(524288, 0, most=(8, 8))
    machine.node = machine.hugepages(2048, 4, node=1)
    return machine


def run(machine, *arguments, status=0):
    result = subprocess.run([SCRIPT, "--root", machine.root, *arguments], capture_output=True, text=True)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_set_is_idempotent_and_undone(machine):
    assert "2M:64: 64, there were 10" in run(machine, "set", "2M:64", "512M:8", "2M:16@1")
    assert (machine.read(machine.small), machine.read(machine.large), machine.read(machine.node)) == ("64", "8", "16")
    before = machine.writes()
    assert "2M:64: there are 64" in run(machine, "set", "2M:64", "512M:8", "2M:16@1")
    assert machine.writes() == before, "nothing is written the second time"
    # More, later; and back to what was there before the first time.
    run(machine, "set", "2M:100")
    run(machine, "undo")
    assert (machine.read(machine.small), machine.read(machine.large), machine.read(machine.node)) == ("10", "0", "4")
    assert "Nothing was changed." in run(machine, "undo")


def test_never_fewer(machine):
    assert "2M:5: there are 10" in run(machine, "set", "2M:5")
    assert machine.read(machine.small) == "10" and not machine.writes()


def test_dry_run_writes_nothing(machine):
    out = run(machine, "--dry-run", "set", "2M:64")
    assert "would write '64' to /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages" in out
    assert not machine.writes() and not (machine.root / "run").exists()
    run(machine, "set", "2M:64")
    assert "would write '10'" in run(machine, "--dry-run", "undo")
    assert machine.read(machine.small) == "64"
    run(machine, "undo")
    assert machine.read(machine.small) == "10"


def test_all_or_nothing(machine):
    out = run(machine, "set", "2M:64", "512M:9", status=1)
    assert "512M:9: the kernel found 8 of 9" in out and "hugepagesz=512M hugepages=9" in out
    assert (machine.read(machine.small), machine.read(machine.large)) == ("10", "0")
    assert "Nothing was changed." in run(machine, "undo")


@pytest.mark.parametrize("wish", ["16M:1", "512M8", "2M:4@7", "0M:1"])
def test_a_mistake_in_one_wish_is_found_before_another_is_done(machine, wish):
    assert run(machine, "set", "2M:64", wish, status=1).count("error:") == 1
    assert machine.read(machine.small) == "10" and not machine.writes()


def test_memory_is_put_together_if_it_lies_about(machine):
    path = machine.hugepages(1048576, 0, most=(1, 4))
    run(machine, "set", "1G:3")
    assert machine.read(path) == "3"


def test_what_somebody_else_changed_stays(machine):
    run(machine, "set", "2M:64")
    machine.write(machine.small, "80\n")
    assert "somebody else has changed it" in run(machine, "undo")
    assert machine.read(machine.small) == "80"


@pytest.mark.parametrize("wish, said", [
    ("2M", "expected SIZE:COUNT"), ("2M:0", "expected SIZE:COUNT"), ("2:5", "expected a size as in 2M"),
    ("16M:1", "this kernel has no hugepages of that size; it has: 2048 KiB, 524288 KiB"), ("2M:5@7", "there is no NUMA node 7"),
    ("2M:$(reboot)", "expected SIZE:COUNT"),
])
def test_what_cannot_be(machine, wish, said):
    assert said in run(machine, "set", wish, status=1)
    assert not machine.writes()


def test_usage(machine):
    assert "scripts/hugepages" in run(machine, "--help")
    assert "unknown option --nope" in run(machine, "--nope", status=1)
    run(machine, status=2)
    run(machine, "set")
    assert "hugepages-2048kB: 10, of these free 10" in run(machine, "show")
