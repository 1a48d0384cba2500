#!/usr/bin/env bash
# Fuzzes every decoder: each target of tests/fuzz for a minute, from the corpus that is kept there.
#   scripts/fuzz.sh            every target, as many at a time as there are cores, at most two
#   scripts/fuzz.sh TARGET...  some of them
# FIRN_FUZZ_SECONDS says how long each, FIRN_FUZZ_SEED where its random ways begin: with the same
# number a target tries much the same inputs in every run of a commit. FIRN_FUZZ_KEEP=1 adds what was
# found to the kept corpus, as few inputs as reach the same code. An input that fails is printed and
# kept in tests/fuzz/artifacts;
# `cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none TARGET FILE` gives it to its target again.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzz=$PWD/tests/fuzz
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
seconds=${FIRN_FUZZ_SECONDS:-60}
export FUZZ_LIMITS="-rss_limit_mb=512 -timeout=10 -max_len=16384 -seed=${FIRN_FUZZ_SEED:-20261120}"

command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for source in "$fuzz"/targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
fi

# Sanitizers need a nightly compiler; the coverage that guides the search does not.
cargo fuzz build --fuzz-dir "$fuzz" --sanitizer none --target-dir "$target"
programs=$target/$(rustc -vV | sed -n 's/^host: //p')/release

work=$(mktemp -d "${TMPDIR:-/tmp}/firn-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

# What is found goes to a directory of its own, so that a run leaves no file behind.
one() {
    local name=$1 found=$work/$1 dictionary=$fuzz/dictionaries/$1.dict words=()
    mkdir -p "$found" "$fuzz/artifacts/$name"
    [ ! -e "$dictionary" ] || words=("-dict=$dictionary")
    if "$programs/$name" $FUZZ_LIMITS "-max_total_time=$seconds" "${words[@]}" -print_final_stats=1 \
        "-artifact_prefix=$fuzz/artifacts/$name/" "$found" "$fuzz/corpus/$name" >"$work/$name.log" 2>&1
    then
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log") inputs, \
$(find "$found" -type f | wc -l) new"
        return 0
    fi
    echo "$name failed:"
    tail -n 40 "$work/$name.log"
    for input in "$fuzz/artifacts/$name"/*; do
        [ -e "$input" ] || continue
        echo "$input in base64:"
        base64 "$input"
    done
    return 1
}
export -f one
export work fuzz programs seconds

cores=$(nproc)
printf '%s\n' "${targets[@]}" | xargs -P "$((cores < 2 ? 1 : 2))" -I{} bash -euo pipefail -c 'one {}'

[ "${FIRN_FUZZ_KEEP:-0}" != 1 ] || for name in "${targets[@]}"; do
    mkdir -p "$work/kept/$name"
    "$programs/$name" $FUZZ_LIMITS -merge=1 "$work/kept/$name" "$fuzz/corpus/$name" "$work/$name" 2>/dev/null
    # The inputs with a name were made by hand and stay.
    find "$fuzz/corpus/$name" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
    find "$work/kept/$name" -type f -size -9k -exec cp -n {} "$fuzz/corpus/$name" \;
done
