//! What a receiver says about where a cut stream is to go on.

use std::fmt;
use std::str::FromStr;

use super::Guid;
use crate::namespace::{Position, Reader};

const VERSION: u8 = 1;
const CHECK_LEN: usize = 4;

/// Where a stream goes on. Its text is what people hand from the receiver to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    /// The snapshot that is sent.
    pub to: Guid,
    /// The base.
    pub from: Option<Guid>,
    /// Everything before is received.
    pub position: Position,
}

/// Text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a resume token: {0}")]
pub struct TokenError(&'static str);

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION, u8::from(self.from.is_some())];
        bytes.extend_from_slice(&self.to.0);
        bytes.extend(self.from.iter().flat_map(|from| from.0));
        self.position.put(&mut bytes);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_LEN]);
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ResumeToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !text.len().is_multiple_of(2)
            || text.len() > 256
            || !text.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(TokenError("it is not hexadecimal"));
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
        let bytes: Vec<u8> =
            text.as_bytes().chunks_exact(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect();
        let (bytes, check) =
            bytes.split_last_chunk::<CHECK_LEN>().ok_or(TokenError("it is cut short"))?;
        if blake3::hash(bytes).as_bytes()[..CHECK_LEN] != *check {
            return Err(TokenError("its checksum differs"));
        }
        Self::read(bytes).ok_or(TokenError("it is of a later version"))
    }
}

impl ResumeToken {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new("token", bytes);
        reader.version(VERSION).ok()?;
        let has_from = match reader.u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut guid = || Some(Guid(reader.bytes(16).ok()?.try_into().ok()?));
        let to = guid()?;
        let from = if has_from { Some(guid()?) } else { None };
        let position = Position::read(&mut reader).ok()?;
        reader.end().ok()?;
        Some(Self { to, from, position })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::namespace::Stage;

    #[test]
    fn a_token_survives_its_text_and_nothing_else_does() {
        let position = Position { stage: Stage::Objects, object: 77, sub: 3 };
        for from in [None, Some(Guid([9; 16]))] {
            let token = ResumeToken { to: Guid([1; 16]), from, position };
            let text = token.to_string();
            assert_eq!(text.parse::<ResumeToken>().unwrap(), token);
            for at in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'0' { b'1' } else { b'0' };
                let other = String::from_utf8(other).unwrap();
                assert!(other.parse::<ResumeToken>().is_err(), "{other}");
                assert!(text[..at].parse::<ResumeToken>().is_err());
            }
        }
    }
}
