//! The stored bytes: golden, and refused where they make no sense behind a right checksum.

use firn_tiering::envelope::{self, EnvelopeDigest, Kind};

use super::*;
use crate::backup::piece::PieceRef;

const MANIFEST: Kind = Kind { tag: *b"nsmf", name: "m", version: 1, max_plain_len: 1 << 20 };
const PIECE: Kind = Kind { tag: *b"nspc", name: "p", version: 1, max_plain_len: 1 << 20 };

fn sample() -> Manifest {
    let piece = |n: u8| PieceRef {
        digest: EnvelopeDigest([n; 32]),
        stored_len: 1000,
        records: u32::from(n),
    };
    let table = [
        (Bucket::of(Space::Head, &head_key(5000, 1)), vec![piece(1), piece(2)]),
        (Bucket::of(Space::Meta, b"v"), vec![piece(3)]),
    ];
    let info = ManifestInfo {
        sequence: 7,
        epoch: 0x0203,
        volume: VOLUME,
        time: manifest::time_of(1_000_000_001),
    };
    Manifest { info, table: table.into() }
}

fn plain_of(kind: Kind, sealed: &[u8]) -> Vec<u8> {
    envelope::open(kind, sealed).unwrap().0
}

#[test]
fn a_manifest_is_golden() {
    let (sealed, _) = sample().encode().unwrap();
    let mut expected =
        b"\x07\0\0\0\0\0\0\0\x01\xca\x9a\x3b\0\0\0\0volume-of-tests!\x03\x02\0\0\0\0\0\0\
        \x02\0\0\0\0\0\0\0"
            .to_vec();
    // Head, dataset 1, objects from 4096; two pieces.
    expected.extend_from_slice(b"\0\0\0\0\x01\0\0\0\0\0\0\x10\0\x02\0\0\0");
    for n in [1_u8, 2] {
        expected.extend_from_slice(&[n; 32]);
        expected.extend_from_slice(&[0xe8, 3, 0, 0, n, 0, 0, 0]);
    }
    expected.extend_from_slice(b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0");
    expected.extend_from_slice(&[3; 32]);
    expected.extend_from_slice(&[0xe8, 3, 0, 0, 3, 0, 0, 0]);
    assert_eq!(plain_of(MANIFEST, &sealed), expected);
    assert_eq!(Manifest::decode(&sealed).unwrap().0, sample());
    assert_eq!(manifest::key(7), "namespace/manifests/0000000000000007");
}

#[test]
fn a_piece_is_golden() {
    let mut cutter = Cutter::new(SMALL.pieces);
    assert!(cutter.push(b"key", b"value").unwrap().is_none());
    assert!(cutter.push(b"kez", b"").unwrap().is_none());
    let piece = cutter.finish().unwrap().unwrap();
    let plain = plain_of(PIECE, &piece.sealed);
    assert_eq!(plain, b"\x03\0\x05\0\0\0keyvalue\x03\0\0\0\0\0kez");
    let bucket = Bucket::of(Space::Meta, b"key");
    let records = piece::open(&piece.sealed, &piece.name, bucket).unwrap();
    assert_eq!(records.len(), 2);
    assert!(piece::open(&piece.sealed, &piece.name, Bucket::of(Space::Meta, b"x")).is_ok());
    let elsewhere = Bucket::of(Space::Head, &head_key(5000, 1));
    assert!(piece::open(&piece.sealed, &piece.name, elsewhere).is_err(), "keys out of place");
}

#[test]
fn keys_must_grow_and_be_counted() {
    let bucket = Bucket::of(Space::Meta, b"");
    let open = |plain: &[u8], records| {
        let (sealed, digest) = envelope::seal(PIECE, plain).unwrap();
        let stored_len = sealed.len() as u32;
        piece::open(&sealed, &PieceRef { digest, stored_len, records }, bucket)
    };
    assert!(open(b"\x01\0\0\0\0\0a\x01\0\0\0\0\0b", 2).is_ok());
    assert!(open(b"\x01\0\0\0\0\0b\x01\0\0\0\0\0a", 2).is_err());
    assert!(open(b"\x01\0\0\0\0\0a\x01\0\0\0\0\0a", 2).is_err());
    assert!(open(b"\x01\0\0\0\0\0a", 2).is_err());
    assert!(open(b"\x01\0\xff\xff\xff\xffa", 1).is_err());
    assert!(open(b"\xff\xff\0\0\0\0a", 1).is_err());
}

proptest! {
    #[test]
    fn changed_manifests_never_panic(at in 0..200_usize, byte: u8, cut in 0..220_usize) {
        let mut plain = plain_of(MANIFEST, &sample().encode().unwrap().0);
        let at = at % plain.len();
        plain[at] = byte;
        plain.truncate(cut.max(1));
        let (sealed, _) = envelope::seal(MANIFEST, &plain).unwrap();
        if let Ok((manifest, _)) = Manifest::decode(&sealed) {
            let (again, _) = manifest.encode().unwrap();
            prop_assert_eq!(Manifest::decode(&again).unwrap().0, manifest);
        }
    }

    #[test]
    fn random_pieces_never_panic(plain in proptest::collection::vec(0..4_u8, 0..60)) {
        let (sealed, digest) = envelope::seal(PIECE, &plain).unwrap();
        let name = PieceRef { digest, stored_len: sealed.len() as u32, records: 1 };
        let _ = piece::open(&sealed, &name, Bucket::of(Space::Meta, b""));
    }

    #[test]
    fn a_base_note_comes_back_or_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let base = Base { sequence: 9, time: manifest::time_of(77), digest: [5; 32] };
        prop_assert_eq!(Base::decode(&base.encode()), Some(base));
        let _ = Base::decode(&bytes);
    }
}
