#!/usr/bin/env bash
# pjdfstest: POSIX semantics of system calls, as several users.
#   scripts/posix/pjdfstest.sh MOUNTPOINT
# Passes when no case fails and none is skipped but those that need a read-only remount, and the
# one that needs a limit of links that the C library tells for no FUSE mount.
. "$(dirname "$0")/common.sh"
dir=${1:?usage: $0 MOUNTPOINT}
require_mounted "$dir"
require_root
apt_package /usr/include/sys/acl.h libacl1-dev
apt_package /usr/bin/setfacl acl
cargo_tool pjdfstest 0.2.2
id tests >/dev/null 2>&1 || useradd -M -U tests

work_below "$dir"
chmod 755 "$work"
# A second file system, for calls that must not cross from one to the other.
second=$(mktemp -d /dev/shm/firn-pjdfstest.XXXXXX)
trap 'rm -rf "$work" "$scratch" "$second"' EXIT
# Socket addresses hold 108 bytes, of which the suite needs more than half.
if [ ${#work} -gt 48 ]; then
    short=$(mktemp -d /tmp/firn-pjdfstest.XXXXXX)
    mount --bind "$work" "$short"
    trap 'umount "$short"; rmdir "$short"; rm -rf "$work" "$scratch" "$second"' EXIT
fi
cat >"$scratch/settings.toml" <<'SETTINGS'
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["tests", "tests"]]
SETTINGS

status=0
pjdfstest -c "$scratch/settings.toml" -s "$second" -p "${short:-$work}" >"$scratch/output" 2>&1 || status=$?
grep -a '^Summary:' "$scratch/output" || true
if [ $status -ne 0 ]; then
    grep -a -A1 'FAILED$' "$scratch/output" || cat "$scratch/output"
    echo "pjdfstest failed" >&2
    exit 1
fi
# The summary must be there: a suite that ended early has not passed.
grep -q '^Summary: 0 failed' "$scratch/output" || { cat "$scratch/output"; exit 1; }
# link_count_max asks pathconf(3), and the C library knows no limit for any FUSE mount.
skipped=$(grep -aE 'skipped *$' "$scratch/output" | grep -vE 'erofs|link::link_count_max' || true)
if [ -n "$skipped" ]; then
    printf 'skipped without a reason known here:\n%s\n' "$skipped" >&2
    exit 1
fi
