#!/usr/bin/env bash
# stress-ng: every stressor of the file system class, one after the other, checking itself.
#   scripts/posix/stress-ng.sh MOUNTPOINT [SECONDS-EACH]
# Passes when the run completes and no stressor reports a failure.
. "$(dirname "$0")/common.sh"
dir=${1:?usage: $0 MOUNTPOINT [SECONDS-EACH]}
each=${2:-3}
require_mounted "$dir"
apt_package stress-ng stress-ng

work_below "$dir"
cd "$work"
status=0
# The io stressor calls syncfs where it is started, which tells once of every failed write of the mount
# since it was asked last, those of programs killed while they wrote among them. The other stressors are
# killed, so that it comes first, and what was before is asked for here.
sync --file-system . || true
stress() {
    stress-ng "$@" --sequential 1 -t "$each" --temp-path "$work" --verify --oom-avoid --timestamp \
        >>"$scratch/output" 2>&1 || status=$?
}
stress --io 1
# binderfs mounts a file system of its own, which containers may not, and procfs reads the log of the
# kernel until that says something, which may be never; neither tests anything of ours.
stress --class filesystem --exclude binderfs,procfs,io
if [ $status -ne 0 ] || grep -q 'fail:' "$scratch/output" ||
    ! grep -q 'successful run completed' "$scratch/output"; then
    grep -E 'fail|error|unsuccessful|aborted' "$scratch/output" || tail -n 40 "$scratch/output"
    echo "stress-ng failed (status $status)" >&2
    exit 1
fi
grep -E 'skipped|passed|successful run' "$scratch/output"
