//! A damaged segment with what belongs there laid over it, as one run of bytes.

use std::io;

use super::bytes_at::{ReadAt, ZeroFilled};
use super::repair::Patch;

/// Bytes under patches, of which a later one hides an earlier one. Where nothing can be read and
/// no patch lies are zeros, which fail verification like any other damage.
pub struct Patched<'a, R: ?Sized> {
    bytes: &'a R,
    patches: &'a [Patch],
    len: u64,
}

impl<'a, R: ReadAt + ?Sized> Patched<'a, R> {
    /// `len` bytes of a segment: those of `bytes` under `patches`.
    pub fn new(bytes: &'a R, patches: &'a [Patch], len: u64) -> Self {
        Self { bytes, patches, len }
    }

    /// Fills `buf` with what lies from `offset` on; zeros behind the end.
    pub(super) fn fill(&self, buf: &mut [u8], offset: u64) {
        fill_from(self.bytes, buf, offset);
        self.lay_over(buf, offset);
    }

    /// Lays the patches over the bytes from `offset` on.
    fn lay_over(&self, buf: &mut [u8], offset: u64) {
        let end = offset + buf.len() as u64;
        for patch in self.patches {
            let patch_end = patch.offset + patch.bytes.len() as u64;
            let (from, to) = (patch.offset.max(offset), patch_end.min(end));
            if from < to {
                let part =
                    &patch.bytes[(from - patch.offset) as usize..(to - patch.offset) as usize];
                super::le::put(buf, (from - offset) as usize, part);
            }
        }
    }
}

/// Fills `buf` with what can be read, and with zeros elsewhere: page by page where it must be, so
/// that a bad sector hides no more than itself.
fn fill_from<R: ReadAt + ?Sized>(bytes: &R, buf: &mut [u8], offset: u64) {
    let end = offset + buf.len() as u64;
    let there = bytes.len().unwrap_or(0).min(end).saturating_sub(offset) as usize;
    if ZeroFilled::new(bytes).read_exact_at(&mut buf[..there], offset).is_err() {
        buf[..there].fill(0);
    }
    buf[there..].fill(0);
}

/// The sidecar of a segment by itself.
struct Sidecar<'a, R: ?Sized>(&'a R);

impl<R: ReadAt + ?Sized> ReadAt for Sidecar<'_, R> {
    fn len(&self) -> io::Result<u64> {
        self.0.sidecar_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_sidecar_at(buf, offset)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for Patched<'_, R> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.fill(buf, offset);
        Ok(())
    }

    /// Patches behind the end lie in the sidecar, which ends where the last of them does at least.
    fn sidecar_len(&self) -> io::Result<u64> {
        let ends = self.patches.iter().map(|patch| patch.offset + patch.bytes.len() as u64);
        let patched = ends.max().unwrap_or(0).saturating_sub(self.len);
        Ok(self.bytes.sidecar_len().unwrap_or(0).max(patched))
    }

    fn read_sidecar_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        fill_from(&Sidecar(self.bytes), buf, offset);
        self.lay_over(buf, self.len + offset);
        Ok(())
    }
}
