//! Manifests: the table of contents of one backup, named by a number that grows.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use firn_tiering::envelope::{self, EnvelopeDigest, Kind};
use firn_tiering::tier::Tier;

use super::bucket::{BUCKET_LEN, Bucket};
use super::piece::PieceRef;
use super::{BackupError, BackupResult};

/// Where manifests lie in the tier.
pub(super) const PREFIX: &str = "namespace/manifests/";

/// 256 MiB list the pieces of some billions of files.
pub(super) const KIND: Kind =
    Kind { tag: *b"nsmf", name: "namespace manifest", version: 1, max_plain_len: 256 << 20 };

/// Times that an object is read before it counts as damaged.
pub(super) const FETCHES: usize = 3;

const SEQUENCE_AT: usize = 0;
const TIME_AT: usize = SEQUENCE_AT + 8;
const VOLUME_AT: usize = TIME_AT + 8;
const EPOCH_AT: usize = VOLUME_AT + 16;
const RESERVED_AT: usize = EPOCH_AT + 2;
const BUCKETS_AT: usize = RESERVED_AT + 6;
const TABLE_AT: usize = BUCKETS_AT + 8;
const PIECE_LEN: usize = 32 + 4 + 4;

/// The pieces of every bucket that holds anything.
pub(super) type Table = BTreeMap<Bucket, Vec<PieceRef>>;

/// What a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Its number: a newer backup has a higher one.
    pub sequence: u64,
    /// The volume's epoch when it was made.
    pub epoch: u16,
    /// UUID of the volume.
    pub volume: [u8; 16],
    /// The state it holds is the one of this time.
    pub time: SystemTime,
}

/// A backup's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) info: ManifestInfo,
    pub(super) table: Table,
}

/// The key of a manifest in the tier.
pub(super) fn key(sequence: u64) -> String {
    format!("{PREFIX}{sequence:016x}")
}

/// The number in a manifest's key.
pub(super) fn sequence_of(key: &str) -> Option<u64> {
    let sequence = u64::from_str_radix(key.strip_prefix(PREFIX)?, 16).ok()?;
    // Capitals, signs and fewer digits would give one number several keys.
    (self::key(sequence) == key).then_some(sequence)
}

/// A time as it is stored: nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of [`nanos`].
pub(super) fn time_of(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Fetches an object until `check` is content with it, since bytes may be damaged on their way
/// too.
pub(super) async fn fetch_checked<T>(
    tier: &dyn Tier,
    key: &str,
    check: impl Fn(&[u8]) -> BackupResult<T>,
) -> BackupResult<T> {
    for _ in 1..FETCHES {
        match check(&tier.get(key).await?) {
            Err(error) if error.is_damage() => tracing::warn!(key, %error, "reading again"),
            checked => return checked,
        }
    }
    check(&tier.get(key).await?)
}

impl Manifest {
    /// Every piece it names.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &PieceRef> {
        self.table.values().flatten()
    }

    /// Records in all pieces.
    pub(super) fn records(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.records)).sum()
    }

    /// Fetches and checks the manifest of that number.
    pub(super) async fn fetch(
        tier: &dyn Tier,
        sequence: u64,
    ) -> BackupResult<(Self, EnvelopeDigest)> {
        let key = key(sequence);
        let (manifest, digest) = fetch_checked(tier, &key, Self::decode).await?;
        if manifest.info.sequence != sequence {
            return Err(BackupError::damaged(KIND.name, "it stands under another's name"));
        }
        Ok((manifest, digest))
    }

    /// The stored object.
    pub(super) fn encode(&self) -> BackupResult<(Bytes, EnvelopeDigest)> {
        let mut out = Vec::with_capacity(TABLE_AT + self.table.len() * (BUCKET_LEN + PIECE_LEN));
        out.extend_from_slice(&self.info.sequence.to_le_bytes());
        out.extend_from_slice(&nanos(self.info.time).to_le_bytes());
        out.extend_from_slice(&self.info.volume);
        out.extend_from_slice(&self.info.epoch.to_le_bytes());
        out.extend_from_slice(&[0; BUCKETS_AT - RESERVED_AT]);
        out.extend_from_slice(&(self.table.len() as u64).to_le_bytes());
        for (bucket, pieces) in &self.table {
            out.extend_from_slice(&bucket.encode());
            out.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
            for piece in pieces {
                out.extend_from_slice(&piece.digest.0);
                out.extend_from_slice(&piece.stored_len.to_le_bytes());
                out.extend_from_slice(&piece.records.to_le_bytes());
            }
        }
        Ok(envelope::seal(KIND, &out)?)
    }

    /// Checks and decodes a stored object.
    pub(super) fn decode(sealed: &[u8]) -> BackupResult<(Self, EnvelopeDigest)> {
        let (plain, _, digest) = envelope::open(KIND, sealed)?;
        let mut rest = Fields(&plain);
        let sequence = rest.u64()?;
        let time = time_of(rest.u64()?);
        let volume = rest.array()?;
        let epoch = u16::from_le_bytes(rest.array()?);
        rest.take(BUCKETS_AT - RESERVED_AT)?;
        let buckets = rest.u64()?;
        let mut table = Table::new();
        for _ in 0..buckets {
            let bucket = Bucket::decode(rest.take(BUCKET_LEN)?)
                .ok_or_else(|| BackupError::damaged(KIND.name, "unknown bucket"))?;
            let count = rest.u32()? as usize;
            let is_next = table.last_key_value().is_none_or(|(last, _)| *last < bucket);
            if !is_next || count == 0 || count > rest.0.len() / PIECE_LEN {
                return Err(BackupError::damaged(KIND.name, "its table makes no sense"));
            }
            let mut pieces = Vec::with_capacity(count);
            for _ in 0..count {
                let digest = EnvelopeDigest(rest.array()?);
                pieces.push(PieceRef { digest, stored_len: rest.u32()?, records: rest.u32()? });
            }
            table.insert(bucket, pieces);
        }
        if !rest.0.is_empty() {
            return Err(BackupError::damaged(KIND.name, "something follows its table"));
        }
        Ok((Self { info: ManifestInfo { sequence, epoch, volume, time }, table }, digest))
    }
}

/// Reads fields from the front, never past the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> BackupResult<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| BackupError::damaged(KIND.name, "it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> BackupResult<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> BackupResult<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> BackupResult<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
