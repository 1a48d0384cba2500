//! How much lies in each tier below a directory. Directories are entered one after the other, so
//! that what is held is one page of entries for each level, and a sum is sent when the last entry of
//! its directory was counted.

use std::collections::HashSet;

use anyhow::Context;
use firn_mount::core::Core;
use firn_mount::namespace::Namespace;
use firn_mount::types::{Attr, FileKind, Ino};
use firn_mount::volume::{Placement, Storage};
use firn_tiering::BlockId;

use crate::control::protocol::Files;
use crate::control::server::Outbox;
use crate::daemon::assemble::Parts;
use crate::daemon::inspect;
use crate::daemon::storage::BlockStorage;
use crate::report::tier::DuLine;

/// Files with several names that are remembered; beyond that each name counts.
const MAX_LINKED: usize = 1 << 20;

/// Blocks that are asked for at once.
const BATCH: usize = 1 << 10;

/// A directory that is being counted.
struct Level {
    dir: Ino,
    sum: DuLine,
    /// Where its next page begins; `None` behind the last.
    next: Option<u64>,
    /// Entries of the page that are left.
    entries: std::vec::IntoIter<(Ino, Vec<u8>)>,
}

impl Level {
    fn new(dir: Ino, path: String) -> Self {
        let sum = DuLine { path, ..DuLine::default() };
        Self { dir, sum, next: Some(0), entries: Vec::new().into_iter() }
    }

    /// The next entry; `None` behind the last.
    fn advance(&mut self, parts: &Parts) -> anyhow::Result<Option<(Ino, Vec<u8>)>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            let Some(from) = self.next else { return Ok(None) };
            let page = inspect::page(&parts.volume, self.dir, from);
            let page = page.with_context(|| self.sum.path.clone())?;
            self.next = page.next;
            self.entries = page.entries.into_iter();
        }
    }
}

/// Sends a line for each directory at most `depth` below `files`, each behind those below it, or a
/// line for a single file.
pub(super) fn du(parts: &Parts, files: &Files, depth: u32, out: &mut Outbox) -> anyhow::Result<()> {
    let mut counter = Counter { parts, storage: parts.storage(), linked: HashSet::new() };
    let (ino, name) = (Ino(files.ino), files.name.clone());
    let attr = parts.volume.getattr(ino).with_context(|| name.clone())?;
    if attr.kind != FileKind::Directory {
        let mut sum = DuLine { path: name, ..DuLine::default() };
        counter.count(&attr, &mut sum)?;
        return Ok(out.item(&sum)?);
    }
    let mut levels = vec![Level::new(ino, name)];
    while let Some(level) = levels.last_mut() {
        let Some((child, name)) = level.advance(parts)? else {
            let Some(Level { sum, .. }) = levels.pop() else { break };
            if levels.len() <= depth as usize {
                out.item(&sum)?;
            }
            if let Some(above) = levels.last_mut() {
                above.sum.add(&sum);
            }
            continue;
        };
        // What vanishes meanwhile is passed over, and snapshots are not what lies here.
        if child.object() >= Ino::RESERVED {
            continue;
        }
        let Ok(attr) = parts.volume.getattr(child) else { continue };
        if attr.kind == FileKind::Directory {
            let path = inspect::joined(&level.sum.path, &name);
            levels.push(Level::new(child, path));
        } else {
            counter.count(&attr, &mut level.sum)?;
        }
    }
    Ok(())
}

/// Counts files.
struct Counter<'a> {
    parts: &'a Parts,
    storage: BlockStorage,
    /// Files with several names that were counted.
    linked: HashSet<Ino>,
}

impl Counter<'_> {
    fn count(&mut self, attr: &Attr, sum: &mut DuLine) -> anyhow::Result<()> {
        if attr.kind != FileKind::File {
            return Ok(());
        }
        if attr.nlink > 1 && self.linked.len() < MAX_LINKED && !self.linked.insert(attr.ino) {
            return Ok(());
        }
        sum.files += 1;
        sum.size_bytes = sum.size_bytes.saturating_add(attr.size);
        place(&self.parts.namespace, &self.storage, attr.ino, sum)
    }
}

/// Adds the committed bytes of a file to the tiers that they lie in.
fn place(
    names: &Namespace,
    storage: &impl Storage,
    ino: Ino,
    sum: &mut DuLine,
) -> anyhow::Result<()> {
    let mut batch: Vec<(BlockId, u64)> = Vec::new();
    let mut settle = |batch: &mut Vec<(BlockId, u64)>| -> anyhow::Result<()> {
        let blocks: Vec<BlockId> = batch.iter().map(|(block, _)| *block).collect();
        let places = storage.placements(&blocks)?;
        for (Placement { hot, cold }, (_, len)) in places.into_iter().zip(batch.drain(..)) {
            let part = match (hot, cold) {
                (true, false) => &mut sum.hot_bytes,
                (true, true) => &mut sum.dual_bytes,
                (false, true) => &mut sum.cold_bytes,
                (false, false) => &mut sum.lost_bytes,
            };
            *part = part.saturating_add(len);
        }
        Ok(())
    };
    inspect::for_each_piece(names, ino, &mut |_, piece| {
        if let Some(block) = piece.block() {
            batch.push((block.id, u64::from(piece.len)));
        }
        if batch.len() >= BATCH { settle(&mut batch) } else { Ok(()) }
    })?;
    settle(&mut batch)
}
