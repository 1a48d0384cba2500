//! Waking the store's threads, counting what they do, and faults for tests. A kick that finds its
//! thread busy is remembered, never lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// One thread's doorbell.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until it is rung, or that long.
    pub(super) fn wait(&self, longest: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.changed.wait_for(&mut rung, longest);
        }
        *rung = false;
    }
}

/// The doorbells.
#[derive(Default)]
pub(super) struct Signals {
    /// Leases, next segment, catching up, freed blocks.
    pub(super) helper: Bell,
    /// Drops and collects when space is short.
    pub(super) mover: Bell,
    /// Copies to cold.
    pub(super) uploader: Bell,
    /// Re-encodes when nobody needs the store.
    pub(super) recoder: Bell,
    /// Repairs damaged copies.
    pub(super) mender: Bell,
    /// The catalog caught up somewhat.
    pub(super) caught_up: Bell,
}

impl Signals {
    pub(super) fn kick_helper(&self) {
        self.helper.ring();
    }

    pub(super) fn kick_mover(&self) {
        self.mover.ring();
    }

    pub(super) fn kick_uploader(&self) {
        self.uploader.ring();
    }

    pub(super) fn kick_all(&self) {
        self.kick_helper();
        self.kick_mover();
        self.kick_uploader();
        self.recoder.ring();
        self.mender.ring();
    }
}

/// What happened since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appended_blocks: AtomicU64,
    pub(super) appended_plain_bytes: AtomicU64,
    pub(super) appended_stored_bytes: AtomicU64,
    pub(super) sealed_segments: AtomicU64,
    pub(super) caught_up_segments: AtomicU64,
    pub(super) hot_reads: AtomicU64,
    pub(super) cold_reads: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) hot_read_bytes: AtomicU64,
    pub(super) cold_read_bytes: AtomicU64,
    pub(super) cache_read_bytes: AtomicU64,
    pub(super) recalled_bytes: AtomicU64,
    pub(super) damaged_reads: AtomicU64,
    pub(super) rescued_reads: AtomicU64,
    pub(super) repaired_segments: AtomicU64,
    pub(super) uploaded_segments: AtomicU64,
    pub(super) uploaded_bytes: AtomicU64,
    pub(super) upload_failures: AtomicU64,
    pub(super) dropped_bytes: AtomicU64,
    pub(super) unpinned_bytes: AtomicU64,
    pub(super) freed_bytes: AtomicU64,
    pub(super) reclaimed_segments: AtomicU64,
    pub(super) compacted_segments: AtomicU64,
    pub(super) recoded_segments: AtomicU64,
    pub(super) recoded_saved_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn appended(&self, plain: u64, stored: u64) {
        add(&self.appended_blocks, 1);
        add(&self.appended_plain_bytes, plain);
        add(&self.appended_stored_bytes, stored);
    }

    /// A read was answered with so many bytes from a hot file.
    pub(super) fn read_hot(&self, bytes: usize) {
        add(&self.hot_reads, 1);
        add(&self.hot_read_bytes, bytes as u64);
    }

    /// A read was answered from cold.
    pub(super) fn read_cold(&self, bytes: usize) {
        add(&self.cold_reads, 1);
        add(&self.cold_read_bytes, bytes as u64);
    }

    /// A read was answered from memory.
    pub(super) fn read_cached(&self, bytes: usize) {
        add(&self.cache_hits, 1);
        add(&self.cache_read_bytes, bytes as u64);
    }

    pub(super) fn sealed(&self) {
        add(&self.sealed_segments, 1);
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Failures of the local disk on demand, for tests.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) fail_sync: AtomicBool,
    /// As a file system that knows no holes.
    pub(super) refuse_punch: AtomicBool,
}

impl Faults {
    /// Fails once armed; costs one relaxed load otherwise.
    pub(super) fn before_sync(&self) -> std::io::Result<()> {
        if self.fail_sync.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("injected failure of fdatasync"));
        }
        Ok(())
    }

    /// The same before a hole is punched.
    pub(super) fn before_punch(&self) -> std::io::Result<()> {
        match self.refuse_punch.load(Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    }
}
