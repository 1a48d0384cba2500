//! Thawed files: plain copies of files that nothing can change, which the kernel reads by itself
//! (FUSE passthrough).
//!
//! *Which*: files in snapshots, and any file of a mount that was made read-only. The kernel lets every
//! open of a file pass through, or none; and a program that opens a file for reading and writing while
//! another passes through may map it, upon which its stores go to the plain copy without anybody being
//! told. No order of writes here could make up for that, so a file that can be written is never thawed,
//! and no stale byte can be seen.
//!
//! *Rule*: a copy is written from verified reads of content that lies in hot, one file at a time,
//! counted before it is written. It is made durable, dropped from the page cache, read back and compared
//! by BLAKE3 before anybody may open it; whoever opens it is given it only while its times and length
//! are those of that moment; it is compared again every hour, also while it is read, and when it is put
//! back, unless somebody waits for its room or the volume is closed meanwhile. A copy that was seen to
//! differ is never given out again, and nothing is ever written back from it. Between two comparisons
//! nobody looks at what the disk gives the kernel: rot shows to who reads then, as on any file system
//! without checksums.
//!
//! *Crash*: a copy has no name in the hot tier's directory from the start (`O_TMPFILE`), so it ends with
//! the process at whatever step, and none is ever trusted by another one. Where the file system has no
//! such files, nothing is thawed. What a program has mapped keeps its bytes on the disk until it is
//! unmapped, also once the copy was put back; they are not counted then, but the disk's own bound does.

mod plain;
mod scores;
mod shelf;
#[cfg(test)]
pub(crate) mod testing;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use plain::Plain;
pub(crate) use plain::{Proof, Source, write};
pub(crate) use scores::Scores;
pub(crate) use shelf::Shelf;

/// Share of the hot tier that plain copies may take, as a divisor.
const SHARE: u64 = 8;

/// When files are thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ThawMode {
    /// When they are read at random often.
    #[default]
    Auto,
    /// When they are opened, which then takes as long as reading them: for tests.
    Always,
    /// Not at all.
    Never,
}

/// Room on the hot tier, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotRoom {
    /// What may be used.
    pub capacity: u64,
    /// What is used, plain copies included.
    pub used: u64,
    /// Above this nothing is thawed.
    pub low: u64,
    /// Above this the mover makes room.
    pub high: u64,
    /// Somebody waits for room.
    pub is_awaited: bool,
}

impl HotRoom {
    /// Bytes that a further copy may have beside the `thawed` ones.
    fn left(&self, thawed: u64) -> u64 {
        let of_share = (self.capacity / SHARE).saturating_sub(thawed);
        if self.is_awaited { 0 } else { of_share.min(self.low.saturating_sub(self.used)) }
    }

    /// Bytes of copies that have to go: before the mover drops anything for the same reason.
    pub(crate) fn excess(&self, thawed: u64) -> u64 {
        if self.is_awaited {
            return thawed;
        }
        let bound = self.low + self.high.saturating_sub(self.low) / 2;
        let over = self.used.saturating_sub(bound);
        over.max(thawed.saturating_sub(self.capacity / SHARE)).min(thawed)
    }
}

/// How a volume thaws files.
#[derive(Clone)]
pub struct ThawSettings {
    /// The hot tier's directory, where the copies are kept.
    pub dir: PathBuf,
    /// When.
    pub mode: ThawMode,
    /// Nothing of the volume can be changed.
    pub is_read_only: bool,
    /// The room there is now.
    pub room: Arc<dyn Fn() -> HotRoom + Send + Sync>,
    /// Where it is counted.
    pub counts: Arc<ThawCounts>,
}

/// What was thawed: shared with who counts the hot tier, and who tells.
#[derive(Debug, Default)]
pub struct ThawCounts {
    files: AtomicU64,
    bytes: AtomicU64,
    thawed: AtomicU64,
    damaged: AtomicU64,
    yielding: AtomicU64,
}

/// [`ThawCounts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thawed {
    /// Copies there are.
    pub files: u64,
    /// Bytes that they take, those of one being written included.
    pub bytes: u64,
    /// Copies made since the mount.
    pub thawed: u64,
    /// Copies that were not any more what they had been written as.
    pub damaged: u64,
}

impl ThawCounts {
    /// Bytes that the copies take.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All of it.
    pub fn now(&self) -> Thawed {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Thawed {
            files: of(&self.files),
            bytes: of(&self.bytes),
            thawed: of(&self.thawed),
            damaged: of(&self.damaged),
        }
    }

    /// Whether copies will go by themselves as soon as somebody waits for their room.
    pub fn is_yielding(&self) -> bool {
        self.yielding.load(Ordering::Relaxed) > 0
    }

    /// Bytes of copies that nobody uses, or that are being put back.
    pub(crate) fn set_yielding(&self, bytes: u64) {
        self.yielding.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn note_damage(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a copy of `bytes` that is about to be written.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Charge {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Charge { counts: Arc::clone(self), bytes, is_file: false }
    }
}

/// Bytes counted for a copy, as long as it exists.
#[derive(Debug)]
pub(crate) struct Charge {
    counts: Arc<ThawCounts>,
    bytes: u64,
    is_file: bool,
}

impl Charge {
    /// The copy is written.
    fn is_written(&mut self) {
        self.is_file = true;
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.thawed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.is_file {
            self.counts.files.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: HotRoom =
        HotRoom { capacity: 800, used: 0, low: 600, high: 700, is_awaited: false };

    #[test]
    fn copies_have_a_share_and_only_what_is_free_below_the_low_mark() {
        assert_eq!(ROOM.left(0), 100);
        assert_eq!(ROOM.left(30), 70);
        assert_eq!(ROOM.left(130), 0);
        assert_eq!(HotRoom { used: 580, ..ROOM }.left(0), 20);
        assert_eq!(HotRoom { used: 900, ..ROOM }.left(0), 0);
        assert_eq!(HotRoom { is_awaited: true, ..ROOM }.left(0), 0);
    }

    #[test]
    fn copies_go_before_the_mover_has_to_make_room() {
        assert_eq!(HotRoom { used: 650, ..ROOM }.excess(100), 0);
        assert_eq!(HotRoom { used: 670, ..ROOM }.excess(100), 20);
        assert_eq!(HotRoom { used: 800, ..ROOM }.excess(100), 100, "all there are");
        assert_eq!(HotRoom { is_awaited: true, ..ROOM }.excess(60), 60);
        assert_eq!(HotRoom { capacity: 400, ..ROOM }.excess(60), 10, "the share has shrunk");
    }

    #[test]
    fn bytes_are_counted_from_before_a_copy_is_written_until_it_is_gone() {
        let counts = Arc::new(ThawCounts::default());
        let mut charge = counts.charge(10);
        assert_eq!(counts.now(), Thawed { bytes: 10, ..Thawed::default() });
        charge.is_written();
        assert_eq!(counts.now(), Thawed { bytes: 10, files: 1, thawed: 1, damaged: 0 });
        drop(charge);
        assert_eq!(counts.now(), Thawed { thawed: 1, ..Thawed::default() });
    }
}
