# shellcheck disable=SC2034
# How scripts/hugepages and scripts/vfio look at the machine and change it. Sourced, not run.
# shellcheck shell=bash

# Before everything: "" is this machine. Another directory stands for one in tests; if it has an executable "kernel", that is
# called with path and value after each write, and does what a kernel would do.
root=
dry_run=false
state=

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Options that both scripts have; what is left over is in "rest".
read_options() { # default-state-file arguments...
    local default=$1
    shift
    rest=()
    while [ $# -gt 0 ]; do
        case "$1" in
            --root) root=${2:?"--root needs a directory"}; shift ;;
            --state) state=${2:?"--state needs a file"}; shift ;;
            --dry-run) dry_run=true ;;
            -h | --help) usage; exit 0 ;;
            --*) extra_option "$1" || fail "unknown option $1; --help says what there is" ;;
            *) rest+=("$1") ;;
        esac
        shift
    done
    root=${root%/}
    state=${state:-$root$default}
}

need_root() {
    [ -n "$root" ] || $dry_run || [ "$(id -u)" -eq 0 ] || fail "run this as root, or with --dry-run"
}

# One at a time: two that write the same files would undo each other's work.
lock() {
    $dry_run && return
    mkdir -p "$(dirname "$state")"
    exec 9>"$state.lock"
    flock -w 30 9 || fail "$state.lock: another run does not end"
}

# Writes to a file of the kernel, without the root before its path.
put() { # path value
    if $dry_run; then
        say "would write '$2' to $1"
        return 0
    fi
    # The kernel says no in the shell's own words.
    if ! { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null; then return 1; fi
    if [ -n "$root" ] && [ -x "$root/kernel" ]; then "$root/kernel" "$1" "$2"; fi
}

# Lines of the state file are fields with tabs between them, the first one being the key.
recorded() { # key
    [ -e "$state" ] && awk -F '\t' -v key="$1" '$1 == key { found = 1; print } END { exit !found }' "$state"
}

# Adds a line, or changes that with the same key. Never half of it: a new file takes the old one's place.
record() { # key fields...
    $dry_run && return 0
    local line=$1 field
    for field in "${@:2}"; do line+=$'\t'$field; done
    { if [ -e "$state" ]; then awk -F '\t' -v key="$1" '$1 != key' "$state"; fi; printf '%s\n' "$line"; } >"$state.new"
    mv "$state.new" "$state"
}

forget() { # key
    $dry_run && return 0
    [ -e "$state" ] || return 0
    awk -F '\t' -v key="$1" '$1 != key' "$state" >"$state.new"
    mv "$state.new" "$state"
    [ -s "$state" ] || rm -f "$state"
}
