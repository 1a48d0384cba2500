//! Listings: those of all stores, merged, and what is left over in them.
//!
//! *Lengths* are what those of the shards say: where the last data shard was cut short, a listing
//! says less than `head`, which reads a header.
//! *Refilling*: a store that took the place of a lost one lacks what was written before: it counts as one that
//! does not answer, until a cleaning sees that it has a shard of every object, claims included. What has
//! too few shards to be one, such as a claim that nobody won, is not waited for.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::stream::{self, StreamExt};

use super::gather::{GRACE, gather};
use super::layout::Shape;
use super::look::{Piece, Verdict};
use super::store::{is_absence, words};
use super::{PLACE_KEY, Spread};
use crate::error::{Error, Result};
use crate::tier::ObjectMeta;
use crate::tier::owner::CLAIMS;

/// Most keys of one page.
const PAGE: usize = 1000;

/// Objects of a page that are looked at together.
const AT_ONCE: usize = 32;

/// One page of all stores: by key, the lengths of its shards.
struct Page {
    keys: BTreeMap<String, Vec<Option<u64>>>,
    /// Where the page ends, if more may follow.
    end: Option<String>,
    away: usize,
}

/// How far a cleaning has come, which goes on where the last one was cut off.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    after: Option<String>,
    /// By store: it has a shard of every object so far.
    is_full: Vec<bool>,
}

impl Spread {
    /// See [`crate::tier::Tier::list`].
    pub(super) async fn listing(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut after = after.map(str::to_owned);
        while found.len() < limit {
            let page = self.page(prefix, after.as_deref(), limit - found.len()).await?;
            let looks: Vec<_> = page
                .keys
                .iter()
                .map(|(key, lens)| self.entry(key, lens, page.away).boxed())
                .collect();
            let mut entries = stream::iter(looks).buffered(AT_ONCE);
            while found.len() < limit
                && let Some(entry) = entries.next().await
            {
                found.extend(entry?);
            }
            match &page.end {
                Some(end) => after = Some(end.clone()),
                None => break,
            }
        }
        Ok(found)
    }

    /// What the stores list next. All but as many as there is parity must answer.
    async fn page(&self, prefix: &str, after: Option<&str>, wanted: usize) -> Result<Page> {
        // The one more is this layer's own object.
        let limit = (wanted + 1).min(PAGE);
        let calls = (0..self.stores.len())
            .map(|at| self.ask(at, self.stores[at].tier().list(prefix, after, limit)).boxed())
            .collect();
        let least = self.stores.len() - self.parity();
        let enough = self.stores.len().min(least + self.filling());
        let answers = gather(calls, (enough, GRACE), Result::is_ok, |_| false).await;
        let mut page = Page { keys: BTreeMap::new(), end: None, away: 0 };
        let (mut why, mut passes, mut filling) = (Vec::new(), true, 0);
        for (at, answer) in answers.into_iter().enumerate() {
            let objects = match answer {
                Some(Ok(objects)) => objects,
                other => {
                    page.away += 1;
                    let error = other.and_then(Result::err);
                    passes &= error.as_ref().is_none_or(is_absence);
                    let reason = error.as_ref().map_or_else(|| "it is slow".to_owned(), words);
                    why.push(format!("{}: {reason}", self.name(at)));
                    continue;
                }
            };
            if self.stores[at].is_filling() {
                filling += 1;
                why.push(format!("{}: it is being filled again", self.name(at)));
            }
            if objects.len() >= limit
                && let Some(last) = objects.last()
                && page.end.as_ref().is_none_or(|end| *end > last.key)
            {
                page.end = Some(last.key.clone());
            }
            for object in objects {
                let lens = page.keys.entry(object.key);
                lens.or_insert_with(|| vec![None; self.stores.len()])[at] = Some(object.len);
            }
        }
        // With fewer silent stores than an object needs, one of those that answer lists it.
        let hides = page.away >= self.data() && page.away + filling > self.parity();
        if page.away > self.parity() || hides {
            why.insert(0, format!("a listing needs {least} of the stores"));
            return Err(self.too_few("list", prefix, passes, &why));
        }
        if let Some(end) = page.end.clone() {
            page.keys.retain(|key, _| *key <= end);
        }
        page.keys.remove(PLACE_KEY);
        Ok(page)
    }

    /// Stores that took the place of lost ones and lack shards yet.
    fn filling(&self) -> usize {
        self.stores.iter().filter(|store| store.is_filling()).count()
    }

    /// An object of a listing, if it is visible or may be.
    async fn entry(
        &self,
        key: &str,
        lens: &[Option<u64>],
        away: usize,
    ) -> Result<Option<ObjectMeta>> {
        let meta = |len| Some(ObjectMeta { key: key.to_owned(), len });
        if lens.iter().flatten().count() + away >= self.stores.len()
            && let Some(len) = self.len_of(lens)
        {
            return Ok(meta(len));
        }
        let look = self.look_quickly(key).await;
        match self.verdict(key, &look) {
            Verdict::Visible(layout) => {
                self.known.put(key, &layout);
                Ok(meta(layout.shape.len))
            }
            Verdict::Gone => Ok(None),
            Verdict::Unclear(error) => match look.likeliest() {
                Some(layout) => Ok(meta(layout.shape.len)),
                // It is there, and nobody can tell how long it was.
                None if matches!(error, Error::Damaged { .. }) => Ok(meta(0)),
                None => Err(error),
            },
        }
    }

    /// The length of an object whose data shards are all there, if all shards have the lengths that
    /// go with it.
    fn len_of(&self, lens: &[Option<u64>]) -> Option<u64> {
        let data: Option<Vec<u64>> = lens[..self.data()].iter().copied().collect();
        let len = Shape::len_from(&data?, self.data, self.parity)?;
        let shape = Shape::of(len, self.data, self.parity);
        let fits =
            |(at, len): (usize, &Option<u64>)| len.is_none_or(|len| len == shape.shard_len(at));
        lens.iter().enumerate().all(fits).then_some(len)
    }

    /// Removes shards that make no object: of a delete that a store missed, of a put that died.
    /// Only while every store answers, since what one has may be what another lacks.
    pub(super) async fn clean_strays(&self) -> Result<u64> {
        let mut cleaned = 0;
        let mut sweep = self.sweep.lock().await;
        if sweep.is_full.is_empty() {
            sweep.is_full = vec![true; self.stores.len()];
        }
        loop {
            let page = self.page("", sweep.after.as_deref(), PAGE).await?;
            if page.away > 0 {
                return Ok(cleaned);
            }
            for (key, lens) in &page.keys {
                if self.len_of(lens).is_some() && lens.iter().all(Option::is_some) {
                    continue;
                }
                cleaned += self.clean_stray(key, &mut sweep.is_full).await?;
            }
            match page.end {
                Some(end) => sweep.after = Some(end),
                None => break,
            }
        }
        let Sweep { is_full, .. } = std::mem::take(&mut *sweep);
        for (store, _) in self.stores.iter().zip(is_full).filter(|(_, is_full)| *is_full) {
            store.filled().await?;
        }
        Ok(cleaned)
    }

    /// Removes the shards of what is no object; of one that is, notes which stores have no shard.
    async fn clean_stray(&self, key: &str, is_full: &mut [bool]) -> Result<u64> {
        let turn = self.busy.try_turn(key);
        let look = self.look(key, GRACE).await;
        if turn.is_none() || look.away() > 0 {
            is_full.fill(false);
            return Ok(0);
        }
        match self.verdict(key, &look) {
            Verdict::Visible(layout) => {
                for (is_full, piece) in is_full.iter_mut().zip(&look.pieces) {
                    *is_full &= matches!(piece, Piece::Shard(there) if **there == layout);
                }
                return Ok(0);
            }
            // What too few sound shards are left of, no store will ever hold a shard of.
            Verdict::Unclear(_) => return Ok(0),
            // The rest may be on the store that was lost, which may come back.
            Verdict::Gone if self.filling() > 0 => return Ok(0),
            // Claims are others' too, and may be on their way.
            Verdict::Gone if key.starts_with(CLAIMS) => return Ok(0),
            Verdict::Gone => {}
        }
        let mut cleaned = 0;
        for (at, piece) in look.pieces.iter().enumerate() {
            if matches!(piece, Piece::Shard(_) | Piece::Damaged(_)) {
                match self.ask(at, self.stores[at].tier().delete(key)).await {
                    Ok(()) => cleaned += 1,
                    Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(cleaned)
    }
}
