//! Which shards of an object are there, and whether they make it visible.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;

use super::Spread;
use super::gather::gather;
use super::layout::{HEADER_LEN, Layout, sum};
use super::store::{is_absence, words};
use crate::error::{Error, Result};

/// Layouts that are remembered, in each of two halves.
const KNOWN: usize = 8192;

/// What one store has of an object.
#[derive(Debug)]
pub(super) enum Piece {
    /// A shard of the object that was cut like this; boxed, as it is large.
    Shard(Box<Layout>),
    /// Something that is not this shard; what, in words.
    Damaged(String),
    /// Nothing.
    Missing,
    /// Nobody knows; why, in words.
    Away(String),
}

/// What that makes of the object.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is there.
    Visible(Layout),
    /// It is not.
    Gone,
    /// It may be there.
    Unclear(Error),
}

/// What every store has of an object.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) pieces: Vec<Piece>,
}

/// Layouts of objects that were looked at lately. Keys are written once, so they stay right; what
/// another process changed shows in checksums that are wrong.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The younger half, and the older.
    halves: Mutex<[HashMap<String, Layout>; 2]>,
}

impl Known {
    pub(super) fn get(&self, key: &str) -> Option<Layout> {
        let halves = self.halves.lock();
        halves[0].get(key).or_else(|| halves[1].get(key)).copied()
    }

    pub(super) fn put(&self, key: &str, layout: &Layout) {
        let mut halves = self.halves.lock();
        if halves[0].len() >= KNOWN {
            halves.swap(0, 1);
            halves[0].clear();
        }
        halves[0].insert(key.to_owned(), *layout);
    }

    pub(super) fn forget(&self, key: &str) {
        self.halves.lock().iter_mut().for_each(|half| {
            half.remove(key);
        });
    }
}

impl Look {
    /// Layouts and how many shards have them.
    fn tally(&self) -> Vec<(Layout, usize)> {
        let mut tally: Vec<(Layout, usize)> = Vec::new();
        for piece in &self.pieces {
            let Piece::Shard(layout) = piece else { continue };
            match tally.iter_mut().find(|(known, _)| known == &**layout) {
                Some((_, count)) => *count += 1,
                None => tally.push((**layout, 1)),
            }
        }
        tally
    }

    /// The layout that most shards have.
    pub(super) fn likeliest(&self) -> Option<Layout> {
        self.tally().into_iter().max_by_key(|(_, count)| *count).map(|(layout, _)| layout)
    }

    /// Whether stores that do not answer may make an object visible that was cut otherwise.
    pub(super) fn may_hide_another(&self, layout: &Layout, needed: usize) -> bool {
        let others = self.tally().into_iter().filter(|(other, _)| other != layout);
        let most = others.map(|(_, count)| count).max().unwrap_or(0);
        self.away() > 0 && most + self.away() >= needed
    }

    fn count(&self, is: impl Fn(&Piece) -> bool) -> usize {
        self.pieces.iter().filter(|piece| is(piece)).count()
    }

    /// Stores that did not answer.
    pub(super) fn away(&self) -> usize {
        self.count(|piece| matches!(piece, Piece::Away(_)))
    }
}

impl Spread {
    /// What store `at` has of an object.
    async fn piece(&self, at: usize, key: &str) -> Piece {
        let header = self.part(at, key, 0..HEADER_LEN as u64).await;
        let layout = match header {
            Ok(bytes) => Layout::parse(&bytes),
            Err(Error::NotFound(_)) => return Piece::Missing,
            Err(error) if is_absence(&error) => return Piece::Away(words(&error)),
            Err(error) => Err(error),
        };
        match layout {
            Ok((layout, shard)) => {
                let here = (layout.shape.data, layout.shape.parity, layout.key, shard);
                if here == (self.data, self.parity, sum(&[key.as_bytes()]), at) {
                    return Piece::Shard(Box::new(layout));
                }
                Piece::Damaged("is a shard of something else".to_owned())
            }
            Err(error) => Piece::Damaged(words(&error)),
        }
    }

    /// Asks all stores, and waits `grace` for the last ones; ends at once when `is_settled`.
    async fn look_until(
        &self,
        key: &str,
        grace: Duration,
        is_settled: impl Fn(&[Option<Piece>]) -> bool + Send,
    ) -> Look {
        let calls = (0..self.stores.len()).map(|at| self.piece(at, key).boxed()).collect();
        let answers = |piece: &Piece| !matches!(piece, Piece::Away(_));
        let found = gather(calls, (self.data(), grace), answers, is_settled).await;
        let late = || Piece::Away("it has not answered in time".to_owned());
        Look { pieces: found.into_iter().map(|piece| piece.unwrap_or_else(late)).collect() }
    }

    /// What all stores have of an object; those that answer last are waited for for `grace`.
    pub(super) async fn look(&self, key: &str, grace: Duration) -> Look {
        self.look_until(key, grace, |_| false).await
    }

    /// Enough of a look to tell whether an object is visible.
    pub(super) async fn look_quickly(&self, key: &str) -> Look {
        let (data, all) = (self.data(), self.stores.len());
        let is_settled = move |found: &[Option<Piece>]| {
            let known = |piece: &Option<Piece>| !matches!(piece, None | Some(Piece::Away(_)));
            let mut open = all - found.iter().filter(|piece| known(piece)).count();
            let mut most = 0;
            for piece in found.iter().flatten() {
                match piece {
                    Piece::Shard(layout) => {
                        let same = |other: &&Option<Piece>| matches!(other, Some(Piece::Shard(other)) if other == layout);
                        most = most.max(found.iter().filter(same).count());
                    }
                    Piece::Damaged(_) => open += 1,
                    Piece::Missing | Piece::Away(_) => {}
                }
            }
            most >= data || most + open < data
        };
        // Who is slow may be the one that has it: only a settled answer ends it early.
        self.look_until(key, Duration::from_secs(60), is_settled).await
    }

    /// Whether an object is visible.
    pub(super) fn verdict(&self, key: &str, look: &Look) -> Verdict {
        let tally = look.tally();
        if let Some((layout, _)) = tally.iter().find(|(_, count)| *count >= self.data()) {
            return Verdict::Visible(*layout);
        }
        let most = tally.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let damaged = look.count(|piece| matches!(piece, Piece::Damaged(_)));
        let away = look.away();
        if most + damaged + away < self.data() {
            return Verdict::Gone;
        }
        let mut why =
            vec![format!("{most} of the {} shards that are needed were found", self.data())];
        for (at, piece) in look.pieces.iter().enumerate() {
            match piece {
                Piece::Damaged(what) => why.push(format!("{}: {what}", self.name(at))),
                Piece::Away(what) => why.push(format!("{}: {what}", self.name(at))),
                Piece::Shard(_) | Piece::Missing => {}
            }
        }
        Verdict::Unclear(match most + away >= self.data() {
            true => self.too_few("read", key, true, &why),
            false => Error::Damaged { what: "object", reason: why.join("; ") },
        })
    }

    /// How a visible object was cut.
    pub(super) async fn find(&self, key: &str) -> Result<Layout> {
        let look = self.look_quickly(key).await;
        match self.verdict(key, &look) {
            Verdict::Visible(layout) => {
                self.known.put(key, &layout);
                Ok(layout)
            }
            Verdict::Gone => {
                self.known.forget(key);
                Err(Error::NotFound(key.to_owned()))
            }
            Verdict::Unclear(error) => Err(error),
        }
    }
}
