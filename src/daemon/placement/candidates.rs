//! The files of a volume as the planner looks at them, one after the other: directories page by
//! page, depth first, nothing held as a whole. Snapshots are left out; what only they hold goes to
//! cold by the block store's own order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use firn_mount::FsResult;
use firn_mount::core::Core;
use firn_mount::types::{Attr, FileKind, Ino};
use firn_tiering::BlockId;
use firn_tiering::store::{Residence, Stored};

use super::Placement;
use super::pins::Holding;
use crate::daemon::assemble::Parts;
use crate::daemon::inspect::{self, EntryPage};
use crate::policy::planner::Candidate;
use crate::policy::rules::{Pin, PinTier, Verdict};

/// Pieces of a file whose places are asked for at once.
const PIECES: usize = 4096;

/// Deepest directory that is looked into.
const MAX_DEPTH: usize = 4096;

/// A directory that is being listed.
struct Level {
    dir: Ino,
    path: Arc<[u8]>,
    /// The pin that holds for what is in it.
    pin: Option<Pin>,
    class: Option<Arc<str>>,
    page: std::vec::IntoIter<(Ino, Vec<u8>)>,
    next: Option<u64>,
}

/// All files, as an iterator that ends early when `stops` says so.
pub(super) struct Candidates<'a> {
    parts: &'a Parts,
    placement: &'a Placement,
    levels: Vec<Level>,
    stops: &'a dyn Fn() -> bool,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        parts: &'a Parts,
        placement: &'a Placement,
        stops: &'a dyn Fn() -> bool,
    ) -> Self {
        let mut all = Self { parts, placement, levels: Vec::new(), stops };
        let pin = all.own_pin(Ino::ROOT, &Arc::from(&b"/"[..]));
        all.enter(Ino::ROOT, Arc::from(&b""[..]), pin);
        all
    }

    /// The pin of a directory itself, for what lies in it.
    fn own_pin(&self, dir: Ino, path: &Arc<[u8]>) -> Option<Pin> {
        let pin = self.placement.own_pin(self.parts, dir)?;
        Some(Pin { tier: tier_of(pin.tier), from: Some(Arc::clone(path)) })
    }

    fn enter(&mut self, dir: Ino, path: Arc<[u8]>, pin: Option<Pin>) {
        if self.levels.len() >= MAX_DEPTH {
            tracing::warn!(path = %String::from_utf8_lossy(&path), "too deep to be placed");
            return;
        }
        let class = self.parts.namespace.properties_of(dir).ok().and_then(|own| own.tier.clone());
        let class = class.map(Arc::from);
        let page = Vec::new().into_iter();
        self.levels.push(Level { dir, path, pin, class, page, next: Some(0) });
    }

    /// The next entry of the directory that is being listed.
    fn entry(&mut self) -> Option<(Ino, Vec<u8>)> {
        let level = self.levels.last_mut()?;
        loop {
            if let Some(entry) = level.page.next() {
                return Some(entry);
            }
            let from = level.next.take()?;
            // A directory that vanished meanwhile has no more entries.
            let page = inspect::page(&self.parts.volume, level.dir, from).unwrap_or_else(|error| {
                tracing::debug!(%error, "a directory could not be listed");
                EntryPage::default()
            });
            level.next = page.next;
            level.page = page.entries.into_iter();
        }
    }

    /// What an entry comes to; `None` for what is no file with a place.
    fn look(&mut self, ino: Ino, name: &[u8]) -> Option<Candidate> {
        let level = self.levels.last()?;
        if !self.parts.namespace.is_live(ino) {
            return None;
        }
        let attr = self.parts.volume.getattr(ino).ok()?;
        let path: Arc<[u8]> = [&level.path, &b"/"[..], name].concat().into();
        if attr.kind == FileKind::Directory {
            let pin = self.own_pin(ino, &path).or_else(|| level.pin.clone());
            self.enter(ino, path, pin);
            return None;
        }
        if attr.kind != FileKind::File || attr.size == 0 {
            return None;
        }
        let own = self.placement.own_pin(self.parts, ino);
        let pin = own.map(|pin| Pin { tier: tier_of(pin.tier), from: None });
        let pin = pin.or_else(|| level.pin.clone());
        let class = level.class.clone();
        self.placement.candidate(self.parts, &attr, &path, pin, class).ok()
    }
}

impl Iterator for Candidates<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        while !self.levels.is_empty() && !(self.stops)() {
            match self.entry() {
                None => drop(self.levels.pop()),
                Some((ino, name)) => {
                    if let Some(candidate) = self.look(ino, &name) {
                        return Some(candidate);
                    }
                }
            }
        }
        None
    }
}

impl Placement {
    /// The pin that a file or directory has itself; puts the index right on the way.
    fn own_pin(&self, parts: &Parts, ino: Ino) -> Option<firn_mount::types::Pin> {
        let pin = parts.volume.pin(ino).ok()?;
        self.pins.note(ino, pin);
        pin.filter(|pin| pin.holds(self.now_s()))
    }

    /// One file as the planner looks at it, by its number.
    pub(super) fn candidate_at(&self, parts: &Parts, ino: Ino) -> FsResult<Candidate> {
        let bare = self.bare(&parts.volume.getattr(ino)?)?;
        let Candidate { path, pin, dataset_class, .. } = &bare;
        let attr = parts.volume.getattr(ino)?;
        self.candidate(parts, &attr, path, pin.clone(), dataset_class.clone())
    }

    /// One file without its places: as far as rules look that do not ask for its state.
    pub(super) fn bare(&self, attr: &Attr) -> FsResult<Candidate> {
        let ino = attr.ino;
        let holding = self.pins.holding(&self.names, ino, self.now_s())?;
        let pin = holding.map(|Holding { pin, on }| Pin {
            tier: tier_of(pin.tier),
            from: (on != ino).then(|| self.names.path(on).into()),
        });
        let dataset_class = self.names.properties_of(ino)?.tier.clone().map(Arc::from);
        Ok(Candidate { pin, dataset_class, ..self.used(attr, &self.names.path(ino)) })
    }

    fn candidate(
        &self,
        parts: &Parts,
        attr: &Attr,
        path: &[u8],
        pin: Option<Pin>,
        dataset_class: Option<Arc<str>>,
    ) -> FsResult<Candidate> {
        let places = places(parts, attr.ino)?;
        Ok(Candidate {
            dataset_class,
            pin,
            stored_bytes: places.stored,
            hot_bytes: places.hot,
            cold_bytes: places.cold,
            dirty: parts.volume.is_dirty(attr.ino),
            ..self.used(attr, path)
        })
    }

    /// A file with what is known of its use, without its places.
    fn used(&self, attr: &Attr, path: &[u8]) -> Candidate {
        let since = |time: SystemTime| self.clock.now().duration_since(time).unwrap_or_default();
        let now = self.now_ms();
        let history = self.uses.history(attr.ino);
        let idle = history.map(|history| Duration::from_millis(history.idle_ms(now)));
        let said = history.and_then(|history| {
            let inode = self.names.inode(attr.ino).ok()?;
            self.foresight.verdict(&history, &self.uses.facts(&inode, path), now)
        });
        Candidate {
            ino: attr.ino.0,
            path: path.to_vec(),
            size: attr.size,
            uid: attr.uid,
            gid: attr.gid,
            age: since(attr.mtime),
            idle: idle.unwrap_or_else(|| since(attr.mtime.max(attr.atime))),
            heat: history.map_or(0.0, |history| history.heat(now)),
            p_reuse: said.map(|said| said.p_reuse),
            verdict: said.map_or(Verdict::Unknown, |said| said.decision.into()),
            ..Candidate::default()
        }
    }
}

/// Whom a pin binds to, as rules say it.
pub(super) fn tier_of(tier: firn_mount::types::PinTier) -> PinTier {
    match tier {
        firn_mount::types::PinTier::Hot => PinTier::Hot,
        firn_mount::types::PinTier::Cold => PinTier::Cold,
    }
}

/// Stored bytes of one file by place; of a block that it shares, its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    stored: u64,
    pub(super) hot: u64,
    cold: u64,
}

pub(super) fn places(parts: &Parts, ino: Ino) -> FsResult<Places> {
    let (mut ids, mut lens): (Vec<BlockId>, Vec<u64>) = Default::default();
    let mut places = Places::default();
    let read = inspect::for_each_piece(&parts.namespace, ino, &mut |_, piece| {
        if let Some(block) = piece.block() {
            ids.push(block.id);
            lens.push(u64::from(piece.len));
        }
        if ids.len() >= PIECES {
            places.add_all(parts, &ids, &lens);
            ids.clear();
            lens.clear();
        }
        Ok(())
    });
    // Whatever cannot be read now has no place that could be planned with.
    if read.is_err() {
        return Ok(Places::default());
    }
    places.add_all(parts, &ids, &lens);
    Ok(places)
}

impl Places {
    /// What lies in cold alone.
    pub(super) fn away(&self) -> u64 {
        self.stored.saturating_sub(self.hot)
    }

    fn add_all(&mut self, parts: &Parts, ids: &[BlockId], lens: &[u64]) {
        for (stored, len) in parts.store.stored(ids).iter().zip(lens) {
            self.add(stored, *len);
        }
    }

    fn add(&mut self, stored: &Stored, len: u64) {
        let share = u128::from(stored.stored_bytes) * u128::from(len);
        // At most the block's own length, which fits.
        let bytes = (share / u128::from(stored.plain_bytes.max(1))) as u64;
        let (hot, cold) = match stored.residence {
            Residence::Open | Residence::Hot => (true, false),
            Residence::Dual => (true, true),
            Residence::Cold => (false, true),
            Residence::Unknown => return,
        };
        self.stored += bytes;
        self.hot += if hot { bytes } else { 0 };
        self.cold += if cold { bytes } else { 0 };
    }
}
