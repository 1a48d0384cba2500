//! That nothing opens but what was sealed, where it was sealed, and that wrapped keys open to their
//! secrets alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};

use super::*;

const CHUNK: usize = CHUNK_LEN as usize;
const SEALED: usize = SEALED_CHUNK_LEN as usize;

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes(&[byte; 32])
}

fn plain(len: usize) -> Vec<u8> {
    let mut plain = vec![0; len];
    blake3::Hasher::new().update(b"plain").finalize_xof().fill(&mut plain);
    plain
}

fn whole(name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    open(&key(1), name, 0, sealed.to_vec(), true)
}

#[track_caller]
fn refused(result: Result<Vec<u8>>, why: &str) {
    match result {
        Err(Error::Damaged { reason, .. }) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{:?} bytes instead of: {why}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn what_was_sealed_opens_and_its_lengths_are_known() {
    for len in [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 77] {
        let sealed = seal(&key(1), "a/b", &plain(len)).unwrap();
        assert_eq!(sealed.len() as u64, sealed_len(len as u64));
        assert_eq!(plain_len(sealed.len() as u64), len as u64);
        assert!(whole("a/b", &sealed).unwrap() == plain(len), "{len} bytes came out different");
        assert_ne!(seal(&key(1), "a/b", &plain(len)).unwrap(), sealed, "each salt is new");
    }
    assert_eq!(sealed_len(u64::MAX), u64::MAX, "nothing overflows");
}

#[test]
fn no_flipped_bit_is_overlooked() {
    let sealed = seal(&key(1), "small", &plain(50)).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut wrong = sealed.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        refused(whole("small", &wrong), "");
        let (data, name) = (key(1), "small");
        refused(open(&data, name, 0, wrong, false), "");
    }
}

#[test]
fn chunks_stay_where_they_were() {
    let sealed = seal(&key(1), "k", &plain(3 * CHUNK + 9)).unwrap();
    let chunks: Vec<&[u8]> = sealed.chunks(SEALED).collect();
    let other = seal(&key(1), "k", &plain(3 * CHUNK + 9)).unwrap();
    let twin: Vec<&[u8]> = other.chunks(SEALED).collect();
    let of = |order: &[&[u8]]| whole("k", &order.concat());
    of(&chunks).unwrap();
    refused(of(&[chunks[1], chunks[0], chunks[2], chunks[3]]), "chunk 0 is not as it was");
    refused(of(&[chunks[0], chunks[2], chunks[1], chunks[3]]), "chunk 1 is not as it was");
    refused(of(&[chunks[0], chunks[0], chunks[2], chunks[3]]), "chunk 1 is not as it was");
    refused(of(&[chunks[0], chunks[2], chunks[3]]), "chunk 1 is not as it was");
    refused(of(&[chunks[0], twin[1], chunks[2], chunks[3]]), "chunk 1 is of another object");
    refused(of(&[chunks[0], chunks[1], chunks[2], twin[3]]), "chunk 3 is of another object");
    refused(of(&[chunks[3], chunks[0]]), "chunk 0");
    // In a part, too.
    let part = |first, bytes: &[u8]| open(&key(1), "k", first, bytes.to_vec(), false);
    assert!(part(1, chunks[1]).unwrap() == plain(3 * CHUNK + 9)[CHUNK..2 * CHUNK]);
    refused(part(2, chunks[1]), "chunk 2 is not as it was");
    refused(part(1, &[chunks[1], twin[2]].concat()), "chunk 2 is of another object");
}

#[test]
fn what_was_cut_off_or_added_to_is_noticed() {
    for len in [3 * CHUNK, 3 * CHUNK + 9] {
        let sealed = seal(&key(1), "k", &plain(len)).unwrap();
        let borders = (0..=len / CHUNK).map(|chunk| chunk * SEALED);
        let near = |at: usize| [at.saturating_sub(1), at, at + 1, at + 31, at + 48];
        for end in borders.flat_map(near).filter(|end| *end < sealed.len()) {
            refused(whole("k", &sealed[..end]), "");
        }
        for more in [1, 47, 48, 49, SEALED] {
            let mut longer = sealed.clone();
            longer.extend_from_slice(&sealed[..more]);
            refused(whole("k", &longer), "chunk");
        }
    }
    refused(whole("k", b""), "too short");
}

#[test]
fn objects_and_volumes_are_told_apart() {
    let sealed = seal(&key(1), "segments/1", &plain(100)).unwrap();
    refused(whole("segments/2", &sealed), "chunk 0 is not as it was");
    let other = open(&key(2), "segments/1", 0, sealed, true);
    refused(other, "was encrypted with another key");
    // Where only the plaintext is known to the attacker, its like is no object either.
    refused(whole("segments/1", &plain(1000)), "no known form");
}

#[test]
fn a_sealer_takes_each_chunk_in_its_place_only() {
    let mut sealer = Sealer::new(&key(1), "k").unwrap();
    let mut out = Vec::new();
    assert!(sealer.push(&plain(10), false, &mut out).is_err(), "short, and not the last");
    assert!(sealer.push(&plain(CHUNK + 1), true, &mut out).is_err(), "too long");
    sealer.push(&plain(10), true, &mut out).unwrap();
    assert!(sealer.push(&plain(10), true, &mut out).is_err(), "behind the last");
    assert_eq!(whole("k", &out).unwrap(), plain(10));
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec()).unwrap()
}

const CHEAP: Derivation = Derivation::Passphrase { memory_kib: 64, passes: 1, lanes: 1 };

fn wrapped(secret: &Secret, derivation: Derivation) -> WrappedKey {
    let wrapped = WrappedKey::wrap(&key(7), secret, Generation(3), [9; 16], derivation).unwrap();
    let read = WrappedKey::from_bytes(&wrapped.to_bytes().unwrap()).unwrap();
    assert_eq!(read, wrapped);
    assert_eq!((read.generation, read.volume), (Generation(3), [9; 16]));
    read
}

#[test]
fn a_wrapped_key_opens_to_its_secret_alone() {
    let digits = "0123456789abcdef".repeat(4);
    let of_digits = wrapped(&secret(&digits), Derivation::Key);
    for same in [digits.clone(), digits.to_uppercase(), format!("  {digits}\r\n")] {
        assert_eq!(of_digits.unwrap(&secret(&same)).unwrap().unwrap().bytes(), key(7).bytes());
    }
    let raw = Secret::new(b"\x01\x23\x45\x67\x89\xab\xcd\xef".repeat(4)).unwrap();
    assert!(of_digits.unwrap(&raw).unwrap().is_some(), "the same key as bytes");
    assert!(of_digits.unwrap(&secret(&"0".repeat(64))).unwrap().is_none());
    assert!(of_digits.unwrap(&secret("not a key")).is_err());

    let of_phrase = wrapped(&secret("correct horse battery\n"), CHEAP);
    assert!(of_phrase.unwrap(&secret("correct horse battery")).unwrap().is_some());
    assert!(of_phrase.unwrap(&secret("correct horse batterx")).unwrap().is_none());
    let short = WrappedKey::wrap(&key(7), &secret("secret"), Generation(1), [0; 16], CHEAP);
    assert!(short.is_err(), "too short for a passphrase");
    assert!(Secret::new(Vec::new()).is_err());
    assert!(Secret::new(vec![b'x'; MAX_SECRET_LEN + 1]).is_err());
}

#[test]
fn a_damaged_wrapped_key_is_no_wrong_secret() {
    let secret = secret(&"5".repeat(64));
    let bytes = wrapped(&secret, Derivation::Key).to_bytes().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let read = WrappedKey::from_bytes(&wrong);
        assert!(matches!(read, Err(Error::Damaged { .. })), "bit {bit}: {read:?}");
    }
    assert!(WrappedKey::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(WrappedKey::from_bytes(&vec![0; 5000]).is_err());
}

#[test]
fn what_a_derivation_may_cost_is_bounded() {
    for parts in [
        [1, (1 << 20) + 1, 1, 1],
        [1, 1 << 17, 17, 1],
        [1, 1 << 17, 0, 1],
        [1, 1 << 17, 1, 17],
        [1, 1 << 17, 1, 0],
        [1, 7, 1, 1],
        [1, 100, 1, 16],
        [0, 1, 0, 0],
        [2, 0, 0, 0],
    ] {
        assert!(matches!(Derivation::from_parts(parts), Err(Error::Damaged { .. })), "{parts:?}");
    }
    for derivation in [Derivation::Key, Derivation::PASSPHRASE, CHEAP] {
        assert_eq!(Derivation::from_parts(derivation.parts()).unwrap(), derivation);
    }
}

#[test]
fn generations_have_keys_that_sort() {
    assert_eq!(Generation(1).object_key(), "keys/0000000000000001");
    for number in [0, 1, 255, u64::MAX] {
        assert_eq!(
            Generation::from_key(&Generation(number).object_key()),
            Some(Generation(number))
        );
    }
    for other in ["keys/1", "keys/", "keys/000000000000000g", "keys/+00000000000000a", "x/1"] {
        assert_eq!(Generation::from_key(other), None, "{other}");
    }
    assert_eq!(Generation::from_key("keys/000000000000000A"), None, "one key for each");
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?} {:?} {:?}", secret("open sesame, will you"), key(0x41), {
        Sealer::new(&key(0x41), "k").unwrap()
    });
    assert!(!shown.contains("sesame") && !shown.contains("65") && !shown.contains("AAAA"));
}

fn streamed(plain: &[u8], step: usize) -> Vec<u8> {
    let secret = secret(&"5".repeat(64));
    let mut writer = SealedWriter::begin(Vec::new(), &secret, Derivation::Key).unwrap();
    plain.chunks(step).for_each(|part| writer.write_all(part).unwrap());
    writer.finish().unwrap()
}

fn read_stream(sealed: &[u8], digit: &str) -> std::io::Result<Option<Vec<u8>>> {
    let reader = OpenedReader::begin(sealed, &secret(&digit.repeat(64)));
    let Some(mut reader) = reader.map_err(std::io::Error::other)? else { return Ok(None) };
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map(|_| Some(plain))
}

#[test]
fn streams_are_opened_whole_or_not_to_their_end() {
    for len in [0, 1, CHUNK, 16 * CHUNK - 1, 16 * CHUNK, 16 * CHUNK + 1, 35 * CHUNK, 40 * CHUNK + 7]
    {
        let sealed = streamed(&plain(len), 10_007);
        assert!(read_stream(&sealed, "5").unwrap().unwrap() == plain(len), "{len} bytes");
        assert!(read_stream(&sealed, "6").unwrap().is_none(), "another secret");
        for end in [0, 10, 100, sealed.len() - SEALED.min(sealed.len()), sealed.len() - 1] {
            assert!(read_stream(&sealed[..end], "5").is_err(), "{end} of {}", sealed.len());
        }
        let longer = [&sealed[..], &sealed[sealed.len() - 48..]].concat();
        assert!(read_stream(&longer, "5").is_err());
    }
    // Cut where one chunk ends.
    let sealed = streamed(&plain(40 * CHUNK), 1 << 20);
    let body = sealed.len() - 40 * SEALED;
    for chunks in 0..40 {
        assert!(read_stream(&sealed[..body + chunks * SEALED], "5").is_err(), "{chunks}");
    }
    let other = streamed(&plain(40 * CHUNK), 1 << 20);
    let spliced = [&sealed[..body + 16 * SEALED], &other[body + 16 * SEALED..]].concat();
    assert!(read_stream(&spliced, "5").is_err());
    let small = streamed(&plain(10), 10);
    for bit in 0..small.len() * 8 {
        let mut wrong = small.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        // Reserved bytes say nothing.
        let is_reserved = (10..12).contains(&(bit / 8));
        assert_eq!(read_stream(&wrong, "5").is_ok(), is_reserved, "bit {bit}");
    }
}

/// The stored bytes are a promise: what is written today is read for ever.
#[test]
fn golden_bytes() {
    let salt: Vec<u8> = (0..24).collect();
    let mut sealer = Sealer::with_salt(&key(1), "segments/x.seg", &salt).unwrap();
    let mut sealed = Vec::new();
    sealer.push(b"snow", true, &mut sealed).unwrap();
    let salt: Vec<u8> = (0..32).collect();
    let secret = secret(&"5".repeat(64));
    let wrapped = [Derivation::Key, CHEAP].map(|derivation| {
        let (key, volume) = (key(7), [9; 16]);
        let wrapped =
            WrappedKey::wrap_with(&key, &secret, Generation(3), volume, derivation, &salt);
        hex(&wrapped.unwrap().to_bytes().unwrap())
    });
    assert_eq!([hex(&sealed), wrapped[0].clone(), wrapped[1].clone()], GOLDEN);
}

/// A stream of today is opened for ever.
#[test]
fn a_golden_stream_is_opened() {
    let stream: Vec<u8> = (0..GOLDEN_STREAM.len() / 2)
        .map(|at| u8::from_str_radix(&GOLDEN_STREAM[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    assert_eq!(read_stream(&stream, "5").unwrap().unwrap(), b"snow");
}

/// `snow`, under the secret of 64 times `5`.
const GOLDEN_STREAM: &str = "f15365616c640d0a01000000ba0000004649524e776b65790100010000000000980000000000000028b52ffd\
    2098cd0300240701003ed4f7714ba4c667c5b4adabcddc7ed69db495d9055fef82dc2546d65233691f27e7cb\
    6624fe7ed38fadfd60fb007d6813443198e4ff9abb75362d8a84ad069ab4104afc605008c9e2369cd32b4d75\
    71f8555ed49bddb462ed60602832648c7ff3a362c4f1548ab97f7ab3c4acbde4fb01001f8005d6cc8326f4f2\
    3054e42ff33d8e03d3af56730cd4e21413b9d2265ada5536dace010100008350e714e055f2819e7f39190105\
    6e99fa0da9800107b2c95403f4d788b224ccdb7b4455be993d3e8eedaa543dd556b1";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A chunk, and a key wrapped under a key and under a passphrase.
const GOLDEN: [&str; 3] = [
    "010100000ca075ce000102030405060708090a0b0c0d0e0f10111213141516178a667cf533185bd0d1b63fd0a44b31be6838e332",
    "4649524e776b65790100010000000000980000000000000028b52ffd2098ed03003407030009000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f35e40531c2eec7576c834bd261e6fc232dfe6a1d97eee2e6c83265f1f5ebd1ce1e5e901cbb29bb4a4bf1de59b098db0df5b809971b186846f7e723d05da498b7a3f02c95aed85f8569038788ca84598f03100088f43b6001284985b4a1377c021af36cc04e1cfac2a167bcda76d8102eb38863c75e99f968",
    "4649524e776b65790100010000000000980000000000000028b52ffd2098450400b4070300090100000040000000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fe7665b78185390e86251dc0035e2dcbb74b59136cedce965a5f05b4066984a205a6a14f4d352f27e69a55cba6e9bdaefe8288d347866653d378295e8c20d53acc11914e60a3015fcfc77e14722fdfb100400bb002b0183ce06d0061b5b46ff4e4ab248faf7805d6aa01e106599d127b8517f039b313c6decf35211",
];
