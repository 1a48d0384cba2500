//! Points in time as stored: seconds and nanoseconds, so that times before 1970 and far in the
//! future survive exactly.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Reader, RecordError, put_signed};

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A point in time with nanoseconds, before or after 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970, rounded down.
    pub secs: i64,
    /// Nanoseconds on top, below 10^9.
    pub nanos: u32,
}

impl Timestamp {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        put_signed(out, self.secs);
        out.extend_from_slice(&self.nanos.to_le_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let secs = reader.signed()?;
        let nanos = reader.u32_le()?;
        if nanos >= NANOS_PER_SEC {
            return Err(reader.error("nanoseconds out of range"));
        }
        Ok(Self { secs, nanos })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { secs: -whole, nanos: 0 },
                    nanos => {
                        Self { secs: (-whole).saturating_sub(1), nanos: NANOS_PER_SEC - nanos }
                    }
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let seconds = Duration::from_secs(time.secs.unsigned_abs());
        let whole = if time.secs >= 0 {
            UNIX_EPOCH.checked_add(seconds)
        } else {
            UNIX_EPOCH.checked_sub(seconds)
        };
        whole
            .and_then(|whole| whole.checked_add(Duration::from_nanos(u64::from(time.nanos))))
            .unwrap_or(UNIX_EPOCH)
    }
}
