//! Making an object whole again: shards that are missing or damaged are computed from the others
//! and written anew.
//!
//! *Order*: the new shards are made aside, from other shards alone, and the whole object is compared
//! with its digest; only then a damaged one is removed and the new one stored, and read back.
//! *Crash*: what was removed was no part of what the object was computed from.

use std::ops::Range;

use super::gather::PATIENCE;
use super::layout::{Layout, Record};
use super::look::{Piece, Verdict};
use super::store::is_absence;
use super::stripe::Cutter;
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
            renewed: false,
        };
        if care.repair && !lacking.is_empty() {
            self.renew(key, &layout, &lacking, &of(&[State::Damaged])).await?;
            found.renewed = true;
        }
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

    /// Makes the shards `lacking` anew, of which `damaged` are there.
    async fn renew(
        &self,
        key: &str,
        layout: &Layout,
        lacking: &[usize],
        damaged: &[usize],
    ) -> Result<()> {
        let wanted: Vec<bool> = (0..self.stores.len()).map(|at| lacking.contains(&at)).collect();
        let mut cutter = Cutter::new(layout, &wanted, &self.staging)?;
        let window = (WINDOW / layout.shape.stripe_len()).max(1);
        for stripes in windows(layout.shape.stripes(), window) {
            let range = layout.shape.bytes_of(&stripes);
            let bytes = self.bytes(key, layout, range, lacking).await?;
            let mut rest = &bytes[..];
            for _ in stripes {
                let (stripe, behind) = rest.split_at(cutter.next_len());
                cutter.stripe(stripe)?;
                rest = behind;
            }
        }
        let shards = cutter.finish()?;
        for at in damaged {
            self.ask(*at, self.stores[*at].tier().delete(key)).await?;
        }
        for (_, result) in self.upload(key, layout, shards).await {
            result?;
        }
        for at in lacking {
            if !self.is_sound(*at, key, layout).await? {
                let reason =
                    format!("{} did not keep the shard that was made anew", self.name(*at));
                return Err(Error::Damaged { what: "shard", reason });
            }
        }
        tracing::warn!(key, shards = lacking.len(), "shards of an object were made anew");
        Ok(())
    }
}

/// `0..stripes`, in pieces.
fn windows(stripes: u64, window: u64) -> impl Iterator<Item = Range<u64>> {
    (0..stripes.div_ceil(window)).map(move |at| at * window..stripes.min((at + 1) * window))
}
