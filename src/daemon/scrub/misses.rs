//! Segments that a pass leaves for the next one since the cold tier or the disk did not answer: so many in a
//! row, as each has waited as long as it may. Nothing of it is stored.

use firn_tiering::segment::SegmentId;
use firn_tiering::store::Scrubbed;
use firn_tiering::tier::is_retriable;
use firn_tiering::{Error, Result};

/// Segments in a row that are left before the pass rests.
const MOST: u32 = 8;

/// How many were left in a row.
#[derive(Debug, Default)]
pub(super) struct Misses(u32);

impl Misses {
    /// What was found in a segment; `None` also for one that is left. An error ends the step.
    pub(super) fn judge(
        &mut self,
        id: SegmentId,
        found: Result<Option<Scrubbed>>,
    ) -> Result<Option<Scrubbed>> {
        match found {
            // One that cannot be judged must not hold up all that follow.
            Err(error @ Error::Damaged { .. }) => {
                tracing::error!(%id, %error, "a segment could not be looked over");
                Ok(None)
            }
            Err(error) if may_pass(&error) && self.0 < MOST => {
                self.0 += 1;
                tracing::warn!(%id, %error, "a segment is left for the next pass");
                Ok(None)
            }
            found => {
                if found.is_ok() {
                    self.0 = 0;
                }
                found
            }
        }
    }
}

/// Whether a tier or the disk may answer later.
fn may_pass(error: &Error) -> bool {
    is_retriable(error) || matches!(error, Error::Io { .. })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_pass_leaves_a_few_segments_in_a_row_and_rests_then() {
        let mut misses = Misses::default();
        let id = SegmentId::from_raw(1);
        type Miss = fn() -> Result<Option<Scrubbed>>;
        let late: Miss = || Err(Error::TimedOut("asking the cold tier"));
        let unread: Miss = || Err(Error::io("read a segment")(std::io::ErrorKind::Other.into()));
        for late in [late, unread] {
            for _ in 0..MOST {
                assert!(misses.judge(id, late()).unwrap().is_none());
            }
            assert!(misses.judge(id, late()).is_err());
            assert!(misses.judge(id, late()).is_err(), "until one answers");
            assert!(misses.judge(id, Ok(Some(Scrubbed::default()))).unwrap().is_some());
        }
        let reason = "its checksums do not match".to_owned();
        for _ in 0..3 * MOST {
            let damaged = Err(Error::Damaged { what: "segment", reason: reason.clone() });
            assert!(misses.judge(id, damaged).unwrap().is_none(), "damage is no miss");
        }
        assert!(misses.judge(id, Err(Error::ReadOnly("it is being closed".into()))).is_err());
    }
}
