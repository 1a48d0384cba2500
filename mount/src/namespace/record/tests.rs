#![allow(clippy::unwrap_used, reason = "tests")]

use blake3::Hash;
use bytes::Bytes;
use firn_tiering::encode::Compression;
use firn_tiering::{BlockDigest, BlockId, BlockRef, Epoch};
use proptest::prelude::*;

use super::*;
use crate::namespace::key::{self, Backref, Dataset, HeadKey, Kind, LinkAt};
use crate::namespace::{Position, Stage};
use crate::types::{FileKind, Guid, Ino};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample_inode() -> Inode {
    let time = |secs, nanos| Timestamp { secs, nanos };
    let mut flags = InodeFlags::default();
    flags.set(InodeFlags::ACCESS_ACL, true);
    Inode {
        ino: Ino(9),
        version: Version { node: Node(1), shadows: false, whiteout: false },
        kind: FileKind::File,
        perm: 0o4755,
        flags,
        nlink: 2,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size: 300,
        allocated: 300,
        xattr_names: 24,
        generation: 1,
        parent: Ino(1),
        cookie: 0x1122_3344_5566_7700,
        atime: time(-2, 5),
        mtime: time(1_000_000_000, 1),
        ctime: time(1_000_000_000, 1),
        crtime: time(1_000_000_000, 1),
        digest: None,
    }
}

fn sample_pieces() -> Vec<Piece> {
    let block = BlockRef {
        id: BlockId::new(Epoch(3), 0x1234).unwrap(),
        digest: BlockDigest([0xab; 16]),
        len: 4096,
    };
    vec![
        Piece { start: 16, len: 100, content: Content::Block { block, offset: 7 } },
        Piece { start: 200, len: 3, content: Content::Inline(Bytes::from_static(b"abc")) },
        Piece { start: 203, len: 5, content: Content::Unwritten },
    ]
}

/// Changing these means a new format version.
#[test]
fn golden_bytes() {
    let version = Version::first(Node(1));
    assert_eq!(
        hex(&sample_inode().encode()),
        "0401ed930201\
         02e80764\
         00\
         ac02ac02\
         180101\
         0077665544332211\
         03\
         80a8d6b907\
         01000000\
         0305000000"
            .replace(' ', "")
    );
    let digested = Inode { digest: Some(Hash::from_bytes([0xd1; 32])), ..sample_inode() };
    let plain = hex(&sample_inode().encode());
    let with_flag = [&plain[..10], "09", &plain[12..]].concat();
    assert_eq!(hex(&digested.encode()), with_flag + &"d1".repeat(32));
    let block = format!("10900303b424{}802007", "ab".repeat(16));
    let pieces = SlotRecord::encode(version, &sample_pieces()).unwrap();
    assert_eq!(hex(&pieces), ["0401", &block, "540d616263", "0016"].concat());
    let mut bucket = Bucket::default();
    bucket.insert(b"name", Ino(300), FileKind::Directory).unwrap();
    bucket.insert(b"x", Ino(2), FileKind::File).unwrap();
    let mut value = Vec::new();
    version.put(&mut value);
    bucket.put(&mut value);
    assert_eq!(hex(&value), "04010004ac02046e616d650108020178");
    let mut value = Vec::new();
    version.put(&mut value);
    put_link_name(&mut value, b"name");
    assert_eq!(hex(&value), "04016e616d65");
    let shadowing = Version { node: Node(2), shadows: true, whiteout: true };
    let mut value = Vec::new();
    shadowing.put(&mut value);
    assert_eq!(hex(&value), "0b");
    let mut volume = VolumeRecord {
        name_seed: [0x5a; 32],
        dataset: Dataset::ROOT,
        node: Node::FIRST,
        has_tree: false,
        features: 0,
    };
    assert_eq!(hex(&volume.encode()), format!("01{}0101", "5a".repeat(32)));
    volume.has_tree = true;
    assert_eq!(hex(&volume.encode()), format!("02{}0101", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::PROPERTIES;
    assert_eq!(hex(&volume.encode()), format!("03{}010101", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = 1 << 40;
    assert!(VolumeRecord::decode(&volume.encode()).is_err());
    volume.features = VolumeRecord::USAGE;
    assert_eq!(hex(&volume.encode()), format!("03{}010102", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::RECEIVES;
    assert_eq!(hex(&volume.encode()), format!("03{}010104", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::DIGESTS;
    assert_eq!(hex(&volume.encode()), format!("03{}010110", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::SEALS;
    assert_eq!(hex(&volume.encode()), format!("03{}010120", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::SENT_ROOTS;
    assert_eq!(hex(&volume.encode()), format!("03{}010140", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    volume.features = VolumeRecord::LINKS;
    assert_eq!(hex(&volume.encode()), format!("03{}010108", "5a".repeat(32)));
    assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
    let usage = Usage { charged: 300, referenced: Referenced { bytes: 128, files: 2 } };
    assert_eq!(hex(&usage.encode()), "01ac02800102");
    assert_eq!(Usage::decode(&usage.encode()).unwrap(), usage);
    assert_eq!(hex(&key::usage(Dataset(1), Node(258))), "750000000100000102");
    let leases = Leases { clean: true, epoch: 2, blocks: 128, segments: 3, inodes: 4097 };
    assert_eq!(hex(&leases.encode()), "0101028001038120");
}

#[test]
fn golden_keys() {
    let root = Dataset::ROOT;
    assert_eq!(hex(&key::head(root, Ino(258), Kind::Inode)), "00000001000000000000010201");
    assert_eq!(
        hex(&key::head_numbered(root, Ino(1), Kind::Dentry, 0x1234)),
        "000000010000000000000001040000000000001234"
    );
    let named = key::head_named(root, Ino(1), Kind::Xattr, b"user.x");
    assert_eq!(hex(&named), "00000001000000000000000103757365722e78");
    assert_eq!(hex(&key::history(&named, Node(7))), "000000000000000103757365722e7800000007");
    assert_eq!(hex(&key::born(Node(7), Ino(1), Kind::Extent)), "00000007000000000000000105");
    let backref =
        Backref { block: BlockId::new(Epoch(1), 2).unwrap(), ino: Ino(3), slot: 4, node: Node(5) };
    assert_eq!(hex(&backref.encode()), "00010000000000020000000000000003000000000000000400000005");
    assert_eq!(Backref::decode(&backref.encode()).unwrap(), backref);
    let hold = Backref::hold(backref.block);
    assert_eq!(hex(&hold.encode()), "00010000000000020000000000000000000000000000000000000000");
    assert!(hold.is_hold() && !backref.is_hold());
    assert_eq!(hex(&key::meta_inode(key::ORPHANS, root, Ino(9))), "6f000000010000000000000009");
    assert_eq!(
        key::meta_inode_decode(&key::meta_inode(b't', root, Ino(9))).unwrap(),
        (root, Ino(9))
    );
    assert_eq!(key::note("backup"), b"xbackup");
    let at = LinkAt { dir: 258, cookie: 0x1234_5678 };
    let link = key::head_link(root, Ino(9), at);
    assert_eq!(hex(&link), "0000000100000000000000090600000000000001020000000012345678");
    assert_eq!(LinkAt::decode(HeadKey::decode(&link).unwrap().sub).unwrap(), at);
    assert!(HeadKey::decode(&link[..link.len() - 1]).is_err());
    let taken = HeadKey::decode(&named).unwrap();
    assert_eq!((taken.object, taken.kind, taken.sub), (Ino(1), Kind::Xattr, &b"user.x"[..]));
}

#[test]
fn golden_version_tree() {
    let time = Timestamp { secs: 1_000_000_000, nanos: 1 };
    let counters = Counters { dataset: 2, node: 300, view: 4 };
    assert_eq!(hex(&counters.encode()), "0102ac0204");
    assert_eq!(Counters::decode(&counters.encode()).unwrap(), counters);
    let dataset = DatasetRecord {
        node: Node(7),
        view: 300,
        root: 500,
        place: Some(Place { parent: Dataset(1), junction: 9 }),
        origin: Some(Node(3)),
        created: time,
    };
    assert_eq!(hex(&dataset.encode()), "0107ac02f40301090380a8d6b90701000000");
    assert_eq!(DatasetRecord::decode(&dataset.encode()).unwrap(), dataset);
    let root = DatasetRecord { place: None, origin: None, ..dataset };
    assert_eq!(DatasetRecord::decode(&root.encode()).unwrap(), root);
    let origin = Origin { line: Dataset(1), node: Node(3) };
    let line = LineRecord { first: Node(6), origin: Some(origin) };
    assert_eq!(hex(&line.encode()), "01060103");
    assert_eq!(LineRecord::decode(&line.encode()).unwrap(), line);
    let bare = LineRecord { origin: None, ..line };
    assert_eq!(LineRecord::decode(&bare.encode()).unwrap(), bare);
    let snapshot = SnapshotRecord {
        dataset: Dataset(2),
        line: Dataset(1),
        view: 5,
        created: time,
        name: "s".to_owned(),
        message: "why".to_owned(),
        holds: vec![Hold { tag: "t".to_owned(), created: time }],
        deferred: true,
        referenced: Some(Referenced { bytes: 300, files: 2 }),
        guid: None,
        sent_root: None,
    };
    let stored = "010302010580a8d6b907010000000173037768790101 7480a8d6b90701000000ac0202";
    assert_eq!(hex(&snapshot.encode()), stored.replace(' ', ""));
    assert_eq!(SnapshotRecord::decode(&snapshot.encode()).unwrap(), snapshot);
    let received =
        SnapshotRecord { guid: Some(Guid([7; 16])), deferred: false, holds: vec![], ..snapshot };
    let stored = "010602010580a8d6b9070100000001730377687900ac0202".to_owned();
    assert_eq!(hex(&received.encode()), stored + &"07".repeat(16));
    assert_eq!(SnapshotRecord::decode(&received.encode()).unwrap(), received);
    let rooted = SnapshotRecord { sent_root: Some(Hash::from_bytes([9; 32])), ..received };
    let stored = "010e02010580a8d6b9070100000001730377687900ac0202".to_owned();
    assert_eq!(hex(&rooted.encode()), stored + &"07".repeat(16) + &"09".repeat(32));
    assert_eq!(SnapshotRecord::decode(&rooted.encode()).unwrap(), rooted);
    let sweep = SweepRecord { next: Node(9), whole: true };
    assert_eq!(hex(&sweep.encode()), "010109");
    assert_eq!(SweepRecord::decode(&sweep.encode()).unwrap(), sweep);
    let rollback = RollbackRecord { to: origin };
    assert_eq!(hex(&rollback.encode()), "010103");
    assert_eq!(RollbackRecord::decode(&rollback.encode()).unwrap(), rollback);
    assert_eq!(hex(&key::meta_number(key::SNAPSHOTS, 258)), "7300000102");
    assert_eq!(hex(&key::sweep(Dataset(1), Node(2))), "770000000100000002");
    assert_eq!(
        key::meta_layer_decode(&key::sweep(Dataset(1), Node(2))).unwrap(),
        (Dataset(1), Node(2))
    );
}

#[test]
fn golden_properties() {
    let mut settings = Settings::default();
    settings.put(Setting::Tier(Some("fast-1".to_owned())));
    settings.put(Setting::Quota(Some(300)));
    settings.put(Setting::Compression(Compression::zstd(9).unwrap()));
    settings.put(Setting::ReadOnly(true));
    settings.put(Setting::Snapdir(true));
    settings.put(Setting::AccessTime(false));
    settings.put(Setting::NoDedup);
    let stored = settings.encode();
    assert_eq!(hex(&stored), "0107011902ac0203010401050006000706666173742d31");
    assert_eq!(Settings::decode(&stored).unwrap(), settings);
    let mut none = Settings::default();
    none.put(Setting::Tier(None));
    none.put(Setting::Quota(None));
    assert_eq!(hex(&none.encode()), "010202000700");
    assert_eq!(Settings::decode(&none.encode()).unwrap(), none);
    assert_eq!(hex(&key::meta_number(key::PROPERTIES, 258)), "7000000102");
}

#[test]
fn properties_that_are_not_known_are_refused() {
    let refused = |bytes: &[u8]| Settings::decode(bytes).unwrap_err().reason;
    assert_eq!(refused(&[1, 1, 8, 0]), "a property that this version does not know");
    assert_eq!(refused(&[2, 1, 3, 1]), "unknown format version");
    assert_eq!(refused(&[1, 1, 6, 1]), "dedup, which this version does not know");
    assert_eq!(refused(&[1, 1, 1, 4]), "unknown compression");
    assert_eq!(refused(&[1, 1, 3, 2]), "neither on nor off");
    assert_eq!(refused(&[1, 2, 3, 1, 3, 1]), "not in order");
    assert_eq!(refused(&[1, 0]), "empty");
    assert_eq!(refused(&[1, 1, 7, 1, b'/']), "no name of a class");
    assert_eq!(refused(&[1, 1, 7, 65]), "name of a class too long");
}

#[test]
fn golden_receives() {
    let time = Timestamp { secs: 1_000_000_000, nanos: 1 };
    let place = NewPlace { parent: Dataset(1), dir: 300, name: b"d".to_vec() };
    let whole = ReceiveRecord {
        resumable: true,
        view: 300,
        to: Guid([1; 16]),
        created: time,
        name: "s".to_owned(),
        message: "why".to_owned(),
        base: None,
        place: Some(place),
    };
    let to = "01".repeat(16);
    assert_eq!(
        hex(&whole.encode()),
        format!("0105ac02{to}80a8d6b9070100000001730377687901ac020164")
    );
    assert_eq!(ReceiveRecord::decode(&whole.encode()).unwrap(), whole);
    let at = Origin { line: Dataset(2), node: Node(9) };
    let base = Some(Base { guid: Guid([2; 16]), at });
    let changes = ReceiveRecord { resumable: false, base, place: None, ..whole.clone() };
    let from = "02".repeat(16);
    assert_eq!(
        hex(&changes.encode()),
        format!("0102ac02{to}80a8d6b90701000000017303776879{from}0209")
    );
    assert_eq!(ReceiveRecord::decode(&changes.encode()).unwrap(), changes);
    let neither = ReceiveRecord { base: None, place: None, ..whole };
    ReceiveRecord::decode(&neither.encode()).unwrap_err();
    let position = Position { stage: Stage::Links, object: 300, sub: 2 };
    let progress = ReceiveProgress { position };
    assert_eq!(hex(&progress.encode()), "0102ac0202");
    assert_eq!(ReceiveProgress::decode(&progress.encode()).unwrap(), progress);
}

proptest! {
    #[test]
    fn damaged_records_of_the_version_tree_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = ReceiveRecord::decode(&bytes);
        let _ = ReceiveProgress::decode(&bytes);
        let _ = Counters::decode(&bytes);
        let _ = DatasetRecord::decode(&bytes);
        let _ = LineRecord::decode(&bytes);
        let _ = SnapshotRecord::decode(&bytes);
        let _ = SweepRecord::decode(&bytes);
        let _ = RollbackRecord::decode(&bytes);
        let _ = Settings::decode(&bytes);
        let _ = key::meta_number_decode(&bytes);
        let _ = key::meta_layer_decode(&bytes);
        let _ = Usage::decode(&bytes);
        let _ = key::born_decode(&bytes);
        let _ = key::history_decode(Dataset::ROOT, &bytes);
    }
}

#[test]
fn a_fresh_file_is_small() {
    let mut inode = sample_inode();
    inode.atime = inode.crtime;
    assert!(inode.encode().len() <= 40, "{}", inode.encode().len());
}

#[test]
fn only_a_file_has_a_digest_and_all_of_it() {
    let digested = Inode { digest: Some(Hash::from_bytes([7; 32])), ..sample_inode() };
    let value = digested.encode();
    let (version, record) = Version::split(&value).unwrap();
    assert_eq!(Inode::decode(Ino(9), version, record).unwrap(), digested);
    assert!(Inode::decode(Ino(9), version, &record[..record.len() - 1]).is_err());
    let directory = Inode { kind: FileKind::Directory, ..digested }.encode();
    let (version, record) = Version::split(&directory).unwrap();
    assert!(Inode::decode(Ino(9), version, record).is_err());
}

#[test]
fn newer_versions_are_refused() {
    let value = sample_inode().encode();
    let (version, record) = Version::split(&value).unwrap();
    let mut newer = record.to_vec();
    newer[0] += 1;
    assert!(Inode::decode(Ino(9), version, &newer).is_err());
    assert!(Leases::decode(&[2, 1, 1, 0, 0, 0]).is_err());
    assert!(VolumeRecord::decode(&[9; 40]).is_err());
    assert!(link_name(b"\x02name").is_err());
}

#[test]
fn a_file_type_has_one_form() {
    let mut bucket = Bucket::default();
    bucket.insert(b"name", Ino(300), FileKind::Directory).unwrap();
    let mut record = Vec::new();
    bucket.put(&mut record);
    assert_eq!(Bucket::decode(&record).unwrap(), bucket);
    for bits in 1..16 {
        let mut other = record.clone();
        other[2] |= bits << 4;
        assert_eq!(Bucket::decode(&other).unwrap_err().reason, "unknown file type");
    }
}

#[test]
fn no_stored_name_leads_anywhere_else() {
    for name in [&b""[..], b".", b"..", b"../x", b"/etc", b"a/b", b"nul\0"] {
        let mut record = vec![1, 0, 8, 5, name.len() as u8];
        record.extend_from_slice(name);
        assert_eq!(Bucket::decode(&record).unwrap_err().reason, "impossible name", "{name:?}");
        let link = [b"\x01", name].concat();
        assert_eq!(link_name(&link).unwrap_err().reason, "impossible name", "{name:?}");
    }
    assert!(link_name(&[&b"\x01"[..], &[b'x'; 256]].concat()).is_err());
}

#[test]
fn numbers_have_one_form() {
    assert!(Reader::new("test", &[0x80, 0]).varint().is_err());
    assert!(Reader::new("test", &[0xff; 9]).varint().is_err());
    assert!(Reader::new("test", &[0xff; 10]).varint().is_err());
    let mut largest = Vec::new();
    put_varint(&mut largest, u64::MAX);
    assert_eq!(Reader::new("test", &largest).varint().unwrap(), u64::MAX);
    assert!(Reader::new("test", &largest).varint32().is_err());
}

#[test]
fn times_convert_both_ways() {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    for time in [
        UNIX_EPOCH,
        UNIX_EPOCH - Duration::new(0, 1),
        UNIX_EPOCH - Duration::new(5, 0),
        UNIX_EPOCH - Duration::new(5, 999_999_999),
        UNIX_EPOCH + Duration::new(1 << 40, 3),
    ] {
        assert_eq!(SystemTime::from(Timestamp::from(time)), time);
    }
    let before = Timestamp::from(UNIX_EPOCH - Duration::new(0, 1));
    assert_eq!(before, Timestamp { secs: -1, nanos: 999_999_999 });
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn any_inode() -> impl Strategy<Value = Inode> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let long = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let times = proptest::collection::vec(timestamp(), 2);
    (0..7_usize, 0..0o10000_u16, numbers, long, times, 0..16_usize, 0..2_u32).prop_map(
        |(kind, perm, n, l, times, pick, flag)| {
            let kinds = [
                FileKind::File,
                FileKind::Directory,
                FileKind::Symlink,
                FileKind::Fifo,
                FileKind::Socket,
                FileKind::CharDevice,
                FileKind::BlockDevice,
            ];
            let mut flags = InodeFlags::default();
            flags.set(1 << flag, true);
            Inode {
                ino: Ino(5),
                version: Version { node: Node(n.4 >> 2), shadows: flag == 1, whiteout: false },
                kind: kinds[kind],
                perm,
                flags,
                nlink: n.0,
                uid: n.1,
                gid: n.2,
                rdev: n.3,
                size: l.0,
                allocated: l.1,
                xattr_names: n.4,
                generation: l.2,
                parent: Ino(l.3 >> 16),
                cookie: l.4,
                atime: times[pick & 1],
                mtime: times[pick >> 1 & 1],
                ctime: times[pick >> 2 & 1],
                crtime: times[pick >> 3 & 1],
                digest: (kind == 0 && pick == 7).then(|| Hash::from_bytes([perm as u8; 32])),
            }
        },
    )
}

fn any_pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (0..1000_u32, 1..2000_u32, 0..3_u8, any::<u64>(), any::<[u8; 16]>(), 0..5000_u32);
    proptest::collection::vec(piece, 0..20).prop_map(|parts| {
        let mut at = 0;
        let mut pieces = Vec::new();
        for (gap, len, what, number, digest, offset) in parts {
            let start = at + gap;
            at = start + len;
            let content = match what {
                0 => {
                    let block = BlockRef {
                        id: BlockId::from_raw(number),
                        digest: BlockDigest(digest),
                        len: offset + len,
                    };
                    Content::Block { block, offset }
                }
                1 => Content::Inline(vec![number as u8; len as usize].into()),
                _ => Content::Unwritten,
            };
            pieces.push(Piece { start, len, content });
        }
        pieces
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inodes_round_trip(inode in any_inode()) {
        let value = inode.encode();
        let (version, record) = Version::split(&value).unwrap();
        prop_assert_eq!(Inode::decode(inode.ino, version, record).unwrap(), inode);
    }

    #[test]
    fn slots_round_trip(pieces in any_pieces(), node in 0..1_u32 << 30) {
        let version = Version { node: Node(node), shadows: true, whiteout: false };
        let value = SlotRecord::encode(version, &pieces).unwrap();
        prop_assert_eq!(SlotRecord::decode_value(&value).unwrap(), SlotRecord { version, pieces });
    }

    #[test]
    fn cutting_keeps_what_lies_before(pieces in any_pieces(), end in 0..60_000_u32) {
        let cut: Vec<_> = pieces.iter().filter_map(|piece| piece.cut(end)).collect();
        prop_assert!(cut.iter().all(|piece| piece.end() <= end));
        let expected: u64 = pieces
            .iter()
            .map(|piece| u64::from(piece.end().min(end).saturating_sub(piece.start)))
            .sum();
        prop_assert_eq!(allocated(&cut), expected);
        SlotRecord::encode(Version::first(Node(1)), &cut).unwrap();
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let version = Version::first(Node(1));
        let _ = Version::split(&bytes);
        let _ = Inode::decode(Ino(1), version, &bytes);
        let _ = Bucket::decode(&bytes);
        let _ = SlotRecord::decode_value(&bytes);
        let _ = link_name(&bytes);
        let _ = LinkAt::decode(&bytes);
        let _ = VolumeRecord::decode(&bytes);
        let _ = Settings::decode(&bytes);
        let _ = Leases::decode(&bytes);
        let _ = HeadKey::decode(&bytes);
        let _ = Backref::decode(&bytes);
        let _ = key::meta_inode_decode(&bytes);
    }

    #[test]
    fn a_record_with_one_byte_changed_never_panics(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let version = Version::first(Node(1));
        let mut bucket = Bucket::default();
        bucket.insert(b"name", Ino(300), FileKind::Directory).unwrap();
        let mut dentry = Vec::new();
        version.put(&mut dentry);
        bucket.put(&mut dentry);
        let slot = SlotRecord::encode(version, &sample_pieces()).unwrap();
        for mut value in [sample_inode().encode(), slot, dentry] {
            let at = at.index(value.len());
            value[at] = byte;
            let _ = SlotRecord::decode_value(&value);
            if let Ok((version, record)) = Version::split(&value) {
                let _ = Inode::decode(Ino(1), version, record);
                let _ = Bucket::decode(record);
            }
        }
    }

    #[test]
    fn positions_are_reused_and_never_move(ops in proptest::collection::vec((0..6_u8, any::<bool>()), 0..40)) {
        let mut bucket = Bucket::default();
        for (name, add) in ops {
            let before = bucket.clone();
            let name = [b'a' + name];
            if add && bucket.find(&name).is_none() {
                bucket.insert(&name, Ino(1), FileKind::File).unwrap();
            } else if !add {
                bucket.remove(&name);
            }
            for entry in before.entries() {
                if let Some(now) = bucket.find(&entry.name) {
                    prop_assert_eq!(now.position, entry.position);
                }
            }
            if !bucket.is_empty() {
                let mut record = Vec::new();
                bucket.put(&mut record);
                prop_assert_eq!(Bucket::decode(&record).unwrap(), bucket.clone());
            }
        }
    }
}

#[test]
fn digests_of_snapshots_are_stored_as_specified() {
    let hash = |byte: u8| blake3::Hash::from_bytes([byte; 32]);
    let seal = Some(Seal { root: hash(3), digest: hash(4) });
    let link = Link { start: Some(hash(1)), bodies: vec![hash(2)] };
    let whole = SealRecord { link, seal };
    let [start, body, root, digest] = ["01", "02", "03", "04"].map(|byte| byte.repeat(32));
    assert_eq!(hex(&whole.encode()), ["0103", &start, "01", &body, &root, &digest].concat());
    let plain = SealRecord { link: Link::default(), seal };
    assert_eq!(hex(&plain.encode()), format!("010200{}{}", "03".repeat(32), "04".repeat(32)));
    let mut lanes = Lanes::default();
    lanes.add(b"item");
    for next in [None, Some(0), Some(300)] {
        let sum = SumRecord { base: Some(Node(5)), next, lanes: lanes.clone() };
        let head = match next {
            None => "01010500",
            Some(0) => "01000500",
            Some(_) => "010005ac02",
        };
        assert_eq!(hex(&sum.encode()), format!("{head}{}", hex(&lanes.to_bytes())));
        assert_eq!(SumRecord::decode(&sum.encode()).unwrap(), sum);
        assert!(SumRecord::decode(&sum.encode()[..2000]).is_err());
    }
    // The first lanes of one item: its BLAKE3, which is how the output begins.
    assert_eq!(lanes.to_bytes()[..32], *blake3::hash(b"item").as_bytes());
    for sealed in [whole, plain, SealRecord::default()] {
        assert_eq!(SealRecord::decode(&sealed.encode()).unwrap(), sealed);
        let mut longer = sealed.encode();
        longer.push(0);
        assert!(SealRecord::decode(&longer).is_err());
        longer[1] |= 4;
        assert!(SealRecord::decode(&longer).is_err());
    }
    // As many bodies as nobody writes.
    assert!(SealRecord::decode(&[1, 0, 0x81, 0x08]).is_err());
    assert_eq!(hex(&key::awaited(Node(258), Ino(7))), "66000001020000000000000007");
    assert_eq!(key::awaited_decode(&key::awaited(Node(258), Ino(7))).unwrap(), (Node(258), Ino(7)));
}
