//! A segment's object in the cold tier, and that of its sidecar, as bytes at an offset, so that what
//! checks local files checks it too. Reads ahead one piece, for checks go through an object in order.
//!
//! What checks files takes what it cannot read for damage. A tier that does not answer is no
//! damage, so the first failure is remembered, ends the reading, and [`ColdObject::verdict`]
//! returns it in place of what the check made of it. A sidecar that cannot be read is taken for a lost
//! one, and is asked for no more: the segment proves itself, and [`ColdObject::sidecar_verdict`] tells
//! whoever needs parity. What the tier itself knows to be damaged is
//! damage: around it the object is read in no larger parts than are asked for, so that no more is
//! lost than is.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::segment::{ReadAt, SegmentId};

use super::Inner;
use super::cold::Cold;
use super::upload::{CALL_DEADLINE, COMPARE_BYTES};

/// One object.
pub(super) struct ColdObject<'a> {
    inner: &'a Inner,
    cold: &'a Cold,
    id: SegmentId,
    key: String,
    len: u64,
    /// When reading ends, however far it came.
    until: Option<Instant>,
    piece: Mutex<(u64, Bytes)>,
    /// Damage lies in it.
    marred: Mutex<Range<u64>>,
    failure: Mutex<Option<Error>>,
    /// Looked for when it is asked for first.
    sidecar: OnceLock<Option<Box<Self>>>,
    /// Why the sidecar could not be looked for.
    unfound: Mutex<Option<Error>>,
}

impl<'a> ColdObject<'a> {
    pub(super) fn new(inner: &'a Inner, cold: &'a Cold, id: SegmentId, len: u64) -> Self {
        let (piece, marred, failure) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (key, sidecar, unfound) = (id.object_key(), OnceLock::new(), Mutex::default());
        Self { inner, cold, id, key, len, until: None, piece, marred, failure, sidecar, unfound }
    }

    /// The object of its sidecar. One that is gone, or that the tier knows to be damaged throughout,
    /// is none; so is one for which the tier does not answer, which is remembered.
    fn sidecar(&self) -> io::Result<&Self> {
        if self.sidecar.get().is_none() && !self.has_failed() {
            let (own, key) = (self.deadline(), self.id.sidecar_key());
            let found = match self.inner.object_len(self.cold, &key, own) {
                Ok(len) => {
                    let apart = Self::new(self.inner, self.cold, self.id, len);
                    Some(Box::new(Self { key, until: self.until, ..apart }))
                }
                Err(Error::NotFound(_) | Error::Damaged { .. }) => None,
                Err(error) => {
                    *self.unfound.lock() = Some(error);
                    None
                }
            };
            self.sidecar.get_or_init(|| found);
        }
        let found = self.sidecar.get().and_then(Option::as_deref);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn deadline(&self) -> Instant {
        let own = self.inner.config.clock.instant() + CALL_DEADLINE;
        self.until.map_or(own, |until| until.min(own))
    }

    /// The same, for a reader who has no longer than that.
    pub(super) fn until(
        inner: &'a Inner,
        cold: &'a Cold,
        id: SegmentId,
        len: u64,
        deadline: Instant,
    ) -> Self {
        Self { until: Some(deadline), ..Self::new(inner, cold, id, len) }
    }

    /// Whether a part of it could not be read.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// What a check of the object found, or why a part of it could not be read.
    pub(super) fn verdict<T>(&self, found: Result<T>) -> Result<T> {
        self.failure.lock().take().map_or(found, Err)
    }

    /// Whether parity that may be there could not be read.
    pub(super) fn sidecar_has_failed(&self) -> bool {
        let found = self.sidecar.get().and_then(Option::as_deref);
        self.unfound.lock().is_some() || found.is_some_and(Self::has_failed)
    }

    /// Why parity that may be there could not be read.
    pub(super) fn sidecar_verdict(&self) -> Result<()> {
        let found = self.sidecar.get().and_then(Option::as_deref);
        let unfound = self.unfound.lock().take();
        unfound.map_or(Ok(()), Err).and_then(|()| found.map_or(Ok(()), |one| one.verdict(Ok(()))))
    }

    fn load(&self, offset: u64, least: u64) -> io::Result<Bytes> {
        let mut marred = self.marred.lock();
        let end = self.len.min(offset + least.max(COMPARE_BYTES));
        if !marred.contains(&offset) && end > offset + least {
            match self.get(offset..end)? {
                Some(bytes) => return Ok(bytes),
                None => *marred = offset..end,
            }
        }
        self.get(offset..offset + least)?.ok_or_else(|| io::Error::other("it is damaged"))
    }

    /// `None` for what the tier knows to be damaged.
    fn get(&self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let unread = || io::Error::other("the object could not be read");
        let mut failure = self.failure.lock();
        if failure.is_some() {
            return Err(unread());
        }
        let deadline = self.deadline();
        let loaded = if self.inner.is_stopping() {
            Err(Error::ReadOnly("it is being closed".into()))
        } else {
            self.cold.get_range(self.key.clone(), range, deadline)
        };
        match loaded {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => {
                *failure = Some(error);
                Err(unread())
            }
        }
    }
}

impl ReadAt for ColdObject<'_> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut piece = self.piece.lock();
        let held = piece.0..piece.0 + piece.1.len() as u64;
        if offset < held.start || end > held.end {
            *piece = (offset, self.load(offset, end - offset)?);
        }
        let start = (offset - piece.0) as usize;
        let bytes = piece.1.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn sidecar_len(&self) -> io::Result<u64> {
        self.sidecar()?.len()
    }

    fn read_sidecar_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.sidecar()?.read_exact_at(buf, offset)
    }
}
