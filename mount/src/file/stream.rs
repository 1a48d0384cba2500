//! One open file as its reader goes through it: whether he reads on and on, and how far the block
//! store was told about what comes.
//!
//! The kernel's reads of one program come from several threads, a little out of order, and a read
//! that had to wait comes again; both count once. A reader is believed after a first stretch, and
//! one who jumps about only after twice the stretch of the time before: so reads here and there
//! never have anything fetched for nothing.

use std::collections::VecDeque;

use firn_tiering::ReadAhead;
use parking_lot::Mutex;

/// How far reads of one stream are out of order.
const DISORDER: u64 = 4 << 20;

/// Reads of which is remembered that they were noted.
const RECENT: usize = 16;

/// Reads this short are the program's own; longer ones are, or may be, the kernel's read-ahead.
const SHORT_READ: u64 = 64 << 10;

/// A first read this long from the start of a file is believed at once.
const FIRST_READ: u64 = 128 << 10;

/// Bytes read one behind the other that make a sequential reader.
const STRETCH: u64 = 256 << 10;

/// Longest stretch that is asked of a reader who jumps about.
const LONGEST_STRETCH: u64 = 32 << 20;

/// What one handle's reader does.
#[derive(Debug, Default)]
pub(crate) struct ReadStream {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the stretch began and has come to.
    start: u64,
    end: u64,
    /// Bytes of the reads in it.
    bytes: u64,
    /// Where the last reads began.
    recent: VecDeque<u64>,
    /// What a stretch must have before it is believed; 0 before the first read.
    needed: u64,
    /// The last read was answered by a slow tier, or would have had to wait for it.
    is_cold: bool,
    /// Up to where the store was told.
    told: u64,
    reader: ReadAhead,
}

impl State {
    fn is_sequential(&self) -> bool {
        self.bytes >= self.needed && 2 * self.bytes >= self.end - self.start
    }

    fn goes_on(&self, start: u64, end: u64) -> bool {
        if end - start < SHORT_READ {
            return start == self.end;
        }
        let gap = if self.is_sequential() { DISORDER } else { 0 };
        start >= self.start && start <= self.end + gap && end + DISORDER >= self.end
    }
}

impl ReadStream {
    /// Notes a read of the bytes `start..end`; reading again what had to wait changes nothing.
    pub(crate) fn note(&self, start: u64, end: u64) {
        let mut state = self.state.lock();
        let is_first = state.needed == 0;
        if end <= start || (!is_first && state.recent.contains(&start)) {
            return;
        }
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(start);
        if !is_first && state.goes_on(start, end) {
            state.end = state.end.max(end);
            state.bytes += end - start;
            return;
        }
        state.needed = match is_first {
            true if start == 0 && end >= FIRST_READ => FIRST_READ,
            true => STRETCH,
            false => (2 * state.bytes).clamp(STRETCH, LONGEST_STRETCH),
        };
        state.bytes = end - start;
        (state.start, state.end, state.told) = (start, end, end);
        state.reader.restart();
    }

    /// Notes whether a read was the slow tier's.
    pub(crate) fn set_cold(&self, is_cold: bool) {
        self.state.lock().is_cold = is_cold;
    }

    /// Notes that a read had to wait.
    pub(crate) fn waited(&self) {
        let mut state = self.state.lock();
        state.is_cold = true;
        state.reader.waited();
    }

    /// For a sequential reader of cold data: has `tell` say what comes, given what was said and
    /// not read yet, and from where on to say more. It returns up to where it has said.
    pub(crate) fn look_ahead(&self, tell: impl FnOnce(&mut ReadAhead, u64, u64) -> u64) {
        // Whoever else reads by this handle does the same now, or has done.
        let Some(mut state) = self.state.try_lock() else { return };
        if !state.is_cold || !state.is_sequential() {
            return;
        }
        let from = state.told.max(state.end);
        let ahead = from - state.end;
        let told = tell(&mut state.reader, ahead, from);
        state.told = told.max(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// Whether more would be asked for after these reads of cold data.
    fn is_told(reads: &[(u64, u64)]) -> bool {
        let stream = ReadStream::default();
        for (start, len) in reads {
            stream.note(*start, start + len);
            stream.waited();
        }
        asked(&stream).is_some()
    }

    fn asked(stream: &ReadStream) -> Option<(u64, u64)> {
        let mut asked = None;
        stream.look_ahead(|_, ahead, from| {
            asked = Some((ahead, from));
            from
        });
        asked
    }

    #[test]
    fn who_reads_on_is_believed_soon() {
        assert!(is_told(&[(0, MIB)]));
        assert!(is_told(&[(0, 128 * KIB)]));
        assert!(!is_told(&[(0, 64 * KIB)]));
        assert!(is_told(&[(0, 64 * KIB), (64 * KIB, 192 * KIB)]));
        assert!(is_told(&[(5 * MIB, 128 * KIB), (5 * MIB + 128 * KIB, 128 * KIB)]));
        let small: Vec<_> = (0..64).map(|n| (n * 4 * KIB, 4 * KIB)).collect();
        assert!(is_told(&small));
        assert!(!is_told(&small[..40]));
    }

    #[test]
    fn who_jumps_about_is_not() {
        assert!(!is_told(&[(MIB, 4 * KIB), (9 * MIB, 4 * KIB), (9 * MIB + 8 * KIB, 4 * KIB)]));
        let pairs: Vec<_> = (0..20)
            .flat_map(|n| [(n * 64 * MIB, 128 * KIB), (n * 64 * MIB + 128 * KIB, 128 * KIB)])
            .collect();
        assert!(!is_told(&pairs), "pieces of a known length are read and no more");
        let strided: Vec<_> = (0..20).map(|n| (n * 3 * MIB, MIB)).collect();
        assert!(!is_told(&strided));
    }

    #[test]
    fn hot_data_is_not_asked_for() {
        let stream = ReadStream::default();
        stream.note(0, MIB);
        assert_eq!(asked(&stream), None);
        stream.set_cold(true);
        assert!(asked(&stream).is_some());
        stream.set_cold(false);
        assert_eq!(asked(&stream), None);
    }

    #[test]
    fn reads_out_of_order_and_read_again_count_once() {
        let stream = ReadStream::default();
        for at in [0, 1, 3, 2, 2, 5, 4, 0, 6] {
            stream.note(at * MIB, (at + 1) * MIB);
            stream.waited();
        }
        let mut told = 0;
        stream.look_ahead(|_, ahead, from| {
            assert_eq!((ahead, from), (0, 7 * MIB));
            told = from + 8 * MIB;
            told
        });
        stream.note(7 * MIB, 8 * MIB);
        assert_eq!(asked(&stream), Some((7 * MIB, told)), "from where it was told");
    }
}
