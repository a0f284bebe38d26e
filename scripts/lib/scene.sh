# shellcheck disable=SC2154
# The scene: who may land on the death star. Sourced after lab.sh, not run.
# shellcheck shell=bash

landing=/v1/request-landing

start_deathstars() {
    local name
    for name in deathstar-1 deathstar-2; do
        ip netns exec "$ns-$name" /usr/bin/env python3 scripts/lib/deathstar.py "$name" >"$state/$name.log" 2>&1 &
        wait_for 10 listens "$name" || fail "$name: $(cat "$state/$name.log")"
    done
}

listens() { inside "$1" ss -ltnH 'sport = :80' | grep -q .; }

# One POST from a pod to an address; prints the answer.
land() { # pod address
    inside "$1" curl -sS --max-time 2 -X POST "http://$2$landing"
}

# Posts until both death stars have answered: each connection goes to one of the two by chance.
land_on_both() { # pod address
    local answer seen=
    for _ in $(seq 40); do
        answer=$(land "$1" "$2") || return 1
        say "$answer"
        matches "$answer" '^Ship landed on deathstar-[12]$' || return 1
        seen="$seen $answer"
        if matches "$seen" 'deathstar-1' && matches "$seen" 'deathstar-2'; then return 0; fi
    done
    return 1
}

# Whether no connection comes about from a space to an address: curl's status 28 is a timeout.
cannot_land() { # space address
    local status=0
    inside "$1" curl -sS --max-time 1 -X POST "http://$2$landing" || status=$?
    [ "$status" -eq 28 ]
}

# Packets that a node's policies refused (drop code 133).
refused_by_policy() { # node
    ask "$1" -o json drops |
        python3 -c 'import json, sys; print(sum(d["packets"] for d in json.load(sys.stdin) if d["code"] == 133))'
}

scene() {
    local before after address
    start_deathstars
    for address in 10.96.0.10 '[fd96::10]'; do
        printf 'tiefighter$ curl -X POST http://%s%s\n' "$address" "$landing"
        check "tiefighter may land, on either death star" land_on_both tiefighter "$address"
    done
    before=$(($(refused_by_policy node1) + $(refused_by_policy node2)))
    for address in 10.96.0.10 '[fd96::10]' 10.200.1.2 10.200.2.2; do
        printf 'xwing$ curl -X POST http://%s%s\n' "$address" "$landing"
        check "xwing may not" cannot_land xwing "$address"
    done
    printf 'outside$ curl -X POST http://10.200.1.2%s\n' "$landing"
    check "nor may anybody from outside" cannot_land outside 10.200.1.2
    after=$(($(refused_by_policy node1) + $(refused_by_policy node2)))
    check "it is policy that refused them ($((after - before)) packets)" test "$after" -gt "$before"
    check "tiefighter still may" land_on_both tiefighter 10.96.0.10
}
