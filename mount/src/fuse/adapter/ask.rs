//! How a callback asks the core: here and now or, where that would wait, elsewhere under a deadline.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{Clock, SystemClock, Wait};

use super::Adapter;
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::fuse::receivers::Serving;
use crate::fuse::reply::{Answer, settle};
use crate::fuse::requests::Opcode;
use crate::fuse::waiters::Kind;
use crate::types::Ino;

/// Reads and writes up to this many bytes take about as long as a request about names.
const SMALL: usize = 64 << 10;

/// For calls that wait in one queue whoever made them.
pub(super) const EVERYBODY: u32 = 0;

/// How long a read from the cold tier may take.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// How long anything that writes may go without progress.
const WRITE_DEADLINE: Duration = Duration::from_secs(300);

impl<C: Core> Adapter<C> {
    /// A request begins; it ends when what is returned is dropped.
    pub(super) fn serving(&self, opcode: Opcode) -> Serving<'_> {
        self.cache.asked(opcode);
        match opcode {
            Opcode::Fsync | Opcode::Fsyncdir | Opcode::Fallocate | Opcode::CopyFileRange => {
                self.receivers.serving_long()
            }
            _ => self.receivers.serving(),
        }
    }

    /// As [`Adapter::serving`], of one that moves `len` bytes.
    pub(super) fn moving(&self, opcode: Opcode, len: usize) -> Serving<'_> {
        self.cache.asked(opcode);
        if len > SMALL { self.receivers.serving_long() } else { self.receivers.serving() }
    }

    /// Asks the core here and now, or elsewhere if the answer takes waiting.
    pub(super) fn ask<R: Answer>(
        &self,
        kind: Kind,
        name: &'static str,
        ino: Ino,
        reply: R,
        call: impl Fn(&C, Wait) -> FsResult<R::Value> + Send + 'static,
    ) {
        self.ask_for(EVERYBODY, kind, name, ino, reply, call);
    }

    /// As [`Adapter::ask`], waiting among the calls of `user`.
    pub(super) fn ask_for<R: Answer>(
        &self,
        user: u32,
        kind: Kind,
        name: &'static str,
        ino: Ino,
        reply: R,
        call: impl Fn(&C, Wait) -> FsResult<R::Value> + Send + 'static,
    ) {
        match call(&self.core, Wait::No) {
            Err(FsError::WouldWait) => self.ask_elsewhere(user, kind, name, ino, reply, call),
            outcome => settle(name, ino, outcome, reply),
        }
    }

    /// Asks the core on a thread that may wait.
    pub(super) fn ask_elsewhere<R: Answer>(
        &self,
        user: u32,
        kind: Kind,
        name: &'static str,
        ino: Ino,
        reply: R,
        call: impl FnOnce(&C, Wait) -> FsResult<R::Value> + Send + 'static,
    ) {
        let patience = if kind == Kind::Read { READ_DEADLINE } else { WRITE_DEADLINE };
        let deadline = SystemClock.instant() + patience;
        let core = Arc::clone(&self.core);
        self.waiters.run(kind, user, move || {
            settle(name, ino, call(&core, Wait::Until(deadline)), reply);
        });
    }
}
