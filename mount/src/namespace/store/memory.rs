//! The store in memory, for tests: the contract without a disk, with power loss and failures on
//! demand.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{
    Batch, Durability, NamespaceReader, NamespaceStore, PAGE_BYTES, Page, Space, StoreError,
    StoreResult,
};

type Map = Arc<BTreeMap<Bytes, Bytes>>;
type Maps = [Map; Space::ALL.len()];

/// Keeps everything in sorted maps.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Maps,
    durable: Maps,
    commits_until_failure: Option<u64>,
    failed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What opening again after `kill -9` finds: everything that was committed.
    pub fn reopened(&self) -> Self {
        let current = self.state.lock().current.clone();
        Self::holding(current)
    }

    /// What opening again after power loss finds in the worst case: what was made durable.
    pub fn reopened_after_power_loss(&self) -> Self {
        let durable = self.state.lock().durable.clone();
        Self::holding(durable)
    }

    /// Lets `commits` more commits succeed; the next one fails, and so does everything after it.
    pub fn fail_after(&self, commits: u64) {
        self.state.lock().commits_until_failure = Some(commits);
    }

    /// Has every call wait until this is dropped.
    pub fn still(&self) -> Still<'_> {
        Still(self.state.lock())
    }

    fn holding(maps: Maps) -> Self {
        let state = State { current: maps.clone(), durable: maps, ..State::default() };
        Self { state: Mutex::new(state) }
    }
}

/// A [`MemoryStore`] that answers nobody.
#[derive(Debug)]
pub struct Still<'a>(#[expect(dead_code, reason = "held, not used")] MutexGuard<'a, State>);

impl State {
    fn check(&mut self) -> StoreResult<()> {
        match &mut self.commits_until_failure {
            Some(0) => self.failed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.failed { Err(StoreError::of("commit")("injected failure")) } else { Ok(()) }
    }
}

impl NamespaceReader for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        Ok(self.state.lock().current[space.index()].get(key).cloned())
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        let map = Arc::clone(&self.state.lock().current[space.index()]);
        Ok(page_of(&map, from, to, limit))
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        Ok(last_of(&self.state.lock().current[space.index()], from, to))
    }
}

impl NamespaceStore for MemoryStore {
    fn commit(&self, batch: Batch, durability: Durability) -> StoreResult<()> {
        let mut state = self.state.lock();
        state.check()?;
        for change in batch.into_changes() {
            let map = Arc::make_mut(&mut state.current[change.space.index()]);
            match change.value {
                Some(value) => map.insert(change.key, value),
                None => map.remove(&change.key),
            };
        }
        if durability == Durability::Durable {
            state.durable = state.current.clone();
        }
        Ok(())
    }

    fn sync(&self) -> StoreResult<()> {
        let mut state = self.state.lock();
        if state.failed {
            return Err(StoreError::of("sync")("injected failure"));
        }
        state.durable = state.current.clone();
        Ok(())
    }

    fn snapshot(&self) -> StoreResult<Box<dyn NamespaceReader>> {
        Ok(Box::new(Frozen(self.state.lock().current.clone())))
    }

    fn stored_bytes(&self) -> StoreResult<u64> {
        let state = self.state.lock();
        let items = state.current.iter().flat_map(|map| map.iter());
        Ok(items.map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn rest(&self) -> StoreResult<()> {
        self.sync()
    }
}

struct Frozen(Maps);

impl NamespaceReader for Frozen {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        Ok(self.0[space.index()].get(key).cloned())
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        Ok(page_of(&self.0[space.index()], from, to, limit))
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        Ok(last_of(&self.0[space.index()], from, to))
    }
}

fn last_of(map: &BTreeMap<Bytes, Bytes>, from: &[u8], to: &[u8]) -> Option<(Bytes, Bytes)> {
    if to <= from {
        return None;
    }
    let (key, value) =
        map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).next_back()?;
    Some((key.clone(), value.clone()))
}

fn page_of(map: &BTreeMap<Bytes, Bytes>, from: &[u8], to: Option<&[u8]>, limit: usize) -> Page {
    let mut page = Page::default();
    if to.is_some_and(|to| to <= from) {
        return page;
    }
    let end = to.map_or(Bound::Unbounded, Bound::Excluded);
    let mut bytes = 0;
    for (key, value) in map.range::<[u8], _>((Bound::Included(from), end)) {
        if page.items.len() >= limit || bytes >= PAGE_BYTES {
            page.more = true;
            break;
        }
        bytes += key.len() + value.len();
        page.items.push((key.clone(), value.clone()));
    }
    page
}
