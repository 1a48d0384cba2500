//! The key of a volume as it is stored: wrapped under what its owner keeps. Bytes: `FORMAT.md`,
//! "Wrapped key".
//!
//! A secret is told to be the wrong one by a check value, before anything is decrypted; so a wrong
//! key and a damaged object are different errors. Stored parameters are bounded before they cost
//! memory or time.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

use super::{DataKey, Secret, random};
use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

const KIND: Kind =
    Kind { tag: *b"wkey", name: "wrapped key", version: 1, max_plain_len: PLAIN_LEN };

const GENERATION_AT: usize = 0;
const VOLUME_AT: usize = GENERATION_AT + 8;
const DERIVATION_AT: usize = VOLUME_AT + 16;
const MEMORY_AT: usize = DERIVATION_AT + 4;
const PASSES_AT: usize = MEMORY_AT + 4;
const LANES_AT: usize = PASSES_AT + 4;
const SALT_AT: usize = LANES_AT + 4;
const CHECK_AT: usize = SALT_AT + 32;
const KEY_AT: usize = CHECK_AT + 32;
const PLAIN_LEN: usize = KEY_AT + 32 + 16;

/// Bytes in the longest wrapped key that is believed.
pub const MAX_WRAPPED_LEN: u64 = 4096;

/// Bounds of what a stored derivation may cost: 1 GiB, 16 passes.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

/// What a new passphrase costs: 128 MiB three times over, about half a second; more memory than
/// RFC 9106 asks of a machine that has other work.
const MEMORY_KIB: u32 = 128 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// Which wrapping of a volume's key it is: each rotation makes the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    /// Prefix of the objects of wrapped keys.
    pub const PREFIX: &'static str = "keys/";

    /// The object that holds it.
    pub fn object_key(self) -> String {
        format!("{}{:016x}", Self::PREFIX, self.0)
    }

    /// The generation that an object's key names.
    pub fn from_key(key: &str) -> Option<Self> {
        let digits = key.strip_prefix(Self::PREFIX)?;
        let number = u64::from_str_radix(digits, 16).ok().map(Self)?;
        (number.object_key() == key).then_some(number)
    }
}

/// How the key that wraps comes from a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// The secret is a key of 256 random bits.
    Key,
    /// The secret is a passphrase, made expensive to guess by Argon2id.
    Passphrase {
        /// Memory of one guess, in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

impl Derivation {
    /// What a new passphrase gets.
    pub const PASSPHRASE: Self =
        Self::Passphrase { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };

    /// Number and parameters as they are stored.
    pub(super) fn parts(self) -> [u32; 4] {
        match self {
            Self::Key => [0; 4],
            Self::Passphrase { memory_kib, passes, lanes } => [1, memory_kib, passes, lanes],
        }
    }

    pub(super) fn from_parts(parts: [u32; 4]) -> Result<Self> {
        match parts {
            [0, 0, 0, 0] => Ok(Self::Key),
            [1, memory_kib, passes, lanes]
                if (1..=MOST_LANES).contains(&lanes)
                    && (8 * lanes..=MOST_MEMORY_KIB).contains(&memory_kib)
                    && (1..=MOST_PASSES).contains(&passes) =>
            {
                Ok(Self::Passphrase { memory_kib, passes, lanes })
            }
            [number, ..] => Err(Error::Damaged {
                what: KIND.name,
                reason: format!("derivation {number} with these parameters is unknown"),
            }),
        }
    }
}

/// A wrapped key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which wrapping.
    pub generation: Generation,
    /// Whose key.
    pub volume: [u8; 16],
    /// How the secret unwraps it.
    pub derivation: Derivation,
    plain: [u8; PLAIN_LEN],
}

impl WrappedKey {
    /// Wraps `data` under `secret`.
    pub fn wrap(
        data: &DataKey,
        secret: &Secret,
        generation: Generation,
        volume: [u8; 16],
        derivation: Derivation,
    ) -> Result<Self> {
        let mut salt = [0; CHECK_AT - SALT_AT];
        random(&mut salt)?;
        Self::wrap_with(data, secret, generation, volume, derivation, &salt)
    }

    pub(super) fn wrap_with(
        data: &DataKey,
        secret: &Secret,
        generation: Generation,
        volume: [u8; 16],
        derivation: Derivation,
        salt: &[u8],
    ) -> Result<Self> {
        if derivation != Derivation::Key {
            secret.check_passphrase()?;
        }
        let mut plain = [0; PLAIN_LEN];
        plain[GENERATION_AT..VOLUME_AT].copy_from_slice(&generation.0.to_le_bytes());
        plain[VOLUME_AT..DERIVATION_AT].copy_from_slice(&volume);
        for (part, at) in derivation.parts().iter().zip((DERIVATION_AT..SALT_AT).step_by(4)) {
            plain[at..at + 4].copy_from_slice(&part.to_le_bytes());
        }
        plain[SALT_AT..CHECK_AT].copy_from_slice(salt);
        let (key, check) = derive(secret, derivation, salt)?;
        plain[CHECK_AT..KEY_AT].copy_from_slice(check.as_slice());
        let (head, body) = plain.split_at_mut(KEY_AT);
        let (sealed, tag) = body.split_at_mut(32);
        sealed.copy_from_slice(data.bytes());
        let made = key.seal_in_place_separate_tag(nonce(), Aad::from(&*head), sealed);
        let made = made.map_err(|_| Error::Config("the key could not be wrapped".into()))?;
        tag.copy_from_slice(made.as_ref());
        Ok(Self { generation, volume, derivation, plain })
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Result<Bytes> {
        envelope::seal(KIND, &self.plain).map(|(bytes, _)| bytes)
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_WRAPPED_LEN {
            let reason = format!("{} bytes are too many", bytes.len());
            return Err(Error::Damaged { what: KIND.name, reason });
        }
        let (plain, ..) = envelope::open(KIND, bytes)?;
        let plain: [u8; PLAIN_LEN] = plain.try_into().map_err(|plain: Vec<u8>| {
            let reason = format!("{} bytes are in it", plain.len());
            Error::Damaged { what: KIND.name, reason }
        })?;
        let number = |at: usize| {
            u32::from_le_bytes([plain[at], plain[at + 1], plain[at + 2], plain[at + 3]])
        };
        let [kind, memory, passes, lanes] =
            [DERIVATION_AT, MEMORY_AT, PASSES_AT, LANES_AT].map(number);
        let derivation = Derivation::from_parts([kind, memory, passes, lanes])?;
        let low = u64::from(number(GENERATION_AT));
        let generation = Generation(u64::from(number(GENERATION_AT + 4)) << 32 | low);
        let mut volume = [0; 16];
        volume.copy_from_slice(&plain[VOLUME_AT..DERIVATION_AT]);
        Ok(Self { generation, volume, derivation, plain })
    }

    /// The key, or `None` when `secret` is not the one.
    pub fn unwrap(&self, secret: &Secret) -> Result<Option<DataKey>> {
        let salt = &self.plain[SALT_AT..CHECK_AT];
        let (key, check) = derive(secret, self.derivation, salt)?;
        if blake3::Hash::from_bytes(*check) != self.plain[CHECK_AT..KEY_AT] {
            return Ok(None);
        }
        let mut sealed = Zeroizing::new([0; PLAIN_LEN - KEY_AT]);
        sealed.copy_from_slice(&self.plain[KEY_AT..]);
        let head = Aad::from(&self.plain[..KEY_AT]);
        let opened = key.open_in_place(nonce(), head, sealed.as_mut_slice());
        let data = opened.ok().and_then(|plain| <&[u8; 32]>::try_from(&*plain).ok());
        match data {
            Some(data) => Ok(Some(DataKey::from_bytes(data))),
            None => {
                let reason = "it is not as it was wrapped".to_owned();
                Err(Error::Damaged { what: KIND.name, reason })
            }
        }
    }
}

/// The key that wraps is used once, for the salt is random.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The key that wraps, and what tells that it is the right one.
fn derive(
    secret: &Secret,
    derivation: Derivation,
    salt: &[u8],
) -> Result<(LessSafeKey, Zeroizing<[u8; 32]>)> {
    let root = match derivation {
        Derivation::Key => secret.key()?,
        Derivation::Passphrase { memory_kib, passes, lanes } => {
            let failed = |error| Error::Config(format!("deriving a key: {error}"));
            let mut root = Zeroizing::new([0; 32]);
            let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(secret.passphrase(), salt, root.as_mut_slice())
                .map_err(failed)?;
            root
        }
    };
    let part = |context: &str| {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(root.as_slice()).update(salt);
        let mut part = Zeroizing::new([0; 32]);
        hasher.finalize_xof().fill(part.as_mut_slice());
        hasher.zeroize();
        part
    };
    let key = part("firn 2026 key that wraps");
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice());
    let key = key.map_err(|_| Error::Config("a key of 32 bytes was refused".into()))?;
    Ok((LessSafeKey::new(key), part("firn 2026 check of a key that wraps")))
}
