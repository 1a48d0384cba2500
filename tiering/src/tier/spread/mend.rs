//! Making an object whole again: shards that are missing or damaged are computed from the others
//! and written anew.
//!
//! *Order*: the new shards are made aside, from every sound chunk, those of damaged shards too, and
//! the whole object is compared with its digest; only then each takes the place of the damaged one,
//! in one step, and is read back.
//! *Crash*: a store has the damaged shard or the new one, so the object is as readable as it was.

use std::ops::Range;

use futures::FutureExt;
use futures::stream::{self, StreamExt};

use super::gather::PATIENCE;
use super::layout::{Layout, Record};
use super::look::{Piece, Verdict};
use super::store::{is_absence, words};
use super::stripe::{Aside, Cutter, Shard, is_full};
use super::{Care, Spread, Wholeness};
use crate::error::{Error, Result};

/// Bytes of a shard that are verified at once.
const WINDOW: u64 = 4 << 20;

/// How a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    Missing,
    Damaged,
    Away,
}

impl Spread {
    /// See [`crate::tier::Tier::mend`].
    pub(super) async fn make_whole(&self, key: &str, care: Care) -> Result<Wholeness> {
        let _turn = self.busy.turn(key).await;
        let look = self.look(key, PATIENCE).await;
        let layout = match self.verdict(key, &look) {
            Verdict::Visible(layout) => layout,
            Verdict::Gone => return Err(Error::NotFound(key.to_owned())),
            Verdict::Unclear(error) => return Err(error),
        };
        let mut states = Vec::with_capacity(look.pieces.len());
        for (at, piece) in look.pieces.iter().enumerate() {
            states.push(match piece {
                Piece::Shard(there) if **there == layout => {
                    self.state_of(at, key, &layout, care.content).await
                }
                Piece::Shard(_) | Piece::Damaged(_) => State::Damaged,
                Piece::Missing => State::Missing,
                Piece::Away(_) => State::Away,
            });
        }
        let of = |wanted: &[State]| -> Vec<usize> {
            (0..states.len()).filter(|at| wanted.contains(&states[*at])).collect()
        };
        let lacking = of(&[State::Missing, State::Damaged]);
        let names = |which: &[usize]| which.iter().map(|at| self.name(*at)).collect();
        let mut found = Wholeness {
            pieces: states.len(),
            lacking: names(&lacking),
            away: names(&of(&[State::Away])),
            ..Wholeness::default()
        };
        let mut sound = of(&[State::Sound]).len();
        if care.repair && !lacking.is_empty() {
            found.failed = self.renew(key, &layout, &lacking).await?;
            found.renewed = found.failed.is_empty();
            sound += lacking.len() - found.failed.len();
        }
        found.is_enough = sound >= self.least_for(key);
        Ok(found)
    }

    /// How shard `at`, whose header is right, is otherwise.
    async fn state_of(&self, at: usize, key: &str, layout: &Layout, content: bool) -> State {
        let len = self.ask(at, self.stores[at].tier().head(key)).await.map(|meta| meta.len);
        let is_sound = match len {
            Ok(len) if len != layout.shape.shard_len(at) => Ok(false),
            Ok(_) if content => self.is_sound(at, key, layout).await,
            Ok(_) => Ok(true),
            Err(error) => Err(error),
        };
        match is_sound {
            Ok(true) => State::Sound,
            Err(Error::NotFound(_)) => State::Missing,
            Err(error) if is_absence(&error) => State::Away,
            Ok(false) | Err(_) => State::Damaged,
        }
    }

    /// Whether every chunk of shard `at` verifies.
    async fn is_sound(&self, at: usize, key: &str, layout: &Layout) -> Result<bool> {
        let (shape, generation) = (&layout.shape, layout.generation());
        let window = (WINDOW / u64::from(shape.chunk_len)).max(1);
        for stripes in windows(shape.stripes(), window) {
            let mut rest = self.records(at, key, shape, &stripes).await?;
            for stripe in stripes {
                let len = (shape.chunk(at, stripe) + shape.trailer_len()).min(rest.len());
                let bytes = rest.split_to(len);
                if Record::verify(shape, &generation, at, stripe, &bytes).is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Makes the shards `lacking` anew; says which stores did not take theirs, and why.
    async fn renew(&self, key: &str, layout: &Layout, lacking: &[usize]) -> Result<Vec<String>> {
        let mut _in_memory = None;
        let shards = match self.cut_anew(key, layout, lacking, Aside::Disk(&self.staging)).await {
            Err(error) if is_full(&error) => {
                _in_memory = Some(self.in_memory.lock().await);
                self.cut_anew(key, layout, lacking, Aside::Memory).await?
            }
            shards => shards?,
        };
        let shards = shards.into_iter().enumerate();
        let replacements = shards.filter_map(|(at, shard)| {
            let replaced = self.replace(at, key, layout, shard?);
            Some(async move { replaced.await.err().map(|error| (at, error)) }.boxed())
        });
        let failures: Vec<_> = stream::iter(replacements.collect::<Vec<_>>())
            .buffer_unordered(self.uploads_at_once(layout))
            .filter_map(async |failure| failure)
            .collect()
            .await;
        tracing::warn!(
            key,
            shards = lacking.len(),
            failed = failures.len(),
            "shards of an object were made anew"
        );
        let told = |(at, error): &(usize, Error)| format!("{}: {}", self.name(*at), words(error));
        Ok(failures.iter().map(told).collect())
    }

    /// Cuts the shards `lacking` out of what the others make up.
    async fn cut_anew(
        &self,
        key: &str,
        layout: &Layout,
        lacking: &[usize],
        aside: Aside<'_>,
    ) -> Result<Vec<Option<Shard>>> {
        let wanted: Vec<bool> = (0..self.stores.len()).map(|at| lacking.contains(&at)).collect();
        let mut cutter = Cutter::new(layout, &wanted, aside)?;
        let window = (WINDOW / layout.shape.stripe_len()).max(1);
        for stripes in windows(layout.shape.stripes(), window) {
            let bytes = self.bytes(key, layout, layout.shape.bytes_of(&stripes)).await?;
            cutter.stripes(&bytes, stripes.end - stripes.start)?;
        }
        cutter.finish()
    }

    /// Stores a shard in place of what is damaged or missing, and reads it back.
    async fn replace(&self, at: usize, key: &str, layout: &Layout, shard: Shard) -> Result<()> {
        let content = shard.into_content()?;
        self.ask(at, self.stores[at].patient().replace(key, &content)).await?;
        if self.is_sound(at, key, layout).await? {
            return Ok(());
        }
        let reason = "what was stored reads back damaged".to_owned();
        Err(Error::Damaged { what: "shard", reason })
    }
}

/// `0..stripes`, in pieces.
fn windows(stripes: u64, window: u64) -> impl Iterator<Item = Range<u64>> {
    (0..stripes.div_ceil(window)).map(move |at| at * window..stripes.min((at + 1) * window))
}
