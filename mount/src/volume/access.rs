//! Access times, in datasets that keep them: a file that is opened for reading was accessed.
//!
//! The kernel asks for a part of the reads only, but for every open. As with `relatime` a time is
//! worth a change when it is not younger than the last change of the file, or a day old. It is
//! noted in memory and committed with the next group, so that no read waits for a write; a crash
//! may lose it, and where very much is to be committed already it is left out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use firn_tiering::Wait;

use super::Volume;
use crate::error::FsResult;
use crate::file::node::FileNode;

/// An access time that is younger is good enough.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);

/// Files that wait to be committed; with more, access times are left out.
const MOST_WAITING: usize = 4096;

impl Volume {
    /// Notes that a file was opened for reading, where that matters.
    pub(super) fn note_access(&self, node: &Arc<FileNode>) -> FsResult<()> {
        if !self.names.properties_of(node.ino)?.keeps_atime
            || self.files.dirty_files() >= MOST_WAITING
        {
            return Ok(());
        }
        let attr = self.attr(node.ino)?;
        let now = self.now();
        if !is_stale(attr.atime, attr.mtime.max(attr.ctime), now) {
            return Ok(());
        }
        // Only where it costs no wait; the next open comes by again.
        let Ok(_pass) = self.change_as(node.ino, Wait::No) else { return Ok(()) };
        let mut state = node.state.write();
        if !state.gone {
            state.times.atime = Some(now);
            state.touch();
            drop(state);
            self.files.note_dirty(node, 0);
        }
        Ok(())
    }
}

/// Whether an access time says less than a new one.
fn is_stale(atime: SystemTime, changed: SystemTime, now: SystemTime) -> bool {
    // One from a clock that was ahead is not kept for ever.
    atime <= changed || now.duration_since(atime).map_or(true, |age| age >= FRESH_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_relatime_has_it() {
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600);
        assert!(is_stale(at(100), at(100), at(100)), "never read since it was written");
        assert!(!is_stale(at(101), at(100), at(102)));
        assert!(!is_stale(at(101), at(100), at(124)));
        assert!(is_stale(at(101), at(100), at(125)));
        assert!(is_stale(at(200), at(100), at(150)), "the clock went back");
    }
}
