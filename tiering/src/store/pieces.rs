//! Objects in cold that lie in pieces on several stores: pieces that are missing or damaged are
//! found by scrubs and checks and made anew, while the others still make up the object.
//!
//! *Crash*: as [`Tier::mend`] leaves it; whoever drives this begins again.
//!
//! [`Tier::mend`]: crate::tier::Tier::mend

use crate::error::{Error, Result};
use crate::segment::SegmentId;
use crate::throttle::Priority;
use crate::tier::{Care, TierFailure, Wholeness, is_retriable};

use super::cold::Cold;
use super::repair::{DamageReport, Mended, Suspect};
use super::upload::CALL_DEADLINE;
use super::urgency::acting_as;
use super::{BlockStore, Inner};

/// Objects in a row that a tier may not answer for before it counts as away.
const MOST_MISSES: u32 = 3;

/// What was seen of the objects in cold that are no segments.
#[derive(Clone, Debug, Default)]
pub struct MendedObjects {
    /// Those that lacked pieces, or could not be looked at.
    pub found: Vec<PieceFinding>,
    /// Those with pieces on stores that are away.
    pub out_of_reach: u64,
}

/// What became of the pieces of a segment's object.
#[derive(Debug, Default)]
pub(super) struct MendedPieces {
    /// Some were made anew.
    pub(super) report: Option<DamageReport>,
    /// Some are lacking still, or out of reach.
    pub(super) are_incomplete: bool,
    /// Fewer are left than make the object.
    pub(super) are_too_few: bool,
}

/// What lacked pieces, or could not be looked at.
#[derive(Clone, Debug)]
pub struct PieceFinding {
    /// The object.
    pub key: String,
    /// What is wrong, in words.
    pub what: String,
    /// It is whole again.
    pub renewed: bool,
}

impl BlockStore {
    /// Has the cold tier removed what belongs to no object; where it is several stores, it sees which
    /// of them lack nothing any more.
    pub fn clean_cold(&self) {
        let _acting = acting_as(Priority::Scrub);
        self.inner.clean_cold();
    }

    /// Looks at the objects in cold that are no segments: backups, claims, the volume's identity.
    pub fn mend_objects(&self, care: Care) -> Result<MendedObjects> {
        let _acting = acting_as(Priority::Scrub);
        let inner = &self.inner;
        let Some(cold) = &inner.cold else { return Ok(MendedObjects::default()) };
        let mut keys = Vec::new();
        cold.list("", inner.config.clock.instant() + CALL_DEADLINE, |object| {
            if !object.key.starts_with("segments/") {
                keys.push(object.key.clone());
            }
        })?;
        let mut seen = MendedObjects::default();
        let mut misses = 0;
        for key in keys {
            match inner.mend_key(cold, &key, care) {
                Ok(whole) if whole.pieces == 0 => break,
                Ok(whole) => {
                    misses = 0;
                    seen.out_of_reach += u64::from(!whole.away.is_empty());
                    seen.found.extend(finding(key, &whole));
                }
                // It went meanwhile.
                Err(Error::NotFound(_)) => {}
                // Its segment makes it anew.
                Err(Error::Damaged { .. }) if SegmentId::of_sidecar_key(&key).is_some() => {
                    if let Some(id) = SegmentId::of_sidecar_key(&key) {
                        inner.suspect(id, Suspect::COLD);
                    }
                }
                // Each has waited as long as it may.
                Err(error) if is_retriable(&error) && misses >= MOST_MISSES => return Err(error),
                Err(error) => {
                    misses += u32::from(is_retriable(&error));
                    let what = super::read::chain(&error);
                    seen.found.push(PieceFinding { key, what, renewed: false });
                }
            }
        }
        Ok(seen)
    }
}

/// What is to be told of an object; nothing when all pieces are there.
fn finding(key: String, whole: &Wholeness) -> Option<PieceFinding> {
    let what = lacking(whole)?;
    Some(PieceFinding { key, what, renewed: whole.renewed })
}

/// Which pieces are lacking, in words.
fn lacking(whole: &Wholeness) -> Option<String> {
    let (count, all) = (whole.lacking.len(), whole.pieces);
    let which = whole.lacking.join(", ");
    let mut what = format!("{count} of {all} shards are missing or damaged: {which}");
    if !whole.failed.is_empty() {
        let why = whole.failed.join("; ");
        what = format!("{what}; made anew, and not taken: {why}");
    }
    (count > 0).then_some(what)
}

impl Inner {
    fn mend_key(&self, cold: &Cold, key: &str, care: Care) -> Result<Wholeness> {
        let deadline = self.config.clock.instant() + CALL_DEADLINE;
        let key = key.to_owned();
        cold.call(deadline, "looking for the shards of an object", move |tier| {
            Box::pin(async move { tier.mend(&key, care).await })
        })
    }

    /// Which pieces of a segment's object are lacking, in words.
    pub(super) fn lacking_pieces(&self, id: SegmentId, content: bool) -> Result<Option<String>> {
        let care = Care { content, repair: false };
        Ok(lacking(&self.mend_key(self.cold_tier()?, &id.object_key(), care)?))
    }

    /// Makes lacking pieces of a segment's object anew. One that is missing is for others to see.
    pub(super) fn mend_pieces(&self, id: SegmentId, content: bool) -> Result<MendedPieces> {
        let care = Care { content, repair: true };
        let whole = match self.mend_key(self.cold_tier()?, &id.object_key(), care) {
            Ok(whole) => whole,
            Err(Error::NotFound(_)) => return Ok(MendedPieces::default()),
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!(%id, error = super::read::chain(&error), "too few shards are sound");
                return Ok(MendedPieces { are_too_few: true, ..MendedPieces::default() });
            }
            Err(error) if is_retriable(&error) || TierFailure::of(&error).is_none() => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%id, error = super::read::chain(&error), "shards stay as they are");
                return Ok(MendedPieces { are_incomplete: true, ..MendedPieces::default() });
            }
        };
        let mut mended = MendedPieces {
            are_incomplete: !whole.away.is_empty() || !whole.failed.is_empty(),
            ..MendedPieces::default()
        };
        let Some(what) = lacking(&whole) else { return Ok(mended) };
        if whole.renewed {
            let (blocks, in_cold) = (Vec::new(), true);
            let report = DamageReport { segment: id, in_cold, what, blocks, mended: Mended::Whole };
            self.note_mended(&report);
            mended.report = Some(report);
        } else {
            tracing::warn!(%id, what, "an object in cold lacks shards");
        }
        Ok(mended)
    }
}
