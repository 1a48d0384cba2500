//! Supplementary groups of a caller, for the few rules that the kernel leaves to the daemon.

use crate::types::Caller;

/// Longest `status` file that is believed.
const STATUS_MAX: u64 = 1 << 20;

/// Whether the thread `pid` has `gid` among its supplementary groups. Unknown threads have none.
pub(super) fn has_group(pid: u32, gid: u32) -> bool {
    use std::io::Read;
    if pid == 0 {
        return false;
    }
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/status")) else { return false };
    let mut status = String::new();
    if file.take(STATUS_MAX).read_to_string(&mut status).is_err() {
        return false;
    }
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid)))
}

/// Whether the caller belongs to a group, or may act as if.
pub(super) fn in_group_or_capable(caller: &Caller, gid: u32) -> bool {
    caller.uid == 0 || caller.gid == gid || has_group(caller.pid, gid)
}
