//! Every store that the `object_store` crate speaks to: `file://`, `s3://`, `gs://`, `az://`.
//! This module and those below it are the only ones that name that crate. Nothing depends on
//! conditional writes: some S3 servers ignore them, some race; they are asked for where the
//! server knows them, as a second line behind unique keys and looking first.
//!
//! Crash rules: a small object is one request, a big one a multipart upload that becomes visible
//! at its last request. A cancelled or failed upload is aborted; what a killed process leaves is
//! aborted by [`Tier::clean`] after [`LEFTOVER_AGE`].

mod http;
mod leftovers;
mod open;
mod single;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path as StorePath;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};

use super::content::{CHUNK_LEN, Content, Presence, compare};
use super::failure::{FailureKind, TierFailure, kind_of_io};
use super::memory::past_end;
use super::throttled::{PACED_PART, Pace};
use super::{
    MAX_WHOLE_OBJECT_LEN, ObjectMeta, Tier, UPLOAD_MEMORY, check_key, check_prefix, check_range,
};
use crate::buffers::Buffer;
use crate::error::{Error, Result};
use leftovers::Leftovers;

pub use open::{
    Access, Opened, open_once, open_once_with, open_tier, open_tier_with, prepare_tier, probe_tier,
};
pub use single::{ObjectReader, ObjectWriter};

/// Files up to this length are one request; longer ones are uploaded in parts of it.
const PART_LEN: u64 = CHUNK_LEN;
// The throttle admits parts of this length.
const _: () = assert!(PART_LEN == PACED_PART);
/// Parts of one upload in memory at a time: what the store counts for it.
const PARTS_IN_FLIGHT: usize = (UPLOAD_MEMORY / PART_LEN) as usize;
/// Unfinished uploads this old belong to nobody: no upload may take longer than its deadline of
/// minutes.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);
/// Room made for a body before any of it has come.
const FIRST_BUFFER: u64 = 8 << 20;
/// Characters of a store's own message that are passed on.
const MESSAGE_LEN: usize = 600;

/// A tier in an object store.
struct ObjectTier {
    store: Arc<dyn ObjectStore>,
    /// What precedes every key in the store.
    root: StorePath,
    described: String,
    /// Listings come in key order, so that a page need not read the whole listing.
    lists_in_order: bool,
    /// Whether the store knows "only if there is none"; cleared when it says it does not.
    creates: AtomicBool,
    leftovers: Leftovers,
    secrets: Secrets,
}

/// Values from the environment that must not appear in any message.
#[derive(Clone, Default)]
struct Secrets(Arc<[String]>);

impl Secrets {
    fn redact(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl std::fmt::Debug for ObjectTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectTier({})", self.described)
    }
}

impl ObjectTier {
    fn path(&self, key: &str) -> Result<StorePath> {
        check_key(key)?;
        Ok(self.join(key))
    }

    fn join(&self, key: &str) -> StorePath {
        StorePath::from_iter(self.root.parts().chain(StorePath::from(key).parts()))
    }

    /// The key of a listed object; `None` for what is not ours.
    fn key_of(&self, location: &StorePath) -> Option<String> {
        let rest = location.as_ref().strip_prefix(self.root.as_ref())?;
        let key = if self.root.as_ref().is_empty() { rest } else { rest.strip_prefix('/')? };
        check_key(key).ok().map(|()| key.to_owned())
    }

    fn fail(&self, action: &'static str, key: &str, error: &object_store::Error) -> Error {
        explain(&self.secrets, action, key, error)
    }

    /// `Some(answer)` when the key is taken.
    async fn settled(&self, key: &str, content: &Content) -> Result<Option<Result<()>>> {
        Ok(match compare(self, key, content).await? {
            Presence::Missing => None,
            Presence::Same => Some(Ok(())),
            Presence::Different => Some(Err(Error::Exists(key.to_owned()))),
        })
    }

    async fn put_whole(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(key)?;
        let content = Content::Bytes(bytes.clone());
        if let Some(answer) = self.settled(key, &content).await? {
            return answer;
        }
        if self.creates.load(Ordering::Relaxed) {
            let put = self.store.put_opts(
                &path,
                PutPayload::from_bytes(bytes.clone()),
                PutMode::Create.into(),
            );
            match put.await {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => {
                    let nothing = || self.fail("store", key, &error);
                    return self.settled(key, &content).await?.unwrap_or_else(|| Err(nothing()));
                }
                Err(error) if is_unknown_feature(&error) => {
                    self.creates.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(self.fail("store", key, &error)),
            }
        }
        self.overwrite_whole(key, bytes).await
    }

    async fn overwrite_whole(&self, key: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&self.path(key)?, PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|error| self.fail("store", key, &error))
    }

    async fn put_in_parts(&self, key: &str, content: &Content) -> Result<()> {
        match self.settled(key, content).await? {
            Some(answer) => answer,
            None => self.overwrite_in_parts(key, content).await,
        }
    }

    async fn overwrite_in_parts(&self, key: &str, content: &Content) -> Result<()> {
        let path = self.path(key)?;
        let upload = self.store.put_multipart(&path).await;
        let mut upload = AbortOnDrop(Some(upload.map_err(|e| self.fail("store", key, &e))?));
        self.send_parts(key, content, upload.get()).await?;
        let complete = upload.get().complete().await;
        complete.map_err(|error| self.fail("store", key, &error))?;
        upload.0 = None;
        Ok(())
    }

    async fn send_parts(
        &self,
        key: &str,
        content: &Content,
        upload: &mut dyn MultipartUpload,
    ) -> Result<()> {
        let pace = Pace::current();
        let mut sending = FuturesUnordered::new();
        let mut start = 0;
        while start < content.len() || !sending.is_empty() {
            if start < content.len() && sending.len() < PARTS_IN_FLIGHT {
                let end = content.len().min(start + PART_LEN);
                let part = content.read(start..end).await?;
                let put = upload.put_part(PutPayload::from_bytes(part));
                let (pace, len) = (pace.clone(), end - start);
                sending.push(async move {
                    match pace {
                        Some(pace) => pace.part(len, put).await,
                        None => Ok(put.await),
                    }
                });
                start = end;
            } else if let Some(sent) = sending.next().await {
                sent?.map_err(|error| self.fail("store", key, &error))?;
            }
        }
        Ok(())
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let path = self.path(key)?;
        let options = GetOptions::new().with_range(range.clone().map(GetRange::Bounded));
        let failed = |error| self.fail("read", key, &error);
        let answer = self.store.get_opts(&path, options).await.map_err(failed)?;
        let len = answer.meta.size;
        let wanted = match range {
            Some(range) if range.end > len => return Err(past_end("read", key, &range, len)),
            Some(range) => range.end - range.start,
            None => len,
        };
        if wanted > MAX_WHOLE_OBJECT_LEN {
            let message = format!("{len} bytes are more than any object of ours");
            return Err(TierFailure::error(FailureKind::Rejected, "read", key, message));
        }
        let mut body = answer.into_stream();
        let mut bytes = Buffer::with_capacity(wanted.min(FIRST_BUFFER) as usize);
        while let Some(part) = body.next().await {
            let part = part.map_err(failed)?;
            if (bytes.len() + part.len()) as u64 > wanted {
                let message = format!("more came than the {wanted} bytes asked for");
                return Err(TierFailure::error(FailureKind::BadBody, "read", key, message));
            }
            bytes.extend_from_slice(&part);
        }
        if bytes.len() as u64 != wanted {
            let message = format!("{} bytes came instead of {wanted}", bytes.len());
            return Err(TierFailure::error(FailureKind::BadBody, "read", key, message));
        }
        Ok(bytes.share())
    }
}

#[async_trait]
impl Tier for ObjectTier {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.put_whole(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        check_key(key)?;
        let content = Content::open(path).await?;
        if content.len() > PART_LEN {
            return self.put_in_parts(key, &content).await;
        }
        let bytes = content.read(0..content.len()).await?;
        self.put_whole(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.read(key, None).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_range(key, &range)?;
        if range.is_empty() {
            let len = self.head(key).await?.len;
            return if range.end > len {
                Err(past_end("read", key, &range, len))
            } else {
                Ok(Bytes::new())
            };
        }
        self.read(key, Some(range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let head = self.store.head(&self.path(key)?).await;
        let meta = head.map_err(|error| self.fail("look for", key, &error))?;
        Ok(ObjectMeta { key: key.to_owned(), len: meta.size })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let dir = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
        let dir = if dir.is_empty() { self.root.clone() } else { self.join(dir) };
        let dir = (!dir.as_ref().is_empty()).then_some(&dir);
        let mut listing = match after {
            Some(after) => self.store.list_with_offset(dir, &self.path(after)?),
            None => self.store.list(dir),
        };
        let mut found = std::collections::BTreeMap::new();
        while let Some(meta) = listing.next().await {
            let meta = match meta {
                Err(object_store::Error::NotFound { .. }) if !self.lists_in_order => continue,
                other => other.map_err(|error| self.fail("list", prefix, &error))?,
            };
            let Some(key) = self.key_of(&meta.location) else { continue };
            if !key.starts_with(prefix) || after.is_some_and(|after| key.as_str() <= after) {
                continue;
            }
            found.insert(key, meta.size);
            if found.len() > limit {
                found.pop_last();
            }
            if self.lists_in_order && found.len() == limit {
                break;
            }
        }
        Ok(found.into_iter().map(|(key, len)| ObjectMeta { key, len }).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail("delete", key, &error)),
        }
    }

    async fn clean(&self) -> Result<u64> {
        self.leftovers.abort(&self.root, LEFTOVER_AGE, &self.secrets).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        if content.len() > PART_LEN {
            return self.overwrite_in_parts(key, content).await;
        }
        self.overwrite_whole(key, content.read(0..content.len()).await?).await
    }

    fn describe(&self) -> String {
        self.described.clone()
    }
}

/// Aborts an upload that was neither completed nor given up in order.
struct AbortOnDrop(Option<Box<dyn MultipartUpload>>);

impl AbortOnDrop {
    fn get(&mut self) -> &mut dyn MultipartUpload {
        &mut **self.0.as_mut().expect("taken only after completion")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                // Best effort: what stays is removed by clean.
                let _ = upload.abort().await;
            });
        }
    }
}

fn is_conflict(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    matches!(error, Store::AlreadyExists { .. } | Store::Precondition { .. })
}

fn is_unknown_feature(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    match error {
        Store::NotImplemented { .. } | Store::NotSupported { .. } => true,
        Store::Generic { .. } => status_in(&error.to_string()) == Some(501),
        _ => false,
    }
}

/// The HTTP status inside a message of `object_store`, whose type for it is private.
fn status_in(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Translates an error, keeping what a person can use and nothing that is secret.
fn explain(
    secrets: &Secrets,
    action: &'static str,
    key: &str,
    error: &object_store::Error,
) -> Error {
    use object_store::Error as Store;
    let text = error.to_string();
    let kind = match error {
        _ if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") => {
            FailureKind::NoRoot
        }
        Store::NotFound { .. } => return Error::NotFound(key.to_owned()),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => FailureKind::Refused,
        Store::AlreadyExists { .. } | Store::Precondition { .. } | Store::NotModified { .. } => {
            FailureKind::Unavailable
        }
        Store::JoinError { .. } => FailureKind::Unavailable,
        Store::Generic { .. } => kind_of_generic(error, &text),
        _ => FailureKind::Rejected,
    };
    let mut message = text;
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    // Redacted before it is cut, or half a secret would pass. A body of XML has lines.
    let mut message = secrets.redact(message).replace('\n', " ");
    if let Some((cut, _)) = message.char_indices().nth(MESSAGE_LEN) {
        message.truncate(cut);
        message.push_str("...");
    }
    TierFailure::error(kind, action, key, message)
}

fn kind_of_generic(error: &object_store::Error, text: &str) -> FailureKind {
    if let Some(status) = status_in(text) {
        return match status {
            408 | 425 | 429 | 500 | 502..=504 => FailureKind::Unavailable,
            401 | 403 => FailureKind::Refused,
            507 => FailureKind::Full,
            _ => FailureKind::Rejected,
        };
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Decode => FailureKind::BadBody,
                _ => FailureKind::Unavailable,
            };
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return kind_of_io(io.kind());
        }
        source = cause.source();
    }
    // A 200 whose body is an error ("InternalError", "SlowDown") has no status in its text; one whose
    // body does not parse was damaged on its way, or comes from something in between.
    match text {
        _ if text.contains("error response") => FailureKind::Unavailable,
        _ if text.contains("Got invalid ") => FailureKind::BadBody,
        _ => FailureKind::Rejected,
    }
}
