//! The records of the meta space: the volume and its id leases.

use super::{Reader, RecordError, put_varint};
use crate::namespace::key::{Dataset, Node};

const VOLUME_VERSION: u8 = 1;
/// Version of the volume record once the version tree has records of its own.
const VOLUME_VERSION_TREE: u8 = 2;
/// Version of the volume record once it names what must be known.
const VOLUME_VERSION_FEATURES: u8 = 3;
const LEASES_VERSION: u8 = 1;

/// What holds for the whole namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Keys the hash of names.
    pub name_seed: [u8; 32],
    /// The dataset at the root of the mount.
    pub dataset: Dataset,
    /// The node under which its records are written, without a version tree.
    pub node: Node,
    /// The version tree has records, which whoever opens the namespace must know: writing under
    /// `node` would change snapshots.
    pub has_tree: bool,
    /// What else whoever opens the namespace must know: [`VolumeRecord::PROPERTIES`],
    /// [`VolumeRecord::USAGE`], [`VolumeRecord::RECEIVES`], [`VolumeRecord::LINKS`],
    /// [`VolumeRecord::DIGESTS`], [`VolumeRecord::SEALS`] and [`VolumeRecord::SENT_ROOTS`].
    pub features: u64,
}

impl VolumeRecord {
    /// Datasets have properties: who does not know them would write where nothing may be written.
    pub const PROPERTIES: u64 = 1;

    /// There are counters of space: who does not know them would leave them wrong.
    pub const USAGE: u64 = 1 << 1;

    /// There may be records of receives: who does not know them would take what a dataset shows for
    /// all that its line holds.
    pub const RECEIVES: u64 = 1 << 2;

    /// There may be link records: who does not know them would not keep them in step with names.
    pub const LINKS: u64 = 1 << 3;

    /// Inodes may have digests: who does not know them would leave them when content changes.
    pub const DIGESTS: u64 = 1 << 4;

    /// Snapshots may have digests: who does not know them would break their chain when one is
    /// destroyed.
    pub const SEALS: u64 = 1 << 5;

    /// Received snapshots may have the root that was sent with them: who does not know it cannot read
    /// their records.
    pub const SENT_ROOTS: u64 = 1 << 6;

    const KNOWN: u64 = Self::PROPERTIES
        | Self::USAGE
        | Self::RECEIVES
        | Self::LINKS
        | Self::DIGESTS
        | Self::SEALS
        | Self::SENT_ROOTS;

    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let version = match (self.features, self.has_tree) {
            (0, false) => VOLUME_VERSION,
            (0, true) => VOLUME_VERSION_TREE,
            _ => VOLUME_VERSION_FEATURES,
        };
        let mut out = vec![version];
        out.extend_from_slice(&self.name_seed);
        put_varint(&mut out, u64::from(self.dataset.0));
        put_varint(&mut out, u64::from(self.node.0));
        if version == VOLUME_VERSION_FEATURES {
            put_varint(&mut out, self.features);
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("volume record", value);
        let version = reader.version(VOLUME_VERSION_FEATURES)?;
        let has_tree = version >= VOLUME_VERSION_TREE;
        let mut name_seed = [0; 32];
        name_seed.copy_from_slice(reader.bytes(32)?);
        let dataset = Dataset(reader.varint32()?);
        let node = Node(reader.varint32()?);
        let features = match version {
            VOLUME_VERSION_FEATURES => reader.varint()?,
            _ => 0,
        };
        if features & !Self::KNOWN != 0 {
            return Err(reader.error("it has features that this version does not know"));
        }
        if version == VOLUME_VERSION_FEATURES && features == 0 {
            return Err(reader.error("a version for features without any"));
        }
        reader.end()?;
        Ok(Self { name_seed, dataset, node, has_tree, features })
    }
}

/// How far ids have been handed out. A leased range that a crash interrupts is lost, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// The namespace was closed in order; the epoch may go on.
    pub clean: bool,
    /// The current epoch.
    pub epoch: u16,
    /// The first block counter of the epoch that is not leased.
    pub blocks: u64,
    /// The first segment counter of the epoch that is not leased.
    pub segments: u64,
    /// The first inode number that is not leased.
    pub inodes: u64,
}

impl Leases {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LEASES_VERSION, u8::from(self.clean)];
        put_varint(&mut out, u64::from(self.epoch));
        for next in [self.blocks, self.segments, self.inodes] {
            put_varint(&mut out, next);
        }
        out
    }

    /// Decodes a stored value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new("id leases", value);
        reader.version(LEASES_VERSION)?;
        let clean = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.error("unknown flag")),
        };
        let epoch = u16::try_from(reader.varint()?).map_err(|_| reader.error("epoch too large"))?;
        let leases = Self {
            clean,
            epoch,
            blocks: reader.varint()?,
            segments: reader.varint()?,
            inodes: reader.varint()?,
        };
        reader.end()?;
        Ok(leases)
    }
}
