//! A tier in a local directory: every object a plain file under its key.
//!
//! Crash rules: an object is written into `.tmp/` (no key reaches there), synced, and moved to
//! its name without replacing anything; then the directories are synced from the object up. A
//! crash leaves a temporary file or the whole object, never a part of one. A temporary file is
//! locked by its writer, so that [`Tier::clean`] can tell the files of the dead from those of
//! the living. Blocking work runs off the asynchronous threads; a put that was cancelled runs to
//! its end there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::content::{CHUNK_LEN, Content, blocking};
use super::failure::{FailureKind, TierFailure};
use super::memory::past_end;
use super::{MAX_WHOLE_OBJECT_LEN, ObjectMeta, Tier, check_key, check_prefix, check_range};
use crate::buffers::Buffer;
use crate::error::{Error, Result};

/// Where objects are written before they get their name.
const TMP: &str = ".tmp";

/// Distinguishes temporary files of one process.
static NEXT_TMP: AtomicU64 = AtomicU64::new(0);

/// A tier in a local directory.
#[derive(Clone)]
pub struct Directory {
    root: Arc<PathBuf>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.root.display())
    }
}

impl Directory {
    /// Opens a directory that exists; where it does not, the error says what to do.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let unusable = |reason: String, hint: String| Error::Unusable {
            tier: root.display().to_string(),
            reason,
            hint,
        };
        match fs::metadata(&root) {
            Ok(meta) if meta.is_dir() => Ok(Self { root: Arc::new(root) }),
            Ok(_) => Err(unusable(
                "not a directory".to_owned(),
                "name a directory that Firn may fill".to_owned(),
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unusable(
                "no such directory".to_owned(),
                format!("create it (mkdir -p '{}') or mount what belongs there", root.display()),
            )),
            Err(error) => Err(unusable(
                error.to_string(),
                "check the permissions of the path and of the directories above it".to_owned(),
            )),
        }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    async fn store(&self, key: &str, content: Content) -> Result<()> {
        let path = self.path(key)?;
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || match is_file(&path) {
            true => this.settle(&key, &path, &content),
            false => this.write(&key, &path, &content, false),
        })
        .await
    }

    /// Makes the object of that path, in place of another if `replaces`.
    fn write(&self, key: &str, path: &Path, content: &Content, replaces: bool) -> Result<()> {
        let failed = |error: io::Error| write_failed(key, &error);
        let parent = path.parent().unwrap_or(&self.root);
        make_dirs(&self.root, parent).map_err(failed)?;
        let (tmp, mut file) = self.temporary().map_err(failed)?;
        let moved = || if replaces { fs::rename(&tmp, path) } else { move_into_place(&tmp, path) };
        let result = fill(&mut file, key, content).and_then(|()| match moved() {
            Ok(()) => sync_dir(parent).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.settle(key, path, content)
            }
            Err(error) => Err(failed(error)),
        });
        // Gone already when the move succeeded; otherwise the next clean would find it.
        let _ = fs::remove_file(&tmp);
        result
    }

    /// The key is taken: fine with the same bytes, which are then made durable, since whoever
    /// wrote them may have died before doing so.
    fn settle(&self, key: &str, path: &Path, content: &Content) -> Result<()> {
        let failed = |error: io::Error| write_failed(key, &error);
        let stored = File::open(path).map_err(failed)?;
        if stored.metadata().map_err(failed)?.len() != content.len()
            || !same_bytes(&stored, content).map_err(failed)?
        {
            return Err(Error::Exists(key.to_owned()));
        }
        stored.sync_all().map_err(failed)?;
        sync_dir(path.parent().unwrap_or(&self.root)).map_err(failed)
    }

    /// A new locked file in `.tmp/`.
    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let dir = self.root.join(TMP);
        if let Err(error) = fs::create_dir(&dir)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        loop {
            let number = NEXT_TMP.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{}.{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    // Where locks are not to be had, clean leaves the file alone.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok((path, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open_object(&self, action: &'static str, key: &str) -> Result<(File, u64)> {
        let path = self.path(key)?;
        let file = File::open(&path).map_err(|e| read_failed(action, key, &e))?;
        let meta = file.metadata().map_err(|e| read_failed(action, key, &e))?;
        if !meta.is_file() {
            return Err(Error::NotFound(key.to_owned()));
        }
        Ok((file, meta.len()))
    }

    fn read_blocking(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let (file, len) = self.open_object("read", key)?;
        let range = range.unwrap_or(0..len);
        if range.end > len {
            return Err(past_end("read", key, &range, len));
        }
        if range.end - range.start > MAX_WHOLE_OBJECT_LEN {
            let message = format!("{len} bytes are more than any object of ours");
            return Err(TierFailure::error(FailureKind::Rejected, "read", key, message));
        }
        let len = (range.end - range.start) as usize;
        let mut buffer = Buffer::with_capacity(len);
        buffer.read_at(&file, len, range.start).map_err(|e| read_failed("read", key, &e))?;
        Ok(buffer.share())
    }

    fn list_blocking(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let failed = |error: io::Error| read_failed("list", prefix, &error);
        let first_dir = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
        let mut dirs = vec![first_dir.to_owned()];
        let mut keys = std::collections::BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            let entries = match fs::read_dir(self.root.join(&dir)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let key = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                if check_key(&key).is_err() {
                    continue;
                }
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    dirs.push(key);
                } else if kind.is_file()
                    && key.starts_with(prefix)
                    && after.is_none_or(|after| key.as_str() > after)
                {
                    keys.insert(key);
                    if keys.len() > limit {
                        keys.pop_last();
                    }
                }
            }
        }
        let mut metas = Vec::with_capacity(keys.len());
        for key in keys {
            match fs::metadata(self.root.join(&key)) {
                Ok(meta) => metas.push(ObjectMeta { key, len: meta.len() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(metas)
    }

    fn clean_blocking(&self) -> Result<u64> {
        let failed = |error: io::Error| read_failed("clean", TMP, &error);
        let entries = match fs::read_dir(self.root.join(TMP)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(failed)?,
        };
        let mut removed = 0;
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Ok(file) = File::open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && fs::remove_file(&path).is_ok()
            {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[async_trait]
impl Tier for Directory {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.store(key, Content::Bytes(bytes)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        check_key(key)?;
        self.store(key, Content::open(path).await?).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || this.read_blocking(&key, None)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_range(key, &range)?;
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || this.read_blocking(&key, Some(range))).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || {
            let (_, len) = this.open_object("look for", &key)?;
            Ok(ObjectMeta { key, len })
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let (this, prefix, after) = (self.clone(), prefix.to_owned(), after.map(str::to_owned));
        blocking(move || this.list_blocking(&prefix, after.as_deref(), limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        let key = key.to_owned();
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| write_failed(&key, &error)),
        })
        .await
    }

    async fn clean(&self) -> Result<u64> {
        let this = self.clone();
        blocking(move || this.clean_blocking()).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        let (this, path, content) = (self.clone(), self.path(key)?, content.clone());
        let key = key.to_owned();
        blocking(move || this.write(&key, &path, &content, true)).await
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

/// A directory that vanished while an object was written is trouble with the store, not a
/// missing object.
fn write_failed(key: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            TierFailure::error(FailureKind::Unavailable, "store", key, error.to_string())
        }
        _ => TierFailure::from_io("store", key, error),
    }
}

/// A parent that is a file means that the key is not there.
fn read_failed(action: &'static str, key: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Error::NotFound(key.to_owned())
        }
        _ => TierFailure::from_io(action, key, error),
    }
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the directories from `root` down to `dir`, each durable before the next.
fn make_dirs(root: &Path, dir: &Path) -> io::Result<()> {
    if dir == root || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(root);
    make_dirs(root, parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(parent),
    }
}

/// Writes the whole content and makes it durable.
fn fill(file: &mut File, key: &str, content: &Content) -> Result<()> {
    let failed = |error: io::Error| write_failed(key, &error);
    match content {
        Content::Bytes(bytes) => file.write_all(bytes).map_err(failed)?,
        Content::File { path, file: source, len } => {
            let mut buffer = vec![0; CHUNK_LEN.min(*len).min(1 << 20) as usize];
            let mut offset = 0;
            while offset < *len {
                let take = buffer.len().min((*len - offset) as usize);
                source
                    .read_exact_at(&mut buffer[..take], offset)
                    .map_err(Error::io(format!("read {}", path.display())))?;
                file.write_all(&buffer[..take]).map_err(failed)?;
                offset += take as u64;
            }
        }
    }
    file.sync_all().map_err(failed)
}

/// Whether the open object of the right length holds `content`.
fn same_bytes(stored: &File, content: &Content) -> io::Result<bool> {
    let (len, step) = (content.len(), 1 << 20);
    let mut ours = vec![0; step.min(len as usize)];
    let mut theirs = ours.clone();
    let mut offset = 0;
    while offset < len {
        let take = step.min((len - offset) as usize);
        stored.read_exact_at(&mut theirs[..take], offset)?;
        match content {
            Content::Bytes(bytes) => {
                ours[..take].copy_from_slice(&bytes[offset as usize..offset as usize + take]);
            }
            Content::File { file, .. } => file.read_exact_at(&mut ours[..take], offset)?,
        }
        if ours[..take] != theirs[..take] {
            return Ok(false);
        }
        offset += take as u64;
    }
    Ok(true)
}

/// Gives the finished file its name, never replacing another. Filesystems that do not know
/// `RENAME_NOREPLACE` get a hard link, which does not replace either.
fn move_into_place(tmp: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, tmp, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(tmp, path),
        other => Ok(other?),
    }
}
