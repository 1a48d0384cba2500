//! What of a backup could not be read, counted throughout and told in part.

use std::collections::BTreeSet;
use std::fmt;

use super::bucket::Bucket;
use super::verify::DamagedObject;

/// Objects that are named.
const NAMED: usize = 8;

/// Pieces of a backup that are missing or damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Pieces that it has.
    pub pieces: u64,
    /// How many of them are missing or damaged.
    pub count: u64,
    /// The first of those.
    pub objects: Vec<DamagedObject>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of its {} pieces are missing or damaged", self.count, self.pieces)?;
        for (at, DamagedObject { key, reason }) in self.objects.iter().enumerate() {
            write!(f, "{} {key} ({reason})", if at == 0 { ":" } else { "," })?;
        }
        if self.count > self.objects.len() as u64 {
            f.write_str(" and more")?;
        }
        Ok(())
    }
}

/// What is missing while a backup is read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) missing: Missing,
    pub(super) buckets: BTreeSet<Bucket>,
}

impl Lost {
    pub(super) fn note(&mut self, bucket: Bucket, key: String, reason: String) {
        self.buckets.insert(bucket);
        self.missing.count += 1;
        if self.missing.objects.len() < NAMED {
            self.missing.objects.push(DamagedObject { key, reason });
        }
    }
}
