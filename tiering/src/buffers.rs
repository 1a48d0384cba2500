//! Memory for many bytes at once, used again: fresh pages from the system cost as much as compressing
//! and hashing the bytes in them. A few buffers that nobody uses are kept, [`KEPT_BYTES`] in all;
//! they count as the program's own, like its stacks.

use std::io;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes in buffers that wait to be used again: what two encoders, a stream in and one out have under
/// way. With half of it a stream written still takes a tenth of its memory from the system.
const KEPT_BYTES: usize = 32 << 20;

/// Shorter ones are the allocator's business.
const SHORTEST: usize = 256 << 10;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes that grow at the end, in memory that is used again.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one with room for `capacity` bytes or up to twice as many.
    pub fn with_capacity(capacity: usize) -> Self {
        if capacity >= SHORTEST {
            let mut free = FREE.lock();
            // One that is much too large would hold memory that nobody counts.
            let fits = |buffer: &Vec<u8>| {
                (capacity..=capacity.saturating_mul(2)).contains(&buffer.capacity())
            };
            if let Some(index) = free.iter().position(fits) {
                return Self(free.swap_remove(index));
            }
        }
        Self(Vec::with_capacity(capacity))
    }

    /// Bytes that it has room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        if self.0.capacity() - self.0.len() < more {
            let mut larger = Self::with_capacity(self.0.len() + more);
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
    }

    /// Adds `bytes` at the end. Where there is no room it becomes at least twice as large, so that what
    /// comes piece by piece is not copied each time.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            self.reserve(bytes.len().max(self.0.capacity()));
        }
        self.0.extend_from_slice(bytes);
    }

    /// Forgets the content.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Cuts it off at `len`, or fills it up to there.
    pub fn resize(&mut self, len: usize, value: u8) {
        self.reserve(len.saturating_sub(self.0.len()));
        self.0.resize(len, value);
    }

    /// Adds the `len` bytes of `file` from `offset` on. An error leaves some of them.
    pub(crate) fn read_at(&mut self, file: impl AsFd, len: usize, offset: u64) -> io::Result<()> {
        self.reserve(len);
        let start = self.0.len();
        while self.0.len() - start < len {
            let had = self.0.len() - start;
            let room = &mut self.0.spare_capacity_mut()[..len - had];
            let read = match rustix::io::pread(&file, room, offset + had as u64) {
                Ok((read, _)) => read.len(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // SAFETY: so many bytes behind the content are within its capacity and were just read.
            unsafe { self.0.set_len(start + had + read) };
        }
        Ok(())
    }

    /// The content, which does not change any more; the memory comes back when nobody needs it.
    pub fn share(mut self) -> Bytes {
        if self.0.capacity() < SHORTEST || self.0.len() < self.0.capacity() / 2 {
            self.0.shrink_to_fit();
            return Bytes::from(mem::take(&mut self.0));
        }
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::with_capacity(self.0.len());
        copy.0.extend_from_slice(&self.0);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() < SHORTEST {
            return;
        }
        let mut buffer = mem::take(&mut self.0);
        buffer.clear();
        let mut free = FREE.lock();
        let kept: usize = free.iter().map(Vec::capacity).sum();
        if kept + buffer.capacity() <= KEPT_BYTES {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;

    use super::*;

    #[test]
    fn content_is_what_was_put_in_however_often_a_buffer_is_used() {
        for round in 0..100_u8 {
            let mut buffer = Buffer::with_capacity(1 << 20);
            assert!(buffer.is_empty() && buffer.capacity() >= 1 << 20);
            buffer.resize(1 << 20, round);
            let shared = buffer.share();
            let part = shared.slice(1000..2000);
            drop(shared);
            assert!(part.iter().all(|byte| *byte == round));
        }
    }

    #[test]
    fn one_that_grows_keeps_its_content() {
        let mut buffer = Buffer::default();
        let piece: Vec<u8> = (0..100_000_u32).map(|i| (i / 7) as u8).collect();
        let mut moves = 0;
        for _ in 0..20 {
            let before = buffer.capacity();
            buffer.extend_from_slice(&piece);
            moves += usize::from(buffer.capacity() != before);
        }
        assert!(moves <= 6, "it was moved {moves} times");
        buffer.reserve(1 << 20);
        assert_eq!(*buffer, piece.repeat(20)[..]);
        assert_eq!(*buffer.clone(), *buffer);
        assert_eq!(buffer.share(), piece.repeat(20));
    }

    #[test]
    fn a_file_is_read_to_where_it_ends() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        let mut buffer = Buffer::default();
        buffer.read_at(&file, 900, 100).unwrap();
        assert_eq!(*buffer, [7; 900]);
        let error = Buffer::default().read_at(&file, 901, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..64)
            .map(|_| {
                let mut buffer = Buffer::with_capacity(1 << 20);
                buffer.resize(1 << 20, 7);
                buffer.share()
            })
            .collect();
        drop(many);
        assert!(FREE.lock().iter().map(Vec::capacity).sum::<usize>() <= KEPT_BYTES);
    }

    #[test]
    fn short_content_does_not_hold_a_long_buffer() {
        let mut buffer = Buffer::with_capacity(1 << 20);
        buffer.extend_from_slice(b"short");
        let shared = Vec::from(buffer.share());
        assert_eq!(shared, b"short");
        assert!(shared.capacity() < 100, "{} bytes are held", shared.capacity());
    }
}
