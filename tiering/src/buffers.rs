//! Memory for large reads, used again: fresh pages from the system cost a third of what decoding and
//! hashing the bytes in them costs. A few buffers that nobody uses are kept, [`KEPT_BYTES`] in all;
//! they count as the program's own, like its stacks.

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes in buffers that wait to be used again.
const KEPT_BYTES: usize = 16 << 20;

/// Shorter ones are the allocator's business.
const SHORTEST: usize = 256 << 10;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty buffer with room for `capacity` bytes.
pub(crate) fn take(capacity: usize) -> Vec<u8> {
    if capacity >= SHORTEST {
        let mut free = FREE.lock();
        // One that is much too large would hold memory that nobody counts.
        let fits =
            |buffer: &Vec<u8>| (capacity..=capacity.saturating_mul(2)).contains(&buffer.capacity());
        if let Some(index) = free.iter().position(fits) {
            return free.swap_remove(index);
        }
    }
    Vec::with_capacity(capacity)
}

/// The content of a buffer, which comes back when nobody needs it any more.
pub(crate) fn share(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() < SHORTEST || buffer.len() < buffer.capacity() / 2 {
        return Bytes::from(buffer);
    }
    Bytes::from_owner(Returned(buffer))
}

struct Returned(Vec<u8>);

impl AsRef<[u8]> for Returned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
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
    use super::*;

    #[test]
    fn content_is_what_was_put_in_however_often_a_buffer_is_used() {
        for round in 0..100_u8 {
            let mut buffer = take(1 << 20);
            assert!(buffer.is_empty() && buffer.capacity() >= 1 << 20);
            buffer.resize(1 << 20, round);
            let shared = share(buffer);
            let part = shared.slice(1000..2000);
            drop(shared);
            assert!(part.iter().all(|byte| *byte == round));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..64)
            .map(|_| {
                let mut buffer = take(1 << 20);
                buffer.resize(1 << 20, 7);
                share(buffer)
            })
            .collect();
        drop(many);
        assert!(FREE.lock().iter().map(Vec::capacity).sum::<usize>() <= KEPT_BYTES);
    }

    #[test]
    fn short_content_does_not_hold_a_long_buffer() {
        let mut buffer = take(1 << 20);
        buffer.extend_from_slice(b"short");
        assert_eq!(share(buffer), b"short"[..]);
    }
}
