//! How small things are kept as objects of their own: compressed, versioned, checksummed. The
//! layers above store namespace backups this way without naming a codec or a hash. Bytes are
//! specified in `tiering/FORMAT.md`, "Envelope".

use bytes::Bytes;

use crate::error::{Error, Result};

const MAGIC: [u8; 4] = *b"FIRN";
const MAGIC_AT: usize = 0;
const KIND_AT: usize = MAGIC_AT + 4;
const VERSION_AT: usize = KIND_AT + 4;
const CODEC_AT: usize = VERSION_AT + 2;
const RESERVED_AT: usize = CODEC_AT + 1;
const PLAIN_LEN_AT: usize = RESERVED_AT + 5;
const PAYLOAD_AT: usize = PLAIN_LEN_AT + 8;
const DIGEST_LEN: usize = 32;

const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// Level 3 is where zstd's curve bends for records of this kind.
const LEVEL: i32 = 3;

/// BLAKE3 over an envelope but for its last 32 bytes, which are this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeDigest(pub [u8; DIGEST_LEN]);

impl std::fmt::Display for EnvelopeDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which thing an envelope holds.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Four bytes that no other kind has.
    pub tag: [u8; 4],
    /// For messages.
    pub name: &'static str,
    /// The version that is written, and the newest that is read.
    pub version: u16,
    /// Plaintext bytes in the longest one.
    pub max_plain_len: usize,
}

/// Wraps `plain`.
pub fn seal(kind: Kind, plain: &[u8]) -> Result<(Bytes, EnvelopeDigest)> {
    if plain.len() > kind.max_plain_len {
        return Err(Error::Config(format!("{} of {} bytes is too long", kind.name, plain.len())));
    }
    let packed =
        zstd::bulk::compress(plain, LEVEL).ok().filter(|packed| packed.len() < plain.len());
    let (codec, payload) = match &packed {
        Some(packed) => (CODEC_ZSTD, packed.as_slice()),
        None => (CODEC_NONE, plain),
    };
    let mut out = Vec::with_capacity(PAYLOAD_AT + payload.len() + DIGEST_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&kind.tag);
    out.extend_from_slice(&kind.version.to_le_bytes());
    out.push(codec);
    out.extend_from_slice(&[0; PLAIN_LEN_AT - RESERVED_AT]);
    out.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    let digest = *blake3::hash(&out).as_bytes();
    out.extend_from_slice(&digest);
    Ok((out.into(), EnvelopeDigest(digest)))
}

/// Checks an envelope and unwraps what it holds, with the version it was written under.
pub fn open(kind: Kind, sealed: &[u8]) -> Result<(Vec<u8>, u16, EnvelopeDigest)> {
    let damaged = |reason: String| Error::Damaged { what: kind.name, reason };
    let body_len = sealed
        .len()
        .checked_sub(DIGEST_LEN)
        .filter(|&len| len >= PAYLOAD_AT)
        .ok_or_else(|| damaged(format!("{} bytes are too few", sealed.len())))?;
    let (body, stored) = sealed.split_at(body_len);
    let digest = *blake3::hash(body).as_bytes();
    if digest != stored {
        return Err(damaged("checksum does not match".to_owned()));
    }
    if body[MAGIC_AT..KIND_AT] != MAGIC || body[KIND_AT..VERSION_AT] != kind.tag {
        return Err(damaged("it is something else".to_owned()));
    }
    let version = u16::from_le_bytes([body[VERSION_AT], body[VERSION_AT + 1]]);
    if version > kind.version {
        let (found, known) = (u32::from(version), u32::from(kind.version));
        return Err(Error::TooNew { what: kind.name, found, known });
    }
    let mut len = [0; 8];
    len.copy_from_slice(&body[PLAIN_LEN_AT..PAYLOAD_AT]);
    let plain_len = usize::try_from(u64::from_le_bytes(len))
        .ok()
        .filter(|&len| len <= kind.max_plain_len)
        .ok_or_else(|| damaged("its length is out of bounds".to_owned()))?;
    let payload = &body[PAYLOAD_AT..];
    let plain = match body[CODEC_AT] {
        CODEC_NONE => payload.to_vec(),
        CODEC_ZSTD => zstd::bulk::decompress(payload, plain_len)
            .map_err(|error| damaged(format!("it does not decompress: {error}")))?,
        other => return Err(damaged(format!("unknown codec {other}"))),
    };
    if plain.len() != plain_len {
        return Err(damaged(format!("{} bytes came out instead of {plain_len}", plain.len())));
    }
    Ok((plain, version, EnvelopeDigest(digest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const KIND: Kind = Kind { tag: *b"test", name: "test", version: 3, max_plain_len: 1 << 20 };

    fn resealed(mut sealed: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let len = sealed.len() - DIGEST_LEN;
        change(&mut sealed[..len]);
        let digest = blake3::hash(&sealed[..len]);
        sealed[len..].copy_from_slice(digest.as_bytes());
        sealed
    }

    #[test]
    fn what_was_sealed_comes_out() {
        let mixed: Vec<u8> = blake3::hash(b"x").as_bytes().repeat(100);
        let random: Vec<u8> = {
            let mut out = vec![0; 5000];
            blake3::Hasher::new().finalize_xof().fill(&mut out);
            out
        };
        for plain in [&b""[..], b"a", &mixed, &random] {
            let (sealed, digest) = seal(KIND, plain).unwrap();
            assert_eq!(open(KIND, &sealed).unwrap(), (plain.to_vec(), 3, digest));
        }
        assert!(seal(KIND, &mixed).unwrap().0.len() < 200);
        assert!(seal(KIND, &vec![0; (1 << 20) + 1]).is_err());
    }

    #[test]
    fn the_bytes_are_golden() {
        let (sealed, digest) = seal(KIND, b"abc").unwrap();
        let header = b"FIRNtest\x03\x00\x00\0\0\0\0\0\x03\0\0\0\0\0\0\0abc";
        assert_eq!(&sealed[..header.len()], header);
        assert_eq!(&sealed[header.len()..], digest.0);
        assert_eq!(digest.0, *blake3::hash(header).as_bytes());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let (sealed, _) = seal(KIND, &b"frozen ".repeat(20)).unwrap();
        for at in 0..sealed.len() * 8 {
            let mut wrong = sealed.to_vec();
            wrong[at / 8] ^= 1 << (at % 8);
            assert!(open(KIND, &wrong).is_err(), "bit {at}");
        }
        for len in 0..sealed.len() {
            assert!(open(KIND, &sealed[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn checksummed_nonsense_is_refused_too() {
        let sealed = seal(KIND, &b"frozen ".repeat(20)).unwrap().0.to_vec();
        let set = |at: usize, byte: u8| resealed(sealed.clone(), |body| body[at] = byte);
        assert!(matches!(open(KIND, &set(VERSION_AT, 4)), Err(Error::TooNew { found: 4, .. })));
        for (at, byte) in [
            (MAGIC_AT, 0),
            (KIND_AT, 0),
            (CODEC_AT, 9),
            (CODEC_AT, CODEC_NONE),
            (PLAIN_LEN_AT, 139),
            (PLAIN_LEN_AT, 141),
            (PLAIN_LEN_AT + 7, 1),
            (PAYLOAD_AT, 0),
        ] {
            assert!(
                matches!(open(KIND, &set(at, byte)), Err(Error::Damaged { .. })),
                "{at} {byte}"
            );
        }
    }
}
