"""A directory that stands for a machine: its sysfs, and a kernel that does what is written to it."""

import os
from pathlib import Path

# Called with a path and a value after each write: what Linux would do then.
KERNEL = '''#!/usr/bin/python3
import os, sys
from pathlib import Path
root = Path(__file__).resolve().parent
path, value = sys.argv[1:]
def at(path): return root / path.lstrip("/")
with open(root / "writes", "a") as log: log.write(f"{path} {value}\\n")
drivers, devices = at("/sys/bus/pci/drivers"), at("/sys/bus/pci/devices")
def attach(address, driver):
    link = devices / address / "driver"
    # What the driver's probe function refuses.
    if (root / "refuses").exists() and f"{driver} {address}" in (root / "refuses").read_text(): sys.exit(0)
    if not link.is_symlink(): link.symlink_to(drivers / driver)
parts = Path(path).parts
if path.endswith("/nr_hugepages"):
    most = at(str(Path(path).parent / "most"))
    compacted = (root / "compacted").exists()
    limit = int(most.read_text().split()[1 if compacted else 0]) if most.exists() else 10**9
    at(path).write_text(f"{min(int(value), limit)}\\n")
elif path.endswith("/compact_memory"):
    (root / "compacted").write_text("")
elif path.endswith("/driver_override"):
    at(path).write_text(f"{value}\\n" if value else "(null)\\n")
elif path.endswith("/unbind"):
    (devices / value / "driver").unlink()
elif path.endswith("/drivers_probe"):
    override = (devices / value / "driver_override").read_text().strip()
    native = (devices / value / "native").read_text().strip()
    attach(value, override if override != "(null)" else native)
elif path.endswith("/bind"):
    attach(value, parts[-2])
'''


class Machine:
    def __init__(self, root):
        self.root = Path(root)
        self.write("sys/bus/pci/drivers_probe", "")
        kernel = self.root / "kernel"
        kernel.write_text(KERNEL)
        kernel.chmod(0o755)
        self.driver("vfio-pci")

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path):
        return (self.root / path).read_text().strip()

    def driver(self, name):
        for file in ("bind", "unbind"):
            self.write(f"sys/bus/pci/drivers/{name}/{file}", "")

    def pci(self, address, identity, driver=None, group=None, interface=None, up=False):
        """A function; without `group` it has no IOMMU."""
        directory = f"sys/bus/pci/devices/{address}"
        vendor, device = identity.split(":")
        self.write(f"{directory}/vendor", f"0x{vendor}\n")
        self.write(f"{directory}/device", f"0x{device}\n")
        self.write(f"{directory}/driver_override", "(null)\n")
        self.write(f"{directory}/native", driver or "")
        if driver:
            self.driver(driver)
            (self.root / directory / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)
        if interface:
            self.write(f"{directory}/net/{interface}/flags", "0x1003\n" if up else "0x1002\n")
        if group is not None:
            place = self.root / f"sys/kernel/iommu_groups/{group}"
            (place / "devices").mkdir(parents=True, exist_ok=True)
            (place / "devices" / address).symlink_to(self.root / directory)
            (self.root / directory / "iommu_group").symlink_to(place)

    def driver_of(self, address):
        link = self.root / f"sys/bus/pci/devices/{address}/driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def hugepages(self, kib, now, most=None, node=None):
        """`most` is what the kernel finds, at first and once memory was put together."""
        place = f"sys/devices/system/node/node{node}/hugepages" if node is not None else "sys/kernel/mm/hugepages"
        directory = f"{place}/hugepages-{kib}kB"
        self.write(f"{directory}/nr_hugepages", f"{now}\n")
        self.write(f"{directory}/free_hugepages", f"{now}\n")
        if most:
            self.write(f"{directory}/most", "{} {}\n".format(*most))
        self.write("proc/sys/vm/compact_memory", "")
        return f"{directory}/nr_hugepages"

    def writes(self):
        """What was written to the kernel, in order."""
        log = self.root / "writes"
        return log.read_text().splitlines() if log.exists() else []
