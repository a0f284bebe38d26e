"""Loads kernel modules of user-mode-linux by name, with what they depend on. There need be no modprobe on the machine."""

import ctypes
import errno
import os
import sys

FINIT_MODULE = {"x86_64": 313, "aarch64": 273}[os.uname().machine]
BASE = f"/usr/lib/uml/modules/{os.uname().release}/"

libc = ctypes.CDLL(None, use_errno=True)
with open(BASE + "modules.dep") as file:
    dependencies = dict(line.rstrip("\n").split(":") for line in file)
paths = {os.path.basename(path)[:-3].replace("-", "_"): path for path in dependencies}
loaded = set()


def load(path):
    if path in loaded:
        return
    loaded.add(path)
    for dependency in reversed(dependencies[path].split()):
        load(dependency)
    module = os.open(BASE + path, os.O_RDONLY)
    if libc.syscall(FINIT_MODULE, module, b"", 0) and ctypes.get_errno() != errno.EEXIST:
        sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
    os.close(module)


for name in sys.argv[1:]:
    load(paths[name])
