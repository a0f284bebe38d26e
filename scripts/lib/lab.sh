# shellcheck disable=SC1091,SC2154,SC2034
# The network of scripts/quickstart: namespaces, cables and daemons. Sourced after show.sh, not run.
# shellcheck shell=bash
#
#   tiefighter   deathstar-1        xwing   deathstar-2       pods: a namespace each, with a kernel's network stack
#        |            |               |          |
#      [node1: octoplaned]          [node2: octoplaned]       nodes: a namespace each, with a daemon
#               | uplink                    | uplink
#          [underlay: a bridge, the network between the nodes] -- outside

# Both can be set from outside, so that tests can run it beside another one, and with mistakes built in.
ns=${OCTOPLANE_DEMO:-octo-demo}
config=${OCTOPLANE_DEMO_CONFIG:-config/quickstart}
state=/run/$ns
declare -A daemons
nodes=(node1 node2)
pods=(tiefighter deathstar-1 xwing deathstar-2)
spaces=("${nodes[@]}" "${pods[@]}" underlay outside)

# Runs a command in a namespace.
inside() { local name=$1; shift; ip netns exec "$ns-$name" "$@"; }
show_inside() { local name=$1; shift; printf '%s$ %s\n' "$name" "$*"; inside "$name" "$@"; }

make_spaces() {
    local name
    for name in "${spaces[@]}"; do
        ip netns add "$ns-$name"
        inside "$name" ip link set lo up
    done
    for name in "${nodes[@]}"; do
        # The kernel must not forward what the data plane forwards.
        inside "$name" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.disable_ipv6=1 \
            net.ipv6.conf.default.disable_ipv6=1
    done
    inside underlay sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    inside underlay ip link add underlay0 mtu 1600 type bridge
    inside underlay ip link set underlay0 up
}

# A cable (veth pair): one end lies in a node or in the underlay, the other is what somebody else calls theirs.
cable() { # space interface other-space other-interface MTU
    ip link add "$2" netns "$ns-$1" mtu "$5" type veth peer name "$4" netns "$ns-$3" mtu "$5"
    inside "$1" ip link set "$2" up
    inside "$3" ip link set "$4" up
    # A packet socket sees what the sender left for a network card to do: let the kernel do it.
    inside "$3" ethtool -K "$4" tx off >/dev/null
    inside "$1" ethtool -K "$2" gro off >/dev/null
}

make_pod() { # node name number-of-node number-of-pod
    cable "$1" "$2" "$2" eth0 1500
    inside "$2" ip link set eth0 address "02:00:00:00:0$3:0$4"
    inside "$2" ip address add "10.200.$3.$4/32" dev eth0
    inside "$2" ip -6 address add "fd00:200:$3::$4/128" dev eth0 nodad
    inside "$2" ip route add 169.254.1.1 dev eth0 scope link
    inside "$2" ip route add default via 169.254.1.1 dev eth0
    inside "$2" ip -6 route add default via fe80::1 dev eth0
}

# Connects a space to the network between the nodes.
plug_in() { # space interface
    cable underlay "$1" "$1" "$2" 1600
    inside underlay ip link set "$1" master underlay0
}

make_network() {
    make_spaces
    make_pod node1 tiefighter 1 1
    make_pod node1 deathstar-1 1 2
    make_pod node2 xwing 2 1
    make_pod node2 deathstar-2 2 2
    plug_in node1 uplink
    plug_in node2 uplink
    plug_in outside eth0
    inside outside ip address add 192.0.2.254/24 dev eth0
    inside outside ip -6 address add 2001:db8::fe/64 dev eth0 nodad
    # What is outside knows no tunnel: it sends to a pod through its node.
    local number
    for number in 1 2; do
        inside outside ip route add "10.200.$number.0/24" via "192.0.2.$number"
        inside outside ip -6 route add "fd00:200:$number::/64" via "2001:db8::$number"
    done
}

socket_of() { printf '%s/%s.sock' "$state" "$1"; }
# octoctl to a node, quietly.
ask() { local node=$1; shift; "$bin/octoctl" --socket "$(socket_of "$node")" "$@"; }
# octoctl to a node, shown.
octoctl() { printf '%s$ octoctl %s\n' "$1" "${*:2}"; ask "$@"; }

# CPUs of the node with a number (0 or 1): half of ours each, so that one does not take the other's time.
cpus_of() {
    local all half
    mapfile -t all < <(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')
    half=$((${#all[@]} / 2))
    [ "$half" -gt 0 ] || { echo "${all[0]}"; return; }
    (IFS=,; echo "${all[*]:$(($1 * half)):half}")
}

start_daemon() { # node number
    local node=$1
    sed -e "s/net_af_packet/$driver/" -e "s|/run/octoplane/$node.sock|$(socket_of "$node")|" \
        "$config/$node.toml" >"$state/$node.toml"
    if [ "$protection" = ipsec ]; then ipsec_section "$node" >>"$state/$node.toml"; fi
    ip netns exec "$ns-$node" taskset -c "$(cpus_of "$2")" \
        "$bin/octoplaned" --config "$state/$node.toml" >"$state/$node.log" 2>&1 &
    daemons["$node"]=$!
    wait_for 20 ask "$node" status || fail "the daemon of $node does not answer"
}

# Ends one daemon in order; its exit status says whether it was.
stop_daemon() { # node
    local pid=${daemons[$1]}
    kill -TERM "$pid"
    wait "$pid"
}

# What the daemons said last, apart from the libraries' talk, and what they dropped.
tell_state() {
    local node
    for node in "${nodes[@]}"; do
        [ -r "$state/$node.log" ] || continue
        printf '%s:\n' "$node"
        { grep -v '^lib' "$state/$node.log" || true; } | tail -n 20
        ask "$node" drops || true
    done
}

any_left() {
    [ -e "$state" ] || ip netns list | grep -q "^$ns-"
}

# Ends what runs in the namespaces, and these, and removes what was written down. It may be called at any time.
stop_all() {
    local name pids
    for signal in TERM KILL; do
        pids=$(for name in "${spaces[@]}"; do ip netns pids "$ns-$name" 2>/dev/null || true; done)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086
        kill -"$signal" $pids 2>/dev/null || true
        # Two seconds are plenty for an ordered stop.
        for _ in $(seq 20); do
            # shellcheck disable=SC2086
            kill -0 $pids 2>/dev/null || break
            sleep 0.1
        done
    done
    for name in "${spaces[@]}"; do
        ip netns del "$ns-$name" 2>/dev/null || true
    done
    rm -rf "$state"
}
