//! The files of the daemon, for fuzzers.

use super::{jobs, placement, scrub};

/// Jobs, pins, the place of a scrub.
pub fn state(data: &[u8]) {
    jobs::fuzzing::journal(data);
    scrub::fuzzing::record(data);
    placement::fuzzing::pins(data);
}
