//! One instant of a whole volume: all changes held, and nothing only in memory.
//!
//! Most of what is uncommitted is committed before the gate is shut, the rest while it is. *Wait*:
//! each step has a deadline; when one passes, the gate opens again and nothing has happened, but
//! that data was written back.

use std::time::Duration;

use super::Volume;
use crate::file::gate::Shut;
use crate::namespace::TreeResult;

/// How long changes under way may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long writing back the rest may hold all changes.
const HOLD: Duration = Duration::from_secs(10);

/// Rounds of writing back while changes go on.
const ROUNDS: usize = 3;

/// Written bytes that are left to be written back while changes are held.
const REST_BYTES: u64 = 4 << 20;

impl Volume {
    /// Runs `work` when everything is committed, while nothing changes; says how long it was so.
    pub(super) fn frozen<T>(
        &self,
        work: impl FnOnce() -> TreeResult<T>,
    ) -> TreeResult<(T, Duration)> {
        for _ in 0..ROUNDS {
            self.files.flush_all()?;
            if self.files.unflushed_bytes() <= REST_BYTES {
                break;
            }
        }
        let shut = self.shut()?;
        let since = self.clock.instant();
        self.files.flush_within(HOLD)?;
        let done = work();
        drop(shut);
        Ok((done?, self.clock.instant() - since))
    }

    /// Holds all changes; what programs have written may be only in memory.
    pub(super) fn shut(&self) -> TreeResult<Shut<'_>> {
        Ok(self.files.gate.shut(PATIENCE)?)
    }
}
