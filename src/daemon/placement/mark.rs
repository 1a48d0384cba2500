//! Whether the last mount that could change something ended in order: a file that lies in the volume
//! directory for as long as such a mount goes on.
//!
//! The namespace knows how it was closed itself, but only until the next who opens it, and that may be
//! a command on the unmounted volume. *Crash*: made durably before anything is noted that could be
//! lost; removed when everything is stored.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the file in the volume directory.
const FILE_NAME: &str = "placing";

/// The file.
#[derive(Debug)]
pub(super) struct Mark {
    file: PathBuf,
    /// By this mount: a read-only one leaves it as it is.
    is_set: AtomicBool,
}

impl Mark {
    /// That of a volume directory.
    pub(super) fn of(dir: &Path) -> Self {
        Self { file: dir.join(FILE_NAME), is_set: AtomicBool::new(false) }
    }

    /// Whether what was stored last is all that there was.
    pub(super) fn ended_in_order(&self) -> bool {
        !self.file.exists()
    }

    /// A mount begins.
    pub(super) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        let made = File::create(&self.file).and_then(|_| self.sync_dir());
        if let Err(error) = made {
            tracing::warn!(%error, "making {}", self.file.display());
        }
    }

    /// A mount has ended in order.
    pub(super) fn clear(&self) {
        if !self.is_set.swap(false, Ordering::AcqRel) {
            return;
        }
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "removing {}", self.file.display());
            }
            _ => {}
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}
