//! The records of a receive in the meta space: what is being received where, and how far it is.

use super::version_tree::{guid, put_text, text, view_index};
use super::{MESSAGE_MAX, NAME_MAX, Origin, Reader, RecordError, TAG_MAX, Timestamp, put_varint};
use crate::namespace::Position;
use crate::namespace::key::{Dataset, Node};
use crate::types::Guid;

const VERSION: u8 = 1;

const RESUMABLE: u8 = 1;
const HAS_BASE: u8 = 1 << 1;
const HAS_PLACE: u8 = 1 << 2;

/// A snapshot that is being received; its key names the dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveRecord {
    /// What was received outlives an interruption.
    pub resumable: bool,
    /// The index of the view through which it is written.
    pub view: u16,
    /// The snapshot.
    pub to: Guid,
    /// When it was taken.
    pub created: Timestamp,
    /// Its name.
    pub name: String,
    /// What its maker said about it.
    pub message: String,
    /// The base of an incremental stream.
    pub base: Option<Base>,
    /// Where a dataset that is new will show.
    pub place: Option<NewPlace>,
}

/// The snapshot that an incremental stream builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name in all volumes.
    pub guid: Guid,
    /// Where it lies.
    pub at: Origin,
}

/// The directory entry that a received dataset gets in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPlace {
    /// The dataset above.
    pub parent: Dataset,
    /// The directory in it.
    pub dir: u64,
    /// The name there.
    pub name: Vec<u8>,
}

/// How far a receive is; committed with what was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveProgress {
    /// Everything before is applied.
    pub position: Position,
}

impl ReceiveRecord {
    /// Whether it builds on the snapshot at a node.
    pub(in crate::namespace) fn is_from(&self, node: Node) -> bool {
        self.base.is_some_and(|base| base.at.node == node)
    }

    /// Whether it makes a dataset that will lie in this one.
    pub(in crate::namespace) fn is_into(&self, dataset: Dataset) -> bool {
        self.place.as_ref().is_some_and(|place| place.parent == dataset)
    }

    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.resumable, RESUMABLE)
            | flag(self.base.is_some(), HAS_BASE)
            | flag(self.place.is_some(), HAS_PLACE);
        let mut out = vec![VERSION, flags];
        put_varint(&mut out, u64::from(self.view));
        out.extend_from_slice(&self.to.0);
        self.created.put(&mut out);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.message);
        if let Some(base) = self.base {
            out.extend_from_slice(&base.guid.0);
            base.at.put(&mut out);
        }
        if let Some(place) = &self.place {
            put_varint(&mut out, u64::from(place.parent.0));
            put_varint(&mut out, place.dir);
            put_varint(&mut out, place.name.len() as u64);
            out.extend_from_slice(&place.name);
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("receive", value);
        reader.version(VERSION)?;
        let flags = reader.u8()?;
        if flags & !(RESUMABLE | HAS_BASE | HAS_PLACE) != 0 {
            return Err(reader.error("unknown flags"));
        }
        let view = view_index(&mut reader)?;
        let to = guid(&mut reader)?;
        let created = Timestamp::read(&mut reader)?;
        let name = text(&mut reader, TAG_MAX)?;
        let message = text(&mut reader, MESSAGE_MAX)?;
        let base = match flags & HAS_BASE != 0 {
            true => Some(Base { guid: guid(&mut reader)?, at: Origin::read(&mut reader)? }),
            false => None,
        };
        let place = match flags & HAS_PLACE != 0 {
            true => Some(NewPlace::read(&mut reader)?),
            false => None,
        };
        reader.end()?;
        if base.is_none() && place.is_none() {
            return Err(reader.error("neither a base nor a place"));
        }
        let resumable = flags & RESUMABLE != 0;
        Ok(Self { resumable, view, to, created, name, message, base, place })
    }
}

impl NewPlace {
    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let parent = Dataset(reader.varint32()?);
        let dir = reader.object()?.0;
        let len = reader.varint()? as usize;
        if len == 0 || len > NAME_MAX {
            return Err(reader.error("impossible name"));
        }
        Ok(Self { parent, dir, name: reader.bytes(len)?.to_vec() })
    }
}

impl ReceiveProgress {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.position.put(&mut out);
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("receive progress", value);
        reader.version(VERSION)?;
        let position = Position::read(&mut reader)?;
        reader.end()?;
        Ok(Self { position })
    }
}
