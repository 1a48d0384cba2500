//! Attributes `user.firn.*`. Those that say where a file's content lies and how it is used are
//! read-only, computed when asked for, and appear in no listing. `user.firn.pin` is stored as any
//! other, so that it goes where the file goes; see [`Pin`].

use blake3::Hash;

use super::Volume;
use super::observer::Told;
use super::storage::{Placement, Storage};
use crate::error::{FsError, FsResult};
use crate::namespace::Namespace;
use crate::types::{FileKind, Ino, Pin};

const PREFIX: &[u8] = b"user.firn.";

/// The attribute that pins.
pub(super) const PIN_NAME: &[u8] = b"user.firn.pin";

/// Slots looked at together.
const PAGE: usize = 256;

/// Is the name one of ours?
pub(super) fn is_virtual(name: &[u8]) -> bool {
    name.starts_with(PREFIX) && name != PIN_NAME
}

/// Content of a file by place, in bytes of plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Residence {
    hot: u64,
    cold: u64,
    both: u64,
    lost: u64,
}

impl Residence {
    fn add(&mut self, place: Placement, len: u64) {
        match (place.hot, place.cold) {
            (true, true) => self.both += len,
            (true, false) => self.hot += len,
            (false, true) => self.cold += len,
            (false, false) => self.lost += len,
        }
    }

    fn state(&self) -> &'static str {
        match self {
            Self { lost: 1.., .. } => "error",
            Self { cold: 0, hot: 0, both: 1.., .. } => "dual",
            Self { cold: 0, .. } => "resident",
            Self { hot: 0, both: 0, .. } => "cold",
            _ => "partial",
        }
    }

    fn resident_pct(&self) -> u64 {
        let here = self.hot + self.both;
        match here + self.cold + self.lost {
            0 => 100,
            // As a share of 100, never 100 while something is missing.
            all => (u128::from(here) * 100 / u128::from(all)) as u64,
        }
    }
}

impl Volume {
    pub(super) fn virtual_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        let attr = self.names.getattr(ino)?;
        if attr.kind != FileKind::File {
            return Err(FsError::NoAttribute);
        }
        let value = match &name[PREFIX.len()..] {
            b"state" => self.state_of(ino)?.to_owned(),
            b"resident_pct" => self.residence(ino)?.resident_pct().to_string(),
            b"blake3" => {
                let digest = self.content_digest(ino)?.ok_or(FsError::NoAttribute)?;
                digest.to_hex().to_string()
            }
            b"heat" => self.told(ino, Told::Heat)?,
            b"p_reuse" => self.told(ino, Told::Reuse)?,
            b"policy" => self.told(ino, Told::Policy)?,
            _ => return Err(FsError::NoAttribute),
        };
        Ok(value.into_bytes())
    }

    fn state_of(&self, ino: Ino) -> FsResult<&'static str> {
        if self.is_dirty(ino) {
            return Ok("dirty");
        }
        let residence = self.residence(ino)?;
        let is_away = residence.cold > 0 && residence.lost == 0;
        let is_coming = || self.observer.as_ref().is_some_and(|observer| observer.is_coming(ino));
        Ok(if is_away && is_coming() { "fetching" } else { residence.state() })
    }

    /// What only who observes can tell.
    fn told(&self, ino: Ino, what: Told) -> FsResult<String> {
        let told = self.observer.as_ref().and_then(|observer| observer.tell(ino, what));
        told.ok_or(FsError::NoAttribute)
    }

    /// The pin that was set on a file or directory itself, if there is a valid one.
    pub fn pin(&self, ino: Ino) -> FsResult<Option<Pin>> {
        match self.names.getxattr(ino, PIN_NAME) {
            Ok(value) => Ok(Pin::parse(&value)),
            Err(FsError::NoAttribute) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn pin_changed(&self, ino: Ino, name: &[u8]) {
        if name == PIN_NAME
            && let Some(observer) = &self.observer
        {
            observer.pin_changed(ino);
        }
    }

    /// The BLAKE3 of all that a file holds, once it was computed; `None` while somebody may be
    /// writing to it, since the kernel tells of that late.
    pub fn content_digest(&self, ino: Ino) -> FsResult<Option<Hash>> {
        // First: what is committed from here on has been taken out of the inode before.
        if self.table.is_changing(ino) {
            return Ok(None);
        }
        Ok(self.names.inode(ino)?.content_digest())
    }

    fn residence(&self, ino: Ino) -> FsResult<Residence> {
        Residence::of(&self.names, &*self.storage, ino)
    }
}

impl Residence {
    /// Where the committed content of a file lies.
    fn of(names: &Namespace, storage: &dyn Storage, ino: Ino) -> FsResult<Self> {
        let mut residence = Self::default();
        each_place(names, storage, ino, &mut |place, len| {
            residence.add(place, len);
            true
        })?;
        Ok(residence)
    }
}

/// Passes the place of each piece of a file and its length, in order, until `visit` returns `false`.
fn each_place(
    names: &Namespace,
    storage: &dyn Storage,
    ino: Ino,
    visit: &mut dyn FnMut(Placement, u64) -> bool,
) -> FsResult<()> {
    let mut next = Some(0);
    while let Some(from) = next {
        let page = names.slots(ino, from, u64::MAX, PAGE)?;
        next = page.next;
        let pieces = || page.slots.iter().flat_map(|(_, record)| &record.pieces);
        let blocks: Vec<_> =
            pieces().filter_map(|piece| piece.block().map(|block| block.id)).collect();
        let places = storage.placements(&blocks)?;
        let lens = pieces().filter(|piece| piece.block().is_some()).map(|piece| piece.len);
        for (place, len) in places.into_iter().zip(lens) {
            if !visit(place, u64::from(len)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether all of a file can be read without the cold tier.
pub(super) fn is_resident(names: &Namespace, storage: &dyn Storage, ino: Ino) -> FsResult<bool> {
    let mut is_resident = true;
    each_place(names, storage, ino, &mut |place, _| {
        is_resident = place.hot;
        is_resident
    })?;
    Ok(is_resident)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_the_command() {
        let of = |hot, cold, both| Residence { hot, cold, both, lost: 0 };
        assert_eq!(of(0, 0, 0).state(), "resident");
        assert_eq!(of(1, 0, 0).state(), "resident");
        assert_eq!(of(1, 0, 1).state(), "resident");
        assert_eq!(of(0, 0, 1).state(), "dual");
        assert_eq!(of(0, 1, 0).state(), "cold");
        assert_eq!(of(1, 1, 0).state(), "partial");
        assert_eq!(of(0, 1, 1).state(), "partial");
        assert_eq!(Residence { lost: 1, ..of(1, 1, 1) }.state(), "error");
        assert_eq!(of(2, 1, 0).resident_pct(), 66);
        assert_eq!(of(0, 0, 0).resident_pct(), 100);
    }
}
