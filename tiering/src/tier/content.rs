//! What is being stored, from memory or from a file, and whether a tier holds exactly that.
//! Every implementation settles "exists already" and every retry settles "did it happen?" here.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Tier;
use crate::buffers::Buffer;
use crate::error::{Error, Result};

/// Bytes compared at a time: 8 MiB, also the part size of multipart uploads.
pub(super) const CHUNK_LEN: u64 = 8 << 20;

/// What is being stored.
#[derive(Clone, Debug)]
pub enum Content {
    /// From memory.
    Bytes(Bytes),
    /// From a local file, whose length was taken when it was opened.
    File {
        /// For messages.
        path: PathBuf,
        /// The open file.
        file: Arc<File>,
        /// Its length.
        len: u64,
    },
}

/// Whether a tier holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No object of that key.
    Missing,
    /// An object with exactly these bytes.
    Same,
    /// An object with other bytes.
    Different,
}

impl Content {
    /// Opens a file to be stored.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let action = || format!("open {}", path.display());
            let file = File::open(&path).map_err(Error::io(action()))?;
            let len = file.metadata().map_err(Error::io(action()))?.len();
            Ok(Self::File { path, file: Arc::new(file), len })
        })
        .await
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes `range`, which lies inside.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Self::File { path, file, .. } => {
                let (path, file) = (path.clone(), Arc::clone(file));
                blocking(move || {
                    let len = (range.end - range.start) as usize;
                    let mut buffer = Buffer::with_capacity(len);
                    buffer
                        .read_at(&*file, len, range.start)
                        .map_err(Error::io(format!("read {}", path.display())))?;
                    Ok(buffer.share())
                })
                .await
            }
        }
    }
}

/// Whether `tier` holds `content` under `key`.
pub async fn compare(tier: &dyn Tier, key: &str, content: &Content) -> Result<Presence> {
    let len = match tier.head(key).await {
        Ok(meta) => meta.len,
        Err(Error::NotFound(_)) => return Ok(Presence::Missing),
        Err(error) => return Err(error),
    };
    if len != content.len() {
        return Ok(Presence::Different);
    }
    let mut start = 0;
    while start < len {
        let range = start..len.min(start + CHUNK_LEN);
        let stored = match tier.get_range(key, range.clone()).await {
            Err(Error::NotFound(_)) => return Ok(Presence::Missing),
            other => other?,
        };
        if stored != content.read(range.clone()).await? {
            return Ok(Presence::Different);
        }
        start = range.end;
    }
    Ok(Presence::Same)
}

/// Runs file work off the asynchronous threads.
pub(super) async fn blocking<T, F>(work: F) -> Result<T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
        Err(_) => Err(Error::TimedOut("shutting down")),
    }
}
