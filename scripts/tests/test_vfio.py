"""scripts/vfio on a machine that is a directory. Ids as in the specification's table of OCTEON devices."""

import subprocess
from pathlib import Path

import pytest

from machine import Machine

SCRIPT = Path(__file__).resolve().parents[1] / "vfio"
UPLINK, MANAGEMENT, VF0, VF1 = "0002:02:00.0", "0002:01:00.1", "0002:01:00.2", "0002:01:00.3"


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    machine.pci(UPLINK, "177d:a063", "rvu_nicpf", group=5, interface="eth0")
    for number, address in enumerate((MANAGEMENT, VF0, VF1)):
        machine.pci(address, "177d:a0f7", "rvu_nicvf", group=10 + number, interface=f"sdp{number}", up=number == 2)
    machine.pci("0000:00:1f.0", "8086:1234", None)
    return machine


def run(machine, *arguments, status=0):
    result = subprocess.run([SCRIPT, "--root", machine.root, *arguments], capture_output=True, text=True)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_bind_is_idempotent_and_undone(machine):
    out = run(machine, "bind", UPLINK, VF0)
    assert f"{UPLINK}: bound to vfio-pci, was rvu_nicpf" in out
    assert machine.driver_of(UPLINK) == machine.driver_of(VF0) == "vfio-pci"
    before = machine.writes()
    assert f"{VF0}: is bound to vfio-pci" in run(machine, "bind", UPLINK, VF0)
    assert machine.writes() == before
    run(machine, "undo")
    assert (machine.driver_of(UPLINK), machine.driver_of(VF0)) == ("rvu_nicpf", "rvu_nicvf")
    assert machine.read(f"sys/bus/pci/devices/{VF0}/driver_override") == "(null)"
    assert "Nothing was changed." in run(machine, "undo")


def test_one_is_given_back(machine):
    run(machine, "bind", UPLINK, VF0)
    assert f"{VF0}: rvu_nicvf again" in run(machine, "unbind", VF0)
    assert (machine.driver_of(UPLINK), machine.driver_of(VF0)) == ("vfio-pci", "rvu_nicvf")
    assert "was not bound by us" in run(machine, "unbind", VF0, status=1)
    run(machine, "undo")
    assert machine.driver_of(UPLINK) == "rvu_nicpf"


def test_what_was_on_vfio_before_stays_there(machine):
    machine.pci("0002:20:00.1", "177d:a0f3", "vfio-pci", group=30)
    run(machine, "bind", "0002:20:00.1", VF0)
    run(machine, "undo")
    assert machine.driver_of("0002:20:00.1") == "vfio-pci" and machine.driver_of(VF0) == "rvu_nicvf"


def test_the_management_wire_is_never_touched(machine):
    for more in ([], ["--force"]):
        out = run(machine, *more, "bind", VF0, MANAGEMENT, status=1)
        assert "the wire over which the DPU is managed" in out
    # All are looked at before the first one is touched.
    assert not machine.writes()
    assert f"{MANAGEMENT} 177d:a0f7 rvu_nicvf sdp0 (management wire, stays with the kernel)" in run(machine, "status")


def test_an_interface_that_is_up(machine):
    assert "its interface sdp2 is up" in run(machine, "bind", VF1, status=1)
    run(machine, "--force", "bind", VF1)
    assert machine.driver_of(VF1) == "vfio-pci"


def test_without_iommu(machine):
    assert "it has no IOMMU group" in run(machine, "bind", "0000:00:1f.0", status=1)
    machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n")
    run(machine, "--no-iommu", "bind", "0000:00:1f.0")
    assert "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode 1" in machine.writes()
    run(machine, "undo")
    assert machine.driver_of("0000:00:1f.0") is None
    assert machine.read("sys/module/vfio/parameters/enable_unsafe_noiommu_mode") == "N"
    assert "Nothing was changed." in run(machine, "undo")


def test_a_group_is_a_whole(machine):
    machine.pci("0002:02:00.1", "177d:a063", "rvu_nicpf", group=5)
    assert "0002:02:00.1 is in the same IOMMU group (5) and bound to rvu_nicpf" in run(machine, "bind", UPLINK)


def test_dry_run_writes_nothing(machine):
    out = run(machine, "--dry-run", "bind", UPLINK)
    assert f"would write 'vfio-pci' to /sys/bus/pci/devices/{UPLINK}/driver_override" in out
    assert not machine.writes() and not (machine.root / "run").exists()
    run(machine, "bind", UPLINK)
    before = machine.writes()
    assert f"would write '{UPLINK}' to /sys/bus/pci/drivers/rvu_nicpf/bind" in run(machine, "--dry-run", "undo")
    assert machine.writes() == before and machine.driver_of(UPLINK) == "vfio-pci"


def test_a_driver_that_does_not_take_it(machine):
    (machine.root / "refuses").write_text(f"vfio-pci {VF0}\n")
    out = run(machine, "bind", UPLINK, VF0, status=1)
    assert f"{VF0}: the kernel does not bind it to vfio-pci; it is as it was" in out
    assert machine.driver_of(VF0) == "rvu_nicvf"
    # What was bound before that can be undone.
    assert machine.driver_of(UPLINK) == "vfio-pci"
    run(machine, "undo")
    assert machine.driver_of(UPLINK) == "rvu_nicpf"


def test_what_was_left_without_driver_is_given_back(machine):
    (machine.root / "refuses").write_text(f"vfio-pci {VF0}\nrvu_nicvf {VF0}\n")
    assert "nor give it back to rvu_nicvf" in run(machine, "bind", VF0, status=1)
    assert machine.driver_of(VF0) is None
    # The kernel has changed its mind.
    (machine.root / "refuses").unlink()
    assert f"{VF0}: rvu_nicvf again" in run(machine, "undo")
    assert machine.driver_of(VF0) == "rvu_nicvf"
    assert machine.read(f"sys/bus/pci/devices/{VF0}/driver_override") == "(null)"


def test_a_run_that_was_ended_before_it_did_anything_is_undone(machine):
    run(machine, "bind", VF0)
    state = (machine.root / "run/octoplane-devices/vfio").read_text()
    run(machine, "undo")
    # As if it had been ended after its first two steps.
    (machine.root / "run/octoplane-devices/vfio").write_text(state)
    machine.write(f"sys/bus/pci/devices/{VF0}/driver_override", "vfio-pci\n")
    run(machine, "undo")
    assert machine.driver_of(VF0) == "rvu_nicvf"
    assert machine.read(f"sys/bus/pci/devices/{VF0}/driver_override") == "(null)"


def test_what_somebody_else_bound_stays(machine):
    run(machine, "bind", VF0)
    link = machine.root / f"sys/bus/pci/devices/{VF0}/driver"
    link.unlink()
    machine.driver("uio_pci_generic")
    link.symlink_to(machine.root / "sys/bus/pci/drivers/uio_pci_generic")
    assert "somebody else has bound it to uio_pci_generic" in run(machine, "undo")
    assert machine.driver_of(VF0) == "uio_pci_generic"


@pytest.mark.parametrize("address, said", [
    ("02:00.0", "expected a PCI address with its domain"), ("0002:02:00.8", "expected a PCI address"),
    ("0002:03:00.0", "there is no such function"), ("../../x", "expected a PCI address"),
])
def test_what_cannot_be(machine, address, said):
    assert said in run(machine, "bind", address, status=1)
    assert not machine.writes()
