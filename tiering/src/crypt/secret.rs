//! What must stay secret: the key of a volume, and what its owner keeps to unlock it.

use zeroize::{Zeroize, Zeroizing};

use super::random;
use crate::error::{Error, Result};

/// Bytes in the longest secret that is read.
pub const MAX_SECRET_LEN: usize = 4096;

/// Characters that a passphrase must have to wrap a key.
const LEAST_PASSPHRASE: usize = 12;

/// What the owner of a volume keeps: a key, or a passphrase.
pub struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// What a file, a variable or a command gave.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let secret = Self(Zeroizing::new(bytes));
        match secret.0.len() {
            0 => Err(Error::Config("it is empty".into())),
            len if len > MAX_SECRET_LEN => {
                Err(Error::Config(format!("it is longer than {MAX_SECRET_LEN} bytes")))
            }
            _ => Ok(secret),
        }
    }

    /// As a key: 32 bytes, or 64 hexadecimal digits and perhaps the end of a line.
    pub(super) fn key(&self) -> Result<Zeroizing<[u8; 32]>> {
        let mut key = Zeroizing::new([0; 32]);
        if self.0.len() == key.len() {
            key.copy_from_slice(&self.0);
            return Ok(key);
        }
        let digits = self.0.trim_ascii();
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        if digits.len() == 2 * key.len() {
            let mut pairs = digits.chunks_exact(2).zip(key.iter_mut());
            if pairs.all(|(pair, byte)| match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = high << 4 | low;
                    true
                }
                _ => false,
            }) {
                return Ok(key);
            }
        }
        Err(Error::Config("is neither 32 bytes nor 64 hexadecimal digits".into()))
    }

    /// As a passphrase: all of it but the end of its line.
    pub(super) fn passphrase(&self) -> &[u8] {
        let bytes = self.0.strip_suffix(b"\n").unwrap_or(self.0.as_slice());
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }

    /// Refuses a passphrase that would be guessed at once.
    pub(super) fn check_passphrase(&self) -> Result<()> {
        if self.passphrase().len() < LEAST_PASSPHRASE {
            return Err(Error::Config(format!(
                "has fewer than {LEAST_PASSPHRASE} characters, too few for a passphrase"
            )));
        }
        Ok(())
    }
}

/// The key of a volume.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// A new key.
    pub fn random() -> Result<Self> {
        let mut key = Self(Zeroizing::new([0; 32]));
        random(key.0.as_mut_slice())?;
        Ok(key)
    }

    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What tells this key from others and says nothing of it.
    pub fn id(&self) -> [u8; 4] {
        let mut id = [0; 4];
        let mut hasher = blake3::Hasher::new_derive_key("firn 2026 id of a data key");
        hasher.update(self.0.as_slice()).finalize_xof().fill(&mut id);
        hasher.zeroize();
        id
    }

    /// The key of one object: `salt` was made for it alone.
    pub(super) fn of_object(&self, salt: &[u8], name: &str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("firn 2026 key of an object");
        hasher.update(self.0.as_slice()).update(salt).update(name.as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        hasher.finalize_xof().fill(key.as_mut_slice());
        hasher.zeroize();
        key
    }
}
