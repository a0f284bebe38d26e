# shellcheck disable=SC1091,SC2154,SC2034
# What the scripts need from the machine, and how they get it. Sourced, not run.
# shellcheck shell=bash

# Least Rust version, as in Cargo.toml.
rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" -eq 0 ] || fail "run this as root: it makes network namespaces and opens packet sockets"
}

# Installs the Debian packages that are missing.
install_packages() {
    command -v apt-get >/dev/null || fail "this needs Debian's apt-get; on another system install: $*"
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "Installing ${missing[*]}"
    apt-get update -qq || fail "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get install ${missing[*]} failed"
}

# Makes sure there is a Rust toolchain of the least version; gets one through rustup if there is none.
install_rust() {
    [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    local have
    # That there is none is no failure.
    have=$(rustc --version 2>/dev/null | cut -d' ' -f2) || have=
    if [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$rust_version" "$have" | sort -V | head -1)" = "$rust_version" ]; then
        return 0
    fi
    say "Rust ${have:-is missing}${have:+ is older than $rust_version}: installing a toolchain for this user through rustup (https://rustup.rs)"
    install_packages curl ca-certificates
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y -q --profile minimal --component clippy --component rustfmt --default-toolchain stable ||
        fail "rustup failed; install Rust $rust_version or newer and run this again"
    . "$HOME/.cargo/env"
}

# What building takes.
build_packages=(build-essential pkg-config libdpdk-dev dpdk libclang-dev clang protobuf-compiler)
