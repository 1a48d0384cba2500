//! A throttle that many tasks share: waiting, waking, and permits that cannot be forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::tier::{FailureKind, Pauses, TierFailure, is_retriable};

use super::core::Core;
use super::{Kind, MAX_WAITING, Outcome, Priority, Status, ThrottleConfig};

/// A waiter looks again after this time whatever it was told, and no sooner than that.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Where a throttle learns what it cannot see.
#[derive(Clone)]
pub struct Inputs {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Seconds since midnight where the volume is, for the timetable.
    pub second_of_day: Arc<dyn Fn() -> u32 + Send + Sync>,
    /// `some avg10` of `/proc/pressure/io` in percent; `None` where the kernel does not say. Asked
    /// once a second.
    pub pressure: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
}

impl Inputs {
    /// Without a timetable's time and without pressure.
    pub fn of_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, second_of_day: Arc::new(|| 0), pressure: Arc::new(|| None) }
    }
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// What stands before one store. See the module's page.
#[derive(Debug)]
pub struct Throttle {
    core: Mutex<Core>,
    inputs: Inputs,
    pauses: Arc<Pauses>,
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
}

/// The right to make one request. Dropped without [`Permit::finish`], it was given up.
#[derive(Debug)]
pub struct Permit {
    throttle: Arc<Throttle>,
    id: u64,
    is_finished: bool,
}

impl Throttle {
    /// A throttle that heeds the pauses in `pauses`. [`Error::Config`] for settings that make no
    /// sense.
    pub fn new(config: ThrottleConfig, inputs: Inputs, pauses: Arc<Pauses>) -> Result<Self> {
        config.validate()?;
        let core = Mutex::new(Core::new(config, inputs.clock.instant()));
        Ok(Self { core, inputs, pauses, waiters: Mutex::default() })
    }

    /// Other settings from now on. [`Error::Config`] for those that make no sense.
    pub fn set_config(&self, config: ThrottleConfig) -> Result<()> {
        config.validate()?;
        let mut core = self.core.lock();
        core.set_config(config);
        self.grant(&mut core);
        Ok(())
    }

    /// The settings.
    pub fn config(&self) -> ThrottleConfig {
        self.core.lock().config().clone()
    }

    /// The pauses that the store asks for.
    pub fn pauses(&self) -> &Arc<Pauses> {
        &self.pauses
    }

    /// A read of the mount, answered from local disks, took so long.
    pub fn note_foreground(&self, latency: Duration) {
        self.core.lock().note_foreground(latency);
    }

    /// Writers wait for space that only background work can make: it gives way to no reader then.
    pub fn hurry(&self, is_hurried: bool) {
        let mut core = self.core.lock();
        core.hurry(is_hurried);
        self.grant(&mut core);
    }

    /// When the store last answered, if only to refuse something.
    pub fn answered_at(&self) -> Option<Instant> {
        self.core.lock().answered_at()
    }

    /// Whether the store is known not to answer now.
    pub fn is_down(&self) -> bool {
        self.core.lock().is_down(self.inputs.clock.instant())
    }

    /// `result`, unless users are not to wait for a store that does not answer: what failed for one of
    /// them then is not to be tried again.
    pub(crate) fn verdict<T>(&self, priority: Priority, result: Result<T>) -> Result<T> {
        let has_failed = matches!(&result, Err(error) if is_retriable(error));
        if !has_failed || priority != Priority::UserRead {
            return result;
        }
        let core = self.core.lock();
        let refuses = core.config().fail_fast && core.is_down(self.inputs.clock.instant());
        if refuses { Err(down()) } else { result }
    }

    /// What goes on.
    pub fn status(&self) -> Status {
        let mut core = self.core.lock();
        self.grant(&mut core);
        core.status(self.inputs.clock.instant())
    }

    /// Waits for the right to make a request of `bytes`. Dropping the future gives the turn up.
    /// Without a deadline of its own: whoever waits bounds it. A read of a user fails as
    /// [`FailureKind::Down`] where [`ThrottleConfig::fail_fast`] says so.
    pub async fn admit(
        self: &Arc<Self>,
        priority: Priority,
        kind: Kind,
        bytes: u64,
    ) -> Result<Permit> {
        let notify = Arc::new(Notify::new());
        let mut permit = {
            let mut core = self.core.lock();
            if core.waiting() >= MAX_WAITING {
                let message = format!("{MAX_WAITING} requests wait already");
                return Err(TierFailure::error(FailureKind::Unavailable, "ask", "store", message));
            }
            let id = core.ask(priority, kind, bytes);
            self.waiters.lock().insert(id, Arc::clone(&notify));
            Permit { throttle: Arc::clone(self), id, is_finished: false }
        };
        loop {
            let sleep = {
                let mut core = self.core.lock();
                self.grant(&mut core);
                if !core.is_waiting(permit.id) {
                    self.waiters.lock().remove(&permit.id);
                    return Ok(permit);
                }
                let now = self.inputs.clock.instant();
                if priority == Priority::UserRead && core.config().fail_fast && core.is_down(now) {
                    core.abandon(now, permit.id);
                    self.waiters.lock().remove(&permit.id);
                    permit.is_finished = true;
                    return Err(down());
                }
                until(now, core.wake_at())
            };
            tokio::select! {
                () = notify.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Lets go what may, and wakes who waits for it.
    fn grant(&self, core: &mut Core) {
        let now = self.inputs.clock.instant();
        core.pause_until(self.pauses.until(now));
        if core.is_due(now) {
            core.judge(now, (self.inputs.pressure)());
        }
        let cap = core.config().timetable.cap_at((self.inputs.second_of_day)());
        let granted = core.grant(now, cap);
        if granted.is_empty() {
            return;
        }
        let mut waiters = self.waiters.lock();
        for id in granted {
            if let Some(notify) = waiters.remove(&id) {
                notify.notify_one();
            }
        }
    }

    fn end(&self, id: u64, outcome: Option<Outcome>) {
        let mut core = self.core.lock();
        let now = self.inputs.clock.instant();
        match outcome {
            Some(outcome) => core.finish(now, id, outcome),
            None => core.abandon(now, id),
        }
        self.waiters.lock().remove(&id);
        self.grant(&mut core);
    }
}

impl Permit {
    /// The request turned out to move so many bytes.
    pub fn resize(&self, bytes: u64) {
        self.throttle.core.lock().resize(self.id, bytes);
    }

    /// The request ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.is_finished = true;
        self.throttle.end(self.id, Some(outcome));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_finished {
            self.throttle.end(self.id, None);
        }
    }
}

/// How long a waiter may sleep.
fn until(now: Instant, at: Option<Instant>) -> Duration {
    at.map_or(LONGEST_SLEEP, |at| at.saturating_duration_since(now))
        .clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

/// The error of a request that is not made because the store is away.
fn down() -> Error {
    let message = "it does not answer, and requests are not to wait for it";
    TierFailure::error(FailureKind::Down, "ask", "the store", message)
}
