//! An object as sealed chunks. Each says all that is needed to open it but its place: so a range
//! costs the chunks that it touches and no more.
//!
//! What is authenticated: every byte of a chunk, the object's name, its number, and whether it is
//! the last. So no chunk can be changed, moved, swapped, left out or added without being noticed by
//! whoever reads it; an object that was cut at the end of a chunk is noticed by whoever reads its
//! end. What is not: which of two objects that were stored under one name one after the other it is.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{DataKey, random};
use crate::error::{Error, Result};

/// Bytes of plaintext in each chunk but the last: a flipped bit costs its chunk, which the parity of a
/// segment must be able to bear, and a short read costs little more than it asks for.
pub const CHUNK_LEN: u64 = 16 << 10;

const VERSION: u8 = 1;

const VERSION_AT: usize = 0;
const FLAGS_AT: usize = VERSION_AT + 1;
const RESERVED_AT: usize = FLAGS_AT + 1;
const KEY_ID_AT: usize = RESERVED_AT + 2;
const SALT_AT: usize = KEY_ID_AT + 4;
const HEAD_LEN: usize = SALT_AT + 24;
const TAG_LEN: usize = 16;

/// What a chunk takes beside its plaintext.
const OVERHEAD: u64 = (HEAD_LEN + TAG_LEN) as u64;

/// Bytes of each chunk but the last as it is stored.
pub const SEALED_CHUNK_LEN: u64 = CHUNK_LEN + OVERHEAD;

/// Flag: nothing comes after this chunk.
const LAST: u8 = 1;

/// Stored bytes of so much plaintext. Even nothing is one chunk.
pub fn sealed_len(plain: u64) -> u64 {
    plain.saturating_add(plain.div_ceil(CHUNK_LEN).max(1).saturating_mul(OVERHEAD))
}

/// Plaintext bytes of an object of this stored length. One that no object of ours has is taken for
/// what is left of one that was cut.
pub fn plain_len(sealed: u64) -> u64 {
    let rest = sealed % SEALED_CHUNK_LEN;
    sealed / SEALED_CHUNK_LEN * CHUNK_LEN + rest.saturating_sub(OVERHEAD)
}

fn damaged(name: &str, why: impl std::fmt::Display) -> Error {
    Error::Damaged { what: "encrypted object", reason: format!("{name}: {why}") }
}

/// One object's key, and what its chunks begin with.
struct ObjectKey {
    key: LessSafeKey,
    head: [u8; HEAD_LEN],
}

impl ObjectKey {
    fn new(data: &DataKey, name: &str, salt: &[u8]) -> Result<Self> {
        let mut head = [0; HEAD_LEN];
        head[VERSION_AT] = VERSION;
        head[KEY_ID_AT..SALT_AT].copy_from_slice(&data.id());
        head[SALT_AT..].copy_from_slice(salt);
        let key = UnboundKey::new(&AES_256_GCM, data.of_object(salt, name).as_slice());
        let key = key.map_err(|_| Error::Config("a key of 32 bytes was refused".into()))?;
        Ok(Self { key: LessSafeKey::new(key), head })
    }

    fn head(&self, is_last: bool) -> [u8; HEAD_LEN] {
        let mut head = self.head;
        head[FLAGS_AT] = if is_last { LAST } else { 0 };
        head
    }
}

fn nonce(index: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals one object, chunk by chunk, each once.
pub struct Sealer {
    object: ObjectKey,
    index: u64,
    is_done: bool,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({} chunks)", self.index)
    }
}

impl Sealer {
    /// Begins an object, with a salt of its own.
    pub fn new(data: &DataKey, name: &str) -> Result<Self> {
        let mut salt = [0; HEAD_LEN - SALT_AT];
        random(&mut salt)?;
        Self::with_salt(data, name, &salt)
    }

    pub(super) fn with_salt(data: &DataKey, name: &str, salt: &[u8]) -> Result<Self> {
        Ok(Self { object: ObjectKey::new(data, name, salt)?, index: 0, is_done: false })
    }

    /// Appends the next chunk to `out`: [`CHUNK_LEN`] bytes, or what is left in the last.
    pub fn push(&mut self, plain: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<()> {
        let len = plain.len() as u64;
        if self.is_done || len > CHUNK_LEN || (!is_last && len != CHUNK_LEN) {
            return Err(Error::Config(format!("no chunk to be sealed: {len} bytes")));
        }
        let head = self.object.head(is_last);
        out.extend_from_slice(&head);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.object.key.seal_in_place_separate_tag(
            nonce(self.index, is_last),
            Aad::from(head),
            &mut out[start..],
        );
        let tag = tag.map_err(|_| Error::Config("a chunk could not be encrypted".into()))?;
        out.extend_from_slice(tag.as_ref());
        self.index += 1;
        self.is_done = is_last;
        Ok(())
    }
}

/// A whole object, sealed.
pub fn seal(data: &DataKey, name: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let mut sealer = Sealer::new(data, name)?;
    let mut out = Vec::with_capacity(sealed_len(plain.len() as u64) as usize);
    let mut rest = plain;
    loop {
        let (chunk, behind) = rest.split_at(rest.len().min(CHUNK_LEN as usize));
        sealer.push(chunk, behind.is_empty(), &mut out)?;
        if behind.is_empty() {
            return Ok(out);
        }
        rest = behind;
    }
}

/// Opens the chunks of an object from number `first` on, in place; with `to_end`, they must reach
/// its end.
pub fn open(
    data: &DataKey,
    name: &str,
    first: u64,
    mut sealed: Vec<u8>,
    to_end: bool,
) -> Result<Vec<u8>> {
    let salt = sealed.get(SALT_AT..HEAD_LEN).ok_or_else(|| damaged(name, "it is too short"))?;
    let object = ObjectKey::new(data, name, salt)?;
    let (mut from, mut to, mut index) = (0, 0, first);
    let all = sealed.len();
    while from < all {
        let end = all.min(from + SEALED_CHUNK_LEN as usize);
        let chunk = &mut sealed[from..end];
        let is_last = is_last(&object, data, name, index, chunk)?;
        if is_last && end < all {
            return Err(damaged(name, format_args!("chunk {index} is not where it belongs")));
        }
        let (head, body) = chunk.split_at_mut(HEAD_LEN);
        let opened = object.key.open_in_place(nonce(index, is_last), Aad::from(&*head), body);
        let len = match opened {
            Ok(plain) => plain.len(),
            Err(_) => {
                let why = format_args!("chunk {index} is not as it was encrypted");
                return Err(damaged(name, why));
            }
        };
        sealed.copy_within(from + HEAD_LEN..from + HEAD_LEN + len, to);
        (from, to) = (end, to + len);
        if to_end && end == all && !is_last {
            return Err(damaged(name, "its end is missing"));
        }
        index += 1;
    }
    sealed.truncate(to);
    Ok(sealed)
}

/// Looks at the head of a chunk, and whether it has a length that it can have.
fn is_last(
    object: &ObjectKey,
    data: &DataKey,
    name: &str,
    index: u64,
    chunk: &[u8],
) -> Result<bool> {
    let len = chunk.len() as u64;
    let Some(head) = chunk.get(..HEAD_LEN).filter(|_| len >= OVERHEAD) else {
        return Err(damaged(name, format_args!("chunk {index} is cut off")));
    };
    if head[VERSION_AT] != VERSION {
        let version = head[VERSION_AT];
        return Err(damaged(name, format_args!("chunk {index} is of no known form: {version}")));
    }
    if head[KEY_ID_AT..SALT_AT] != data.id() {
        return Err(damaged(name, format_args!("chunk {index} was encrypted with another key")));
    }
    let is_last = head[FLAGS_AT] == LAST;
    if *head != object.head(is_last) {
        return Err(damaged(name, format_args!("chunk {index} is of another object")));
    }
    let fits = match is_last {
        true => len > OVERHEAD || index == 0,
        false => len == SEALED_CHUNK_LEN,
    };
    if !fits {
        return Err(damaged(name, format_args!("chunk {index} is cut off")));
    }
    Ok(is_last)
}
