# shellcheck disable=SC2154,SC2034
# What is seen on the network between the nodes. Sourced after lab.sh, not run.
# shellcheck shell=bash

# How the nodes protect what is between them. For each word X there is a function expect_on_underlay_X.
protection=none

# The configuration of encryption, with one key for all nodes, which is made with the first.
ipsec_section() { # node
    local keys=$state/ipsec.keys
    [ -e "$keys" ] || (umask 077 && printf '3+ rfc4106(gcm(aes)) %s 128\n' \
        "$(od -An -v -tx1 -N20 /dev/urandom | tr -d ' \n')" >"$keys")
    printf '\n[ipsec]\nkey_file = "%s"\ndirectory = "%s"\nstrict = true\n' "$keys" "$state/$1.ipsec"
}

# Tells one node of another, as the agent of a cluster would.
introduce() { # node other address
    local key boot
    key=$(ask "$2" -o json ipsec status | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])')
    boot=$(ask "$2" -o json ipsec status | python3 -c 'import json, sys; print(json.load(sys.stdin)["boot_id"])')
    octoctl "$1" ipsec node add "$3" --key "$key" --boot-id "$boot"
}

start_capture() {
    # The bridge's port to node 1 sees all of its packets, as the kernel and not as the data plane sees them.
    ip netns exec "$ns-underlay" tcpdump -i node1 -Z root -U --immediate-mode -s 256 -w "$state/underlay.pcap" \
        2>"$state/tcpdump.log" &
    capture=$!
    wait_for 10 grep -q 'listening on' "$state/tcpdump.log" || fail "tcpdump: $(cat "$state/tcpdump.log")"
}

stop_capture() {
    # What was sent last may be on its way yet.
    sleep 0.5
    kill -INT "$capture"
    wait "$capture"
    # VXLAN is told from other things on that port by us: tcpdump would take 8472 for OTV.
    tcpdump -r "$state/underlay.pcap" -nn -t -T vxlan udp port 8472 2>/dev/null >"$state/vxlan.txt"
    tcpdump -r "$state/underlay.pcap" -nn -t 'not udp port 8472 and (src net 10.200.0.0/16 or src net fd00:200::/32)' \
        2>/dev/null >"$state/plain.txt"
    tcpdump -r "$state/underlay.pcap" -nn -t esp 2>/dev/null >"$state/esp.txt"
    # A packet takes two lines, the outer and the inner one: make it one.
    sed -i -z 's/\n\(IP6\? [^\n]*VXLAN\)/\n\n\1/g; s/\n\([^\n]\)/ \1/g; s/\n\n*/\n/g' "$state/vxlan.txt"
}

# Packets in the tunnel: from node, to node, VNI, inner source, inner destination (regular expressions).
in_tunnel() { # from to VNI source destination
    grep -Ec "^ ?IP 192\.0\.2\.$1\.[0-9]+ > 192\.0\.2\.$2\.8472: VXLAN, flags \[I\] \(0x08\), vni $3 .*IP6? $4 > $5:" \
        "$state/vxlan.txt" || true
}


expect_on_underlay_none() {
    local there back refused answered
    there=$(in_tunnel 1 2 10001 '10\.200\.1\.1\.[0-9]+' '10\.200\.2\.2\.80')
    back=$(in_tunnel 2 1 10003 '10\.200\.2\.2\.80' '10\.200\.1\.1\.[0-9]+')
    refused=$(in_tunnel 2 1 10002 '10\.200\.2\.1\.[0-9]+' '10\.200\.1\.2\.80')
    answered=$(in_tunnel 1 2 '[0-9]+' '10\.200\.1\.2\.80' '10\.200\.2\.1\.[0-9]+')
    say "tiefighter -> deathstar-2: $there packets, VNI 10001, which is tiefighter's identity. One of them:"
    # None is what the check is about.
    { grep -m 1 'vni 10001 .*2\.2\.80' "$state/vxlan.txt" || true; } | fold -s -w 118 | sed 's/^/    /'
    check "tiefighter's requests are in VXLAN with its identity as VNI" test "$there" -gt 0
    check "deathstar-2's answers ($back packets) are in VXLAN with VNI 10003, its identity" test "$back" -gt 0
    check "xwing's attempts ($refused packets, VNI 10002) reached node 1 and had no answer" \
        test "$refused" -gt 0 -a "$answered" -eq 0
    check "IPv6 is in the tunnel, too" \
        test "$(in_tunnel 1 2 10001 'fd00:200:1::1\.[0-9]+' 'fd00:200:2::2\.80')" -gt 0
    check "between the two nodes no pod's packet went outside a tunnel" test ! -s "$state/plain.txt"
}

expect_on_underlay_ipsec() {
    local there back
    there=$(grep -c '^IP 192\.0\.2\.1 > 192\.0\.2\.2: ESP(spi=0x00000003' "$state/esp.txt" || true)
    back=$(grep -c '^IP 192\.0\.2\.2 > 192\.0\.2\.1: ESP(spi=0x00000003' "$state/esp.txt" || true)
    say "The tunnel packets are the payload of ESP between the nodes: $there packets there, $back back. Some of them:"
    head -n 3 "$state/esp.txt" | sed 's/^/    /'
    check "the nodes exchanged ESP, with the key's number as SPI" test "$there" -gt 0 -a "$back" -gt 0
    check "there was no VXLAN in the clear" test ! -s "$state/vxlan.txt"
    check "between the two nodes no pod's packet was to be seen" test ! -s "$state/plain.txt"
    octoctl node1 ipsec sa list
    octoctl node1 ipsec counters
}
