//! What somebody asks of the encoder for the blocks that are written from then on.

use std::fmt;
use std::str::FromStr;

use super::Codec;

/// The smallest and the largest level of zstd that can be asked for.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// The level of `zstd` without one.
const ZSTD_USUAL: u8 = 3;

/// How blocks are to be compressed. A block that does not shrink is stored raw under all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Compression(u8);

impl Compression {
    /// What the encoder finds best for each block.
    pub const AUTO: Self = Self(0);
    /// Every block raw.
    pub const OFF: Self = Self(1);
    /// lz4, behind a filter where one clearly helps.
    pub const LZ4: Self = Self(2);
    /// zstd at its usual level, behind a filter where one clearly helps.
    pub const ZSTD: Self = Self(3);

    /// Level 1 of zstd is this number more.
    const LEVELS: u8 = 16;

    /// zstd at a level from 1 to 19.
    pub fn zstd(level: u8) -> Option<Self> {
        ZSTD_LEVELS.contains(&level).then(|| Self(Self::LEVELS + level))
    }

    /// The stored form.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// The one with this stored form.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0..=3 => Some(Self(byte)),
            _ => Self::zstd(byte.checked_sub(Self::LEVELS)?),
        }
    }

    /// The codec and the level that it names; `None` where the encoder chooses.
    pub(super) fn fixed(self) -> Option<(Codec, u8)> {
        match self {
            Self::AUTO => None,
            Self::OFF => Some((Codec::None, 0)),
            Self::LZ4 => Some((Codec::Lz4, 0)),
            Self::ZSTD => Some((Codec::Zstd, ZSTD_USUAL)),
            Self(byte) => Some((Codec::Zstd, byte - Self::LEVELS)),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AUTO => f.write_str("auto"),
            Self::OFF => f.write_str("off"),
            Self::LZ4 => f.write_str("lz4"),
            Self::ZSTD => f.write_str("zstd"),
            Self(byte) => write!(f, "zstd-{}", byte - Self::LEVELS),
        }
    }
}

/// It names no compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of auto, off, lz4, zstd, and zstd-1 to zstd-19")]
pub struct UnknownCompression;

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "auto" => return Ok(Self::AUTO),
            "off" => return Ok(Self::OFF),
            "lz4" => return Ok(Self::LZ4),
            "zstd" => return Ok(Self::ZSTD),
            _ => {}
        }
        let level = text.strip_prefix("zstd-").filter(|level| !level.starts_with(['+', '0']));
        level.and_then(|level| Self::zstd(level.parse().ok()?)).ok_or(UnknownCompression)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_stored_form_reads_back_and_parses_back() {
        let known: Vec<Compression> = (0..=u8::MAX).filter_map(Compression::from_byte).collect();
        assert_eq!(known.len(), 4 + 19);
        for compression in known {
            assert_eq!(Compression::from_byte(compression.to_byte()), Some(compression));
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!(Compression::zstd(19).unwrap().to_byte(), 35);
    }

    #[test]
    fn nothing_else_parses() {
        for text in ["", "on", "zstd-0", "zstd-20", "zstd-", "zstd-01", "zstd-+1", "LZ4", "gzip"] {
            assert_eq!(text.parse::<Compression>(), Err(UnknownCompression), "{text}");
        }
    }
}
