//! Recall: what a read of cold data leads to besides its bytes.
//!
//! Reads of cold data are served at once and never wait for anything to be brought back. Here is
//! decided which of them may run at the same time ([`Limits`]), what is worth bringing back to hot
//! afterwards ([`Promotion`]), and when somebody has had so much from cold that for him nothing is
//! brought back or read ahead any more ([`Allowance`]). [`Recall`] puts the three together; it
//! decides and acts on nothing: whoever calls it stages what it names.
//!
//! All state is in memory, bounded, and lost with the process: after a restart each file's next
//! read is its first. Users are numbers, items too; time is the injected clock's.

mod allowance;
mod limits;
mod promotion;
mod turns;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::blocks::Wait;
use crate::clock::Clock;
use crate::error::{Error, Result};

pub use allowance::{Allowance, Rate};
pub use limits::{Admitted, Limits};
pub use promotion::{Promote, Promotion};
pub use turns::{Lane, Turns};

/// How reads of cold data are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallSettings {
    /// Bring back what is read from cold for the n-th time; 0: never, 1: whatever is read. Lower
    /// keeps more at local speed, and moves more that is never read again.
    pub promote_after: u32,
    /// Files up to this many bytes are brought back as a whole.
    pub whole_file_bytes: u64,
    /// A file of which one read after the other went over this many bytes is read sequentially,
    /// and brought back as a whole.
    pub sequential_bytes: u64,
    /// A file of which this share was read, in percent, is brought back as a whole.
    pub whole_file_percent: u32,
    /// Reads of a file without a pause this long between them are one access.
    pub pause: Duration,
    /// Accesses that lie further back than this no longer count.
    pub memory: Duration,
    /// Files remembered. More notices second accesses that come later, at up to 700 bytes each.
    pub items: usize,
    /// Cold reads in flight for all users together. More hides the latency of a distant store,
    /// fewer spares it.
    pub in_flight: usize,
    /// Cold reads in flight for one user. Less than `in_flight` leaves room for others.
    pub in_flight_per_user: usize,
    /// Cold reads that may wait for their turn; more fail at once.
    pub queue: usize,
    /// What all users together may have from cold, bytes read and brought back alike; beyond it
    /// reads are served, last in line, and nothing is brought back or read ahead for them. `None`:
    /// without bound.
    pub allowance: Option<Rate>,
    /// The same for each user.
    pub allowance_per_user: Option<Rate>,
}

impl Default for RecallSettings {
    fn default() -> Self {
        Self {
            promote_after: 2,
            whole_file_bytes: 4 << 20,
            sequential_bytes: 8 << 20,
            whole_file_percent: 60,
            pause: Duration::from_secs(10),
            memory: Duration::from_secs(7 * 24 * 3600),
            items: 16 << 10,
            in_flight: 64,
            in_flight_per_user: 48,
            queue: 4096,
            allowance: Some(Rate { bytes_per_s: 1 << 30, burst_bytes: 1 << 40 }),
            allowance_per_user: Some(Rate { bytes_per_s: 512 << 20, burst_bytes: 256 << 30 }),
        }
    }
}

impl RecallSettings {
    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(message));
        if self.whole_file_percent == 0 || self.whole_file_percent > 100 {
            return refuse(format!("{} is not a share in percent", self.whole_file_percent));
        }
        if self.items == 0 || self.items > MAX_ITEMS {
            return refuse(format!("{} files cannot be remembered: 1 to {MAX_ITEMS}", self.items));
        }
        if self.in_flight == 0 || self.in_flight_per_user == 0 {
            return refuse("no cold read could ever run: at least 1 in flight is needed".into());
        }
        for rate in [self.allowance, self.allowance_per_user].into_iter().flatten() {
            if rate.bytes_per_s == 0 || rate.burst_bytes == 0 {
                return refuse("an allowance of nothing: leave it out, or name a rate".into());
            }
        }
        Ok(())
    }
}

/// Most files that can be remembered: what their table takes must stay small beside a volume's
/// memory.
const MAX_ITEMS: usize = 1 << 20;

/// A read that cold has served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdRead {
    /// Who read.
    pub user: u32,
    /// What: a file's number.
    pub item: u64,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// How long it is.
    pub file_size: u64,
    /// It belongs to a scan: something that passes over very much and comes to nothing again.
    pub is_scan: bool,
}

/// The three decisions together. Every method may be called from any number of threads.
#[derive(Debug)]
pub struct Recall {
    clock: Arc<dyn Clock>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    promotion: Promotion,
    allowance: Allowance,
}

impl Recall {
    /// Nothing was read yet.
    pub fn new(settings: &RecallSettings, clock: Arc<dyn Clock>) -> Self {
        let state =
            State { promotion: Promotion::new(settings), allowance: Allowance::new(settings) };
        let limits = Limits::new(settings, Arc::clone(&clock));
        Self { clock, limits, state: Mutex::new(state) }
    }

    /// Other settings from now on; what is remembered stays.
    pub fn set(&self, settings: &RecallSettings) {
        let mut state = self.state.lock();
        state.promotion.set(settings);
        state.allowance.set(settings);
        drop(state);
        self.limits.set(settings);
    }

    /// Waits until a cold read of `user` may begin; it is in flight until what is returned is
    /// dropped. Who has used up his allowance comes after everybody else.
    ///
    /// [`Error::TimedOut`] when `wait` ends first, and when too many wait already.
    pub fn admit(&self, user: u32, wait: Wait) -> Result<Admitted> {
        let lane = if self.may_read_ahead(user) { Lane::First } else { Lane::Last };
        self.limits.admit(user, lane, wait)
    }

    /// Whether something may be read ahead for `user`.
    pub fn may_read_ahead(&self, user: u32) -> bool {
        let now_ms = self.now_ms();
        self.state.lock().allowance.is_left(user, now_ms)
    }

    /// Notes a read that cold has served, and says what to bring back to hot now because of it.
    /// `may_come_back` is asked of few reads, and without a lock of this; what may not costs nothing of
    /// the allowance.
    pub fn served(&self, read: &ColdRead, may_come_back: impl FnOnce() -> bool) -> Option<Promote> {
        let now_ms = self.now_ms();
        let wanted = self.wanted(read, now_ms).filter(|_| may_come_back())?;
        let cost = wanted.bytes(read.file_size);
        self.state.lock().allowance.take(read.user, cost, now_ms).then_some(wanted)
    }

    fn wanted(&self, read: &ColdRead, now_ms: u64) -> Option<Promote> {
        let mut state = self.state.lock();
        let bytes = read.range.end.saturating_sub(read.range.start);
        let is_within = state.allowance.spend(read.user, bytes, now_ms);
        let (item, range) = (read.item, read.range.clone());
        let wanted = state.promotion.note(item, range, read.file_size, now_ms, read.is_scan);
        wanted.filter(|_| is_within)
    }

    /// Forgets a file: it is gone, or it was brought back.
    pub fn forget(&self, item: u64) {
        self.state.lock().promotion.forget(item);
    }

    /// Cold reads in flight, and waiting for their turn.
    pub fn in_flight(&self) -> (usize, usize) {
        self.limits.in_flight()
    }

    fn now_ms(&self) -> u64 {
        self.limits.elapsed_ms(&*self.clock)
    }
}
