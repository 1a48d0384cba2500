//! Who is told how files are used, so that heat can be kept and recalls be judged. A volume without
//! an observer behaves the same in every other respect.
//!
//! Calls come from the threads that serve requests: an observer answers from memory, at once, and
//! only [`Observer::admit`] may wait. What lies in snapshots is not observed, nor what is read to be
//! sent, copied between tiers or checked: none of that says that somebody needs a file.

use std::any::Any;

use firn_tiering::Wait;

use crate::error::FsResult;
use crate::types::{Caller, Ino, OpenMode};

/// A use of a file's content.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// The file, in a live view.
    pub ino: Ino,
    /// Who opened it. The kernel reads ahead and writes back on behalf of nobody.
    pub caller: Caller,
    /// Where it began, in bytes.
    pub offset: u64,
    /// Bytes that were asked for.
    pub len: u64,
    /// It began where the last one of this handle ended, or at the start of the file.
    pub sequential: bool,
}

/// Leave to wait for the cold tier, given back when dropped.
pub type Admission = Option<Box<dyn Any + Send>>;

/// What an observer can tell of a file, for `user.firn.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// How much it is used.
    Heat,
    /// How likely it is to be used again within the horizon.
    Reuse,
    /// Which rule of the policy decides about it.
    Policy,
}

/// Is told how files are used.
pub trait Observer: Send + Sync + 'static {
    /// A file was opened or made. `size` is its length as programs see it, committed or not.
    fn opened(&self, ino: Ino, caller: &Caller, mode: OpenMode, size: u64);

    /// Bytes were read. `from_cold` says that they came from the cold tier, asked for now or ahead.
    fn read(&self, touch: &Touch, from_cold: bool);

    /// Whether what this reader is likely to want next may be fetched from the cold tier already.
    fn may_look_ahead(&self, _caller: &Caller) -> bool {
        true
    }

    /// Bytes were written.
    fn written(&self, touch: &Touch);

    /// Asks for leave to read what has to be waited for; waits for it as `wait` allows.
    fn admit(&self, touch: &Touch, wait: Wait) -> FsResult<Admission>;

    /// The file is gone with all its names.
    fn removed(&self, ino: Ino);

    /// The pin of a file or directory was set or removed.
    fn pin_changed(&self, ino: Ino);

    /// Whether the file, or a part of it, is being brought back to hot or waits for that.
    fn is_coming(&self, _ino: Ino) -> bool {
        false
    }

    /// What is known of a file, as the value of its attribute.
    fn tell(&self, ino: Ino, what: Told) -> Option<String>;
}
