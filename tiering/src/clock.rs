//! Time as a dependency, so that heat, retries and collection are reproducible in tests.

use std::time::{Duration, Instant, SystemTime};

/// Tells the time. Production code never asks the system directly.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Wall-clock time, for what is stored.
    fn now(&self) -> SystemTime;
    /// Monotonic time, for deadlines and intervals.
    fn instant(&self) -> Instant;
    /// Blocks the calling thread.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "the one place that asks the system")]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
