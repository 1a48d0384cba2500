//! The stored keys: big-endian, fixed width where the sort order matters, as specified in
//! `tiering/FORMAT.md`, "Namespace". Nothing else in the crate knows how a key looks.

use firn_tiering::BlockId;

use super::record::{Reader, RecordError};
use crate::types::Ino;

/// A dataset: a subtree with its own snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dataset(pub u32);

impl Dataset {
    /// The dataset that a volume starts with.
    pub const ROOT: Self = Self(1);
}

/// Where versions follow each other in time: a chain of nodes. A line has the number of the
/// dataset that it was made for.
pub type Line = Dataset;

/// A snapshot node: a point in the tree of states under which a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);

impl Node {
    /// The node that a volume starts with.
    pub const FIRST: Self = Self(1);

    /// Behind every node: the limit of who sees all of a line.
    pub const MAX: Self = Self(u32::MAX);
}

/// What kind of record of an object a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The inode itself. No sub-key.
    Inode = 1,
    /// The target of a symbolic link. No sub-key.
    Symlink = 2,
    /// An extended attribute. Sub-key: its name.
    Xattr = 3,
    /// The entries of a directory whose names hash alike. Sub-key: the hash.
    Dentry = 4,
    /// The pieces of one MiB of a file. Sub-key: offset divided by 1 MiB.
    Extent = 5,
    /// A name of a file that has several. Sub-key: where its entry lies.
    Link = 6,
}

impl Kind {
    /// The kind whose records come last among those of an object.
    pub const LAST: Self = Self::Link;

    fn from_stored(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Inode,
            2 => Self::Symlink,
            3 => Self::Xattr,
            4 => Self::Dentry,
            5 => Self::Extent,
            6 => Self::Link,
            _ => return None,
        })
    }
}

const LINE_AT: usize = 0;
const OBJECT_AT: usize = LINE_AT + 4;
const KIND_AT: usize = OBJECT_AT + 8;
/// Where the sub-key of a head key starts.
pub const SUB_AT: usize = KIND_AT + 1;
const NUMBERED_LEN: usize = SUB_AT + 8;
const LINK_COOKIE_AT: usize = SUB_AT + 8;
const LINK_LEN: usize = LINK_COOKIE_AT + 8;

/// Length of a back-reference key.
pub const BACKREF_LEN: usize = 8 + 8 + 8 + 4;

/// Where a name lies: an entry of a directory, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAt {
    /// The object of the directory.
    pub dir: u64,
    /// The cookie of the entry.
    pub cookie: u64,
}

impl LinkAt {
    /// Takes the sub-key of a link record apart.
    pub fn decode(sub: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("link key", sub);
        let at = Self { dir: object(&mut reader)?.0, cookie: reader.u64_be()? };
        reader.end()?;
        Ok(at)
    }
}

/// A stored object, still without a view.
fn object(reader: &mut Reader<'_>) -> Result<Ino, RecordError> {
    let object = reader.u64_be()?;
    match object >> Ino::OBJECT_BITS {
        0 => Ok(Ino(object)),
        _ => Err(reader.error("inode number too large")),
    }
}

/// Start of the head keys of a line.
pub fn line(line: Line) -> [u8; OBJECT_AT] {
    line.0.to_be_bytes()
}

/// Behind the head keys of a line: no object is that large.
pub fn line_end(line: Line) -> [u8; OBJECT_AT + 1] {
    let mut key = [u8::MAX; OBJECT_AT + 1];
    key[..OBJECT_AT].copy_from_slice(&line.0.to_be_bytes());
    key
}

/// Head key without a sub-key.
pub fn head(line: Line, object: Ino, kind: Kind) -> [u8; SUB_AT] {
    let mut key = [0; SUB_AT];
    key[LINE_AT..OBJECT_AT].copy_from_slice(&line.0.to_be_bytes());
    key[OBJECT_AT..KIND_AT].copy_from_slice(&object.object().to_be_bytes());
    key[KIND_AT] = kind as u8;
    key
}

/// Head key with a number as its sub-key: a directory entry or an extent.
pub fn head_numbered(line: Line, object: Ino, kind: Kind, number: u64) -> [u8; NUMBERED_LEN] {
    let mut key = [0; NUMBERED_LEN];
    key[..SUB_AT].copy_from_slice(&head(line, object, kind));
    key[SUB_AT..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Head key of the record of a name of a file that has several.
pub fn head_link(line: Line, object: Ino, at: LinkAt) -> [u8; LINK_LEN] {
    let mut key = [0; LINK_LEN];
    key[..SUB_AT].copy_from_slice(&head(line, object, Kind::Link));
    key[SUB_AT..LINK_COOKIE_AT].copy_from_slice(&at.dir.to_be_bytes());
    key[LINK_COOKIE_AT..].copy_from_slice(&at.cookie.to_be_bytes());
    key
}

/// Head key with bytes as its sub-key: an extended attribute.
pub fn head_named(line: Line, object: Ino, kind: Kind, name: &[u8]) -> Vec<u8> {
    let mut key = head(line, object, kind).to_vec();
    key.extend_from_slice(name);
    key
}

/// The first head key of an object's next kind: the end of a scan over one kind.
pub fn head_end(line: Line, object: Ino, kind: Kind) -> [u8; SUB_AT] {
    let mut key = head(line, object, kind);
    key[KIND_AT] += 1;
    key
}

/// A head key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadKey<'a> {
    /// The line.
    pub line: Line,
    /// The inode, without a view.
    pub object: Ino,
    /// The record's kind.
    pub kind: Kind,
    /// What is left.
    pub sub: &'a [u8],
}

impl<'a> HeadKey<'a> {
    /// Takes a stored key apart.
    pub fn decode(key: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("head key", key);
        let line = Dataset(reader.u32_be()?);
        let object = object(&mut reader)?;
        let kind = Kind::from_stored(reader.u8()?)
            .ok_or_else(|| RecordError::new("head key", "unknown kind"))?;
        let sub = reader.rest();
        let fits = match kind {
            Kind::Inode | Kind::Symlink => sub.is_empty(),
            Kind::Xattr => !sub.is_empty(),
            Kind::Dentry | Kind::Extent => sub.len() == 8,
            Kind::Link => sub.len() == LINK_LEN - SUB_AT,
        };
        if !fits {
            return Err(RecordError::new("head key", "length does not fit its kind"));
        }
        Ok(Self { line, object, kind, sub })
    }

    /// The sub-key of a directory entry or an extent.
    pub fn number(&self) -> Result<u64, RecordError> {
        Reader::new("head key", self.sub).u64_be()
    }
}

/// Key of an older version: `(object, kind, sub-key, node)`. The node is always the last four
/// bytes, whatever the length of the sub-key.
pub fn history(head_key: &[u8], node: Node) -> Vec<u8> {
    let mut key = head_key[OBJECT_AT..].to_vec();
    key.extend_from_slice(&node.0.to_be_bytes());
    key
}

/// The head key on `line` of the version at a history key, and the version's node.
pub fn history_decode(line: Line, key: &[u8]) -> Result<(Vec<u8>, Node), RecordError> {
    let short = || RecordError::new("history key", "too short");
    let (object, node) = key.split_last_chunk::<4>().ok_or_else(short)?;
    let mut head = self::line(line).to_vec();
    head.extend_from_slice(object);
    HeadKey::decode(&head)?;
    Ok((head, Node(u32::from_be_bytes(*node))))
}

/// The same head key on another line.
pub fn on_line(line: Line, head_key: &[u8]) -> Vec<u8> {
    let mut key = self::line(line).to_vec();
    key.extend_from_slice(&head_key[OBJECT_AT..]);
    key
}

/// Start of the history of one kind of an object's records.
pub fn history_of(object: Ino, kind: Kind) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&object.object().to_be_bytes());
    key[8] = kind as u8;
    key
}

/// Takes [`born`] apart.
pub fn born_decode(key: &[u8]) -> Result<(Node, Ino, Kind), RecordError> {
    let mut reader = Reader::new("born key", key);
    let node = Node(reader.u32_be()?);
    let ino = object(&mut reader)?;
    let kind = Kind::from_stored(reader.u8()?)
        .ok_or_else(|| RecordError::new("born key", "unknown kind"))?;
    reader.end()?;
    Ok((node, ino, kind))
}

/// Key of the born index: `(node, object, kind)`.
pub fn born(node: Node, object: Ino, kind: Kind) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&node.0.to_be_bytes());
    key[4..12].copy_from_slice(&object.object().to_be_bytes());
    key[12] = kind as u8;
    key
}

/// One reference from an extent to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backref {
    /// The block.
    pub block: BlockId,
    /// The file.
    pub ino: Ino,
    /// Which MiB of the file.
    pub slot: u64,
    /// The node under which the extent was written.
    pub node: Node,
}

impl Backref {
    /// What holds a block for the records that a repair kept aside: the back-reference of nobody.
    pub(super) fn hold(block: BlockId) -> Self {
        Self { block, ino: Ino(0), slot: 0, node: Node(0) }
    }

    /// Whether it holds its block for nobody.
    pub(super) fn is_hold(&self) -> bool {
        *self == Self::hold(self.block)
    }

    /// The stored key.
    pub fn encode(&self) -> [u8; BACKREF_LEN] {
        let mut key = [0; BACKREF_LEN];
        key[..8].copy_from_slice(&self.block.raw().to_be_bytes());
        key[8..16].copy_from_slice(&self.ino.object().to_be_bytes());
        key[16..24].copy_from_slice(&self.slot.to_be_bytes());
        key[24..].copy_from_slice(&self.node.0.to_be_bytes());
        key
    }

    /// Takes a stored key apart.
    pub fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("back-reference", key);
        let found = Self {
            block: BlockId::from_raw(reader.u64_be()?),
            ino: object(&mut reader)?,
            slot: reader.u64_be()?,
            node: Node(reader.u32_be()?),
        };
        reader.end()?;
        Ok(found)
    }
}

/// Start of the back-references of a block.
pub fn backrefs_of(block: BlockId) -> [u8; 8] {
    block.raw().to_be_bytes()
}

/// Start of the keys of what is being received.
pub const RECEIVES: u8 = b'a';

/// Start of the keys that say how far receives are.
pub const RECEIVED: u8 = b'b';

/// Key of the volume record.
pub const VOLUME: &[u8] = b"v";

/// Key of the id leases.
pub const LEASES: &[u8] = b"i";

/// Start of the keys of inodes without a name that are still open or not yet cleared away.
pub const ORPHANS: u8 = b'o';

/// Start of the keys of files whose digest is still to be computed.
pub const DIGESTS: u8 = b'h';

/// Start of the keys of files of snapshots whose digest is still to be computed.
pub const AWAITED: u8 = b'f';

/// Start of the keys of digests of snapshots.
pub const SEALS: u8 = b'g';

/// Start of the keys of sums of snapshots.
pub const SUMS: u8 = b'j';

/// Start of the keys of truncations that have not removed all extents yet.
pub const TRUNCATIONS: u8 = b't';

/// Key of the counters of the version tree.
pub const COUNTERS: &[u8] = b"c";

/// Start of the keys of datasets.
pub const DATASETS: u8 = b'd';

/// Start of the keys of lines.
pub const LINES: u8 = b'l';

/// Start of the keys of nodes.
pub const NODES: u8 = b'n';

/// Start of the keys of what was set of datasets.
pub const PROPERTIES: u8 = b'p';

/// Start of the keys of rollbacks that have not restored everything yet.
pub const ROLLBACKS: u8 = b'r';

/// Start of the keys of snapshots.
pub const SNAPSHOTS: u8 = b's';

/// Start of the keys of counters of space.
pub const USAGE: u8 = b'u';

/// Start of the keys of sweeps that are not done.
pub const SWEEPS: u8 = b'w';

/// Start of the keys that other layers keep here, by name.
pub const NOTES: u8 = b'x';

/// Meta key that names an inode: an orphan, an unfinished truncation, or a file without a digest.
pub fn meta_inode(start: u8, line: Line, ino: Ino) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = start;
    key[1..5].copy_from_slice(&line.0.to_be_bytes());
    key[5..].copy_from_slice(&ino.object().to_be_bytes());
    key
}

/// Takes [`meta_inode`] apart.
pub fn meta_inode_decode(key: &[u8]) -> Result<(Line, Ino), RecordError> {
    let mut reader = Reader::new("meta key", key);
    reader.u8()?;
    let line = Dataset(reader.u32_be()?);
    let ino = object(&mut reader)?;
    reader.end()?;
    Ok((line, ino))
}

/// Meta key of a file of a snapshot whose digest is still to be computed.
pub fn awaited(node: Node, object: Ino) -> [u8; 13] {
    meta_inode(AWAITED, Dataset(node.0), object)
}

/// Takes [`awaited`] apart.
pub fn awaited_decode(key: &[u8]) -> Result<(Node, Ino), RecordError> {
    let (node, object) = meta_inode_decode(key)?;
    Ok((Node(node.0), object))
}

/// Whether a key among the meta records that no mount needs says what it is about; `None` when it
/// is not among them.
pub fn note_names_something(key: &[u8]) -> Option<bool> {
    match *key.first()? {
        ORPHANS | DIGESTS | TRUNCATIONS | AWAITED => Some(meta_inode_decode(key).is_ok()),
        SEALS | SUMS => Some(meta_number_decode(key).is_ok()),
        _ => None,
    }
}

/// Meta key that names a dataset, a line or a node.
pub fn meta_number(start: u8, number: u32) -> [u8; 5] {
    let mut key = [0; 5];
    key[0] = start;
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Takes [`meta_number`] apart.
pub fn meta_number_decode(key: &[u8]) -> Result<u32, RecordError> {
    let mut reader = Reader::new("meta key", key);
    reader.u8()?;
    let number = reader.u32_be()?;
    reader.end()?;
    Ok(number)
}

/// Meta key of a sweep: the line, and the snapshot's node whose end began it.
pub fn sweep(line: Line, node: Node) -> [u8; 9] {
    meta_layer(SWEEPS, line, node)
}

/// Meta key of counters: the line, and up to which node its versions are counted.
pub fn usage(line: Line, node: Node) -> [u8; 9] {
    meta_layer(USAGE, line, node)
}

fn meta_layer(start: u8, line: Line, node: Node) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = start;
    key[1..5].copy_from_slice(&line.0.to_be_bytes());
    key[5..].copy_from_slice(&node.0.to_be_bytes());
    key
}

/// Takes [`sweep`] or [`usage`] apart.
pub fn meta_layer_decode(key: &[u8]) -> Result<(Line, Node), RecordError> {
    let mut reader = Reader::new("meta key", key);
    reader.u8()?;
    let line = Dataset(reader.u32_be()?);
    let node = Node(reader.u32_be()?);
    reader.end()?;
    Ok((line, node))
}

/// Meta key of another layer's note.
pub fn note(name: &str) -> Vec<u8> {
    let mut key = vec![NOTES];
    key.extend_from_slice(name.as_bytes());
    key
}
