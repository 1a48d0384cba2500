#!/usr/bin/env bash
# Runs a suite while snapshots of the mount are taken and destroyed.
#   scripts/posix/with-snapshots.sh MOUNTPOINT SUITE [ARGUMENT...]
# FIRN_BIN is the firn that mounted it (default: firn), SNAPSHOT_PAUSE the seconds between two
# snapshots (default 1). Passes when the suite does and every snapshot was taken and destroyed.
. "$(dirname "$0")/common.sh"
dir=${1:?usage: $0 MOUNTPOINT SUITE [ARGUMENT...]}
shift
[ $# -gt 0 ] || { echo "usage: $0 MOUNTPOINT SUITE [ARGUMENT...]" >&2; exit 2; }
firn=${FIRN_BIN:-firn} pause=${SNAPSHOT_PAUSE:-1}
FIRN_POSIX_ANY_DIRECTORY='' require_mounted "$dir"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
touch "$scratch/goes-on"

# Three at a time, so that what is swept lies between others.
come_and_go() {
    local number=0
    while [ -e "$scratch/goes-on" ]; do
        number=$((number + 1))
        "$firn" snapshot create "$dir@suite-$number"
        [ $number -le 3 ] || "$firn" snapshot destroy "$dir@suite-$((number - 3))"
        echo $number >"$scratch/taken"
        sleep "$pause"
    done
    "$firn" snapshot destroy "$dir@suite-$((number > 2 ? number - 2 : 1))%suite-$number"
}

come_and_go >"$scratch/output" 2>&1 &
snapshots=$!
status=0
"$@" || status=$?
rm "$scratch/goes-on"
wait $snapshots || { cat "$scratch/output" >&2; echo "a snapshot failed" >&2; exit 1; }
echo "snapshots: $(cat "$scratch/taken") came and went"
exit $status
