//! A tier in which nobody reads without the volume's key: every object is encrypted before it leaves
//! the machine, and verified when it comes back. Belongs above everything that stands before a
//! store, so that patience and throttle see only what travels, and a ciphertext is made once for all
//! attempts to store it.
//!
//! *In the clear*: whose place it is ([`IDENTITY_KEY`]), claims of owners and wrapped keys; what is
//! stored under other keys is encrypted without exception. Names of objects, their number and
//! lengths are not hidden. Lengths that are told are those of the plaintext, as the stored length
//! has it; that they are true is known once the end of the object was read.
//! *Immutability*: no two ciphertexts are the same, so what is stored already is compared as
//! plaintext. *Damage*: what does not open is [`Error::Damaged`], asked for once more before, since
//! a damaged answer is not a damaged object.
//! *Files* are encrypted into a file without a name, in `staging`, or where its disk is full in
//! memory, one at a time: space must be freed by copying. *Crash*: nothing stays behind.

mod staged;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::content::{Content, Presence, blocking, compare};
use super::failure::{FailureKind, TierFailure, is_retriable};
use super::memory::past_end;
use super::owner::CLAIMS;
use super::{Care, IDENTITY_KEY, ObjectMeta, Tier, Wholeness, check_key, check_range};
use crate::crypt::{self, CHUNK_LEN, DataKey, Generation, SEALED_CHUNK_LEN};
use crate::error::{Error, Result};

/// Stored bytes that are opened in place; more would hold up others on the same thread.
const OPENED_AT_ONCE: usize = 512 << 10;

/// Times that a damaged answer is asked for.
const LOOKS: usize = 2;

/// A tier of encrypted objects.
#[derive(Clone, Debug)]
pub struct Encrypted {
    inner: Arc<dyn Tier>,
    key: Arc<DataKey>,
    staging: PathBuf,
    /// Held by who encrypts a file in memory.
    in_memory: Arc<tokio::sync::Mutex<()>>,
}

/// Stored bytes of an object from the beginning of one of its chunks.
struct Sealed {
    first: u64,
    bytes: Bytes,
    /// They are known to reach its end.
    to_end: bool,
}

impl Encrypted {
    /// Encrypts what goes to `inner` with `key`. Files are encrypted in the directory `staging`,
    /// which may come to be later.
    pub fn new(inner: Arc<dyn Tier>, key: Arc<DataKey>, staging: PathBuf) -> Self {
        Self { inner, key, staging, in_memory: Arc::default() }
    }

    async fn open(&self, key: &str, sealed: Sealed) -> Result<Bytes> {
        let (data, name) = (Arc::clone(&self.key), key.to_owned());
        let Sealed { first, bytes, to_end } = sealed;
        let is_short = bytes.len() <= OPENED_AT_ONCE;
        let open = move || {
            let opened = crypt::open(&data, &name, first, bytes.into(), to_end)?;
            Ok(Bytes::from(opened))
        };
        if is_short { open() } else { blocking(open).await }
    }

    /// The chunks that hold `range`, which is not empty.
    async fn fetch(&self, key: &str, range: &Range<u64>) -> Result<Sealed> {
        let first = range.start / CHUNK_LEN;
        let start = first * SEALED_CHUNK_LEN;
        let end = range.end.div_ceil(CHUNK_LEN) * SEALED_CHUNK_LEN;
        let to_end = match self.inner.get_range(key, start..end).await {
            Ok(bytes) => return self.exactly(key, bytes, end - start, (first, false)),
            // The last chunk is shorter than others, and only the object knows whether it is meant.
            Err(error) if is_retriable(&error) || matches!(error, Error::NotFound(_)) => {
                return Err(error);
            }
            Err(error) => match self.inner.head(key).await?.len {
                len if len >= end => return Err(error),
                len if crypt::plain_len(len) < range.end || len <= start => {
                    return Err(past_end("read", key, range, crypt::plain_len(len)));
                }
                len => len,
            },
        };
        let bytes = self.inner.get_range(key, start..to_end).await?;
        self.exactly(key, bytes, to_end - start, (first, true))
    }

    /// What came, if it is as much as was asked for.
    fn exactly(&self, key: &str, bytes: Bytes, len: u64, at: (u64, bool)) -> Result<Sealed> {
        let (first, to_end) = at;
        if bytes.len() as u64 == len {
            return Ok(Sealed { first, bytes, to_end });
        }
        let message = format!("{} bytes came instead of {len}", bytes.len());
        Err(TierFailure::error(FailureKind::BadBody, "read", key, message))
    }

    /// What it means that an object is there already, which never has the same ciphertext.
    async fn settle(&self, key: &str, content: &Content) -> Result<()> {
        match compare(self, key, content).await {
            Ok(Presence::Same)
                if self.inner.mend(key, Care::COMPLETE).await?.counts_as_stored() =>
            {
                Ok(())
            }
            Ok(Presence::Same) => {
                let message = "it is there, and too few stores have a part of it";
                Err(TierFailure::error(FailureKind::Unavailable, "store", key, message))
            }
            Ok(Presence::Different) | Err(Error::Damaged { .. }) => {
                Err(Error::Exists(key.to_owned()))
            }
            Ok(Presence::Missing) => {
                let message = "it was removed meanwhile";
                Err(TierFailure::error(FailureKind::Unavailable, "store", key, message))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether what lies under a key is not encrypted.
fn is_in_the_clear(key: &str) -> bool {
    key == IDENTITY_KEY || key.starts_with(CLAIMS) || key.starts_with(Generation::PREFIX)
}

/// An object as it is seen from outside.
fn seen(meta: ObjectMeta) -> ObjectMeta {
    match is_in_the_clear(&meta.key) {
        true => meta,
        false => ObjectMeta { len: crypt::plain_len(meta.len), ..meta },
    }
}

#[async_trait]
impl Tier for Encrypted {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        check_key(key)?;
        if is_in_the_clear(key) {
            return self.inner.put(key, bytes).await;
        }
        let (data, name, plain) = (Arc::clone(&self.key), key.to_owned(), bytes.clone());
        let sealed = blocking(move || crypt::seal(&data, &name, &plain)).await?;
        match self.inner.put(key, Bytes::from(sealed)).await {
            Err(Error::Exists(_)) => self.settle(key, &Content::Bytes(bytes)).await,
            stored => stored,
        }
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        check_key(key)?;
        if is_in_the_clear(key) {
            return self.inner.put_file(key, path).await;
        }
        let content = Content::open(path).await?;
        let sealed = self.stage(key, &content).await?;
        match self.inner.put_file(key, &sealed.path()).await {
            Err(Error::Exists(_)) => self.settle(key, &content).await,
            stored => stored,
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        check_key(key)?;
        if is_in_the_clear(key) {
            return self.inner.get(key).await;
        }
        let mut looks = LOOKS;
        loop {
            let bytes = self.inner.get(key).await?;
            looks -= 1;
            match self.open(key, Sealed { first: 0, bytes, to_end: true }).await {
                Err(Error::Damaged { .. }) if looks > 0 => {}
                opened => return opened,
            }
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_key(key)?;
        check_range(key, &range)?;
        if is_in_the_clear(key) {
            return self.inner.get_range(key, range).await;
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut looks = LOOKS;
        loop {
            let sealed = self.fetch(key, &range).await?;
            let start = sealed.first * CHUNK_LEN;
            looks -= 1;
            match self.open(key, sealed).await {
                Err(Error::Damaged { .. }) if looks > 0 => {}
                Err(error) => return Err(error),
                Ok(bytes) if start + (bytes.len() as u64) < range.end => {
                    return Err(past_end("read", key, &range, start + bytes.len() as u64));
                }
                Ok(bytes) => {
                    return Ok(
                        bytes.slice((range.start - start) as usize..(range.end - start) as usize)
                    );
                }
            }
        }
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.inner.head(key).await.map(seen)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let listed = self.inner.list(prefix, after, limit).await?;
        Ok(listed.into_iter().map(seen).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        self.inner.clean().await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.inner.mend(key, care).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        check_key(key)?;
        if is_in_the_clear(key) {
            return self.inner.replace(key, content).await;
        }
        let sealed = self.stage(key, content).await?;
        self.inner.replace(key, &Content::open(&sealed.path()).await?).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
