//! A switch of `scripts/bench.sh` for showing what protection costs: without parity, and with reads
//! believed as they come. Nothing else may throw it: what is written meanwhile stays without parity.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// From now on this process protects nothing.
pub fn leave_unprotected() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Whether this process protects nothing.
pub(super) fn is_unprotected() -> bool {
    IS_ON.load(Ordering::Relaxed)
}
