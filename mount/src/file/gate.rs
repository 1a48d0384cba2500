//! The gate that every change of a volume passes, so that it can be held shut for an instant at
//! which nothing is half done.
//!
//! *Order*: the gate comes before every other lock. *Deadlocks*: whoever has passed must not wait
//! for memory, for space, or for a commit of data, since those who shut the gate commit data
//! while it is shut. Commits themselves do not pass: they change where bytes are kept, not which.

use std::time::Duration;

use firn_tiering::Wait;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{FsError, FsResult};

/// Lets changes pass, or none.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    lock: RwLock<()>,
}

/// Held while something changes.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass<'a> {
    _shared: RwLockReadGuard<'a, ()>,
}

/// Nothing changes until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Shut<'a> {
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Gate {
    /// Begins a change. Waits while the gate is shut, which is never for long.
    pub(crate) fn pass(&self) -> Pass<'_> {
        Pass { _shared: self.lock.read() }
    }

    /// Begins a change if `wait` allows to wait for it.
    pub(crate) fn pass_as(&self, wait: Wait) -> FsResult<Pass<'_>> {
        match wait {
            Wait::No => {
                let shared = self.lock.try_read().ok_or(FsError::WouldWait)?;
                Ok(Pass { _shared: shared })
            }
            Wait::Until(_) | Wait::Progress(_) => Ok(self.pass()),
        }
    }

    /// Keeps new changes out and waits until those under way have ended.
    pub(crate) fn shut(&self, patience: Duration) -> FsResult<Shut<'_>> {
        match self.lock.try_write_for(patience) {
            Some(alone) => Ok(Shut { _alone: alone }),
            None => Err(FsError::io(
                "holding all changes",
                format!("one did not end within {} s", patience.as_secs()),
            )),
        }
    }
}
