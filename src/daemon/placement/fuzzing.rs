//! The index of pins for fuzzers.

use super::pins::{MOST_PINS, parse};

/// A file of pins.
pub(in crate::daemon) fn pins(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(pins) = parse(text) {
        assert!(pins.len() <= MOST_PINS);
    }
}
