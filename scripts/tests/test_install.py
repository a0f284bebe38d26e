"""scripts/lib/install.sh, for a machine that has nothing yet."""

import os
import shutil
import subprocess
from pathlib import Path

LIB = Path(__file__).resolve().parents[1] / "lib"


def machine(tmp_path, **programs):
    """A PATH with what every Debian has, and these; and a home without anything."""
    programs_of_debian = tmp_path / "bin"
    programs_of_debian.mkdir()
    for name in ("bash", "sh", "cut", "sort", "head", "grep", "cat", "mkdir", "touch", "dirname", "readlink", "sed"):
        (programs_of_debian / name).symlink_to(shutil.which(name))
    for name, text in programs.items():
        file = programs_of_debian / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": str(programs_of_debian), "HOME": str(home)}


def install(environment):
    script = f"set -euo pipefail; root={LIB.parents[1]}; . {LIB}/install.sh; install_rust; echo done"
    return subprocess.run([shutil.which("bash"), "-c", script], env=environment, capture_output=True, text=True)


# What rustup's script would be, and what it leaves.
RUSTUP = """echo 'mkdir -p "$HOME/.cargo"; touch "$HOME/.cargo/env" "$HOME/installed"'"""


def test_without_rust_it_is_installed(tmp_path):
    for rust in {}, {"rustc": "echo 'error: no default toolchain' >&2; exit 1"}, {"rustc": "echo 'rustc 1.2.3 (0 2015-01-01)'"}:
        place = tmp_path / str(len(os.listdir(tmp_path)))
        place.mkdir()
        environment = machine(place, curl=RUSTUP, dpkg_query="printf installed", apt_get="exit 1", **rust)
        result = install(environment)
        assert result.returncode == 0 and result.stdout.endswith("done\n"), result.stdout + result.stderr
        assert "installing a toolchain" in result.stdout
        assert (Path(environment["HOME"]) / "installed").exists()


def test_rust_that_will_do_is_left_alone(tmp_path):
    environment = machine(tmp_path, rustc="echo 'rustc 99.0.0 (0 2099-01-01)'")
    result = install(environment)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
