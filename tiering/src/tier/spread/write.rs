//! Storing and removing: what is there is looked at first, then only what is lacking is written.

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::sync::MutexGuard;

use super::gather::{GRACE, PATIENCE, gather};
use super::layout::{Layout, Shape, sum};
use super::look::{Look, Piece, Verdict};
use super::stripe::{Aside, Cutter, Shard, is_full};
use super::{Spread, store};
use crate::error::{Error, Result};
use crate::tier::UPLOAD_MEMORY;
use crate::tier::content::{CHUNK_LEN, Content, blocking};
use crate::tier::owner::CLAIMS;

impl Spread {
    /// Stores an object.
    pub(super) async fn write(&self, key: &str, content: Content) -> Result<()> {
        let _turn = self.busy.turn(key).await;
        let layout = self.plan(key, &content).await?;
        let look = self.look(key, PATIENCE).await;
        match self.verdict(key, &look) {
            Verdict::Visible(there) if there != layout => {
                return Err(Error::Exists(key.to_owned()));
            }
            Verdict::Unclear(error) if look.may_hide_another(&layout, self.data()) => {
                return Err(error);
            }
            _ => {}
        }
        let is_there = |piece: &Piece| matches!(piece, Piece::Shard(l) if **l == layout);
        let there: Vec<bool> = look.pieces.iter().map(is_there).collect();
        let mut wanted: Vec<bool> =
            look.pieces.iter().map(|p| !is_there(p) && !matches!(p, Piece::Away(_))).collect();
        let least = self.least_for(key);
        let reachable = self.stores.len() - look.away();
        if reachable < least {
            return Err(self.too_few_stores(key, &look, reachable, least));
        }
        let mut first = self.remove_others(key, &look, &layout, &mut wanted).await;
        let mut stored = there.iter().filter(|there| **there).count();
        if stored + wanted.iter().filter(|wanted| **wanted).count() < least {
            return Err(first.unwrap_or_else(|| self.too_few_stores(key, &look, reachable, least)));
        }
        let (shards, _in_memory) = self.cut(&layout, &content, &wanted).await?;
        let results = self.upload(key, &layout, shards).await;
        for (at, result) in results {
            match result {
                Ok(()) => stored += 1,
                Err(error) => {
                    tracing::warn!(
                        key,
                        error = store::words(&error),
                        "{} took no shard",
                        self.name(at)
                    );
                    first = first.or(Some(error));
                }
            }
        }
        if stored >= least {
            self.known.put(key, &layout);
            return Ok(());
        }
        Err(first.unwrap_or_else(|| self.too_few_stores(key, &look, reachable, least)))
    }

    /// Shards with which an object of this key counts as stored.
    pub(super) fn least_for(&self, key: &str) -> usize {
        if key.starts_with(CLAIMS) { self.quorum() } else { self.least }
    }

    fn too_few_stores(&self, key: &str, look: &Look, reachable: usize, least: usize) -> Error {
        let mut why = vec![format!("{reachable} of the {least} stores that are needed answer")];
        for (at, piece) in look.pieces.iter().enumerate() {
            if let Piece::Away(what) = piece {
                why.push(format!("{}: {what}", self.name(at)));
            }
        }
        self.too_few("store", key, true, &why)
    }

    /// How an object is to be cut.
    async fn plan(&self, key: &str, content: &Content) -> Result<Layout> {
        let shape = Shape::of(content.len(), self.data, self.parity);
        let mut hasher = blake3::Hasher::new();
        let mut start = 0;
        while start < content.len() {
            let end = content.len().min(start + CHUNK_LEN);
            let bytes = content.read(start..end).await?;
            hasher = blocking(move || {
                hasher.update(&bytes);
                Ok(hasher)
            })
            .await?;
            start = end;
        }
        let digest = *hasher.finalize().as_bytes();
        Ok(Layout { shape, digest, key: sum(&[key.as_bytes()]) })
    }

    /// Removes what a dead put or an old delete left where shards are to go. Where that fails,
    /// nothing is wanted any more; returns why.
    async fn remove_others(
        &self,
        key: &str,
        look: &Look,
        layout: &Layout,
        wanted: &mut [bool],
    ) -> Option<Error> {
        let mut first = None;
        for (at, piece) in look.pieces.iter().enumerate() {
            let is_other = match piece {
                Piece::Shard(there) => **there != *layout,
                Piece::Damaged(_) => true,
                Piece::Missing | Piece::Away(_) => false,
            };
            if is_other && let Err(error) = self.ask(at, self.stores[at].tier().delete(key)).await {
                let error_text = store::words(&error);
                tracing::warn!(
                    key,
                    error = error_text,
                    "{} keeps what is no shard of this",
                    self.name(at)
                );
                wanted[at] = false;
                first = first.or(Some(error));
            }
        }
        first
    }

    /// Cuts the shards that are wanted; the turn is held for as long as they are.
    async fn cut(
        &self,
        layout: &Layout,
        content: &Content,
        wanted: &[bool],
    ) -> Result<(Vec<Option<Shard>>, Option<MutexGuard<'_, ()>>)> {
        match self.cut_aside(layout, content, wanted, Aside::Disk(&self.staging)).await {
            Err(error) if is_full(&error) => {}
            shards => return Ok((shards?, None)),
        }
        let turn = self.in_memory.lock().await;
        let shards = self.cut_aside(layout, content, wanted, Aside::Memory).await?;
        Ok((shards, Some(turn)))
    }

    async fn cut_aside(
        &self,
        layout: &Layout,
        content: &Content,
        wanted: &[bool],
        aside: Aside<'_>,
    ) -> Result<Vec<Option<Shard>>> {
        let layout = *layout;
        let mut cutter = Cutter::new(&layout, wanted, aside)?;
        let stripes = layout.shape.stripes();
        let window = (CHUNK_LEN / layout.shape.stripe_len()).max(1);
        let mut stripe = 0;
        while stripe < stripes {
            let end = stripes.min(stripe + window);
            let bytes = content.read(layout.shape.bytes_of(&(stripe..end))).await?;
            cutter = blocking(move || {
                cutter.stripes(&bytes, end - stripe)?;
                Ok(cutter)
            })
            .await?;
            stripe = end;
        }
        cutter.finish()
    }

    /// Stores shards, as many at a time as memory allows.
    async fn upload(
        &self,
        key: &str,
        layout: &Layout,
        shards: Vec<Option<Shard>>,
    ) -> Vec<(usize, Result<()>)> {
        let mut calls = Vec::new();
        for (at, shard) in shards.into_iter().enumerate() {
            let Some(shard) = shard else { continue };
            let call = async move {
                (at, self.ask(at, shard.store(self.stores[at].patient(), key)).await)
            };
            calls.push(call.boxed());
        }
        stream::iter(calls).buffer_unordered(self.uploads_at_once(layout)).collect().await
    }

    /// Shards that are stored at the same time.
    pub(super) fn uploads_at_once(&self, layout: &Layout) -> usize {
        let longest = layout.shape.shard_len(0).clamp(1, UPLOAD_MEMORY);
        (UPLOAD_MEMORY / longest).clamp(1, self.stores.len() as u64) as usize
    }

    /// Removes an object.
    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        let _turn = self.busy.turn(key).await;
        self.known.forget(key);
        let calls = (0..self.stores.len())
            .map(|at| self.ask(at, self.stores[at].tier().delete(key)).boxed())
            .collect();
        // With that many done, fewer shards than an object needs can be left.
        let enough = self.parity() + 1;
        let done = gather(calls, (enough, GRACE), Result::is_ok, |_| false).await;
        let (mut removed, mut why, mut passes) = (0, Vec::new(), true);
        for (at, result) in done.into_iter().enumerate() {
            match result {
                Some(Ok(())) => removed += 1,
                Some(Err(error)) => {
                    passes &= store::is_absence(&error);
                    why.push(format!("{}: {}", self.name(at), store::words(&error)));
                }
                None => {
                    self.stores[at].suspect();
                    why.push(format!("{}: it has not answered in time", self.name(at)));
                }
            }
        }
        if removed >= enough {
            if !why.is_empty() {
                tracing::debug!(
                    key,
                    "shards stay behind until the next cleaning: {}",
                    why.join("; ")
                );
            }
            return Ok(());
        }
        Err(self.too_few("delete", key, passes, &why))
    }
}
