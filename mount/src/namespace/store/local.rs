//! The store on local disk: the only module that names fjall.
//!
//! *Crash rules.* `commit` hands the whole batch to the operating system before it returns (fjall
//! flushes its journal buffer with every batch), so a killed process loses nothing that was
//! acknowledged; `Durable` and `sync` follow with an fsync of the journal, which covers every
//! earlier batch. Recovery replays whole batches from the journals, in order, and cuts a torn
//! tail; where fjall refuses a damaged batch at the end, it is cut off here.
//! *Failure.* A failed write, fsync, flush or compaction poisons fjall; every later commit fails.
//! *At rest.* A journal is created 64 MiB long (sparse) and only ever replaced; after `rest` has
//! moved everything into tables, dropping the store cuts the journal to nothing.
//! *Memory.* Per space one write buffer, rarely a sealed one or two beside it; from four sealed
//! ones on fjall makes writers wait. A seldom used space is flushed when the journals reach their
//! limit. The cache holds blocks, indexes and filters.
//! *Rotation.* Full write buffers are handed to the flusher here and not by fjall, whose commits
//! queue one request each as long as a buffer is full: once its queue of 1000 is full, its worker
//! waits for room in the queue that only it empties, for ever.

mod contents;
mod journal;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, PinningPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, Guard, Iter, JournalRecoveryError, Keyspace,
    KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Slice,
};
use parking_lot::Mutex;

use super::{
    Batch, Durability, NamespaceReader, NamespaceStore, PAGE_BYTES, Page, Space, StoreError,
    StoreResult,
};

/// Settings of [`LocalStore`].
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of table blocks, indexes and filters kept in memory. More makes cold lookups rarer.
    pub cache_bytes: u64,
    /// Bytes of new records of the busiest space kept in memory before they are written to a
    /// table; the others take a fraction. More makes writing cheaper and recovery longer.
    pub write_buffer_bytes: u64,
    /// Bytes of full journals kept before the spaces that hold them back are flushed, at least
    /// 64 MiB.
    pub journal_bytes: u64,
    /// Tables open at once.
    pub open_files: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            journal_bytes: 64 << 20,
            open_files: 128,
        }
    }
}

/// The file without which fjall takes a directory for an empty one.
const MARKER: &str = "version";

/// Bytes of one table. Smaller ones make compactions shorter, for which flushes wait.
const TABLE_BYTES: u64 = 16 << 20;

/// Bytes below which `rest` merges a space into one sorted run.
const MERGE_AT_REST_BYTES: u64 = 64 << 20;

/// How often and how long `rest` looks again whether all tables are written: a minute in all.
const REST_LOOKS: u32 = 30_000;
const REST_PAUSE: Duration = Duration::from_millis(2);

/// Sealed buffers of a space beside which a commit goes on; fjall itself stops at four.
const MOST_SEALED: usize = 2;

/// How often a commit looks again whether tables were written: five minutes in all.
const TABLE_LOOKS: u32 = 150_000;

/// Bytes that an entry of a write buffer takes beside key and value.
const ENTRY_OVERHEAD: u64 = 128;

/// fjall on a directory.
pub struct LocalStore {
    open: Option<Open>,
    buffers: [Buffer; Space::ALL.len()],
    path: PathBuf,
    committed: AtomicU64,
    synced: Mutex<u64>,
    rested: AtomicBool,
    /// Write buffers may be waiting to become tables.
    sealed: AtomicBool,
}

/// How full the write buffer of a space is.
#[derive(Debug)]
struct Buffer {
    bytes: AtomicU64,
    limit: u64,
    /// Something was written since the space was last merged.
    dirty: AtomicBool,
}

struct Open {
    // Dropped in this order: spaces hold the database's lock.
    spaces: Vec<Keyspace>,
    database: Database,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Opens the store in `path`, creating it when there is none. A creation that was cut short
    /// leaves a directory that does not open: create volumes aside and rename.
    pub fn open(path: &Path, options: StoreOptions) -> StoreResult<Self> {
        Self::on(recovered(path, options)?, path, options)
    }

    fn on(database: Database, path: &Path, options: StoreOptions) -> StoreResult<Self> {
        let spaces = Space::ALL
            .iter()
            .map(|&space| database.keyspace(space.name(), space_options))
            .collect::<Result<Vec<Keyspace>, _>>()
            .map_err(StoreError::of(format!("open {}", path.display())))?;
        // What recovery left in memory counts.
        let buffers = Space::ALL.map(|space| Buffer {
            bytes: AtomicU64::new(spaces[space.index()].tree.active_memtable().size()),
            limit: buffer_limit(space, options),
            dirty: AtomicBool::new(spaces[space.index()].l0_table_count() > 0),
        });
        Ok(Self {
            buffers,
            open: Some(Open { spaces, database }),
            path: path.to_owned(),
            committed: AtomicU64::new(0),
            synced: Mutex::new(0),
            rested: AtomicBool::new(false),
            sealed: AtomicBool::new(true),
        })
    }

    /// Opens the store that is in `path`. One of which a part is missing is not made anew: that
    /// would be one with other content.
    pub fn open_existing(path: &Path, options: StoreOptions) -> StoreResult<Self> {
        let failed = |reason: String| StoreError {
            action: format!("open {}", path.display()),
            source: reason.into(),
        };
        if !path.join(MARKER).is_file() {
            return Err(failed("there is no database, or not all of it".to_owned()));
        }
        contents::check(path).map_err(StoreError::of(format!("open {}", path.display())))?;
        // Whatever fjall makes of damaged files is an error of the open and no more.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = recovered(path, options)?;
            let missing = Space::ALL.iter().find(|space| !database.keyspace_exists(space.name()));
            match missing {
                Some(space) => Err(failed(format!("the space `{}` is missing", space.name()))),
                None => Self::on(database, path, options),
            }
        }));
        opened.unwrap_or_else(|_| Err(failed("the database is damaged".to_owned())))
    }

    fn opened(&self) -> &Open {
        self.open.as_ref().expect("the store is open until it is dropped")
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.opened().spaces[space.index()]
    }

    /// Waits until every committed batch up to `ticket` is durable, sharing one fsync among all
    /// who wait.
    fn sync_to(&self, ticket: u64) -> StoreResult<()> {
        let mut synced = self.synced.lock();
        if *synced >= ticket {
            return Ok(());
        }
        let reached = self.committed.load(Ordering::Acquire);
        self.opened()
            .database
            // The length of a journal is fixed when it is made; times need not be durable.
            .persist(PersistMode::SyncData)
            .map_err(StoreError::of("sync the journal"))?;
        *synced = reached;
        Ok(())
    }

    /// Accounts for what a batch added, and hands full buffers to the flusher.
    fn rotate_full_buffers(&self, added: [u64; Space::ALL.len()]) -> StoreResult<()> {
        for (at, added) in added.into_iter().enumerate() {
            if added == 0 {
                continue;
            }
            let Buffer { bytes, limit, dirty } = &self.buffers[at];
            dirty.store(true, Ordering::Release);
            // Of several writers that see it full, one finds it so when it resets the count.
            if bytes.fetch_add(added, Ordering::Relaxed) + added >= *limit
                && bytes.swap(0, Ordering::Relaxed) >= *limit
            {
                let space = &self.opened().spaces[at];
                space.rotate_memtable().map_err(StoreError::of("seal a write buffer"))?;
                self.sealed.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Waits while so many buffers are sealed that fjall's commit would wait as well: it would
    /// not notice the death of the worker that it waits for.
    fn wait_for_tables(&self) -> StoreResult<()> {
        // Taken before the look, so that a buffer sealed meanwhile is not forgotten.
        if !self.sealed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        for look in 0_u32.. {
            let sealed = |space: &Keyspace| space.sealed_memtable_count();
            let most = self.opened().spaces.iter().map(sealed).max().unwrap_or(0);
            self.sealed.fetch_or(most > 0, Ordering::AcqRel);
            match most {
                count if count <= MOST_SEALED => return Ok(()),
                _ if look == TABLE_LOOKS => break,
                _ => {}
            }
            // Fails when the database was poisoned.
            let alive = self.opened().database.persist(PersistMode::Buffer);
            alive.map_err(StoreError::of("wait for tables"))?;
            std::thread::sleep(REST_PAUSE);
        }
        Err(StoreError::of("wait for tables")("none was written for a long time"))
    }

    fn flush_tables(&self) -> StoreResult<bool> {
        for space in &self.opened().spaces {
            space.rotate_memtable().map_err(StoreError::of("flush to tables"))?;
        }
        let busy = || self.opened().spaces.iter().any(|space| space.sealed_memtable_count() > 0);
        for _ in 0..REST_LOOKS {
            if !busy() {
                return Ok(true);
            }
            std::thread::sleep(REST_PAUSE);
        }
        Ok(false)
    }

    fn journals(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// With all records in tables the one journal left only repeats them.
    fn cut_journal(&self) -> std::io::Result<()> {
        if let [journal] = self.journals()?.as_slice() {
            let file = std::fs::OpenOptions::new().write(true).open(journal)?;
            file.set_len(0)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.open = None;
        if self.rested.load(Ordering::Acquire)
            && let Err(error) = self.cut_journal()
        {
            tracing::warn!(path = %self.path.display(), %error, "namespace journal not shortened");
        }
    }
}

fn open_database(path: &Path, options: StoreOptions) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes.max(64 << 20))
        .max_cached_files(Some(options.open_files.max(10)))
        // A second worker spins while the first one compacts.
        .worker_threads(1)
        .open()
}

/// Opens the database, without what was torn off at its end.
fn recovered(path: &Path, options: StoreOptions) -> StoreResult<Database> {
    match open_database(path, options) {
        Err(fjall::Error::JournalRecovery(error)) => {
            repair(path, &error).map_err(StoreError::of(format!("repair {}", path.display())))?;
            open_database(path, options)
        }
        other => other,
    }
    .map_err(StoreError::of(format!("open {}", path.display())))
}

fn repair(path: &Path, error: &JournalRecoveryError) -> std::io::Result<()> {
    if let Some(journal) = journal::newest(path)? {
        let lost_bytes = journal::cut_damaged_end(&journal)?;
        tracing::error!(
            journal = %journal.display(), %error, lost_bytes,
            "namespace journal was damaged at its end; changes that were not synced are gone"
        );
    }
    Ok(())
}

fn buffer_limit(space: Space, options: StoreOptions) -> u64 {
    let share = match space {
        Space::Head => 1,
        Space::Backrefs => 2,
        Space::History | Space::Born => 4,
        Space::Meta => 16,
    };
    (options.write_buffer_bytes / share).max(64 << 10)
}

fn space_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        // Never: see the rule of rotation above.
        .max_memtable_size(u64::MAX)
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)))
        .data_block_size_policy(BlockSizePolicy::all(4 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .index_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        // Pinned indexes and filters are not counted by the cache.
        .index_block_pinning_policy(PinningPolicy::all(false))
        .filter_block_pinning_policy(PinningPolicy::all(false))
        // Filters in the last level too: most lookups before a creation miss.
        .expect_point_read_hits(false)
}

fn collect_page(mut items: Iter, limit: usize) -> StoreResult<Page> {
    let mut page = Page::default();
    let mut bytes = 0;
    for item in items.by_ref() {
        if page.items.len() >= limit || bytes >= PAGE_BYTES {
            page.more = true;
            break;
        }
        let (key, value) = Guard::into_inner(item).map_err(StoreError::of("read a range"))?;
        bytes += key.len() + value.len();
        page.items.push((Bytes::from(key), Bytes::from(value)));
    }
    Ok(page)
}

fn last_of(mut items: Iter) -> StoreResult<Option<(Bytes, Bytes)>> {
    let Some(item) = items.next_back() else { return Ok(None) };
    let (key, value) = Guard::into_inner(item).map_err(StoreError::of("read a range"))?;
    Ok(Some((Bytes::from(key), Bytes::from(value))))
}

impl NamespaceReader for LocalStore {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        let value = self.space(space).get(key).map_err(StoreError::of("read a key"))?;
        Ok(value.map(Bytes::from))
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        let space = self.space(space);
        match to {
            Some(to) if to <= from => Ok(Page::default()),
            Some(to) => collect_page(space.range(from..to), limit),
            None => collect_page(space.range(from..), limit),
        }
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        if to <= from {
            return Ok(None);
        }
        last_of(self.space(space).range(from..to))
    }
}

impl NamespaceStore for LocalStore {
    fn commit(&self, batch: Batch, durability: Durability) -> StoreResult<()> {
        self.wait_for_tables()?;
        let open = self.opened();
        let writes = OwnedWriteBatch::with_capacity(open.database.clone(), batch.len());
        // Flushes to the operating system at commit.
        let mut writes = writes.durability(Some(PersistMode::Buffer));
        self.rested.store(false, Ordering::Release);
        let mut added = [0; Space::ALL.len()];
        for change in batch.into_changes() {
            let at = change.space.index();
            let space = &open.spaces[at];
            let value_len = change.value.as_ref().map_or(0, Bytes::len);
            added[at] += (change.key.len() + value_len) as u64 + ENTRY_OVERHEAD;
            match change.value {
                Some(value) => writes.insert(space, Slice::from(change.key), Slice::from(value)),
                None => writes.remove(space, Slice::from(change.key)),
            }
        }
        writes.commit().map_err(StoreError::of("commit"))?;
        let ticket = self.committed.fetch_add(1, Ordering::AcqRel) + 1;
        self.rotate_full_buffers(added)?;
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Durable => self.sync_to(ticket),
        }
    }

    fn sync(&self) -> StoreResult<()> {
        self.sync_to(self.committed.load(Ordering::Acquire))
    }

    fn snapshot(&self) -> StoreResult<Box<dyn NamespaceReader>> {
        let open = self.opened();
        Ok(Box::new(LocalSnapshot { view: open.database.snapshot(), spaces: open.spaces.clone() }))
    }

    fn stored_bytes(&self) -> StoreResult<u64> {
        use std::os::unix::fs::MetadataExt;
        let tables: u64 = self.opened().spaces.iter().map(Keyspace::disk_space).sum();
        let journals = self.journals().map_err(StoreError::of("list journals"))?;
        // A journal may vanish while it is being counted.
        let blocks = journals.iter().filter_map(|path| path.metadata().ok()).map(|m| m.blocks());
        Ok(tables + blocks.sum::<u64>() * 512)
    }

    fn rest(&self) -> StoreResult<()> {
        self.sync()?;
        if !self.flush_tables()? {
            return Ok(());
        }
        for (space, buffer) in self.opened().spaces.iter().zip(&self.buffers) {
            let small = space.disk_space() <= MERGE_AT_REST_BYTES;
            if small && buffer.dirty.swap(false, Ordering::AcqRel) {
                space.major_compact().map_err(StoreError::of("merge tables"))?;
            }
        }
        self.rested.store(true, Ordering::Release);
        Ok(())
    }
}

struct LocalSnapshot {
    // Dropped before the spaces it reads.
    view: fjall::Snapshot,
    spaces: Vec<Keyspace>,
}

impl NamespaceReader for LocalSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        let space = &self.spaces[space.index()];
        let value = self.view.get(space, key).map_err(StoreError::of("read a key"))?;
        Ok(value.map(Bytes::from))
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        let space = &self.spaces[space.index()];
        match to {
            Some(to) if to <= from => Ok(Page::default()),
            Some(to) => collect_page(self.view.range(space, from..to), limit),
            None => collect_page(self.view.range(space, from..), limit),
        }
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        if to <= from {
            return Ok(None);
        }
        last_of(self.view.range(&self.spaces[space.index()], from..to))
    }
}
