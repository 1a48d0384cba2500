//! Codecs: one cell in, one compressed cell out, and back.
//!
//! Every codec is called with a bounded output slice and with contexts that live as long as
//! their thread, since creating them costs more than compressing a cell. Decoding trusts nothing:
//! a stream that ends early, that holds more than it should or that is followed by anything is
//! damaged.

use std::cell::RefCell;
use std::io::{Read, Write};

use lz4_flex::block::CompressTable;
use zstd::zstd_safe::CParameter;

use super::Codec;
use crate::error::{Error, Result};

/// Contexts of one thread. Absent until first used.
#[derive(Default)]
struct Contexts {
    lz4: Option<CompressTable>,
    zstd_encoder: Option<ZstdEncoder>,
    zstd_decoder: Option<zstd::bulk::Decompressor<'static>>,
}

struct ZstdEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    level: u8,
    max_block_len: u32,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Bytes that the output slice of [`compress`] must have for a cell of `plain_len`, so that no
/// codec fails for want of room.
pub(super) fn bound(plain_len: usize) -> usize {
    lz4_flex::block::get_maximum_output_size(plain_len)
        .max(zstd::zstd_safe::compress_bound(plain_len))
}

/// Compresses `plain` to the front of `out` and returns the length; `None` when it did not come
/// out shorter than it was. `planes` says into how many runs of bytes with a distribution of
/// their own a filter has cut it.
pub(super) fn compress(
    codec: Codec,
    level: u8,
    planes: usize,
    plain: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let stored_len = match codec {
        Codec::None => None,
        Codec::Lz4 => CONTEXTS.with_borrow_mut(|contexts| {
            let table = contexts.lz4.get_or_insert_with(CompressTable::large);
            lz4_flex::block::compress_into_with_table(plain, out, table).ok()
        }),
        Codec::Zstd => CONTEXTS.with_borrow_mut(|contexts| {
            let plane_len = if planes > 1 { plain.len() / planes } else { 0 };
            let encoder = zstd_encoder(&mut contexts.zstd_encoder, level, plane_len)?;
            encoder.compress_to_buffer(plain, out).ok()
        }),
        Codec::Gzip => {
            let level = flate2::Compression::new(u32::from(level.clamp(1, 9)));
            let room = out.len();
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            let left = encoder.write_all(plain).and_then(|()| encoder.finish());
            left.ok().map(|left| room - left.len())
        }
        Codec::Bzip2 => {
            let level = bzip2::Compression::new(u32::from(level.clamp(1, 9)));
            let room = out.len();
            let mut encoder = bzip2::write::BzEncoder::new(out, level);
            let left = encoder.write_all(plain).and_then(|()| encoder.finish());
            left.ok().map(|left| room - left.len())
        }
    };
    stored_len.filter(|len| *len < plain.len())
}

/// The smallest limit that zstd accepts for its blocks (`ZSTD_BLOCKSIZE_MAX_MIN`).
const LEAST_ZSTD_BLOCK_LEN: usize = 1 << 10;

/// The thread's zstd compressor, set to `level`. `None` only when memory for it is refused; the
/// cell is then stored raw, which is always right.
///
/// zstd gives each of its blocks one entropy table. Left alone it makes a cell one block, and
/// the planes of a filtered cell, some nearly constant and some noise, share a table that suits
/// none of them; blocks as long as a plane gain 3 to 4 % on real arrays and cost no time.
fn zstd_encoder(
    slot: &mut Option<ZstdEncoder>,
    level: u8,
    plane_len: usize,
) -> Option<&mut zstd::bulk::Compressor<'static>> {
    let level = level.clamp(1, 19);
    let max_block_len = if plane_len == 0 { 0 } else { plane_len.max(LEAST_ZSTD_BLOCK_LEN) as u32 };
    let encoder = match slot {
        Some(encoder) => encoder,
        empty => {
            let compressor = zstd::bulk::Compressor::new(i32::from(level)).ok()?;
            empty.insert(ZstdEncoder { compressor, level: 0, max_block_len: 0 })
        }
    };
    if encoder.level != level {
        encoder.level = 0;
        let level_parameter = CParameter::CompressionLevel(i32::from(level));
        encoder.compressor.set_parameter(level_parameter).ok()?;
        // Zero leaves it to the level. Longer matches only make level 1 a tenth faster, at the
        // same ratio over the sample files.
        let min_match = if level == 1 { 7 } else { 0 };
        encoder.compressor.set_parameter(CParameter::MinMatch(min_match)).ok()?;
        encoder.level = level;
    }
    if encoder.max_block_len != max_block_len {
        encoder.compressor.set_parameter(CParameter::MaxBlockSize(max_block_len)).ok()?;
        encoder.max_block_len = max_block_len;
    }
    Some(&mut encoder.compressor)
}

/// Decompresses `stored` to exactly fill `out`.
pub(super) fn decompress(codec: Codec, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let plain_len = match codec {
        Codec::None => return Err(damaged(codec, "is shorter than its plaintext")),
        Codec::Lz4 => {
            lz4_flex::block::decompress_into(stored, out).map_err(|error| damaged(codec, error))?
        }
        Codec::Zstd => CONTEXTS.with_borrow_mut(|contexts| {
            let decoder = match &mut contexts.zstd_decoder {
                Some(decoder) => decoder,
                empty => empty.insert(
                    zstd::bulk::Decompressor::new().map_err(Error::io("making a zstd decoder"))?,
                ),
            };
            decoder.decompress_to_buffer(stored, out).map_err(|error| damaged(codec, error))
        })?,
        Codec::Gzip => read_exactly(codec, flate2::bufread::GzDecoder::new(stored), out)
            .map(|decoder| decoder.into_inner().is_empty())
            .and_then(|at_end| require_end(codec, at_end, out.len()))?,
        Codec::Bzip2 => read_exactly(codec, bzip2::bufread::BzDecoder::new(stored), out)
            .map(|decoder| decoder.into_inner().is_empty())
            .and_then(|at_end| require_end(codec, at_end, out.len()))?,
    };
    if plain_len == out.len() {
        Ok(())
    } else {
        Err(damaged(codec, format_args!("{plain_len} bytes came out of {}", out.len())))
    }
}

/// Fills `out` from `decoder` and makes sure that nothing is left in it.
fn read_exactly<R: Read>(codec: Codec, mut decoder: R, out: &mut [u8]) -> Result<R> {
    decoder.read_exact(out).map_err(|error| damaged(codec, error))?;
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(decoder),
        Ok(_) => Err(damaged(codec, "holds more than its plaintext length")),
        Err(error) => Err(damaged(codec, error)),
    }
}

fn require_end(codec: Codec, at_end: bool, plain_len: usize) -> Result<usize> {
    if at_end { Ok(plain_len) } else { Err(damaged(codec, "bytes follow the stream")) }
}

fn damaged(codec: Codec, reason: impl std::fmt::Display) -> Error {
    Error::Damaged { what: "cell", reason: format!("{codec}: {reason}") }
}
