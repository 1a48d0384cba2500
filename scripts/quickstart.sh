#!/usr/bin/env bash
# From nothing to a mounted volume with a real tree in it.
#   scripts/quickstart.sh          build, make a volume, mount it, copy a tree in, look at it
#   scripts/quickstart.sh --down   unmount; the volume stays and can be mounted again
#   scripts/quickstart.sh --purge  unmount and delete the volume
# FIRN_QUICKSTART_DIR says where (default ~/firn-quickstart), FIRN_QUICKSTART_TREE what is copied
# (default /usr/include), FIRN_BIN an already built firn.
set -euo pipefail
cd "$(dirname "$0")/.."

home=${FIRN_QUICKSTART_DIR:-$HOME/firn-quickstart}
tree=${FIRN_QUICKSTART_TREE:-/usr/include}
[ -d "$tree" ] || tree=$PWD
mountpoint=$home/mountpoint
firn=${FIRN_BIN:-}

build() {
    [ -z "$firn" ] || return 0
    scripts/install-deps.sh build
    cargo build --release -p firn
    firn=${CARGO_TARGET_DIR:-$PWD/target}/release/firn
}

up() {
    scripts/install-deps.sh run
    build
    mkdir -p "$home/cold" "$mountpoint"
    [ -e "$home/volume" ] || "$firn" init "$home/volume" --cold "file://$home/cold"
    mountpoint -q "$mountpoint" || "$firn" mount "$home/volume" "$mountpoint"
    mountpoint -q "$mountpoint"
    echo "copying $tree into the volume ..."
    rsync -aHAX "$tree/" "$mountpoint/$(basename "$tree")/"
    "$firn" sync "$mountpoint"
    echo
    "$firn" status "$mountpoint"
    local sample
    sample=$(find "$mountpoint/$(basename "$tree")" -type f -size +16k -print -quit)
    echo
    "$firn" explain "$sample"
    cat <<EOF

The volume is mounted at $mountpoint; use it with cp, rsync and your own programs.
  $firn status $mountpoint            capacity, tiers, health
  $firn explain FILE                  codec, checksum and place of each block of a file
  $firn tier archive -r $mountpoint   copy everything to the cold tier now
  scripts/quickstart.sh --down        unmount; --purge deletes the volume as well
EOF
}

down() {
    if mountpoint -q "$mountpoint"; then
        [ -n "$firn" ] || firn=${CARGO_TARGET_DIR:-$PWD/target}/release/firn
        "$firn" umount "$mountpoint"
    fi
    echo "unmounted; the volume stays in $home"
}

case ${1:-} in
    "") up ;;
    --down) down ;;
    --purge) down; rm -rf "$home"; echo "deleted $home" ;;
    *) echo "usage: $0 [--down|--purge]" >&2; exit 2 ;;
esac
