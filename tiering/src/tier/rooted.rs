//! A local tier that notices when its directory is not there any more. The disk behind a
//! `file://` tier may be unmounted under a living volume: the path then names the empty
//! mountpoint, or nothing, and whatever were stored there would vanish below the next mount.
//!
//! Rule: before and after each call the path must lead to the directory that it led to when the
//! tier was opened, told by device and inode. Another one is taken for it only when it holds the
//! same [`IDENTITY_KEY`] object: the disk is back, perhaps under another device number; or when it
//! holds one and the first held none: it was mounted later, and whose it is, is for the layers above
//! to ask. Until then
//! every call fails as [`FailureKind::Unavailable`], so that it is tried again, and success or
//! "not found" of a call during which the directory went away is not believed. A symbolic link in it
//! that leads out of it is refused ([`FailureKind::Rejected`]): whoever can write to the cold tier
//! gets no hand on what is outside. Nothing is held open, so the disk can be unmounted. A crash leaves nothing; opening looks afresh.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::content::blocking;
use super::failure::{FailureKind, TierFailure};
use super::{Care, Content, IDENTITY_KEY, ObjectMeta, Tier, Wholeness, check_key};
use crate::error::{Error, Result};

/// Longest identity that is compared.
const MAX_IDENTITY_LEN: u64 = 4096;

/// A tier in a local directory that refuses to work on another one.
#[derive(Debug)]
pub(super) struct Rooted {
    inner: Arc<dyn Tier>,
    root: Arc<Root>,
}

/// The directory, known by what it is and not by its name.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    directory: DirectoryId,
    /// What its identity object held; `None` as long as nobody has claimed it.
    identity: Option<Vec<u8>>,
}

/// Device and inode.
type DirectoryId = (u64, u64);

impl Rooted {
    /// Binds `inner`, a tier in the directory `path`, to what is there now.
    pub(super) fn new(inner: Arc<dyn Tier>, path: &Path) -> Result<Self> {
        let failed = || Error::io(format!("look at {}", path.display()));
        let directory = directory_id(path).map_err(failed())?;
        let identity = identity_in(path);
        let known = Mutex::new(Known { directory, identity });
        Ok(Self { inner, root: Arc::new(Root { path: path.to_owned(), known }) })
    }

    async fn check(&self, action: &'static str, object: &str) -> Result<()> {
        let root = Arc::clone(&self.root);
        let object = object.to_owned();
        blocking(move || {
            root.check().map_err(|reason| {
                TierFailure::error(FailureKind::Unavailable, action, &object, reason)
            })?;
            root.contains(&object).map_err(|reason| {
                TierFailure::error(FailureKind::Rejected, action, &object, reason)
            })
        })
        .await
    }

    /// A call that counts only when the directory was there all the time. An error of its own
    /// that may be due to a directory that went away gives way to that reason.
    async fn guard<T>(
        &self,
        action: &'static str,
        object: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.check(action, object).await?;
        let result = call.await;
        self.check(action, object).await?;
        result
    }
}

impl Root {
    /// Whether the directory is there; otherwise why not, in words.
    fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        let found = directory_id(&self.path).map_err(|error| {
            format!("the directory {path} is away ({error}): mount its filesystem again")
        })?;
        let mut known = self.known.lock();
        if found == known.directory {
            // Claimed since it was opened: from now on it can be known again.
            if known.identity.is_none() {
                known.identity = identity_in(&self.path);
            }
            return Ok(());
        }
        let there = identity_in(&self.path);
        // What was nobody's held nothing that could be missed: the mountpoint of what has come now.
        let may_be_it = known.identity.is_none() || there == known.identity;
        if may_be_it && there.is_some() {
            (known.directory, known.identity) = (found, there);
            tracing::info!("the directory {path} is there now");
            return Ok(());
        }
        Err(format!("{path} is not the directory that it was: mount its filesystem again"))
    }
}

impl Root {
    /// Fails where a symbolic link on the way to `object`, or to the directory that a prefix names,
    /// leads out of the directory: what lies there is not the tier's to read, replace or delete.
    /// Links within it do no harm. A kernel before 5.6 cannot tell, and is believed.
    fn contains(&self, object: &str) -> Result<(), String> {
        let within = object.trim_end_matches('/');
        if check_key(within).is_err() {
            // All of the directory, or what the call itself refuses.
            return Ok(());
        }
        let path = self.path.display();
        let root = File::open(&self.path).map_err(|error| format!("opening {path}: {error}"))?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, within, flags, Mode::empty(), resolve) {
            Err(Errno::XDEV | Errno::LOOP) => {
                Err(format!("a symbolic link leads out of {path}: remove it or replace it"))
            }
            // What is not there, or cannot be looked at, the call itself tells.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn directory_id(path: &Path) -> io::Result<DirectoryId> {
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((meta.dev(), meta.ino()))
}

/// The identity object's bytes. One that cannot be read proves nothing, like one that is missing.
fn identity_in(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path.join(IDENTITY_KEY)).ok()?;
    file.take(MAX_IDENTITY_LEN).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

#[async_trait]
impl Tier for Rooted {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.guard("store", key, self.inner.put(key, bytes)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.guard("store", key, self.inner.put_file(key, path)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.guard("read", key, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.guard("read", key, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.guard("look for", key, self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.guard("list", prefix, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.guard("delete", key, self.inner.delete(key)).await
    }

    async fn clean(&self) -> Result<u64> {
        self.guard("clean", "", self.inner.clean()).await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.guard("mend", key, self.inner.mend(key, care)).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.guard("replace", key, self.inner.replace(key, content)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
