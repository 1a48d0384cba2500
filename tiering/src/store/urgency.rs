//! How urgent the cold tier's calls of this thread are. Every thread serves users unless it says
//! otherwise, for as long as it says so.

use std::cell::Cell;

use crate::throttle::Priority;

thread_local! {
    static URGENCY: Cell<Priority> = const { Cell::new(Priority::UserRead) };
}

/// Ends what [`acting_as`] began.
#[must_use]
pub(super) struct Acting {
    before: Priority,
}

/// From now on, until the answer is dropped, calls of this thread are of this priority.
pub(super) fn acting_as(priority: Priority) -> Acting {
    Acting { before: URGENCY.replace(priority) }
}

/// The priority of this thread's calls.
pub(super) fn current() -> Priority {
    URGENCY.get()
}

impl Drop for Acting {
    fn drop(&mut self) {
        URGENCY.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_ends_with_its_scope() {
        assert_eq!(current(), Priority::UserRead);
        let outer = acting_as(Priority::Demote);
        {
            let _inner = acting_as(Priority::Stage);
            assert_eq!(current(), Priority::Stage);
        }
        assert_eq!(current(), Priority::Demote);
        drop(outer);
        assert_eq!(current(), Priority::UserRead);
    }
}
