# Sourced by the suites beside it: what they share.

set -euo pipefail

# A mount that silently failed would pass everything on the directory below it.
require_mounted() {
    local dir=$1
    [ -n "${FIRN_POSIX_ANY_DIRECTORY:-}" ] || mountpoint -q "$dir" || {
        echo "$dir is not a mountpoint (FIRN_POSIX_ANY_DIRECTORY=1 tries the suite on any directory)" >&2
        exit 2
    }
}

require_root() {
    [ "$(id -u)" = 0 ] || { echo "this suite switches users and needs root" >&2; exit 2; }
}

# cargo_tool PROGRAM VERSION: installs that very version unless it is there.
cargo_tool() {
    local program=$1 version=$2
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    case "$("$program" --version 2>/dev/null || true)" in
    *" $version") ;;
    *) cargo install --locked --quiet "$program" --version "$version" --force ;;
    esac
}

# apt_package FILE-THAT-SHOWS-IT PACKAGE
apt_package() {
    local shown_by=$1 package=$2
    [ -e "$shown_by" ] || command -v "$shown_by" >/dev/null || {
        [ "$(id -u)" = 0 ] || { echo "missing package: $package" >&2; exit 2; }
        apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -qy "$package" >&2
    }
}

# Makes $work below the directory under test and takes it away again, whatever happens.
work_below() {
    work=$(mktemp -d "$1/posix-suite.XXXXXX")
    scratch=$(mktemp -d)
    trap 'rm -rf "$work" "$scratch"' EXIT
}
