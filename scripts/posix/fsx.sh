#!/usr/bin/env bash
# fsx: random operations on one file, each read compared with what must be there.
#   scripts/posix/fsx.sh MOUNTPOINT [SEED...]
# Passes when every seed ends with all operations right.
. "$(dirname "$0")/common.sh"
dir=${1:?usage: $0 MOUNTPOINT [SEED...]}
shift
[ $# -gt 0 ] || set -- 1 7 42 1913 86028157
operations=${FSX_OPERATIONS:-20000}
require_mounted "$dir"
cargo_tool fsx 0.3.2

work_below "$dir"
cat >"$scratch/fsx.toml" <<'SETTINGS'
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 2
invalidate = 1
mapread = 5
mapwrite = 5
read = 10
write = 10
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 2
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
SETTINGS

# One at a time would mostly wait for the disk; together they also share the file system's work.
run() {
    local seed=$1
    if ! fsx -q -f "$scratch/fsx.toml" -S "$seed" -N "$operations" -P "$scratch" "$work/file-$seed" \
        >"$scratch/output-$seed" 2>&1 ||
        ! grep -q 'All operations completed A-OK' "$scratch/output-$seed"; then
        tail -n 60 "$scratch/output-$seed"
        echo "fsx failed with seed $seed" >&2
        return 1
    fi
    echo "fsx: seed $seed: $operations operations right"
}

runs=()
for seed; do
    run "$seed" &
    runs+=($!)
done
status=0
for pid in "${runs[@]}"; do
    wait "$pid" || status=1
done
exit $status
