//! The records of the version tree in the meta space: datasets, lines, snapshots, and what is
//! being swept or rolled back.

use blake3::Hash;

use super::{Reader, RecordError, Timestamp, put_varint};
use crate::namespace::key::{Dataset, Line, Node};
use crate::types::Guid;

const VERSION: u8 = 1;

/// Longest message of a snapshot in bytes.
pub const MESSAGE_MAX: usize = 4096;
/// Longest tag of a hold and longest name of a snapshot in bytes.
pub const TAG_MAX: usize = 255;
/// Most holds of one snapshot.
pub const HOLDS_MAX: usize = 1024;

/// The next numbers to be given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Of datasets and lines.
    pub dataset: u32,
    /// Of nodes.
    pub node: u32,
    /// Of views, the one behind that given away last: those below may be free again.
    pub view: u32,
}

/// A point of a line at which another begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The older line.
    pub line: Line,
    /// The last of its nodes that the younger line sees.
    pub node: Node,
}

/// Where a dataset lies in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The dataset above.
    pub parent: Dataset,
    /// The empty directory in it that shows the dataset.
    pub junction: u64,
}

/// A live dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRecord {
    /// The node under which its records are written.
    pub node: Node,
    /// The index of its live view.
    pub view: u16,
    /// The object of its root directory.
    pub root: u64,
    /// Where it lies; `None` for the root dataset.
    pub place: Option<Place>,
    /// The snapshot that it is a clone of.
    pub origin: Option<Node>,
    /// When it was made.
    pub created: Timestamp,
}

/// A line that began at another, or outlived its dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRecord {
    /// Its first node. Older versions that it shows lie on other lines.
    pub first: Node,
    /// Where it began.
    pub origin: Option<Origin>,
}

/// A reason not to destroy a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its name.
    pub tag: String,
    /// When it was placed.
    pub created: Timestamp,
}

/// What a snapshot refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Referenced {
    /// Bytes of all files that are not in holes.
    pub bytes: u64,
    /// Inodes with a name.
    pub files: u64,
}

/// A snapshot; its key is the node that it closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Whose snapshot it is.
    pub dataset: Dataset,
    /// The line that its node is on.
    pub line: Line,
    /// The index of its view.
    pub view: u16,
    /// When it was taken.
    pub created: Timestamp,
    /// Its name, without the dataset's.
    pub name: String,
    /// What its maker said about it.
    pub message: String,
    /// Who wants it kept.
    pub holds: Vec<Hold>,
    /// To be destroyed with its last clone and hold.
    pub deferred: bool,
    /// What it refers to, once that was counted.
    pub referenced: Option<Referenced>,
    /// Its name in all volumes, where it was received; of others it follows from the volume.
    pub guid: Option<Guid>,
    /// What stood for all that it showed where it was sent from, if the stream said so.
    pub sent_root: Option<Hash>,
}

/// Versions that only a destroyed snapshot saw are still there; its key names line and snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepRecord {
    /// The next reader of the line; [`Node::MAX`] for its head.
    pub next: Node,
    /// All records of the line are to be looked at, not only those of the born index.
    pub whole: bool,
}

/// A dataset that is being brought back to an older state; its key names the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackRecord {
    /// The state.
    pub to: Origin,
}

impl Counters {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [self.dataset, self.node, self.view] {
            put_varint(&mut out, u64::from(number));
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("counters", value);
        reader.version(VERSION)?;
        let [dataset, node, view] = [(); 3].map(|()| reader.varint32());
        reader.end()?;
        Ok(Self { dataset: dataset?, node: node?, view: view? })
    }
}

impl Origin {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.line.0));
        put_varint(out, u64::from(self.node.0));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self { line: Dataset(reader.varint32()?), node: Node(reader.varint32()?) })
    }
}

/// 0 stands for what is not there; nodes and datasets begin at 1.
pub(super) fn present(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

pub(super) fn view_index(reader: &mut Reader<'_>) -> Result<u16, RecordError> {
    u16::try_from(reader.varint()?).map_err(|_| reader.error("view index too large"))
}

impl DatasetRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, u64::from(self.node.0));
        put_varint(&mut out, u64::from(self.view));
        put_varint(&mut out, self.root);
        put_varint(&mut out, self.place.map_or(0, |place| u64::from(place.parent.0)));
        put_varint(&mut out, self.place.map_or(0, |place| place.junction));
        put_varint(&mut out, self.origin.map_or(0, |origin| u64::from(origin.0)));
        self.created.put(&mut out);
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("dataset", value);
        reader.version(VERSION)?;
        let node = Node(reader.varint32()?);
        let view = view_index(&mut reader)?;
        let root = reader.object()?.0;
        let parent = present(reader.varint32()?).map(Dataset);
        let junction = reader.object()?.0;
        let origin = present(reader.varint32()?).map(Node);
        let created = Timestamp::read(&mut reader)?;
        reader.end()?;
        let place = parent.map(|parent| Place { parent, junction });
        Ok(Self { node, view, root, place, origin, created })
    }
}

impl LineRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, u64::from(self.first.0));
        let nowhere = Origin { line: Dataset(0), node: Node(0) };
        self.origin.unwrap_or(nowhere).put(&mut out);
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("line", value);
        reader.version(VERSION)?;
        let first = Node(reader.varint32()?);
        let origin = Origin::read(&mut reader)?;
        reader.end()?;
        Ok(Self { first, origin: (origin.line.0 != 0).then_some(origin) })
    }
}

pub(super) fn guid(reader: &mut Reader<'_>) -> Result<Guid, RecordError> {
    let mut guid = [0; 16];
    guid.copy_from_slice(reader.bytes(16)?);
    Ok(Guid(guid))
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn text(reader: &mut Reader<'_>, max: usize) -> Result<String, RecordError> {
    let len = reader.varint()? as usize;
    if len > max {
        return Err(reader.error("text too long"));
    }
    let bytes = reader.bytes(len)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.error("text is not UTF-8"))
}

const DEFERRED: u8 = 1;
const COUNTED: u8 = 1 << 1;
const RECEIVED: u8 = 1 << 2;
const ROOTED: u8 = 1 << 3;

impl SnapshotRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut flags = if self.deferred { DEFERRED } else { 0 };
        flags |= if self.referenced.is_some() { COUNTED } else { 0 };
        flags |= if self.guid.is_some() { RECEIVED } else { 0 };
        flags |= if self.sent_root.is_some() { ROOTED } else { 0 };
        out.push(flags);
        put_varint(&mut out, u64::from(self.dataset.0));
        put_varint(&mut out, u64::from(self.line.0));
        put_varint(&mut out, u64::from(self.view));
        self.created.put(&mut out);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.message);
        put_varint(&mut out, self.holds.len() as u64);
        for hold in &self.holds {
            put_text(&mut out, &hold.tag);
            hold.created.put(&mut out);
        }
        if let Some(referenced) = self.referenced {
            put_varint(&mut out, referenced.bytes);
            put_varint(&mut out, referenced.files);
        }
        out.extend(self.guid.iter().flat_map(|guid| guid.0));
        out.extend(self.sent_root.iter().flat_map(Hash::as_bytes));
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("snapshot", value);
        reader.version(VERSION)?;
        let flags = reader.u8()?;
        if flags & !(DEFERRED | COUNTED | RECEIVED | ROOTED) != 0 {
            return Err(reader.error("unknown flags"));
        }
        let dataset = Dataset(reader.varint32()?);
        let line = Dataset(reader.varint32()?);
        let view = view_index(&mut reader)?;
        let created = Timestamp::read(&mut reader)?;
        let name = text(&mut reader, TAG_MAX)?;
        let message = text(&mut reader, MESSAGE_MAX)?;
        let count = reader.varint()?;
        if count > HOLDS_MAX as u64 {
            return Err(reader.error("too many holds"));
        }
        let mut holds = Vec::new();
        for _ in 0..count {
            let tag = text(&mut reader, TAG_MAX)?;
            holds.push(Hold { tag, created: Timestamp::read(&mut reader)? });
        }
        let referenced = match flags & COUNTED != 0 {
            true => Some(Referenced { bytes: reader.varint()?, files: reader.varint()? }),
            false => None,
        };
        let guid = (flags & RECEIVED != 0).then(|| guid(&mut reader)).transpose()?;
        let sent_root = match flags & ROOTED != 0 {
            true => Some(Hash::from_bytes(reader.array()?)),
            false => None,
        };
        reader.end()?;
        let deferred = flags & DEFERRED != 0;
        Ok(Self {
            dataset,
            line,
            view,
            created,
            name,
            message,
            holds,
            deferred,
            referenced,
            guid,
            sent_root,
        })
    }
}

impl SweepRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.whole)];
        put_varint(&mut out, u64::from(self.next.0));
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("sweep", value);
        reader.version(VERSION)?;
        let whole = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.error("unknown flag")),
        };
        let next = Node(reader.varint32()?);
        reader.end()?;
        Ok(Self { next, whole })
    }
}

impl RollbackRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.to.put(&mut out);
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("rollback", value);
        reader.version(VERSION)?;
        let to = Origin::read(&mut reader)?;
        reader.end()?;
        Ok(Self { to })
    }
}
