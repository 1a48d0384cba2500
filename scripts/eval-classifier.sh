#!/usr/bin/env bash
# What the classifier would have been worth on traces of other systems, as one table.
#   scripts/eval-classifier.sh [--capacity LIST] [--horizon DURATION] [--json DIR] [TRACE...]
#     --capacity LIST     capacities of the tier (default 1%,5%,20% of what all items take)
#     --horizon DURATION  how far predictions look ahead (default: twice the time in which LRU replaces
#                         the whole tier, and at most a twelfth of the trace)
#     --json DIR          keep each result there
#     TRACE               FORMAT:FILE as scripts/traces.py knows them, or the file of a Firn trace
# Without a TRACE all below TRACES are taken (default ../shared/traces beside the project). FIRN_BIN
# names an already built firn. Each trace is replayed from its start, its second half is measured, and
# what predicts was learned from what lies at least a horizon before.
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD

capacity=1%,5%,20% horizon=() json='' given=()
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }
while [ $# -gt 0 ]; do
    case $1 in
        --capacity | --horizon | --json)
            [ $# -ge 2 ] || { echo "eval-classifier.sh: $1 needs a value" >&2; exit 2; }
            case $1 in
                --capacity) capacity=$2 ;;
                --horizon) horizon=(--horizon "$2") ;;
                --json) json=$(realpath -m "$2") ;;
            esac
            shift 2 ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "eval-classifier.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
        *) given+=("$1"); shift ;;
    esac
done

scripts/install-deps.sh eval
firn=${FIRN_BIN:-}
if [ -z "$firn" ]; then
    scripts/install-deps.sh build
    cargo build --release --quiet -p firn
    firn=${CARGO_TARGET_DIR:-$project/target}/release/firn
fi
traces=${TRACES:-$project/../shared/traces}
work=$(mktemp -d "${TMPDIR:-/tmp}/firn-eval.XXXXXX")
trap 'rm -rf "$work"' EXIT
json=${json:-$work/json}
mkdir -p "$json"

if [ ${#given[@]} -eq 0 ]; then
    [ -d "$traces" ] || { echo "eval-classifier.sh: no traces in $traces" >&2; exit 1; }
    for file in "$traces"/swim/*.tsv; do given+=("swim:$file"); done
    for file in "$traces"/twitter/*.csv.xz; do given+=("twitter:$file"); done
    for file in "$traces"/cache2k/*.trace.xz; do given+=("ids:$file"); done
    given+=("clf:$(echo "$traces"/erddap/*.log.*)")
fi

for trace in "${given[@]}"; do
    format=${trace%%:*} files=${trace#*:}
    name=$(basename "${files%% *}")
    name=${name%.xz} name=${name%.tsv} name=${name%.csv} name=${name%.trace} name=${name%.log.*}
    printf '%s %s\n' "$(date +%T)" "$name" >&2
    if [ "$format" = "$trace" ]; then
        "$firn" model eval --json --capacity "$capacity" "${horizon[@]}" --trace "$trace" >"$json/$name.json"
    else
        # The logs of one server are one trace: several files, split at blanks.
        # shellcheck disable=SC2086
        python3 scripts/traces.py "$format" $files |
            "$firn" model eval --json --capacity "$capacity" "${horizon[@]}" --trace - >"$json/$name.json"
    fi
done

python3 - "$json"/*.json <<'PYTHON'
import json, os, sys

def percent(share):
    return f"{100 * share:.1f}"

def exact(share):
    return f"{100 * share:.2f}"

def span(ms):
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms >= 2 * length:
            return f"{ms / length:.0f}{unit}"
    return f"{ms / 1000:.0f}s"

print("| trace | tier | horizon | right | majority | age | MCC (age) | stays cold: said of, right"
      " | age: said of, right | hits: LRU, S3-FIFO, model, guarded, optimum | bytes hit, the same"
      " | switches |")
print("|---|---|---|---|---|---|---|---|---|---|---|---|")
for path in sys.argv[1:]:
    result = json.load(open(path))
    for one in result["evaluations"]:
        model, age = one["model"], one["age"]
        hits = {row["strategy"]: row for row in one["hits"]}
        rows = list(hits.values())
        requests = ", ".join(percent(row["hit_ratio"]) for row in rows[:5])
        bytes_hit = ", ".join(percent(row["byte_hit_ratio"]) for row in rows[:4] + rows[5:6])
        cold = lambda m: f"{percent(m['cold_coverage'])}, " + (
            percent(m["cold_precision"]) if m["cold_coverage"] else "-")
        share = one["capacity_bytes"] / max(1, result["trace"]["footprint_bytes"])
        print(f"| {os.path.basename(path)[:-5]} | {100 * share:.3g} % | {span(one['horizon_ms'])}"
              f" | {exact(model['accuracy'])} | {exact(model['majority_accuracy'])}"
              f" | {exact(age['accuracy'])} | {model['mcc']:.2f} ({age['mcc']:.2f})"
              f" | {cold(model)} | {cold(age)} | {requests} | {bytes_hit} | {one['switches']} |")
PYTHON
