# How a demonstration speaks and checks what it says. Sourced after install.sh, not run.
# shellcheck shell=bash

step() { printf '\n== %s\n' "$*"; }

# Runs a command and shows how it is called.
show() { printf '$ %s\n' "$*"; "$@"; }

# Checks a claim: prints it, and ends everything if the command says that it is not so.
check() { # claim command...
    local claim=$1
    shift
    if "$@"; then
        printf '   [checked] %s\n' "$claim"
    else
        fail "it is not so that $claim"
    fi
}

# Whether a text matches an extended regular expression.
matches() { # text expression
    grep -Eq -- "$2" <<<"$1"
}

# Waits until a command succeeds, at most so many seconds.
wait_for() { # seconds command...
    local tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}
