#!/usr/bin/env bash
# Installs the Debian packages a part of the project needs, when they are missing.
#   scripts/install-deps.sh run     what a mounted volume needs
#   scripts/install-deps.sh build   a C compiler for the bundled codecs
#   scripts/install-deps.sh test    what the test rings run on a mount
#   scripts/install-deps.sh bench   what the benchmark runs on a mount
#   scripts/install-deps.sh eval    what reads the traces that the classifier is evaluated on
set -euo pipefail

packages() {
    case $1 in
        run) echo fuse3 rsync ;;
        build) echo gcc g++ make pkg-config cmake ;;
        test) echo fuse3 rsync acl attr fio git sqlite3 python3 stress-ng libacl1-dev strace procps systemd xfsprogs e2fsprogs ;;
        bench) echo fuse3 rsync fio python3 ;;
        eval) echo python3 xz-utils ;;
        *) echo "usage: $0 run|build|test|bench|eval" >&2; exit 2 ;;
    esac
}

missing=()
for package in $(packages "${1:-}"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
if ! $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
