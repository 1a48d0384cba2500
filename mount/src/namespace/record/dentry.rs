//! The entries of a directory whose names hash alike: almost always one.

use super::{Reader, RecordError, kind_of_byte, mode_of_kind, put_varint};
use crate::types::{FileKind, Ino};

const WHAT: &str = "directory entry";
const VERSION: u8 = 1;

/// Longest name in bytes.
pub const NAME_MAX: usize = 255;

/// Low bits of a cookie that tell entries of one bucket apart.
pub const BUCKET_BITS: u32 = 8;

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the bucket: the low bits of the cookie.
    pub position: u8,
    /// What it names.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
    /// The name.
    pub name: Vec<u8>,
}

/// All names of a directory with one hash, in order of position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    entries: Vec<Entry>,
}

impl Bucket {
    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether no entry is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts what the entries name into a view.
    pub fn lift(mut self, lift: impl Fn(Ino) -> Ino) -> Self {
        for entry in &mut self.entries {
            entry.ino = lift(entry.ino);
        }
        self
    }

    /// The entry of that name.
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry at that position, if it names that object.
    pub fn at(&self, position: u8, object: u64) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.position == position && entry.ino.object() == object)
    }

    /// The entries that another bucket does not have, or not of the same inode.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Entry> {
        let is_same = |entry: &&Entry| other.find(&entry.name).is_some_and(|o| o.ino == entry.ino);
        self.entries.iter().filter(move |entry| !is_same(entry))
    }

    /// Adds an entry at the first free position and returns that; `None` when the bucket is full.
    pub fn insert(&mut self, name: &[u8], ino: Ino, kind: FileKind) -> Option<u8> {
        let place = self
            .entries
            .iter()
            .enumerate()
            .find_map(|(index, entry)| (usize::from(entry.position) != index).then_some(index))
            .unwrap_or(self.entries.len());
        let position = u8::try_from(place).ok()?;
        self.entries.insert(place, Entry { position, ino, kind, name: name.to_vec() });
        Some(position)
    }

    /// Lets an existing entry name something else; its position stays.
    pub fn replace(&mut self, name: &[u8], ino: Ino, kind: FileKind) -> Option<u8> {
        let entry = self.entries.iter_mut().find(|entry| entry.name == name)?;
        entry.ino = ino;
        entry.kind = kind;
        Some(entry.position)
    }

    /// Changes entries, or takes out those for which `keep` is false.
    pub fn retain(&mut self, keep: impl FnMut(&mut Entry) -> bool) {
        self.entries.retain_mut(keep);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.name == name)?;
        Some(self.entries.remove(index))
    }

    /// Appends the record to a value that starts with its version.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        for entry in &self.entries {
            out.push(entry.position);
            out.push((mode_of_kind(entry.kind) >> 12) as u8);
            put_varint(out, entry.ino.object());
            out.push(entry.name.len() as u8);
            out.extend_from_slice(&entry.name);
        }
    }

    /// Decodes the record behind the version. Entries name stored objects, still without a view.
    pub fn decode(record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(WHAT, record);
        reader.version(VERSION)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(1);
        while !reader.is_empty() {
            let position = reader.u8()?;
            if entries.last().is_some_and(|last| last.position >= position) {
                return Err(reader.error("positions out of order"));
            }
            let kind =
                kind_of_byte(reader.u8()?).ok_or_else(|| reader.error("unknown file type"))?;
            let ino = reader.object()?;
            let len = reader.u8()?;
            let name = reader.bytes(usize::from(len))?.to_vec();
            if !is_name(&name) {
                return Err(reader.error("impossible name"));
            }
            entries.push(Entry { position, ino, kind, name });
        }
        if entries.is_empty() {
            return Err(reader.error("no entry"));
        }
        Ok(Self { entries })
    }
}

/// Whether an entry can have that name, but for its length.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b".."
}
