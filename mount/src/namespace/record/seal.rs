//! The records of a snapshot's digest: the digest with what links it to those before, and the sum
//! of items from which it is made.

use blake3::Hash;

use super::lanes::Lanes;
use super::version_tree::present;
use super::{Reader, RecordError, put_varint};
use crate::namespace::key::Node;

const VERSION: u8 = 1;

/// Most bodies of destroyed snapshots in one link; older ones are folded into its start.
pub const BODIES_MAX: usize = 1024;

/// The digest of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Stands for all that the snapshot shows: the same in every copy.
    pub root: Hash,
    /// Stands for the snapshot and all before it.
    pub digest: Hash,
}

/// What lies between a snapshot's digest and that of the snapshot before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The digest with which the bodies begin; otherwise, that of the snapshot before.
    pub start: Option<Hash>,
    /// What stands for destroyed snapshots in between, oldest first.
    pub bodies: Vec<Hash>,
}

/// A snapshot's digest, or what is known of it before there is one. Its key is the snapshot's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealRecord {
    /// What comes before.
    pub link: Link,
    /// The digest, once it was computed.
    pub seal: Option<Seal>,
}

/// The sum of the items that a snapshot shows, as far as it was computed. Its key is the
/// snapshot's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SumRecord {
    /// The snapshot whose sum it began with; `None`: it began with nothing.
    pub base: Option<Node>,
    /// The object with which it goes on; `None`: all were looked at.
    pub next: Option<u64>,
    /// The sum.
    pub lanes: Lanes,
}

const STARTS: u8 = 1;
const SEALED: u8 = 1 << 1;

impl SealRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let starts = if self.link.start.is_some() { STARTS } else { 0 };
        out.push(starts | if self.seal.is_some() { SEALED } else { 0 });
        out.extend(self.link.start.iter().flat_map(Hash::as_bytes));
        put_varint(&mut out, self.link.bodies.len() as u64);
        out.extend(self.link.bodies.iter().flat_map(Hash::as_bytes));
        if let Some(seal) = &self.seal {
            out.extend_from_slice(seal.root.as_bytes());
            out.extend_from_slice(seal.digest.as_bytes());
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("snapshot digest", value);
        reader.version(VERSION)?;
        let flags = reader.u8()?;
        if flags & !(STARTS | SEALED) != 0 {
            return Err(reader.error("unknown flags"));
        }
        let start = (flags & STARTS != 0).then(|| hash(&mut reader)).transpose()?;
        let count = reader.varint()?;
        if count > BODIES_MAX as u64 {
            return Err(reader.error("too many bodies"));
        }
        let bodies = (0..count).map(|_| hash(&mut reader)).collect::<Result<_, _>>()?;
        let seal = match flags & SEALED != 0 {
            true => Some(Seal { root: hash(&mut reader)?, digest: hash(&mut reader)? }),
            false => None,
        };
        reader.end()?;
        Ok(Self { link: Link { start, bodies }, seal })
    }
}

impl SumRecord {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.next.is_none())];
        put_varint(&mut out, self.base.map_or(0, |base| u64::from(base.0)));
        put_varint(&mut out, self.next.unwrap_or(0));
        out.extend(self.lanes.to_bytes());
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("snapshot sum", value);
        reader.version(VERSION)?;
        let is_whole = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.error("unknown flag")),
        };
        let base = present(reader.varint32()?).map(Node);
        let next = reader.object()?.0;
        if is_whole && next != 0 {
            return Err(reader.error("whole, and to be continued"));
        }
        let lanes = Lanes::read(&mut reader)?;
        reader.end()?;
        Ok(Self { base, next: (!is_whole).then_some(next), lanes })
    }
}

fn hash(reader: &mut Reader<'_>) -> Result<Hash, RecordError> {
    Ok(Hash::from_bytes(reader.array()?))
}
