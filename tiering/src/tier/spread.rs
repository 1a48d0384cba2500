//! One tier made of several stores: each object is cut into `k` data shards and `m` parity shards,
//! one on each store under the object's key, so that any `m` stores may be lost.
//!
//! *Visible* is an object of which at least `k` shards of one write are there; their headers hold
//! the digest of the object, so shards of different writes are never mixed, and writing the same
//! bytes again makes the same shards: it completes what a crash left.
//! *Put* succeeds when all shards are durable, or `least` of them where the owner says so; what is
//! not durable on that many is an error, and whoever wanted it tries again. Owner claims need only
//! so many that no reader can miss them. *Delete* succeeds when more than `m` stores have done it:
//! what is left elsewhere is fewer than `k` shards, so invisible, and [`Tier::clean`] removes it.
//! *Crash*: in a put, some shards: the object is visible or not, and a later put of the same bytes
//! completes it, one of others replaces it if it was not visible. In a delete likewise.
//! *Mend* replaces a missing or damaged shard in one step, so nothing that still helps is removed first.
//! *Absent stores*: up to `m` may be away, wrong or slow. Then reads compute what they hold, from
//! verified chunks, and verify the result. A listing needs all but `m` stores; an object of which
//! too few shards answer to tell whether it is visible is listed, and reading it is an error that
//! may pass, never "not found". Nothing is called absent while it could be there.
//! *Bounds*: a read holds a window of stripes, a put one shard's upload or a few small ones, and, where
//! the disk is full, one put or mend at a time all shards of its object; layouts of objects that were read lately are remembered, so that a small read is one request.

mod busy;
mod gather;
mod layout;
mod listing;
mod look;
mod mend;
mod read;
mod store;
mod stripe;
#[cfg(test)]
mod tests;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::timeout;

use super::content::Content;
use super::failure::{FailureKind, TierFailure};
use super::memory::past_end;
use super::{
    Care, MAX_WHOLE_OBJECT_LEN, ObjectMeta, Tier, Wholeness, check_key, check_prefix, check_range,
};
use crate::error::{Error, Result};
use busy::Busy;
use gather::{PATIENCE, gather};
use layout::Shape;
use listing::Sweep;
use look::Known;
use store::{Place, Store};

pub use layout::MAX_STORES;
pub use store::{Belonging, PLACE_KEY, StoreStatus};

/// How long a store is waited for that is asked whose it is.
const SURVEY: Duration = Duration::from_secs(30);

/// Several stores as one tier.
#[derive(Debug)]
pub struct Spread {
    stores: Vec<Store>,
    data: u8,
    parity: u8,
    least: usize,
    staging: PathBuf,
    /// The right to hold the shards of a long object in memory.
    in_memory: tokio::sync::Mutex<()>,
    /// The volume whose stores they are.
    set: OnceLock<String>,
    known: Known,
    busy: Busy,
    sweep: tokio::sync::Mutex<Sweep>,
}

impl Spread {
    /// Over these stores, in this order, the last `parity` of which hold parity. `set` is the id of
    /// the volume; without it the stores must agree on one.
    pub fn new(stores: Vec<Arc<dyn Tier>>, parity: usize, set: Option<String>) -> Result<Self> {
        if parity == 0 || parity >= stores.len() || stores.len() > MAX_STORES {
            return Err(Error::Config(format!(
                "{} stores with {parity} for parity: at least one for data and one for parity are \
                 needed, and at most {MAX_STORES} together",
                stores.len()
            )));
        }
        let count = stores.len();
        let stores = stores.into_iter().enumerate().map(|(at, tier)| Store::new(tier, at));
        let known = OnceLock::new();
        if let Some(set) = set {
            known.get_or_init(|| set);
        }
        Ok(Self {
            stores: stores.collect(),
            data: (count - parity) as u8,
            parity: parity as u8,
            least: count,
            staging: std::env::temp_dir(),
            in_memory: tokio::sync::Mutex::default(),
            set: known,
            known: Known::default(),
            busy: Busy::default(),
            sweep: tokio::sync::Mutex::default(),
        })
    }

    /// An object counts as stored with `least` shards: more than there is parity, and enough to
    /// read it.
    pub fn with_least(mut self, least: usize) -> Result<Self> {
        let needed = self.quorum();
        if !(needed..=self.stores.len()).contains(&least) {
            return Err(Error::Config(format!(
                "{least} shards are not between {needed} and {}",
                self.stores.len()
            )));
        }
        self.least = least;
        Ok(self)
    }

    /// Shards of long objects lie in files without a name in `dir` before they are stored.
    pub fn with_staging(mut self, dir: impl Into<PathBuf>) -> Self {
        self.staging = dir.into();
        self
    }

    /// Stores for data.
    pub fn data(&self) -> usize {
        usize::from(self.data)
    }

    /// Stores for parity.
    pub fn parity(&self) -> usize {
        usize::from(self.parity)
    }

    /// Bytes on all stores together that an object of `len` bytes takes.
    pub fn stored_len(&self, len: u64) -> u64 {
        let shape = Shape::of(len, self.data, self.parity);
        (0..shape.shards()).map(|shard| shape.shard_len(shard)).sum()
    }

    /// How each store fared when it was asked last.
    pub fn stores(&self) -> Vec<StoreStatus> {
        let data = self.data();
        self.stores.iter().enumerate().map(|(at, store)| store.status(at >= data)).collect()
    }

    /// Asks every store whether it belongs where it stands.
    pub async fn survey(&self) -> Vec<Belonging> {
        let ask = |store| {
            let late = |_| Err(Error::TimedOut("asking a store whose it is"));
            timeout(SURVEY, Store::place(store)).map(move |place| place.unwrap_or_else(late))
        };
        let calls = self.stores.iter().map(|store| ask(store).boxed()).collect();
        let least = self.stores.len() - self.parity();
        let places = gather(calls, (least, PATIENCE), Result::is_ok, |_| false).await;
        let places: Vec<_> = places
            .into_iter()
            .map(|place| match place {
                Some(Ok(place)) => Ok(place),
                Some(Err(error)) => Err(Belonging::Away(store::words(&error))),
                None => Err(Belonging::Away("it has not answered in time".to_owned())),
            })
            .collect();
        let set = places.iter().flatten().flatten().map(|place| place.set.clone()).next();
        if let Some(set) = set {
            self.set.get_or_init(|| set);
        }
        places
            .into_iter()
            .enumerate()
            .map(|(at, place)| match (place, self.place(at)) {
                (Err(belonging), _) => belonging,
                (Ok(None), _) | (Ok(_), None) => Belonging::Blank,
                (Ok(Some(found)), Some(expected)) => store::belonging(&found, &expected),
            })
            .collect()
    }

    /// Makes every store that says nothing of itself the one that belongs in its place; says how
    /// many. A foreign store is an error, and so is one that is away when the set is begun.
    pub async fn found(&self) -> Result<usize> {
        self.begin(None).await
    }

    /// Makes those of `places`, from 0, that say nothing of themselves take the places of lost stores;
    /// says how many. Others that say nothing may not be mounted: they are left alone.
    pub async fn refill(&self, places: &[usize]) -> Result<usize> {
        let count = self.stores.len();
        if let Some(place) = places.iter().find(|place| **place >= count) {
            let reason = format!("there is no store {} of {count} to be filled", place + 1);
            return Err(Error::Config(reason));
        }
        self.begin(Some(places)).await
    }

    async fn begin(&self, places: Option<&[usize]>) -> Result<usize> {
        let mut founded = 0;
        let survey = self.survey().await;
        let is_begun = survey.contains(&Belonging::Member);
        for (at, belonging) in survey.into_iter().enumerate() {
            let store = &self.stores[at];
            let is_named = places.is_some_and(|places| places.contains(&at));
            let unusable = |reason: String, hint: &str| Error::Unusable {
                tier: store.describe(),
                reason,
                hint: hint.to_owned(),
            };
            match belonging {
                Belonging::Member => {}
                Belonging::Away(_) if is_begun && !is_named => {}
                Belonging::Blank if places.is_some() && !is_named => {}
                Belonging::Blank => {
                    let place = self.place(at).ok_or_else(unnamed)?;
                    store.found(&Place { filling: is_begun, ..place }).await?;
                    founded += 1;
                }
                Belonging::Foreign(why) => {
                    return Err(unusable(why, "correct the order and the places of the stores"));
                }
                Belonging::Away(why) => return Err(unusable(why, "check that it can be reached")),
            }
        }
        Ok(founded)
    }

    /// Takes back what [`Spread::found`] wrote.
    pub async fn unfound(&self) {
        for (at, store) in self.stores.iter().enumerate() {
            // Whose it is was not seen.
            if !store.is_member() {
                continue;
            }
            if let Err(error) = store.tier().delete(PLACE_KEY).await {
                tracing::warn!(%error, "{PLACE_KEY} stays in {}", self.name(at));
            }
        }
    }

    /// What store `at` must say of itself.
    fn place(&self, at: usize) -> Option<Place> {
        self.set.get().map(|set| Place::new(set, at, self.data, self.parity))
    }

    /// Shards that no reader can miss, and that suffice to read.
    fn quorum(&self) -> usize {
        self.data().max(self.parity() + 1)
    }

    /// Makes a call of one store, if it is the right one.
    async fn ask<T>(&self, at: usize, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let store = &self.stores[at];
        if self.set.get().is_none() {
            // The first that says whose it is decides; the others must agree.
            if let Some(place) = store.place().await? {
                self.set.get_or_init(|| place.set);
            }
        }
        let place = self.place(at).ok_or_else(unnamed)?;
        store.join(&place).await?;
        store.note(call.await)
    }

    /// The error of an object that too few stores serve.
    fn too_few(&self, action: &'static str, key: &str, passes: bool, why: &[String]) -> Error {
        let kind = if passes { FailureKind::Unavailable } else { FailureKind::Rejected };
        TierFailure::error(kind, action, key, why.join("; "))
    }

    fn name(&self, at: usize) -> String {
        format!("store {} ({})", at + 1, self.stores[at].describe())
    }
}

fn unnamed() -> Error {
    TierFailure::error(FailureKind::Unavailable, "use", "the stores", format!("no {PLACE_KEY}"))
}

/// Refuses keys that are not an object's.
fn check_object(key: &str) -> Result<()> {
    check_key(key)?;
    if key == PLACE_KEY {
        return Err(Error::Config(format!("{PLACE_KEY} is not an object's key")));
    }
    Ok(())
}

#[async_trait]
impl Tier for Spread {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        check_object(key)?;
        self.write(key, Content::Bytes(bytes)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        check_object(key)?;
        self.write(key, Content::open(path).await?).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        check_object(key)?;
        self.read(key, None).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_object(key)?;
        check_range(key, &range)?;
        self.read(key, Some(range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        check_object(key)?;
        let layout = self.find(key).await?;
        Ok(ObjectMeta { key: key.to_owned(), len: layout.shape.len })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        self.listing(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_object(key)?;
        self.remove(key).await
    }

    /// Not in one step: what is damaged though its pieces were looked after is beyond them.
    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        check_object(key)?;
        self.remove(key).await?;
        self.write(key, content.clone()).await
    }

    async fn clean(&self) -> Result<u64> {
        let calls = (0..self.stores.len())
            .map(|at| self.ask(at, self.stores[at].tier().clean()).boxed())
            .collect();
        let least = self.stores.len() - self.parity();
        let results = gather(calls, (least, PATIENCE), Result::is_ok, |_| false).await;
        let mut cleaned = 0;
        for (at, result) in results.into_iter().enumerate() {
            match result {
                Some(Ok(count)) => cleaned += count,
                Some(Err(error)) => {
                    let error = store::words(&error);
                    tracing::warn!(error, "{} is not cleaned", self.name(at));
                }
                None => tracing::warn!("{} is not cleaned: it is slow", self.name(at)),
            }
        }
        Ok(cleaned + self.clean_strays().await?)
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        check_object(key)?;
        self.make_whole(key, care).await
    }

    fn describe(&self) -> String {
        let places: Vec<_> = self.stores.iter().map(Store::describe).collect();
        places.join(", ")
    }
}
