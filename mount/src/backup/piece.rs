//! Pieces: a bucket's records in key order, cut where the keys say, so that a change in the
//! middle of a giant directory moves no cut but those next to it.

use bytes::Bytes;
use firn_tiering::envelope::{self, EnvelopeDigest, Kind};

use super::bucket::Bucket;
use super::{BackupError, BackupResult};

/// Where pieces lie in the tier.
pub(super) const PREFIX: &str = "namespace/pieces/";

/// Bytes of the record in front of a key and its value.
const RECORD_HEADER_LEN: usize = 2 + 4;

pub(super) const KIND: Kind =
    Kind { tag: *b"nspc", name: "namespace piece", version: 1, max_plain_len: 64 << 20 };

/// How long pieces are, before compression.
#[derive(Clone, Copy, Debug)]
pub struct PieceLimits {
    /// No cut before this many bytes.
    pub min_len: usize,
    /// A cut at the latest when a piece has this many bytes.
    pub max_len: usize,
    /// In between, one key in so many makes a cut. A power of two.
    pub keys_per_cut: u64,
}

impl Default for PieceLimits {
    /// 1 to 4 MiB; records of about 150 bytes make it 2 MiB on average.
    fn default() -> Self {
        Self { min_len: 1 << 20, max_len: 4 << 20, keys_per_cut: 8192 }
    }
}

/// What a manifest says of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PieceRef {
    /// Its name and checksum.
    pub(super) digest: EnvelopeDigest,
    /// Length of the object.
    pub(super) stored_len: u32,
    /// Records in it.
    pub(super) records: u32,
}

impl PieceRef {
    /// Its key in the tier.
    pub(super) fn key(&self) -> String {
        format!("{PREFIX}{}", self.digest)
    }
}

/// A piece ready to be uploaded.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) name: PieceRef,
    pub(super) sealed: Bytes,
}

/// Cuts a bucket into pieces.
pub(super) struct Cutter {
    limits: PieceLimits,
    plain: Vec<u8>,
    records: u32,
}

impl Cutter {
    pub(super) fn new(limits: PieceLimits) -> Self {
        Self { limits, plain: Vec::new(), records: 0 }
    }

    /// Adds the next record; gives a piece when one is full.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> BackupResult<Option<Piece>> {
        let lens = (u16::try_from(key.len()), u32::try_from(value.len()));
        let (Ok(key_len), Ok(value_len)) = lens else {
            return Err(BackupError::damaged("namespace record", "it is too long for a backup"));
        };
        self.plain.extend_from_slice(&key_len.to_le_bytes());
        self.plain.extend_from_slice(&value_len.to_le_bytes());
        self.plain.extend_from_slice(key);
        self.plain.extend_from_slice(value);
        self.records += 1;
        let len = self.plain.len();
        let cuts = len >= self.limits.max_len
            || len >= self.limits.min_len && is_cut(key, self.limits.keys_per_cut);
        if cuts { self.finish() } else { Ok(None) }
    }

    /// What is left, if anything.
    pub(super) fn finish(&mut self) -> BackupResult<Option<Piece>> {
        if self.records == 0 {
            return Ok(None);
        }
        let plain = std::mem::take(&mut self.plain);
        let records = std::mem::take(&mut self.records);
        let (sealed, digest) = envelope::seal(KIND, &plain)?;
        let stored_len = sealed.len() as u32;
        Ok(Some(Piece { name: PieceRef { digest, stored_len, records }, sealed }))
    }
}

fn is_cut(key: &[u8], keys_per_cut: u64) -> bool {
    let hash = blake3::hash(key);
    let mut low = [0; 8];
    low.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(low).is_multiple_of(keys_per_cut.max(1))
}

/// A record of a piece.
pub(super) type Record = (Bytes, Bytes);

/// Checks a piece and takes it apart: its digest is the one that was asked for, its keys belong
/// to `bucket`, and they grow.
pub(super) fn open(sealed: &[u8], name: &PieceRef, bucket: Bucket) -> BackupResult<Vec<Record>> {
    let (plain, _, digest) = envelope::open(KIND, sealed)?;
    if digest != name.digest {
        return Err(BackupError::damaged(KIND.name, "it is another piece"));
    }
    let plain = Bytes::from(plain);
    let mut records: Vec<Record> = Vec::new();
    let mut at = 0;
    while at < plain.len() {
        let (key, value, end) = record_at(&plain, at)
            .ok_or_else(|| BackupError::damaged(KIND.name, "a record is cut short"))?;
        let grows = records.last().is_none_or(|(before, _)| *before < key);
        if Bucket::of(bucket.space(), &key) != bucket || !grows {
            return Err(BackupError::damaged(KIND.name, "a key is out of place"));
        }
        records.push((key, value));
        at = end;
    }
    if records.len() != name.records as usize {
        return Err(BackupError::damaged(KIND.name, "records are missing"));
    }
    Ok(records)
}

pub(super) fn record_at(plain: &Bytes, at: usize) -> Option<(Bytes, Bytes, usize)> {
    let header = plain.get(at..at.checked_add(RECORD_HEADER_LEN)?)?;
    let key_len = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let value_len = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
    let key_at = at + RECORD_HEADER_LEN;
    let value_at = key_at.checked_add(key_len)?;
    let end = value_at.checked_add(value_len)?;
    (end <= plain.len()).then(|| (plain.slice(key_at..value_at), plain.slice(value_at..end), end))
}
