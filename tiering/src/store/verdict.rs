//! What an object in cold is when every byte of it is read: the whole copy of its segment, a damaged
//! one, or another's. Nothing is stored here but a sidecar in the place of a damaged one.

use crate::error::{Error, Result};
use crate::segment::{Identity, SegmentId, SegmentName, Trailer, identify, repair};

use super::Inner;
use super::cold::Cold;
use super::object::ColdObject;
use super::repair::Suspect;

/// What a look at every byte of an object in cold, and of its sidecar, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InCold {
    Whole,
    /// Only the sidecar was not, and was made anew.
    Renewed,
    /// Only the sidecar was not, or could not be read, and it could not be made anew.
    Bare,
    Damaged,
}

/// Said of an object that was read throughout and is damaged.
pub(super) fn unsound() -> Error {
    Error::Damaged { what: "cold object", reason: "its checksums do not match".into() }
}

/// What is said to fail with a sound object that is another's.
const RECOGNISE: &str = "recognise";

/// Whether an object is sound and not ours.
pub(super) fn is_stranger(error: &Error) -> bool {
    matches!(error, Error::Cold { action: RECOGNISE, .. })
}

/// A sound object that is not ours to take or to replace.
fn stranger(id: SegmentId, reason: &str) -> Error {
    Error::Cold {
        action: RECOGNISE,
        object: id.object_key(),
        source: format!("{reason}; was the volume opened elsewhere as well?").into(),
    }
}

impl Inner {
    /// Verifies that the object is the copy of this segment: by its own checksums, every shard of
    /// it, and by its trailer, which must be the local one where an index is left here.
    /// A sidecar that is lost or damaged is made anew. Whether it was.
    pub(super) fn verify_cold(&self, id: SegmentId) -> Result<bool> {
        match self.look_in_cold(self.cold_tier()?, &self.name(id))? {
            InCold::Whole | InCold::Bare => return Ok(false),
            InCold::Renewed => return Ok(true),
            InCold::Damaged => {}
        }
        self.suspect(id, Suspect::COLD);
        Err(unsound())
    }

    /// Reads a segment's object throughout, unless it is another's.
    pub(super) fn look_in_cold(&self, cold: &Cold, name: &SegmentName) -> Result<InCold> {
        let object = ColdObject::new(self, cold, name.id, self.cold_len(cold, name.id)?);
        self.recognise(&object, name)?;
        match object.verdict(repair(&object, name)) {
            Ok(found) if found.is_intact() => Ok(InCold::Whole),
            Ok(found) if !found.is_segment_intact() => {
                object.sidecar_verdict()?;
                Ok(InCold::Damaged)
            }
            Ok(found) => {
                let renewed = object
                    .sidecar_verdict()
                    .and_then(|()| self.renew_cold_sidecar(cold, &object, &found, name));
                match renewed {
                    Ok(true) => Ok(InCold::Renewed),
                    Ok(false) => Ok(InCold::Damaged),
                    Err(error) => {
                        let (id, error) = (name.id, super::read::chain(&error));
                        tracing::warn!(%id, error, "a segment in cold is whole, its sidecar is not");
                        Ok(InCold::Bare)
                    }
                }
            }
            Err(Error::Damaged { .. }) => Ok(InCold::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Refuses an object in cold that is known to be another's; one that is gone is nobody's.
    pub(super) fn check_owned(&self, cold: &Cold, id: SegmentId) -> Result<()> {
        match self.cold_len(cold, id) {
            Ok(len) => self.recognise(&ColdObject::new(self, cold, id, len), &self.name(id)),
            Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Refuses an object that names another volume or segment, or the content of another.
    pub(super) fn recognise(&self, object: &ColdObject<'_>, name: &SegmentName) -> Result<()> {
        match object.verdict(identify(object, name))? {
            Identity::Same(trailer) => self.check_same(name.id, &trailer),
            Identity::Foreign(other) => {
                let reason = format!("it is segment {} of volume {:?}", other.id, other.volume);
                Err(stranger(name.id, &reason))
            }
            Identity::Unknown => Ok(()),
        }
    }

    /// Whether the object's trailer is the one of the segment that is known here.
    fn check_same(&self, id: SegmentId, trailer: &Trailer) -> Result<()> {
        match self.hot.read_index(&self.name(id)) {
            Ok(index) if index.trailer() == trailer => Ok(()),
            Ok(_) => Err(stranger(id, "it holds other blocks than the segment here")),
            // Recovered from cold alone: what is there is what there is.
            Err(_) if !self.table.with(id, |s| s.record.hot).unwrap_or(false) => Ok(()),
            Err(error) => Err(stranger(id, &format!("the segment here cannot tell: {error}"))),
        }
    }
}
