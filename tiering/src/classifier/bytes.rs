//! Reading stored numbers of models and samples: bounded, and never a value that arithmetic fears.

use crate::error::{Error, Result};

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| damaged("cut short".to_owned()))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Any number but infinities and NaN.
    pub(super) fn finite(&mut self) -> Result<f32> {
        let value = f32::from_le_bytes(self.array()?);
        if value.is_finite() { Ok(value) } else { Err(damaged(format!("the number {value}"))) }
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self) -> Result<f32> {
        let value = self.finite()?;
        if (0.0..=1.0).contains(&value) {
            Ok(value)
        } else {
            Err(damaged(format!("the share {value}")))
        }
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn end(&self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(damaged(format!("{more} bytes too many"))),
        }
    }
}

pub(super) fn damaged(reason: String) -> Error {
    Error::Damaged { what: "classifier", reason }
}

/// Appends a text of at most 255 bytes, cut at a character.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(255);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.push(len as u8);
    out.extend_from_slice(&text.as_bytes()[..len]);
}

/// The text that [`put_text`] wrote.
pub(super) fn take_text(input: &mut Reader<'_>) -> Result<String> {
    let len = usize::from(input.u8()?);
    let text = std::str::from_utf8(input.take(len)?);
    text.map(str::to_owned).map_err(|_| damaged("a text is not UTF-8".to_owned()))
}
