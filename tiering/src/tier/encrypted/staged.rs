//! A file on its way out, encrypted once into a file that has no name: attempts, parts and
//! comparisons all read the same ciphertext, whatever becomes of the plaintext meanwhile. Two
//! plaintexts under one key and nonce would give both away.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use tokio::sync::OwnedMutexGuard;

use super::super::content::{Content, blocking};
use super::Encrypted;
use crate::crypt::{CHUNK_LEN, SEALED_CHUNK_LEN, Sealer};
use crate::error::{Error, Result};

/// Chunks that are read, encrypted and written at once.
const CHUNKS_AT_ONCE: u64 = 64;

/// The ciphertext of one file, for as long as this lives.
pub(super) struct Staged {
    file: File,
    _in_memory: Option<OwnedMutexGuard<()>>,
}

impl Staged {
    /// A path that leads to it within this process.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

impl Encrypted {
    /// Encrypts a file aside.
    pub(super) async fn stage(&self, key: &str, content: &Content) -> Result<Staged> {
        let staging = self.staging.clone();
        self.stage_in(key, content, move || on_disk(&staging)).await
    }

    async fn stage_in(
        &self,
        key: &str,
        content: &Content,
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
    ) -> Result<Staged> {
        let name = format!("encrypt a file in {}", self.staging.display());
        match self.fill(key, content, open).await {
            Err(Error::Io { source, .. }) if is_full(&source) => {}
            Err(Error::Io { source, .. }) => return Err(Error::Io { action: name, source }),
            file => return Ok(Staged { file: file?, _in_memory: None }),
        }
        let turn = Arc::clone(&self.in_memory).lock_owned().await;
        let file = self.fill(key, content, in_memory).await?;
        Ok(Staged { file, _in_memory: Some(turn) })
    }

    async fn fill(
        &self,
        key: &str,
        content: &Content,
        open: impl FnOnce() -> io::Result<File> + Send + 'static,
    ) -> Result<File> {
        let (data, name) = (Arc::clone(&self.key), key.to_owned());
        let mut file = blocking(move || open().map_err(Error::io("open a file aside"))).await?;
        let mut sealer = Sealer::new(&data, &name)?;
        let (len, step) = (content.len(), CHUNKS_AT_ONCE * CHUNK_LEN);
        let mut start = 0;
        loop {
            let end = len.min(start + step);
            let plain = content.read(start..end).await?;
            (file, sealer) = blocking(move || {
                let sealed = seal_piece(&mut sealer, &plain, end == len)?;
                file.write_all(&sealed).map_err(Error::io("write a file aside"))?;
                Ok((file, sealer))
            })
            .await?;
            if end == len {
                return Ok(file);
            }
            start = end;
        }
    }
}

fn seal_piece(sealer: &mut Sealer, plain: &[u8], is_end: bool) -> Result<Vec<u8>> {
    let mut sealed = Vec::with_capacity((CHUNKS_AT_ONCE * SEALED_CHUNK_LEN) as usize);
    let mut chunks = plain.chunks(CHUNK_LEN as usize).peekable();
    if plain.is_empty() {
        sealer.push(plain, true, &mut sealed)?;
    }
    while let Some(chunk) = chunks.next() {
        sealer.push(chunk, is_end && chunks.peek().is_none(), &mut sealed)?;
    }
    Ok(sealed)
}

fn on_disk(staging: &Path) -> io::Result<File> {
    tempfile::tempfile_in(staging)
}

fn in_memory() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("firn-encrypted", MemfdFlags::CLOEXEC)?))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::crypt::{self, DataKey};
    use crate::tier::Memory;

    #[tokio::test]
    async fn a_full_disk_holds_nothing_up() {
        let key = Arc::new(DataKey::random().unwrap());
        let staging = PathBuf::from("/nonexistent");
        let tier = Encrypted::new(Arc::new(Memory::new()), Arc::clone(&key), staging);
        let plain = vec![7; 40 * CHUNK_LEN as usize + 9];
        let content = Content::Bytes(plain.clone().into());
        // Every write to it finds no space.
        let full = || File::options().write(true).open("/dev/full");
        let staged = tier.stage_in("k", &content, full).await.unwrap();
        let sealed = std::fs::read(staged.path()).unwrap();
        assert!(crypt::open(&key, "k", 0, sealed, true).unwrap() == plain);
        assert!(tier.in_memory.try_lock().is_err(), "one at a time");
        drop(staged);
        assert!(tier.in_memory.try_lock().is_ok());
    }
}
