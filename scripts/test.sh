#!/usr/bin/env bash
# Every ring of tests, from a clean checkout to a verdict.
#   scripts/test.sh            everything
#   scripts/test.sh RING...    some of: lint unit mounted posix quickstart soak fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
rings=("$@")
[ ${#rings[@]} -gt 0 ] || rings=(lint unit mounted posix quickstart soak fuzz)

say() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }

scripts/install-deps.sh build
scripts/install-deps.sh test
export CARGO_TERM_COLOR=never
# The same random sequences in every run of a commit; another number explores others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261120}
target=${CARGO_TARGET_DIR:-$project/target}

# Shared by the rings on a mount: a volume of this build, gone again whatever happens.
work=
clean_up() {
    local status=$?
    [ -n "$work" ] || return 0
    [ $status = 0 ] || grep -E 'WARN|ERROR' "$work/volume/firn.log" | tail -n 40 || true
    if mountpoint -q "$work/mountpoint"; then
        "$target/ci/firn" umount "$work/mountpoint" || fusermount3 -uz "$work/mountpoint" || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT

mount_volume() {
    work=$(mktemp -d "${FIRN_TEST_DIR:-${TMPDIR:-/tmp}}/firn-posix-volume.XXXXXX")
    mkdir "$work/mountpoint" "$work/cold"
    "$target/ci/firn" init "$work/volume" --cold "file://$work/cold"
    "$target/ci/firn" mount "$work/volume" "$work/mountpoint"
    mountpoint -q "$work/mountpoint"
}

lint() {
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --profile ci -- -D warnings
}

nextest() {
    command -v cargo-nextest >/dev/null || cargo install --locked --quiet cargo-nextest
    cargo nextest run --cargo-profile ci --profile ci "$@"
}

# All rings build the same set of packages: another would build the dependencies anew.
unit() { nextest --workspace -E 'not binary(integration)'; }

# Random sequences against the reference while storage rots, for ten minutes; the seed that fails is
# printed, and FIRN_ZTEST_SEED=<seed> runs it alone.
soak() {
    FIRN_ZTEST_SECONDS=${FIRN_ZTEST_SECONDS:-600} nextest --workspace --lib --run-ignored only \
        -E 'test(for_as_long_as_it_is_told)'
}

mounted() { nextest --workspace -E 'binary(integration)'; }

build() { cargo build --workspace --all-targets --profile ci; }

posix() {
    build
    mount_volume
    for suite in pjdfstest fsx stress-ng; do
        say "posix: $suite"
        scripts/posix/$suite.sh "$work/mountpoint"
    done
    say "posix: while snapshots come and go"
    export FIRN_BIN=$target/ci/firn
    local under=(scripts/posix/with-snapshots.sh "$work/mountpoint")
    FSX_OPERATIONS=10000 "${under[@]}" scripts/posix/fsx.sh "$work/mountpoint" 3 1789 271828
    # It takes a few seconds, so that one a second would be few.
    SNAPSHOT_PAUSE=0.1 "${under[@]}" scripts/posix/pjdfstest.sh "$work/mountpoint"
    "$target/ci/firn" umount "$work/mountpoint"
    "$target/ci/firn" check --data "$work/volume"
}

quickstart() {
    build
    local home
    home=$(mktemp -d)
    # Twice, as the README promises that a second run does no harm.
    FIRN_BIN=$target/ci/firn FIRN_QUICKSTART_DIR=$home/firn scripts/quickstart.sh
    FIRN_BIN=$target/ci/firn FIRN_QUICKSTART_DIR=$home/firn scripts/quickstart.sh
    FIRN_BIN=$target/ci/firn FIRN_QUICKSTART_DIR=$home/firn scripts/quickstart.sh --down
    ! mountpoint -q "$home/firn/mountpoint"
    rm -rf "$home"
}

# Every decoder for a minute, two side by side, in a build of its own.
fuzz() { scripts/fuzz.sh; }

for ring in "${rings[@]}"; do
    say "$ring"
    "$ring"
done
say "all rings passed: ${rings[*]}"
