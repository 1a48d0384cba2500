#!/usr/bin/env bash
# Firn beside the directory it lies on: the same work on both, in turns, as a table and as JSON.
#   scripts/bench.sh [--quick] [--json FILE] [--against FILE] [--tolerance PERCENT] [--rows REGEX] [--dir DIR]
#     --quick        smaller files and fewer of them, for a first impression
#     --json FILE    where the results go (default <target>/bench.json, with --quick bench-quick.json)
#     --against FILE compare with earlier results; exit status 1 when a row is worse
#     --tolerance P  worse means: by more than P percent (default 15)
#     --rows REGEX   only the groups whose name matches: stream random small processes tree fsync
#                    thawed snapshots compression cold watching protection cost
#     --dir DIR      work below DIR, on the filesystem to compare with (default <target>)
# SCIDATA names a tree whose folders are compressed (default ../shared/scidata beside the project),
# FIRN_BIN an already built firn, FIRN_S3_DIR the directory of an already built firn-s3-server and
# firn-s3-client; in the rows about the cold tier that client, which makes plain ranged requests of
# the same server, stands in the place of the directory below. Dropping caches for the cold rows needs root; they are left out
# without it. Every row is the median of three runs; a run on one side is followed by the same run
# on the other, and the side that begins alternates.
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
target=${CARGO_TARGET_DIR:-$project/target}

quick=false json='' against='' tolerance=15 groups=. base=$target
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=true; shift ;;
        --json | --against | --tolerance | --rows | --dir)
            [ $# -ge 2 ] || { echo "bench.sh: $1 needs a value" >&2; exit 2; }
            case $1 in
                --json) json=$(realpath -m "$2") ;;
                --against) against=$(realpath -m "$2") ;;
                --tolerance) tolerance=$2 ;;
                --rows) groups=$2 ;;
                --dir) base=$(realpath -m "$2") ;;
            esac
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "bench.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
done
if [ -n "$against" ] && [ ! -r "$against" ]; then
    echo "bench.sh: cannot read $against" >&2
    exit 2
fi
scidata=${SCIDATA:-$project/../shared/scidata}

rounds=3 label=bench stream_mib=2048 random_mib=256 small_files=20000 tree_files=10000 fsyncs=500
snapshot_files=1000000
cold_mib=1024 cold_reads=2000 watch_rounds=7
if $quick; then
    label=bench-quick stream_mib=256 random_mib=32 small_files=2000 tree_files=1000 fsyncs=100
    snapshot_files=20000 cold_mib=256 cold_reads=300 watch_rounds=3
fi
json=${json:-$target/$label.json}

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

# ---- the two sides -------------------------------------------------------------------------

"$project/scripts/install-deps.sh" bench
firn=${FIRN_BIN:-}
if [ -z "$firn" ]; then
    "$project/scripts/install-deps.sh" build
    cargo build --release -p firn
    firn=$target/release/firn
fi

mkdir -p "$base" "$(dirname "$json")"
work=$(mktemp -d "$base/firn-bench.XXXXXX")
mountpoint=$work/mountpoint few_mountpoint=$work/few-mountpoint plain=$work/plain results=$work/results.tsv
mkdir "$mountpoint" "$plain"
: >"$results"

# A mount that silently failed would measure the directory below it.
mount_volume() { # volume
    "$firn" mount "$1" "$mountpoint"
    mountpoint -q "$mountpoint" || { echo "bench.sh: $1 is not mounted" >&2; exit 1; }
}

unmount_volume() { "$firn" umount "$mountpoint"; }

s3_server='' busy=()
clean_up() {
    if [ -n "$s3_server" ]; then kill "$s3_server" 2>/dev/null || true; fi
    be_idle
    local dir
    for dir in "$mountpoint" "$few_mountpoint" "$work"/watch-*-mountpoint "$work/protection-mountpoint" "$work/cost-mountpoint"; do
        if mountpoint -q "$dir"; then
            "$firn" umount "$dir" || fusermount3 -uz "$dir" || true
        fi
        ! mountpoint -q "$dir" || return 0
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

side_dir() { if [ "$1" = firn ]; then echo "$mountpoint"; else echo "$plain"; fi; }

# Brings everything written so far to the disk, so that one run does not pay for another.
settle() { # side
    if [ "$1" = firn ]; then "$firn" sync "$mountpoint"; fi
    sync -f "$plain"
}

can_drop_caches=false
[ -w /proc/sys/vm/drop_caches ] && can_drop_caches=true

# Nothing of this side is in any memory afterwards, the daemon's own included.
make_cold() { # side
    settle "$1"
    if [ "$1" = firn ]; then
        remember_memory
        unmount_volume
        mount_volume "$work/volume"
    fi
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# The daemon's largest resident set is asked for before each unmount, since it dies with it.
peak_kib=0
remember_memory() {
    local pid kib
    pid=$(daemon_pid "$work/volume" 2>/dev/null) || return 0
    kib=$(awk '/^VmHWM:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || return 0
    if [ "${kib:-0}" -gt "$peak_kib" ]; then peak_kib=$kib; fi
}

# ---- measuring -----------------------------------------------------------------------------

record() { # row unit higher|lower side value
    printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$results"
}

seconds_of() { # command...
    local start end
    start=$(date +%s%N)
    "$@" >/dev/null
    end=$(date +%s%N)
    awk -v ns=$((end - start)) 'BEGIN { printf "%.4f", ns / 1e9 }'
}

# Both sides once, the other one first in every second round.
in_turns() { # function round
    local sides='firn ext4' side
    [ $(($2 % 2)) -eq 0 ] && sides='ext4 firn'
    for side in $sides; do
        "$1" "$side" "$(side_dir "$side")"
        settle "$side"
    done
}

# Prints MiB/s and operations per second over the whole job, its final fsync included.
fio_rates() { # fio options...
    fio --name=bench --ioengine=psync --output-format=json --group_reporting "$@" | python3 -c '
import json, sys
text = sys.stdin.read()
job = json.loads(text[text.index("{"):])["jobs"][0]
if job["error"]:
    sys.exit("fio failed with error %d" % job["error"])
side = max((job["read"], job["write"]), key=lambda side: side["io_bytes"])
seconds = max(job["job_runtime"], side["runtime"], 1) / 1000
print("%.3f %.1f" % (side["io_bytes"] / 2**20 / seconds, side["total_ios"] / seconds))'
}

# Half of each buffer compresses: between noise and text.
stream() { # side dir
    local file=$2/stream rate
    rm -f "$file"
    settle "$1"
    rate=$(fio_rates --filename="$file" --rw=write --bs=1M --size=${stream_mib}M --end_fsync=1 \
        --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k)
    record 'sequential write' MiB/s higher "$1" "${rate% *}"
    if $can_drop_caches; then
        make_cold "$1"
        rate=$(fio_rates --filename="$file" --rw=read --bs=1M --size=${stream_mib}M --invalidate=0)
        record 'sequential read, cold' MiB/s higher "$1" "${rate% *}"
    else
        cat "$file" >/dev/null
    fi
    rate=$(fio_rates --filename="$file" --rw=read --bs=1M --size=${stream_mib}M --invalidate=0)
    record 'sequential read, warm' MiB/s higher "$1" "${rate% *}"
}

# Four jobs at random places of one file, as the peers were measured.
random() { # side dir
    local file=$2/random rate jobs=(--numjobs=4 --bs=4k --size=${random_mib}M)
    if [ ! -e "$file" ]; then
        fio_rates --filename="$file" --rw=write --bs=1M --size=${random_mib}M --end_fsync=1 \
            --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k >/dev/null
    fi
    if $can_drop_caches; then
        make_cold "$1"
        rate=$(fio_rates --filename="$file" --rw=randread "${jobs[@]}" \
            --io_size=$((random_mib / 16))M --invalidate=0)
        record '4 KiB random read, cold' IOPS higher "$1" "${rate#* }"
    fi
    cat "$file" >/dev/null
    rate=$(fio_rates --filename="$file" --rw=randread "${jobs[@]}" --io_size=$((random_mib / 4))M \
        --invalidate=0)
    record '4 KiB random read, warm' IOPS higher "$1" "${rate#* }"
    rate=$(fio_rates --filename="$file" --rw=randwrite "${jobs[@]}" --io_size=$((random_mib / 8))M \
        --end_fsync=1 --refill_buffers)
    record '4 KiB random write, one fsync' IOPS higher "$1" "${rate#* }"
}

# A file in a snapshot that lies in hot as a plain copy as well, read by the kernel alone.
thawed() { # side dir
    local file=$2/thawed rate
    if [ ! -e "$file" ]; then
        fio_rates --filename="$file" --rw=write --bs=1M --size=${random_mib}M --end_fsync=1 \
            --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k >/dev/null
        if [ "$1" = firn ]; then "$firn" snapshot create "$mountpoint@thawed"; fi
    fi
    if [ "$1" = firn ]; then
        unmount_volume
        "$firn" mount -o cache=passthrough,thaw=always "$work/volume" "$mountpoint"
        file=$mountpoint/.firn/snapshot/thawed/thawed
        cat "$file" >/dev/null
    fi
    if $can_drop_caches; then
        sync
        echo 3 >/proc/sys/vm/drop_caches
        rate=$(fio_rates --filename="$file" --rw=randread --bs=4k --size=${random_mib}M \
            --io_size=$((random_mib / 4))M --invalidate=0 --readonly)
        record '4 KiB random read, thawed, cold' IOPS higher "$1" "${rate#* }"
    fi
    cat "$file" >/dev/null
    rate=$(fio_rates --filename="$file" --rw=randread --bs=4k --size=${random_mib}M --invalidate=0 \
        --readonly)
    record '4 KiB random read, thawed, warm' IOPS higher "$1" "${rate#* }"
    if [ "$1" = firn ]; then
        "$firn" status --json "$mountpoint" | python3 -c '
import json, sys
if not (json.load(sys.stdin).get("thawed") or {}).get("opens"):
    sys.exit("bench.sh: nothing passed through, so this was no row about thawed files")'
        unmount_volume
        mount_volume "$work/volume"
    fi
}

small() { # side dir
    small_rows "$1" '' 1 "$2/small" create stat
    if $can_drop_caches; then
        make_cold "$1"
        small_rows "$1" ', cold' 1 "$2/small" read
    fi
    small_rows "$1" '' 1 "$2/small" read unlink
    small_rows "$1" ', 4 processes' 4 "$2/small4" create stat unlink
}

small_rows() { # side suffix processes dir work...
    local name rate
    while read -r name rate; do
        record "small file $name$2" ops/s higher "$1" "$rate"
    done < <(small_work "$small_files" "${@:3}")
}

# One, two and eight programs at a time, on a machine that does nothing else and on one of which every
# processor has other work.
processes() { # side dir
    local count
    for count in 1 2 8; do processes_rows "$1" "$count at a time" "$count" "$2"; done
    be_busy
    for count in 1 2 8; do processes_rows "$1" "$count at a time, busy machine" "$count" "$2"; done
    be_idle
}

processes_rows() { # side name processes dir
    small_rows "$1" ", $2" "$3" "$4/processes" create stat read unlink
    settle "$1"
}

be_busy() {
    local processor
    for processor in $(seq "$(nproc)"); do
        while :; do :; done &
        busy+=($!)
    done
}

be_idle() {
    local pid
    for pid in ${busy[@]+"${busy[@]}"}; do
        kill "$pid" && wait "$pid" || true
    done 2>/dev/null
    busy=()
}

# Files of 4 KiB, 500 to a directory, which go with the last of them. Prints operations a second from
# the first process's start to the last one's end.
small_work() { # count processes dir work...
    python3 - "$@" <<'PYTHON'
import os, sys, time
count, processes, root = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
data = bytes(range(256)) * 16
paths = [os.path.join(root, str(n // 500), "file-%06d.dat" % n) for n in range(count)]
directories = sorted({os.path.dirname(path) for path in paths})

def create(path):
    with open(path, "wb", buffering=0) as file:
        file.write(data)

def read(path):
    with open(path, "rb", buffering=0) as file:
        assert file.read(8192) == data

def work_on(work, part):
    for path in part:
        work(path)

def together(work):
    """Each process has directories of its own, and all begin at once."""
    ready, begin = os.pipe()
    children = []
    for number in range(processes):
        part = [path for path in paths if int(os.path.basename(os.path.dirname(path))) % processes == number]
        child = os.fork()
        if child == 0:
            os.close(begin)
            os.read(ready, 1)
            try:
                work_on(work, part)
            except BaseException as error:
                print(error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(ready)
    start = time.perf_counter()
    os.close(begin)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    assert not failed, failed
    return time.perf_counter() - start

if not os.path.isdir(root):
    for directory in [root, *directories]:
        os.mkdir(directory)
works = {"create": create, "stat": os.stat, "read": read, "unlink": os.unlink}
for name in sys.argv[4:]:
    start = time.perf_counter()
    if processes == 1:
        work_on(works[name], paths)
        seconds = time.perf_counter() - start
    else:
        seconds = together(works[name])
    print(name, "%.1f" % (count / seconds))
    if name == "unlink":
        for directory in [*directories, root]:
            os.rmdir(directory)
PYTHON
}

# What a user does with a tree of sources; /usr/include is on every machine that builds Firn.
tree=$work/tree
tarball=$work/tree.tar
make_tree() {
    mkdir "$tree"
    find /usr/include -type f -printf '%P\n' | sort | awk -v most="$tree_files" 'NR <= most' |
        rsync -a --files-from=- /usr/include/ "$tree/"
    tar -cf "$tarball" -C "$tree" .
}

tree() { # side dir
    mkdir "$2/tar"
    record 'tar extraction' s lower "$1" "$(seconds_of tar -xf "$tarball" -C "$2/tar")"
    settle "$1"
    record 'rsync -aHAX' s lower "$1" "$(seconds_of rsync -aHAX "$tree/" "$2/rsync/")"
    settle "$1"
    record 'rsync -a' s lower "$1" "$(seconds_of rsync -a "$tree/" "$2/rsync-a/")"
    rm -r "$2/rsync-a"
    settle "$1"
    if $can_drop_caches; then
        make_cold "$1"
        record 'du, cold' s lower "$1" "$(seconds_of du -s "$2/rsync")"
    fi
    record 'find -type f, warm' s lower "$1" "$(seconds_of find "$2/rsync" -type f -newermt 2000-01-01)"
    record 'rm -r' s lower "$1" "$(seconds_of rm -r "$2/tar" "$2/rsync")"
}

fsync() { # side dir
    local name latency
    while read -r name latency; do
        record "fsync after 4 KiB, $name" us lower "$1" "$latency"
    done < <(python3 - "$2/fsync" "$fsyncs" <<'PYTHON'
import os, sys, time
path, count = sys.argv[1], int(sys.argv[2])
file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
times = []
for _ in range(count):
    os.write(file, os.urandom(4096))
    start = time.perf_counter()
    os.fsync(file)
    times.append((time.perf_counter() - start) * 1e6)
os.close(file)
os.unlink(path)
times.sort()
print("median", "%.1f" % times[len(times) // 2])
print("p99", "%.1f" % times[min(len(times) - 1, len(times) * 99 // 100)])
PYTHON
    )
}

# Logical bytes over the bytes of the hot tier (parity and indexes included) for each folder in a
# volume of its own, and over all bytes of the volume (databases too) for the whole tree.
compression() {
    if [ ! -d "$scidata" ]; then
        say "no compression rows: $scidata is absent (set SCIDATA)"
        return 0
    fi
    local folder
    for folder in "$scidata"/*/; do
        folder=$(basename "$folder")
        measure_compression "compression $folder" "$scidata/$folder" hot
    done
    measure_compression 'compression of all, whole volume' "$scidata" all
}

measure_compression() { # row source hot|all
    local volume=$work/compression logical stored part
    "$firn" init "$volume" --hot "$work/compression-hot"
    mount_volume "$volume"
    rsync -aHAX "$2/" "$mountpoint/"
    unmount_volume
    logical=$(find "$2" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
    part=("$work/compression-hot")
    [ "$3" = all ] && part+=("$volume")
    stored=$(du -scB1 "${part[@]}" | awk 'END { print $1 }')
    record "$1" ratio higher firn "$(awk -v l="$logical" -v s="$stored" 'BEGIN { printf "%.4f", l / s }')"
    rm -rf "$volume" "$work/compression-hot"
}

# A snapshot costs the same whatever the dataset holds, and a diff costs what changed. The time is
# that in which writers wait; what the kernel had to write out before is not in it. Both volumes are
# there at once and take turns, so that both meet the same noise.
snapshots() {
    local few=$work/few many=$work/many dir round name
    for dir in "$few" "$many"; do
        "$firn" init "$dir" --hot "$dir-hot"
    done
    mount_volume "$many"
    mkdir "$few_mountpoint"
    "$firn" mount "$few" "$few_mountpoint"
    mountpoint -q "$few_mountpoint" || { echo "bench.sh: $few is not mounted" >&2; exit 1; }
    write_files "$few_mountpoint" 100 first
    write_files "$mountpoint" "$snapshot_files" first
    for dir in "$few_mountpoint" "$mountpoint"; do
        "$firn" sync "$dir"
    done
    for round in $(seq "$rounds"); do
        # The best of some: a snapshot is one commit, and any other write to the disk is in its way.
        record "snapshot of 100 files" ms lower firn "$(least_snapshot_ms "$few_mountpoint" "$round")"
        record "snapshot of $snapshot_files files" ms lower firn \
            "$(least_snapshot_ms "$mountpoint" "$round")"
    done
    "$firn" snapshot create "$mountpoint@before"
    write_files "$mountpoint" 100 again
    "$firn" sync "$mountpoint"
    name="diff of 100 changes among $snapshot_files files"
    for round in $(seq "$rounds"); do
        record "$name" s lower firn "$(seconds_of "$firn" snapshot diff "$mountpoint@before")"
    done
    "$firn" umount "$few_mountpoint"
    rmdir "$few_mountpoint"
    unmount_volume
    rm -rf "$few" "$many" "$few-hot" "$many-hot"
}

least_snapshot_ms() { # dataset round
    local take
    for take in 1 2 3 4 5; do snapshot_ms "$1@$2-$take"; done | sort -g | head -1
}

write_files() { # dir count content
    python3 - "$@" <<'PYTHON'
import os, sys
root, count, content = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
for n in range(count):
    directory = os.path.join(root, str(n // 1000))
    if n % 1000 == 0:
        os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "file-%07d" % n), "wb", buffering=0) as file:
        file.write(content)
PYTHON
}

snapshot_ms() { # dataset@name
    "$firn" snapshot create --json "$1" |
        python3 -c 'import json, sys; print("%.3f" % json.load(sys.stdin)["snapshot_ms"])'
}

# CPU seconds of the daemon for the same work with uses noted and asked about, and without: what heat
# and classifier cost. Both volumes are there at once and take turns.
watching() {
    local side round dir
    for side in firn ext4; do
        "$firn" init "$work/watch-$side" --hot "$work/watch-$side-hot"
        mkdir "$work/watch-$side-mountpoint"
    done
    for round in $(seq "$watch_rounds"); do
        local sides='firn ext4'
        [ $((round % 2)) -eq 0 ] && sides='ext4 firn'
        for side in $sides; do watch_round "$side"; done
    done
    for side in firn ext4; do
        rm -rf "$work/watch-$side" "$work/watch-$side-hot"
        rmdir "$work/watch-$side-mountpoint"
    done
}

# The side without stands in the place of the directory below.
watch_round() { # side
    local dir=$work/watch-$1-mountpoint volume=$work/watch-$1 before
    (
        if [ "$1" = ext4 ]; then export FIRN_BENCH_UNWATCHED=1; fi
        "$firn" mount "$volume" "$dir"
    )
    mountpoint -q "$dir" || { echo "bench.sh: $volume is not mounted" >&2; exit 1; }
    if [ ! -e "$dir/random" ]; then
        fio_rates --filename="$dir/random" --rw=write --bs=1M --size=${random_mib}M --end_fsync=1 \
            --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k >/dev/null
    fi
    before=$(daemon_cpu "$volume")
    small_work "$small_files" 1 "$dir/small" create stat read unlink >/dev/null
    "$firn" sync "$dir"
    record 'daemon CPU, small files, heat on/off' s lower "$1" "$(since "$before" "$(daemon_cpu "$volume")")"
    sync -f "$work"
    if $can_drop_caches; then echo 3 >/proc/sys/vm/drop_caches; fi
    before=$(daemon_cpu "$volume")
    fio_rates --filename="$dir/random" --rw=randread --bs=4k --size=${random_mib}M \
        --io_size=$((random_mib / 2))M --invalidate=0 >/dev/null
    record 'daemon CPU, 4 KiB random read, heat on/off' s lower "$1" \
        "$(since "$before" "$(daemon_cpu "$volume")")"
    "$firn" umount "$dir"
}

# The same work with parity and verified reads, and without: what integrity costs. The side without
# stands in the place of the directory below.
protection() {
    local side round sides
    for round in $(seq "$watch_rounds"); do
        sides='firn ext4'
        [ $((round % 2)) -eq 0 ] && sides='ext4 firn'
        for side in $sides; do protection_round "$side"; done
    done
}

protection_round() { # side
    local volume=$work/protection dir=$work/protection-mountpoint rate before
    "$firn" init "$volume" --hot "$volume-hot"
    mkdir "$dir"
    (
        if [ "$1" = ext4 ]; then export FIRN_BENCH_UNPROTECTED=1; fi
        "$firn" mount "$volume" "$dir"
    )
    mountpoint -q "$dir" || { echo "bench.sh: $volume is not mounted" >&2; exit 1; }
    before=$(daemon_cpu "$volume")
    rate=$(fio_rates --filename="$dir/stream" --rw=write --bs=1M --size=${stream_mib}M --end_fsync=1 \
        --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k)
    "$firn" sync "$dir"
    record 'sequential write, protection on/off' MiB/s higher "$1" "${rate% *}"
    record 'daemon CPU of it, protection on/off' s lower "$1" "$(since "$before" "$(daemon_cpu "$volume")")"
    if $can_drop_caches; then
        sync -f "$work"
        echo 3 >/proc/sys/vm/drop_caches
        rate=$(fio_rates --filename="$dir/stream" --rw=read --bs=1M --size=${stream_mib}M --invalidate=0)
        record 'sequential read, cold, protection on/off' MiB/s higher "$1" "${rate% *}"
    fi
    "$firn" umount "$dir"
    rm -rf "$volume" "$volume-hot"
    rmdir "$dir"
}

# What streams cost: CPU seconds of the daemon for each GiB, and bytes written below for each byte
# taken in, while older streams go and what they leave is collected.
cost() {
    local volume=$work/cost dir=$work/cost-mountpoint gib round before
    gib=$(awk -v mib="$stream_mib" -v n="$rounds" 'BEGIN { printf "%.6f", mib * n / 1024 }')
    "$firn" init "$volume" --hot "$volume-hot"
    mkdir "$dir"
    "$firn" mount "$volume" "$dir"
    mountpoint -q "$dir" || { echo "bench.sh: $volume is not mounted" >&2; exit 1; }
    before=$(daemon_cpu "$volume")
    for round in $(seq "$rounds"); do
        rm -f "$dir/stream$((round - 1))"
        fio_rates --filename="$dir/stream$round" --rw=write --bs=1M --size=${stream_mib}M --end_fsync=1 \
            --refill_buffers --buffer_compress_percentage=50 --buffer_compress_chunk=4k >/dev/null
    done
    "$firn" sync "$dir"
    record 'daemon CPU for a GiB written' s lower firn \
        "$(per "$(since "$before" "$(daemon_cpu "$volume")")" "$gib")"
    # Half of each buffer is noise: 1 byte taken in cannot become much less than half a byte.
    record 'bytes written below for a byte taken in' each lower firn \
        "$(per "$(daemon_written_gib "$volume")" "$gib")"
    if $can_drop_caches; then
        sync -f "$work"
        echo 3 >/proc/sys/vm/drop_caches
        before=$(daemon_cpu "$volume")
        cat "$dir/stream$rounds" >/dev/null
        record 'daemon CPU for a GiB read' s lower firn \
            "$(per "$(since "$before" "$(daemon_cpu "$volume")")" "$(per "$stream_mib" 1024)")"
    fi
    "$firn" umount "$dir"
    rm -rf "$volume" "$volume-hot"
    rmdir "$dir"
}

per() { # amount of
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a / b }'
}

daemon_pid() { # volume
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$1/lock"
}

# What a volume's daemon has caused to be written to storage so far.
daemon_written_gib() { # volume
    awk '/^write_bytes:/ { printf "%.6f", $2 / 2 ^ 30 }' "/proc/$(daemon_pid "$1")/io"
}

# CPU time of a volume's daemon so far, in ticks of 10 ms.
daemon_cpu() { # volume
    awk '{ print $14 + $15 }' "/proc/$(daemon_pid "$1")/stat"
}

since() { # ticks ticks
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", (b - a) / 100 }'
}

# Reads of what lies in an S3 store only, beside a plain client of the same server that has as many
# requests in flight. What it reads is what was stored, so that both wait for the same bytes; its
# random reads have the length of the cell that holds the page.
cold() {
    local tools=${FIRN_S3_DIR:-} volume=$work/cold kind round
    if ! $can_drop_caches; then
        say 'no rows about the cold tier: caches cannot be dropped'
        return 0
    fi
    if [ -z "$tools" ]; then
        cargo build --release -p firn-tests
        tools=$target/release
    fi
    mkdir "$work/s3"
    "$tools/firn-s3-server" "$work/s3" >"$work/s3.env" &
    s3_server=$!
    # The port is known once the last line is there.
    until grep -q '^FIRN_TEST_BUCKET=' "$work/s3.env"; do sleep 0.1; done
    for kind in noise half; do
        (
            set -a
            # shellcheck source=/dev/null
            . "$work/s3.env"
            set +a
            "$firn" init "$volume" --hot "$work/cold-hot" --cold "s3://$FIRN_TEST_BUCKET/$kind"
            # What is read again would be in hot by then.
            printf "[recall]\npromote_on = 0\n" >"$volume/policy.toml"
            mount_volume "$volume"
            fio_rates --filename="$mountpoint/cold" --rw=write --bs=1M --size=${cold_mib}M \
                --end_fsync=1 --refill_buffers --buffer_compress_chunk=4k \
                --buffer_compress_percentage=$([ "$kind" = half ] && echo 50 || echo 0) >/dev/null
            "$firn" tier archive "$mountpoint/cold"
            "$firn" tier release "$mountpoint/cold"
            for round in $(seq "$rounds"); do
                cold_round "$kind" "$round" "$tools/firn-s3-client" "s3://$FIRN_TEST_BUCKET/$kind"
            done
            unmount_volume
        )
        rm -rf "$volume" "$work/cold-hot"
    done
    kill "$s3_server"
    wait "$s3_server" || true
    s3_server=''
    rm -rf "$work/s3"
}

cold_in_flight=16 cold_request=4194304
cold_round() { # kind round client url
    local sides='firn client' side row="cold tier, sequential read, $1"
    [ $(($2 % 2)) -eq 0 ] && sides='client firn'
    for side in $sides; do
        if [ "$side" = firn ]; then
            cold_remount
            record "$row" MiB/s higher firn "$(fio_rates --filename="$mountpoint/cold" --rw=read \
                --bs=1M --size=${cold_mib}M --invalidate=0 | cut -d' ' -f1)"
        else
            # At the rate of the file, so that compression counts for neither.
            record "$row" MiB/s higher ext4 "$("$3" "$4" $cold_in_flight $cold_request $((1 << 50)) |
                awk -v mib="$cold_mib" '{ printf "%.3f", mib / $1 }')"
        fi
    done
    [ "$1" = noise ] || return 0
    cold_remount
    local before after seconds
    before=$(cold_requests)
    seconds=$(cold_pages "$mountpoint/cold" "$cold_reads" $((cold_mib << 20)))
    after=$(cold_requests)
    record 'cold tier, 4 KiB random read, requests' each lower firn \
        "$(awk -v n=$((after - before)) -v r="$cold_reads" 'BEGIN { printf "%.4f", n / r }')"
    record 'cold tier, 4 KiB random read' us lower firn \
        "$(awk -v s="$seconds" -v r="$cold_reads" 'BEGIN { printf "%.1f", s * 1e6 / r }')"
    record 'cold tier, 4 KiB random read' us lower ext4 \
        "$("$3" "$4" 1 65536 $((cold_reads * 65536)) random | awk '{ printf "%.1f", $1 * 1e6 / $3 }')"
}

cold_remount() {
    unmount_volume
    mount_volume "$work/cold"
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

cold_requests() {
    "$firn" status --json "$mountpoint" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["counters"]["cold_requests"])'
}

# Reads pages, no two of them in one cell of 64 KiB, and prints the seconds that took.
cold_pages() { # path count bytes
    python3 - "$@" <<'PYTHON'
import os, random, sys, time
path, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cells = random.Random(7).sample(range(1, size // 65536), count)
file = os.open(path, os.O_RDONLY)
start = time.perf_counter()
for cell in cells:
    assert len(os.pread(file, 4096, cell * 65536 + 8192)) == 4096
print("%.6f" % (time.perf_counter() - start))
PYTHON
}

# ---- the report ----------------------------------------------------------------------------

report() {
    local commit
    commit=$(git -C "$project" describe --always --dirty 2>/dev/null || echo unknown)
    python3 - "$results" "$json" "$against" "$tolerance" "$quick" "$commit" "$(stat -f -c %T "$plain")" <<'PYTHON'
import json, os, platform, statistics, sys, time
results, out, against, tolerance, quick, commit, filesystem = sys.argv[1:]

rows = {}
for line in open(results):
    name, unit, better, side, value = line.rstrip("\n").split("\t")
    row = rows.setdefault(name, {"name": name, "unit": unit, "better": better, "runs": {}})
    row["runs"].setdefault(side, []).append(float(value))
for row in rows.values():
    for side, runs in row["runs"].items():
        row[side] = statistics.median(runs)
    # Above 1 Firn is the better one, whichever way the row counts.
    if row.get("firn") and row.get("ext4"):
        ratio = row["firn"] / row["ext4"]
        row["ratio"] = round(ratio if row["better"] == "higher" else 1 / ratio, 4)

report = {
    "version": 1,
    "quick": quick == "true",
    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "commit": commit,
    "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "below": filesystem},
    "rows": list(rows.values()),
}
with open(out + ".part", "w") as file:
    json.dump(report, file, indent=2)
    file.write("\n")
os.replace(out + ".part", out)

def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

print(f"{'':42} {'unit':>6} {'firn':>12} {'below':>12} {'firn is':>9}")
for row in rows.values():
    ratio = f"{row['ratio']:.2f} x" if "ratio" in row else ""
    print(f"{row['name']:42} {row['unit']:>6} {number(row.get('firn')):>12} {number(row.get('ext4')):>12} {ratio:>9}")
print(f"\n'firn is': how many times as good as the {filesystem} directory below; above 1 is better.")
print(f"written to {out}")

if not against:
    sys.exit(0)
old = json.load(open(against))
if old.get("version") != 1 or old.get("quick") != report["quick"]:
    sys.exit(f"bench.sh: {against} was not made in the same way: nothing compared")
before = {row["name"]: row for row in old["rows"]}
worse = 0
print(f"\nagainst {against} ({old['commit']}, {old['time']}):")
for row in rows.values():
    then = before.pop(row["name"], None)
    # A ratio to the directory below cancels what the machine did meanwhile.
    key = "ratio" if "ratio" in row and then and "ratio" in then else "firn"
    if then is None or not row.get(key) or not then.get(key):
        continue
    change = row[key] / then[key]
    if key == "firn" and row["better"] == "lower":
        change = 1 / change
    percent = (change - 1) * 100
    if abs(percent) > float(tolerance):
        worse += percent < 0
        print(f"  {'WORSE ' if percent < 0 else 'better'} {row['name']:34} {then[key]:.4g} -> {row[key]:.4g} ({percent:+.0f} %)")
for name in before:
    print(f"  absent {name}")
print(f"  {worse} worse by more than {tolerance} %")
sys.exit(1 if worse else 0)
PYTHON
}

# ---- the run -------------------------------------------------------------------------------

say "working below $work on $(stat -f -c %T "$work")"
$can_drop_caches || say "no cold rows: /proc/sys/vm/drop_caches is not writable"
"$firn" init "$work/volume" --hot "$work/hot"
mount_volume "$work/volume"
for group in stream random small processes tree fsync thawed; do
    [[ $group =~ $groups ]] || continue
    [ "$group" != tree ] || make_tree
    for round in $(seq "$rounds"); do
        say "$group, run $round of $rounds"
        in_turns "$group" "$round"
    done
    rm -f "$mountpoint/stream" "$plain/stream" "$mountpoint/random" "$plain/random" \
        "$mountpoint/thawed" "$plain/thawed"
    [ "$group" != thawed ] || "$firn" snapshot destroy "$mountpoint@thawed"
done
remember_memory
if [ "$peak_kib" -gt 0 ]; then
    record 'daemon memory, largest' MiB lower firn $((peak_kib / 1024))
fi
unmount_volume
if [[ snapshots =~ $groups ]]; then
    say snapshots
    snapshots
fi
if [[ watching =~ $groups ]]; then
    say 'watching'
    watching
fi
if [[ protection =~ $groups ]]; then
    say 'protection'
    protection
fi
if [[ cost =~ $groups ]]; then
    say 'cost'
    cost
fi
if [[ cold =~ $groups ]]; then
    say 'cold tier'
    cold
fi
if [[ compression =~ $groups ]]; then
    say compression
    compression
fi
report
