//! The table as a file. Specified in `tiering/FORMAT.md`, "Heat".
//!
//! *Crash*: written aside, synced, renamed, the name synced: the file is the old one or the new one.
//! *Bounds*: one frame in memory, whatever the file. *Damage*: any of it, also a missing end, and
//! nothing of the file is used.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Cursor, Entry, History, Known, Map, PAGE, Past, Shards};
use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

const KIND: Kind = Kind { tag: *b"heat", name: "heat", version: 1, max_plain_len: 1 << 20 };

/// The longest envelope of such a plaintext.
const MAX_FRAME: usize = KIND.max_plain_len + 4096;

const ITEMS: u8 = 0;
const GROUPS: u8 = 1;
const OWNERS: u8 = 2;
const END: u8 = 255;

/// What each frame begins with: table (1), number of the frame (4), number of entries (4).
const HEAD_LEN: usize = 9;
/// Item (8), group (8), owner (4), history.
const ITEM_LEN: usize = 20 + History::ENCODED_LEN;
/// Id (8), history.
const COMMON_LEN: usize = 8 + History::ENCODED_LEN;

/// Entries of a full frame.
const ENTRIES: usize = 4096;

impl Map {
    /// The table that was saved in a file, and an empty one where there is none. A damaged or newer
    /// file gives an empty table as well, and the error, to be logged. What does not fit into
    /// `max_bytes` any more leaves as if it came in now. See [`Map::new`].
    pub fn open(path: &Path, max_bytes: u64, seed: u64, now_ms: u64) -> (Self, Option<Error>) {
        let map = Self::new(max_bytes, seed);
        let error = match File::open(path) {
            Ok(file) => map.load(BufReader::new(file), now_ms).err(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Error::io(format!("open {}", path.display()))(error)),
        };
        let map = if error.is_some() { Self::new(max_bytes, seed) } else { map };
        map.saved.store(map.changes(), Ordering::Release);
        (map, error)
    }

    /// Writes the table to a file if it changed since; returns the bytes written. Locks are held for a
    /// page of entries at a time. After an error the file is as it was.
    pub fn save(&self, path: &Path) -> Result<Option<u64>> {
        let changes = self.changes();
        if changes == self.saved.load(Ordering::Acquire) {
            return Ok(None);
        }
        let aside = path.with_extension("tmp");
        let written =
            self.write_to(&aside).map_err(Error::io(format!("write {}", aside.display())));
        if written.is_err() {
            // Whatever is left of it is overwritten by the next one.
            drop(fs::remove_file(&aside));
        }
        let bytes = written?;
        fs::rename(&aside, path).map_err(Error::io(format!("rename to {}", path.display())))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io(format!("sync {}", dir.display())))?;
        self.saved.store(changes, Ordering::Release);
        Ok(Some(bytes))
    }

    fn write_to(&self, path: &Path) -> io::Result<u64> {
        let mut writer = Writer::new(BufWriter::new(File::create(path)?));
        let mut page = Vec::with_capacity(PAGE);
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            page.clear();
            next = self.page(cursor, &mut page);
            for Known { place, history } in &page {
                let entry = writer.entry(ITEMS)?;
                entry.extend_from_slice(&place.item.to_le_bytes());
                entry.extend_from_slice(&place.group.to_le_bytes());
                entry.extend_from_slice(&place.owner.to_le_bytes());
                entry.extend_from_slice(&history.encode());
            }
        }
        writer.common(GROUPS, &self.groups)?;
        writer.common(OWNERS, &self.owners)?;
        let (file, bytes) = writer.end()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(bytes)
    }

    pub(crate) fn load(&self, mut input: impl Read, now_ms: u64) -> Result<()> {
        let mut number = 0;
        let mut total = 0;
        loop {
            let plain = read_frame(&mut input)?;
            let (table, count, entries) = parse_head(&plain, number)?;
            number += 1;
            match table {
                ITEMS => self.load_items(entries, count, now_ms)?,
                GROUPS => load_common(&self.groups, entries, count, now_ms)?,
                OWNERS => load_common(&self.owners, entries, count, now_ms)?,
                END if entries == u64::to_le_bytes(total) => break,
                END => return Err(damaged("its end counts other entries")),
                _ => return Err(damaged("it has an unknown table")),
            }
            total += count as u64;
        }
        match input.read(&mut [0]).map_err(Error::io("read heat"))? {
            0 => Ok(()),
            _ => Err(damaged("something is behind its end")),
        }
    }

    fn load_items(&self, entries: &[u8], count: usize, now_ms: u64) -> Result<()> {
        check_len(entries, count, ITEM_LEN)?;
        for mut entry in entries.chunks_exact(ITEM_LEN) {
            let item = u64::from_le_bytes(take(&mut entry)?);
            let group = u64::from_le_bytes(take(&mut entry)?);
            let owner = u32::from_le_bytes(take(&mut entry)?);
            let history = History::decode(&take(&mut entry)?)?;
            let new = Entry { group, history, owner };
            put(&self.items, item, new, now_ms);
        }
        Ok(())
    }
}

fn load_common(shards: &Shards<History>, entries: &[u8], count: usize, now_ms: u64) -> Result<()> {
    check_len(entries, count, COMMON_LEN)?;
    for mut entry in entries.chunks_exact(COMMON_LEN) {
        let id = u64::from_le_bytes(take(&mut entry)?);
        put(shards, id, History::decode(&take(&mut entry)?)?, now_ms);
    }
    Ok(())
}

/// An entry that is in the file twice counts as its first, which was written later.
fn put<V: Past>(shards: &Shards<V>, id: u64, value: V, now_ms: u64) {
    shards.of(id).lock().entry(id, now_ms, || value);
}

/// Cuts entries into frames.
struct Writer<W: Write> {
    out: W,
    plain: Vec<u8>,
    table: u8,
    number: u32,
    count: u32,
    total: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    fn new(out: W) -> Self {
        let plain = vec![0; HEAD_LEN];
        Self { out, plain, table: ITEMS, number: 0, count: 0, total: 0, bytes: 0 }
    }

    /// Where the next entry of a table goes.
    fn entry(&mut self, table: u8) -> io::Result<&mut Vec<u8>> {
        if self.table != table || self.count as usize == ENTRIES {
            self.frame()?;
            self.table = table;
        }
        self.count += 1;
        Ok(&mut self.plain)
    }

    fn common(&mut self, table: u8, shards: &Shards<History>) -> io::Result<()> {
        for shard in &shards.0 {
            // A copy, so that nobody waits for the disk.
            let entries: Vec<(u64, History)> = {
                let shard = shard.lock();
                (0..shard.table.len())
                    .filter_map(|number| shard.table.entry(number))
                    .copied()
                    .collect()
            };
            for (id, history) in entries {
                let entry = self.entry(table)?;
                entry.extend_from_slice(&id.to_le_bytes());
                entry.extend_from_slice(&history.encode());
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<()> {
        if self.count == 0 && self.table != END {
            return Ok(());
        }
        self.plain[0] = self.table;
        self.plain[1..5].copy_from_slice(&self.number.to_le_bytes());
        self.plain[5..HEAD_LEN].copy_from_slice(&self.count.to_le_bytes());
        let (sealed, _) = envelope::seal(KIND, &self.plain).map_err(io::Error::other)?;
        self.out.write_all(&(sealed.len() as u32).to_le_bytes())?;
        self.out.write_all(&sealed)?;
        self.bytes += 4 + sealed.len() as u64;
        self.total += u64::from(self.count);
        self.number += 1;
        self.count = 0;
        self.plain.truncate(HEAD_LEN);
        Ok(())
    }

    fn end(mut self) -> io::Result<(W, u64)> {
        self.frame()?;
        self.table = END;
        self.plain.extend_from_slice(&self.total.to_le_bytes());
        self.frame()?;
        self.out.flush()?;
        Ok((self.out, self.bytes))
    }
}

fn read_frame(input: &mut impl Read) -> Result<Vec<u8>> {
    let mut exactly = |bytes: &mut [u8]| match input.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("it ends early")),
        done => done.map_err(Error::io("read heat")),
    };
    let mut len = [0; 4];
    exactly(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(damaged("a frame is too long"));
    }
    let mut sealed = vec![0; len];
    exactly(&mut sealed)?;
    envelope::open(KIND, &sealed).map(|(plain, ..)| plain)
}

fn parse_head(mut plain: &[u8], number: u32) -> Result<(u8, usize, &[u8])> {
    let [table] = take(&mut plain)?;
    if u32::from_le_bytes(take(&mut plain)?) != number {
        return Err(damaged("its frames are out of order"));
    }
    let count = u32::from_le_bytes(take(&mut plain)?) as usize;
    Ok((table, count, plain))
}

fn check_len(entries: &[u8], count: usize, len: usize) -> Result<()> {
    if count == 0 || count > ENTRIES || entries.len() != count * len {
        return Err(damaged("a frame has another length than its entries"));
    }
    Ok(())
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = input.split_first_chunk().ok_or_else(|| damaged("a frame is cut short"))?;
    *input = rest;
    Ok(*head)
}

fn damaged(reason: &str) -> Error {
    Error::Damaged { what: KIND.name, reason: reason.to_owned() }
}
