//! The steps of a move at which a test may stop the world: in one process by an error that ends
//! everything the store does, or for real by killing the process.
//!
//! Only built with debug assertions. `FIRN_FAILPOINT=<step>[:<count>]` kills the process when it
//! reaches the step for the `count`-th time; a name that is no step's is refused at opening.

use crate::error::Result;

macro_rules! steps {
    ($($step:ident = $name:literal, $doc:literal;)+) => {
        /// A moment in a move.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $(#[doc = $doc] $step,)+
        }

        impl Step {
            /// Every step.
            pub const ALL: &'static [Self] = &[$(Self::$step),+];

            /// What `FIRN_FAILPOINT` calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    SealBeforeFooter = "seal-before-footer", "Frames are durable, the footer is not written.";
    SealAfterRenameBeforeRecord = "seal-after-rename-before-record",
        "The sealed file has its name, nobody knows of it.";
    UploadBeforePut = "upload-before-put", "The local file was checked.";
    UploadAfterSidecar = "upload-after-sidecar", "The sidecar is in cold, its segment is not.";
    UploadAfterPut = "upload-after-put", "The object is in cold, unverified.";
    UploadBeforeVerify = "upload-before-verify", "Its length is right, its bytes were not compared.";
    VerifiedBeforeRecord = "verified-before-record", "It was verified, nobody knows yet.";
    ReleaseBeforeRecord = "release-before-record", "Cold and backup are sure, the holes unknown.";
    ReleaseAfterRecordBeforePunch = "release-after-record-before-punch",
        "The holes are recorded, the bytes still there.";
    ReleaseAfterPunch = "release-after-punch", "The bytes are gone, not counted yet.";
    DropBeforeIndex = "drop-before-index", "The hot file is to go, its index is only in it.";
    DropAfterIndexBeforeRecord = "drop-after-index-before-record", "The index stands apart.";
    DropAfterRecordBeforeUnlink = "drop-after-record-before-unlink",
        "The record says it is gone, the file is still there.";
    DropAfterUnlink = "drop-after-unlink", "The file is gone, not counted yet.";
    StageBeforeFill = "stage-before-fill", "Room was counted, nothing was fetched.";
    StageAfterFillBeforeTable = "stage-after-fill-before-table",
        "Frames lie in their holes, which are still known as holes.";
    StageBeforeRename = "stage-before-rename", "The file was made aside.";
    StageAfterRenameBeforeTable = "stage-after-rename-before-table",
        "It has its name, the record says it is gone.";
    StageAfterTableBeforeRecord = "stage-after-table-before-record",
        "Readers find it, the catalog does not know.";
    CompactBeforeAppend = "compact-before-append", "It is known what lives.";
    CompactAfterAppendBeforeSync = "compact-after-append-before-sync",
        "What lives stands twice, the second time perhaps only in memory.";
    CompactAfterSyncBeforeRemove = "compact-after-sync-before-remove",
        "What lives stands twice, durably.";
    FetchAfterSyncBeforeRemove = "fetch-after-sync-before-remove",
        "What lives in a cold object was fetched from it, durably.";
    RecodeBeforeName = "recode-before-name", "The smaller segment was made aside and verified.";
    RecodeAfterNameBeforeRecord = "recode-after-name-before-record",
        "It has its name, nobody knows of it.";
    RecodeAfterRecordBeforeReplace = "recode-after-record-before-replace",
        "Both segments are known.";
    MendBeforeRename = "mend-before-rename", "A whole segment was made beside the damaged one.";
    MendAfterRenameBeforeTable = "mend-after-rename-before-table",
        "It has the place of the damaged one, which still has a name aside.";
    SalvageBeforeAppend = "salvage-before-append",
        "It is known what lives in a segment that nothing makes whole.";
    SalvageAfterAppendBeforeSync = "salvage-after-append-before-sync",
        "Its sound blocks stand twice, the second time perhaps only in memory.";
    SalvageAfterSync = "salvage-after-sync", "Its sound blocks stand twice, durably.";
    ForgetBeforeRecord = "forget-before-record", "Nothing is needed of a segment.";
    ForgetAfterRecordBeforeUnlink = "forget-after-record-before-unlink",
        "The catalog has forgotten it, its files are there.";
    ForgetAfterUnlink = "forget-after-unlink", "Its data is gone, its index file is there.";
    ColdDeleteBefore = "cold-delete-before", "Nobody needs the object.";
    ColdDeleteAfter = "cold-delete-after", "The object is gone, its sidecar and record are there.";
    ColdDeleteAfterSidecar = "cold-delete-after-sidecar",
        "Object and sidecar are gone, the record is there.";
}

impl Step {
    /// The step of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.name() == name)
    }
}

#[cfg(not(debug_assertions))]
pub(super) use off::Steps;
#[cfg(debug_assertions)]
pub(super) use on::Steps;

impl super::Inner {
    /// Passes a step; an error where a test stops everything.
    pub(super) fn reached(&self, step: Step) -> Result<()> {
        self.steps.reached(step)
    }
}

/// Nothing, at no cost.
#[cfg(not(debug_assertions))]
mod off {
    use super::{Result, Step};

    #[derive(Debug, Default)]
    pub(in super::super) struct Steps;

    impl Steps {
        pub(in super::super) fn from_env() -> Result<Self> {
            Ok(Self)
        }

        #[inline(always)]
        pub(super) fn reached(&self, _: Step) -> Result<()> {
            Ok(())
        }

        #[inline(always)]
        pub(in super::super) fn check(&self) -> Result<()> {
            Ok(())
        }
    }
}

#[cfg(debug_assertions)]
mod on {
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::Mutex;

    use super::{Result, Step};
    use crate::error::Error;

    /// Names the step to die at.
    const VARIABLE: &str = "FIRN_FAILPOINT";

    /// Where to stop.
    #[derive(Debug, Default)]
    pub(in super::super) struct Steps {
        armed: Mutex<Option<Armed>>,
        is_armed: AtomicBool,
        /// Nothing happens any more.
        stopped: AtomicBool,
    }

    #[derive(Clone, Copy, Debug)]
    struct Armed {
        step: Step,
        /// Times it may still be passed.
        left: u32,
        kills: bool,
    }

    impl Steps {
        /// As the environment wants it.
        pub(in super::super) fn from_env() -> Result<Self> {
            let steps = Self::default();
            if let Ok(text) = std::env::var(VARIABLE) {
                let wrong = || Error::Config(format!("{VARIABLE}={text} names no step"));
                let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
                let step = Step::from_name(name).ok_or_else(wrong)?;
                let count: u32 = count.parse().map_err(|_| wrong())?;
                steps.arm(step, count, true);
            }
            Ok(steps)
        }

        fn arm(&self, step: Step, count: u32, kills: bool) {
            *self.armed.lock() = Some(Armed { step, left: count.saturating_sub(1), kills });
            self.is_armed.store(true, Ordering::SeqCst);
        }

        /// Stops everything at the `count`-th time the step is reached.
        #[cfg(test)]
        pub(in super::super) fn stop_at(&self, step: Step, count: u32) {
            self.arm(step, count, false);
        }

        /// Whether everything was stopped.
        #[cfg(test)]
        pub(in super::super) fn is_stopped(&self) -> bool {
            self.stopped.load(Ordering::SeqCst)
        }

        /// An error once everything was stopped.
        pub(in super::super) fn check(&self) -> Result<()> {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::ReadOnly("it was stopped by a test".into()));
            }
            Ok(())
        }

        pub(super) fn reached(&self, step: Step) -> Result<()> {
            if !self.is_armed.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.check()?;
            let mut armed = self.armed.lock();
            let Some(at) = armed.as_mut().filter(|at| at.step == step) else { return Ok(()) };
            if let Some(left) = at.left.checked_sub(1) {
                at.left = left;
                return Ok(());
            }
            if at.kills {
                die();
            }
            self.stopped.store(true, Ordering::SeqCst);
            self.check()
        }
    }

    /// Ends the process as `kill -9` does: nothing is flushed, nobody is told.
    fn die() {
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, "the process outlives a signal that nothing outlives");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Some(*step));
        }
        assert_eq!(Step::from_name("upload"), None);
    }
}
