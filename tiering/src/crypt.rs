//! Encryption of what leaves the machine: keys, sealed chunks, and the wrapped key that is stored.
//! This module and those below it are the only ones that name a cipher. Bytes are specified in
//! `tiering/FORMAT.md`, "Encryption".
//!
//! *Keys*: each volume has one [`DataKey`] of 256 random bits, which never changes and is never
//! stored but wrapped ([`WrappedKey`]) under a [`Secret`] that its owner keeps elsewhere. Every
//! object has a key of its own, derived from the data key, a random salt and the object's name, so
//! that a chunk opens in no other object, at no other place and for no other volume.
//! *Nonces* count the chunks under a key that is used for one object once; none ever repeats.
//! *Secrets* are wiped when they are dropped, and show nothing when they are printed.

mod chunk;
mod secret;
mod stream;
#[cfg(test)]
mod tests;
mod wrap;

pub use chunk::{CHUNK_LEN, SEALED_CHUNK_LEN, Sealer, open, plain_len, seal, sealed_len};
pub use secret::{DataKey, MAX_SECRET_LEN, Secret};
pub use stream::{OpenedReader, STREAM_MAGIC, SealedWriter};
pub use wrap::{Derivation, Generation, MAX_WRAPPED_LEN, WrappedKey};

use crate::error::{Error, Result};

/// Fills `bytes` by the system's generator.
fn random(bytes: &mut [u8]) -> Result<()> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| Error::Config("the system gives no random numbers".into()))
}
