//! What is worth bringing back to hot: a rule over what was read from cold, and when.
//!
//! An *access* of a file is a run of reads without a long pause and without coming back to what
//! was read already. The file's n-th access promotes it: as a whole when it is small, when it is
//! read one piece after the other, or when most of it was read; otherwise the blocks that are met
//! for the n-th time themselves. What was asked for once is not asked for again for a while: it is
//! on its way, or there is a reason why not. Scans are not accesses. Pure: time comes as a number.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::RecallSettings;

/// What is brought back at a time when it is not a whole file: ranges begin and end at multiples
/// of it, as blocks do.
const BLOCK: u64 = 1 << 20;

/// Parts of a file of which is remembered whether they were read.
const PARTS: u64 = 256;

/// Blocks of a file whose accesses are counted.
const COUNTED: usize = 48;

/// Reads from this length on are the kernel's, made ahead; they come a little out of order.
const LONG_READ: u64 = 64 << 10;

/// How far out of order.
const DISORDER: u64 = 4 << 20;

/// How long a file that was asked for is not asked for again.
const ASKED_MS: u64 = 10 * 60 * 1000;

/// What to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promote {
    /// All of the file.
    Whole,
    /// These bytes of it, whole blocks up to its end.
    Range(Range<u64>),
}

impl Promote {
    /// Bytes that this brings at most, of a file of `file_size` bytes.
    pub fn bytes(&self, file_size: u64) -> u64 {
        match self {
            Self::Whole => file_size,
            Self::Range(range) => range.end.saturating_sub(range.start),
        }
    }
}

/// How often a block was met.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Which, in blocks from the start of the file.
    block: u32,
    times: u16,
}

/// What is remembered of a file.
#[derive(Debug)]
struct Item {
    size: u64,
    accesses: u32,
    last_ms: u64,
    /// The bytes over which reads went one behind the other until now.
    run: Range<u64>,
    /// Bytes of all reads.
    read_bytes: u64,
    /// One bit for each part that was read.
    parts: [u64; (PARTS / 64) as usize],
    /// Blocks in the order in which they were met last.
    counted: VecDeque<Counted>,
    asked_ms: Option<u64>,
    /// Met since the table last looked for something to forget.
    used: bool,
}

/// The rule and what it remembers. Memory is bounded by [`RecallSettings::items`].
#[derive(Debug)]
pub struct Promotion {
    after: u32,
    whole_file_bytes: u64,
    sequential_bytes: u64,
    percent: u64,
    pause_ms: u64,
    memory_ms: u64,
    most: usize,
    items: HashMap<u64, Item>,
    queue: VecDeque<u64>,
}

impl Promotion {
    /// Nothing was read yet.
    pub fn new(settings: &RecallSettings) -> Self {
        let mut promotion = Self {
            after: 0,
            whole_file_bytes: 0,
            sequential_bytes: 0,
            percent: 0,
            pause_ms: 0,
            memory_ms: 0,
            most: 1,
            items: HashMap::new(),
            queue: VecDeque::new(),
        };
        promotion.set(settings);
        promotion
    }

    /// Other rules from now on; what is remembered stays.
    pub fn set(&mut self, settings: &RecallSettings) {
        self.after = settings.promote_after;
        self.whole_file_bytes = settings.whole_file_bytes;
        self.sequential_bytes = settings.sequential_bytes;
        self.percent = u64::from(settings.whole_file_percent);
        self.pause_ms = settings.pause.as_millis() as u64;
        self.memory_ms = settings.memory.as_millis() as u64;
        self.most = settings.items.max(1);
        self.make_room(self.most);
    }

    /// Notes that cold served the bytes `range` of a file of `file_size` bytes, and says what to
    /// bring back now.
    pub fn note(
        &mut self,
        item: u64,
        range: Range<u64>,
        file_size: u64,
        now_ms: u64,
        is_scan: bool,
    ) -> Option<Promote> {
        let range = range.start..range.end.min(file_size);
        if is_scan || range.is_empty() || self.after == 0 {
            return None;
        }
        if !self.items.contains_key(&item) {
            self.make_room(self.most - 1);
            self.items.insert(item, Item::new(file_size, now_ms));
            self.queue.push_back(item);
        }
        let known = self.items.get_mut(&item)?;
        if now_ms.saturating_sub(known.last_ms) > self.memory_ms {
            *known = Item::new(file_size, now_ms);
        }
        known.resize(file_size);
        let begins = known.read(&range, now_ms, self.pause_ms, self.sequential_bytes);
        if known.asked_ms.is_some_and(|asked| now_ms.saturating_sub(asked) < ASKED_MS) {
            return None;
        }
        let is_small = file_size <= self.whole_file_bytes;
        let run = known.run.end - known.run.start;
        let is_sequential = run >= self.sequential_bytes.min(file_size);
        if known.accesses >= self.after
            && (is_small || is_sequential || known.is_mostly_read(self.percent))
        {
            known.asked_ms = Some(now_ms);
            known.counted.clear();
            return Some(Promote::Whole);
        }
        let blocks = known.count(&range, begins, self.after)?;
        let end = (blocks.end * BLOCK).min(file_size);
        Some(Promote::Range(blocks.start * BLOCK..end))
    }

    /// Forgets a file.
    pub fn forget(&mut self, item: u64) {
        if self.items.remove(&item).is_some() {
            self.queue.retain(|other| *other != item);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[cfg(test)]
    pub(super) fn knows(&self, item: u64) -> bool {
        self.items.contains_key(&item)
    }

    /// Forgets files until there are no more than `most`: those first that were met only once
    /// since it was their turn last.
    fn make_room(&mut self, most: usize) {
        while self.items.len() > most {
            let Some(oldest) = self.queue.pop_front() else { break };
            match self.items.get_mut(&oldest) {
                Some(item) if item.used => {
                    item.used = false;
                    self.queue.push_back(oldest);
                }
                _ => drop(self.items.remove(&oldest)),
            }
        }
    }
}

impl Item {
    fn new(size: u64, now_ms: u64) -> Self {
        Self {
            size,
            accesses: 0,
            last_ms: now_ms,
            run: 0..0,
            read_bytes: 0,
            parts: [0; (PARTS / 64) as usize],
            counted: VecDeque::new(),
            asked_ms: None,
            used: false,
        }
    }

    /// Bytes of a part: whole blocks.
    fn part_len(&self) -> u64 {
        self.size.div_ceil(PARTS).next_multiple_of(BLOCK).max(BLOCK)
    }

    fn resize(&mut self, size: u64) {
        let before = self.part_len();
        self.size = size;
        if self.part_len() != before {
            self.parts = [0; (PARTS / 64) as usize];
        }
    }

    fn parts_of(&self, range: &Range<u64>) -> Range<u64> {
        let len = self.part_len();
        range.start / len..range.end.div_ceil(len).min(PARTS)
    }

    fn was_read(&self, range: &Range<u64>) -> bool {
        self.parts_of(range).all(|part| self.parts[(part / 64) as usize] & (1 << (part % 64)) != 0)
    }

    /// Whether a read goes on where the run has come to.
    fn continues(&self, range: &Range<u64>) -> bool {
        if range.end - range.start < LONG_READ {
            return range.start == self.run.end;
        }
        range.end > self.run.end
            && range.start + DISORDER >= self.run.end
            && range.start <= self.run.end + DISORDER
            && range.start > self.run.start
    }

    /// Whether a read is one of the run that came late.
    fn came_late(&self, range: &Range<u64>) -> bool {
        range.end - range.start >= LONG_READ
            && range.start > self.run.start
            && range.end <= self.run.end
            && range.start + DISORDER >= self.run.end
    }

    /// Takes note of a read; returns whether it begins a run.
    fn read(
        &mut self,
        range: &Range<u64>,
        now_ms: u64,
        pause_ms: u64,
        sequential_bytes: u64,
    ) -> bool {
        let is_new = self.accesses == 0;
        let paused = now_ms.saturating_sub(self.last_ms) > pause_ms;
        self.used |= !is_new;
        self.last_ms = self.last_ms.max(now_ms);
        let goes_on = !is_new && !paused && (self.continues(range) || self.came_late(range));
        if is_new || paused || (!goes_on && self.was_read(range)) {
            self.accesses = self.accesses.saturating_add(1);
            // What was read through before says nothing of how much is wanted this time.
            let run = self.run.end - self.run.start;
            if paused || run >= sequential_bytes.min(self.size) {
                self.parts = [0; (PARTS / 64) as usize];
                self.read_bytes = 0;
            }
        }
        if goes_on {
            self.run.end = self.run.end.max(range.end);
        } else {
            self.run = range.clone();
        }
        self.read_bytes = self.read_bytes.saturating_add(range.end - range.start);
        for part in self.parts_of(range) {
            self.parts[(part / 64) as usize] |= 1 << (part % 64);
        }
        !goes_on
    }

    fn is_mostly_read(&self, percent: u64) -> bool {
        let in_all = self.size.div_ceil(self.part_len());
        let read: u64 = self.parts.iter().map(|bits| u64::from(bits.count_ones())).sum();
        // A part longer than a block says little: then the bytes must be as many, too.
        let enough =
            |part: u64, all: u64| u128::from(part) * 100 >= u128::from(all) * u128::from(percent);
        enough(read, in_all) && (self.part_len() == BLOCK || enough(self.read_bytes, self.size))
    }

    /// Counts the blocks of a read; those that were met often enough. A run counts where it
    /// begins: what it meets further on was met in the same breath.
    fn count(&mut self, range: &Range<u64>, begins: bool, after: u32) -> Option<Range<u64>> {
        if !begins {
            return None;
        }
        let mut due: Option<Range<u64>> = None;
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        for block in blocks.take(COUNTED) {
            let Ok(number) = u32::try_from(block) else { break };
            let known = self.counted.iter().position(|counted| counted.block == number);
            let times = known.and_then(|at| self.counted.remove(at)).map_or(0, |c| c.times);
            let times = times.saturating_add(1);
            if u32::from(times) < after {
                self.counted.push_back(Counted { block: number, times });
                if self.counted.len() > COUNTED {
                    self.counted.pop_front();
                }
                continue;
            }
            due = Some(due.map_or(block, |due| due.start)..block + 1);
        }
        due
    }
}
