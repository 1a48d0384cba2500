//! Time as a dependency, so that heat, retries and collection are reproducible in tests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Tells the time. Production code never asks the system directly.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Wall-clock time, for what is stored.
    fn now(&self) -> SystemTime;
    /// Monotonic time, for deadlines and intervals.
    fn instant(&self) -> Instant;
    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock. Wall-clock time is that of the last tick, a few milliseconds, with which the
/// kernel stamps what it changes by itself: no file looks as if it was changed before it was made,
/// and what was made and changed within a tick has nothing to be told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "the one place that asks the system")]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        // The kernel cannot be set to a time before 1970.
        UNIX_EPOCH + Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is told to move. For tests, also of other crates.
#[derive(Debug)]
pub struct ManualClock {
    start: (SystemTime, Instant),
    passed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self {
            start: (SystemClock.now(), SystemClock.instant()),
            passed: Mutex::new(Duration::ZERO),
        }
    }

    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        *self.passed.lock() += duration;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.start.0 + *self.passed.lock()
    }

    fn instant(&self) -> Instant {
        self.start.1 + *self.passed.lock()
    }

    /// Lets the time pass at once.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}
