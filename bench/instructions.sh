#!/bin/sh
# Instructions that the engine spends on a packet, counted by callgrind and compared with bench/instructions.json.
#
#   bench/instructions.sh            fail if any figure is more than 5 % above the recorded one
#   bench/instructions.sh --record   record the figures
#
# Counting twice and taking the difference leaves out everything that happens once; the harness's own loop, counted the
# same way, is subtracted.
set -eu

cd "$(dirname "$0")/.."
few=16000
many=80000

if ! command -v valgrind >/dev/null; then
    echo "instructions.sh: SKIPPED: valgrind is not installed" >&2
    exit 0
fi

cargo build --quiet --locked --release -p octobench
octobench="${CARGO_TARGET_DIR:-target}/release/octobench"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# Instructions that the whole process executes for $2 packets of case $1.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.out" \
        "$octobench" instructions --case "$1" --packets "$2" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        return 1
    }
    sed -n 's/^.*Collected *: *\([0-9]*\).*$/\1/p' "$work/log"
}

# Instructions per packet of case $1, in tenths.
per_packet() {
    high=$(count "$1" "$many")
    low=$(count "$1" "$few")
    echo $(((high - low) * 10 / (many - few)))
}

bare=$(per_packet bare)
for case in pod-to-pod4 uplink4 uplink6 pod-to-service4 pod-to-service6 from-tunnel4 from-tunnel6 new-connection4; do
    tenths=$(($(per_packet "$case") - bare))
    echo "$case $tenths"
done >"$work/figures"

# Counts differ between architectures: each has its own baseline.
baseline=bench/instructions.json
python3 - "$baseline" "$(uname -m)" "$work/figures" "${1:-}" <<'END'
import json
import sys

path, machine, figures, option = sys.argv[1:]
with open(figures, encoding="utf-8") as file:
    measured = {case: int(tenths) / 10 for case, tenths in map(str.split, file)}
try:
    with open(path, encoding="utf-8") as file:
        recorded = json.load(file)
except FileNotFoundError:
    recorded = {}
if option == "--record":
    recorded[machine] = measured
    with open(path, "w", encoding="utf-8") as file:
        json.dump(recorded, file, indent=2, sort_keys=True)
        file.write("\n")
failed = False
for case, figure in measured.items():
    old = recorded.get(machine, {}).get(case)
    if old is None:
        print(f"{case}: {figure} instructions per packet, nothing recorded for {machine}")
        continue
    change = 100 * (figure / old - 1)
    worse = change > 5
    failed |= worse
    print(f"{case}: {figure} instructions per packet, recorded {old} ({change:+.1f} %)" + (" TOO MANY" * worse))
sys.exit(failed)
END
