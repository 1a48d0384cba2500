//! Keys and values of the namespace for fuzzers.

use super::acl::Acl;
use super::key::{self, HeadKey, LinkAt};
use super::record::{
    Bucket, Counters, DatasetRecord, Leases, LineRecord, NAME_MAX, ReceiveProgress, ReceiveRecord,
    RollbackRecord, Settings, SnapshotRecord, SweepRecord, Usage, Version, VolumeRecord, allocated,
    link_name, put_link_name,
};
use super::{Backref, Dataset, Inode, Node, SLOT_LEN, SlotRecord};
use crate::types::{Ino, Pin};

/// One byte says what the rest is.
pub fn namespace(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => keys(bytes),
        1 => values(bytes),
        2 => tree(bytes),
        _ => texts(bytes),
    }
}

fn keys(bytes: &[u8]) {
    if let Ok(head) = HeadKey::decode(bytes) {
        assert!(head.object.0 >> Ino::OBJECT_BITS == 0);
        let again = key::head_named(head.line, head.object, head.kind, head.sub);
        assert_eq!(again, bytes);
        let history = key::history(bytes, Node(7));
        let back = key::history_decode(head.line, &history).expect("it was made of a head key");
        assert_eq!(back, (bytes.to_vec(), Node(7)));
    }
    if let Ok(found) = Backref::decode(bytes) {
        assert_eq!(found.encode(), bytes);
    }
    if let Ok((node, ino, kind)) = key::born_decode(bytes) {
        assert_eq!(key::born(node, ino, kind), bytes);
    }
    if let Ok((line, ino)) = key::meta_inode_decode(bytes) {
        assert_eq!(key::meta_inode(bytes[0], line, ino), bytes);
    }
    let _ = key::history_decode(Dataset::ROOT, bytes);
    let _ = key::meta_number_decode(bytes);
    let _ = key::meta_layer_decode(bytes);
    let _ = LinkAt::decode(bytes);
}

/// What the head and history spaces hold.
fn values(bytes: &[u8]) {
    let Ok((version, record)) = Version::split(bytes) else { return };
    let mut stored = Vec::new();
    version.put(&mut stored);
    let head_len = stored.len();
    assert_eq!(Version::split(&stored).expect("what was written is read"), (version, &[][..]));
    if let Ok(inode) = Inode::decode(Ino(5), version, record) {
        let stored = inode.encode();
        let again = Inode::decode(Ino(5), version, &stored[head_len..]);
        assert_eq!(again.expect("what was written is read"), inode);
        let _ = inode.attr();
    }
    if let Ok(bucket) = Bucket::decode(record) {
        assert!(bucket.entries().iter().all(|entry| (1..=NAME_MAX).contains(&entry.name.len())));
        let mut stored = Vec::new();
        bucket.put(&mut stored);
        assert_eq!(stored, record);
    }
    if let Ok(slot) = SlotRecord::decode(version, record) {
        assert!(allocated(&slot.pieces) <= u64::from(SLOT_LEN));
        if !version.whiteout {
            let stored = SlotRecord::encode(version, &slot.pieces).expect("it was decoded");
            assert_eq!(SlotRecord::decode_value(&stored).expect("what was written is read"), slot);
        }
    }
    if let Ok(name) = link_name(record) {
        let mut stored = Vec::new();
        put_link_name(&mut stored, name);
        assert_eq!(stored, record);
    }
}

/// What the meta space holds.
fn tree(bytes: &[u8]) {
    macro_rules! trip {
        ($($record:ty),*) => {$(
            if let Ok(record) = <$record>::decode(bytes) {
                let again = <$record>::decode(&record.encode());
                assert_eq!(again.expect("what was written is read"), record);
            }
        )*};
    }
    trip!(VolumeRecord, Leases, Usage, Counters, DatasetRecord, LineRecord);
    trip!(SnapshotRecord, SweepRecord, RollbackRecord, Settings, ReceiveRecord, ReceiveProgress);
}

/// What programs pass in attributes.
fn texts(bytes: &[u8]) {
    if let Ok(Some(acl)) = Acl::parse(bytes) {
        assert_eq!(Acl::parse(&acl.encode()).expect("what was written is read"), Some(acl));
    }
    if let Some(pin) = Pin::parse(bytes) {
        assert_eq!(Pin::parse(pin.to_string().as_bytes()), Some(pin));
    }
}
