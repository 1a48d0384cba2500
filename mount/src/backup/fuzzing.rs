//! Objects of a namespace backup for fuzzers.

use firn_tiering::envelope;

use super::bucket::Bucket;
use super::manifest::{self, Manifest};
use super::piece::{self, Cutter, PieceLimits, PieceRef};
use crate::namespace::store::Space;

/// The plaintext of a manifest, and of a piece of the bucket that its first key belongs to.
pub fn backup(data: &[u8]) {
    let (sealed, _) = envelope::seal(manifest::KIND, data).expect("it is short enough");
    if let Ok((manifest, _)) = Manifest::decode(&sealed) {
        let (stored, _) = manifest.encode().expect("it was stored before");
        let (again, _) = Manifest::decode(&stored).expect("what was written is read");
        assert_eq!(again, manifest);
    }
    for space in Space::ALL {
        piece(space, data);
    }
    if let Some(base) = super::Base::decode(data) {
        assert_eq!(base.encode(), data);
    }
    let key = String::from_utf8_lossy(data);
    if let Some(sequence) = manifest::sequence_of(&key) {
        assert_eq!(manifest::key(sequence), key, "no other key has this number");
    }
}

fn piece(space: Space, data: &[u8]) {
    let Some((first, _, _)) = piece::record_at(&bytes::Bytes::copy_from_slice(data), 0) else {
        return;
    };
    let bucket = Bucket::of(space, &first);
    let (sealed, digest) = envelope::seal(piece::KIND, data).expect("it is short enough");
    for records in 1..4 {
        let name = PieceRef { digest, stored_len: sealed.len() as u32, records };
        let Ok(found) = piece::open(&sealed, &name, bucket) else { continue };
        let mut cutter = Cutter::new(PieceLimits::default());
        for (key, value) in &found {
            cutter.push(key, value).expect("it was in a piece");
        }
        let again = cutter.finish().expect("it was a piece").expect("it is not empty");
        assert_eq!(again.name, name);
    }
}
