//! The pasts of all items in use, in bounded memory: which of them are warm is asked of this table.
//!
//! *Cost*: an access locks one shard, for as long as updating one [`History`] takes; a new visit also
//! locks a shard of the groups and one of the owners, one after the other, never two at once. Nothing
//! is allocated once the table is full, nothing is written.
//! *Bounds*: memory is given in bytes. A full shard forgets the coldest of a few items drawn by
//! (seeded) chance, so what stays is warm without an order being kept.
//! *Consistency*: items, groups and owners are each right by themselves; a reader may see an item's
//! access before its group's.
//! *Crash*: what was noted since the last [`Map::save`] is lost. It is a matter of precision, not of
//! data: a lost or damaged file means a start with everything equally cold.

mod file;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::history::{Access, History};
use super::table::Table;
use crate::mix::{Chance, mix};

/// Shards of the items: many more than threads that access at a time.
const ITEM_SHARDS: usize = 64;
const GROUP_SHARDS: usize = 16;
const OWNER_SHARDS: usize = 4;

/// Of so many entries drawn, the coldest goes: on average it is among the coldest ninth.
const DRAWN: u32 = 8;

/// Shares of the memory in sixteenths; items get what is left.
const GROUP_SHARE: u64 = 2;
const OWNER_SHARE: u64 = 1;

/// Entries that are copied under one lock when all are walked.
const PAGE: usize = 256;

/// Where an item belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The item.
    pub item: u64,
    /// Its directory.
    pub group: u64,
    /// Whose it is.
    pub owner: u32,
}

/// What is known of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Which item, and where it belonged at its last access.
    pub place: Place,
    /// Its past.
    pub history: History,
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapStatus {
    /// Items known.
    pub items: u64,
    /// Most items that fit.
    pub most_items: u64,
    /// Groups known.
    pub groups: u64,
    /// Owners known.
    pub owners: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// Items forgotten to make room, since the start.
    pub evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    group: u64,
    history: History,
    owner: u32,
}

/// Whose past it is that an entry holds.
trait Past {
    fn history(&self) -> &History;
    fn history_mut(&mut self) -> &mut History;
}

impl Past for Entry {
    fn history(&self) -> &History {
        &self.history
    }

    fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }
}

impl Past for History {
    fn history(&self) -> &History {
        self
    }

    fn history_mut(&mut self) -> &mut History {
        self
    }
}

#[derive(Debug)]
struct Shard<V> {
    table: Table<V>,
    chance: Chance,
    /// Goes up with every change.
    changes: u64,
    evicted: u64,
}

impl<V: Past> Shard<V> {
    /// The entry of an id, made by `new` if there is none.
    fn entry(&mut self, id: u64, now_ms: u64, new: impl FnOnce() -> V) -> Option<&mut V> {
        self.changes += 1;
        let number = match self.table.find(id) {
            Some(number) => number,
            None => {
                if self.table.is_full() {
                    self.evict(now_ms);
                }
                self.table.insert(id, new())?
            }
        };
        self.table.value_mut(number)
    }

    fn evict(&mut self, now_ms: u64) {
        let mut coldest: Option<(f32, u64)> = None;
        for _ in 0..DRAWN {
            let drawn = self.chance.below(self.table.len() as u64) as usize;
            let Some((id, value)) = self.table.entry(drawn) else { continue };
            let heat = value.history().heat(now_ms);
            if coldest.is_none_or(|(least, _)| heat < least) {
                coldest = Some((heat, *id));
            }
        }
        if let Some((_, id)) = coldest {
            self.table.remove(id);
            self.evicted += 1;
        }
    }
}

/// Entries by id, in shards.
#[derive(Debug)]
struct Shards<V>(Box<[Mutex<Shard<V>>]>);

impl<V: Past> Shards<V> {
    fn new(count: usize, bytes: u64, chance: &mut Chance) -> Self {
        let most = bytes / count as u64 / Table::<V>::ENTRY_BYTES as u64;
        let shard = |_| {
            let (table, chance) = (Table::new(most as usize), Chance::new(chance.draw()));
            Mutex::new(Shard { table, chance, changes: 0, evicted: 0 })
        };
        Self((0..count).map(shard).collect())
    }

    /// The index of a table uses the upper half of the hash, this the lower.
    fn of(&self, id: u64) -> &Mutex<Shard<V>> {
        &self.0[mix(id) as usize & (self.0.len() - 1)]
    }

    /// [`History::settle`] for every entry.
    fn settle(&self, now_ms: u64) {
        for shard in &self.0 {
            let mut shard = shard.lock();
            shard.changes += 1;
            for number in 0..shard.table.len() {
                if let Some(value) = shard.table.value_mut(number) {
                    value.history_mut().settle(now_ms);
                }
            }
        }
    }

    fn sum(&self, of: impl Fn(&Shard<V>) -> u64) -> u64 {
        self.0.iter().map(|shard| of(&shard.lock())).sum()
    }
}

/// Where a walk over all items stands. It goes through each shard from the end, so that an entry that
/// takes the number of a removed one was seen already: items that stay are seen at least once, those
/// that come meanwhile perhaps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    shard: usize,
    /// Entries from here on are done; `None` before the first page of a shard.
    done_from: Option<usize>,
}

/// The live table.
#[derive(Debug)]
pub struct Map {
    items: Shards<Entry>,
    groups: Shards<History>,
    owners: Shards<History>,
    /// The sum of all changes when it was last saved.
    saved: AtomicU64,
}

impl Map {
    /// An empty table that takes at most `max_bytes`, of which little is allocated before it is
    /// needed; while a shard grows, up to half of its share more. One item takes 128 bytes and at most
    /// 32 more of index. `seed` is for choosing whom to forget.
    pub fn new(max_bytes: u64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let (groups, owners) = (max_bytes / 16 * GROUP_SHARE, max_bytes / 16 * OWNER_SHARE);
        let items = max_bytes.saturating_sub(groups + owners);
        Self {
            items: Shards::new(ITEM_SHARDS, items, &mut chance),
            groups: Shards::new(GROUP_SHARDS, groups, &mut chance),
            owners: Shards::new(OWNER_SHARDS, owners, &mut chance),
            saved: AtomicU64::new(0),
        }
    }

    /// Takes in an access. Groups and owners count visits (see [`History`]) and the bytes of the
    /// access that began each, or one long read would pass for the habit of a whole directory. Whether
    /// this one began a visit.
    pub fn note(&self, place: Place, access: &Access) -> bool {
        let Some(again) = self.note_item(place, access) else { return false };
        for (shards, id) in [(&self.groups, place.group), (&self.owners, u64::from(place.owner))] {
            let mut shard = shards.of(id).lock();
            let new = || History::new(access.at_ms);
            if let Some(history) = shard.entry(id, access.at_ms, new) {
                history.note_member(access, again);
            }
        }
        true
    }

    /// Whether it began a visit, and if so, whether to an item that had been visited before.
    fn note_item(&self, place: Place, access: &Access) -> Option<bool> {
        let Place { item, group, owner } = place;
        let mut shard = self.items.of(item).lock();
        let new = || Entry { group, history: History::new(access.at_ms), owner };
        let entry = shard.entry(item, access.at_ms, new)?;
        (entry.group, entry.owner) = (group, owner);
        let before = entry.history.visits();
        entry.history.note(access);
        (entry.history.visits() != before).then_some(before > 0)
    }

    /// The past of an item.
    pub fn get(&self, item: u64) -> Option<History> {
        self.items.of(item).lock().table.get(item).map(|entry| entry.history)
    }

    /// The common past of the items of a group.
    pub fn group(&self, group: u64) -> Option<History> {
        self.groups.of(group).lock().table.get(group).copied()
    }

    /// The common past of the items of an owner.
    pub fn owner(&self, owner: u32) -> Option<History> {
        let id = u64::from(owner);
        self.owners.of(id).lock().table.get(id).copied()
    }

    /// How warm an item is, see [`History::heat`]; 0 for what is not known.
    pub fn heat(&self, item: u64, now_ms: u64) -> f32 {
        self.items.of(item).lock().table.get(item).map_or(0.0, |entry| entry.history.heat(now_ms))
    }

    /// The clock was set back: times that lie ahead count as now, or what they belong to would pass
    /// for in use until it has caught up. Holds the lock of one shard at a time.
    pub fn settle(&self, now_ms: u64) {
        self.items.settle(now_ms);
        self.groups.settle(now_ms);
        self.owners.settle(now_ms);
    }

    /// The item is gone.
    pub fn forget(&self, item: u64) -> bool {
        let mut shard = self.items.of(item).lock();
        let known = shard.table.remove(item).is_some();
        shard.changes += u64::from(known);
        known
    }

    /// Takes back what a scan had counted before it was seen to be one: items that nobody knew before
    /// `since_ms` and that were visited once are forgotten. One visit too many stays with items that
    /// were known, and with groups and owners. Returns how many were forgotten.
    pub fn take_back(&self, items: &[u64], since_ms: u64) -> usize {
        let mut forgotten = 0;
        for &item in items {
            let mut shard = self.items.of(item).lock();
            let only_seen = |history: &History| {
                history.first_ms() >= since_ms && history.visits() <= 1 && history.writes() == 0
            };
            if shard.table.get(item).is_some_and(|entry| only_seen(&entry.history)) {
                shard.table.remove(item);
                shard.changes += 1;
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Appends some items to `out`, at most 256, and returns where to go on; `None` after the last.
    /// Holds one lock, and only while copying.
    pub fn page(&self, cursor: Cursor, out: &mut Vec<Known>) -> Option<Cursor> {
        let shard = self.items.0.get(cursor.shard)?.lock();
        let end = cursor.done_from.unwrap_or(usize::MAX).min(shard.table.len());
        let begin = end.saturating_sub(PAGE);
        for number in (begin..end).rev() {
            let Some(&(item, Entry { group, history, owner })) = shard.table.entry(number) else {
                continue;
            };
            out.push(Known { place: Place { item, group, owner }, history });
        }
        match begin {
            0 if cursor.shard + 1 == self.items.0.len() => None,
            0 => Some(Cursor { shard: cursor.shard + 1, done_from: None }),
            begin => Some(Cursor { shard: cursor.shard, done_from: Some(begin) }),
        }
    }

    /// Calls `visit` for every item, holding no lock meanwhile; see [`Cursor`] for what it sees when
    /// others come and go.
    pub fn for_each(&self, mut visit: impl FnMut(&Known)) {
        let mut page = Vec::with_capacity(PAGE);
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            page.clear();
            next = self.page(cursor, &mut page);
            page.iter().for_each(&mut visit);
        }
    }

    /// Numbers for status and metrics.
    pub fn status(&self) -> MapStatus {
        MapStatus {
            items: self.items.sum(|shard| shard.table.len() as u64),
            most_items: self.items.sum(|shard| shard.table.most() as u64),
            groups: self.groups.sum(|shard| shard.table.len() as u64),
            owners: self.owners.sum(|shard| shard.table.len() as u64),
            bytes: self.items.sum(|shard| shard.table.bytes() as u64)
                + self.groups.sum(|shard| shard.table.bytes() as u64)
                + self.owners.sum(|shard| shard.table.bytes() as u64),
            evicted: self.items.sum(|shard| shard.evicted),
        }
    }

    fn changes(&self) -> u64 {
        self.items.sum(|shard| shard.changes)
            + self.groups.sum(|shard| shard.changes)
            + self.owners.sum(|shard| shard.changes)
    }

    /// Whether something was noted since it was last saved or opened.
    pub fn is_changed(&self) -> bool {
        self.changes() != self.saved.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
