//! Names that came and went of files that have a link record for each, by the records that differ.
//!
//! Only the file's own records are read, whatever lies beside its names; and none at all if no name
//! came or went.

use super::compare::{Comparison, Homes, Link, Moves};
use super::links::{LINK_BYTES, Side};
use crate::error::FsResult;
use crate::namespace::Namespace;
use crate::namespace::key::{Kind, LinkAt};
use crate::namespace::pair::{Both, Pair};
use crate::namespace::record::{InodeFlags, link_name};
use crate::namespace::tree::View;
use crate::types::Ino;

/// Gets a name; `false` ends it.
type Visit<'a> = dyn FnMut(Link) -> FsResult<bool> + 'a;

impl Comparison<'_> {
    /// The names that went and came of an object of which all are known; `None` when they have no
    /// room.
    pub(super) fn recorded_moves(&self, both: &Both, homes: &Homes) -> FsResult<Option<Moves>> {
        let mut moves = Moves::default();
        let mut bytes = 0;
        for side in [Side::Gone, Side::Come] {
            let found = match side {
                Side::Gone => &mut moves.gone,
                Side::Come => &mut moves.come,
            };
            let mut visit = |link: Link| {
                bytes += LINK_BYTES + link.name.len();
                found.push(link);
                // One that went and one that came are told as one, whatever room there is.
                Ok(bytes <= self.limits.link_bytes || found.len() < 2)
            };
            if !self.names.recorded(&self.older, &self.pair, both, homes, side, &mut visit)? {
                return Ok(None);
            }
            found.sort_unstable();
        }
        Ok(Some(moves))
    }

    /// Passes names on as they are found; of so many, none is the only one.
    pub(super) fn tell_recorded(&mut self, both: &Both, homes: &Homes) -> FsResult<bool> {
        let (names, older, pair) = (self.names, self.older, self.pair);
        for side in [Side::Gone, Side::Come] {
            let mut tell = |link: Link| self.tell_move(both, side, &link);
            if !names.recorded(&older, &pair, both, homes, side, &mut tell)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Namespace {
    /// Passes the names that one of two states has and the other has not; `false` when the visitor
    /// ended it.
    fn recorded(
        &self,
        older: &View,
        pair: &Pair,
        both: &Both,
        homes: &Homes,
        side: Side,
        visit: &mut Visit<'_>,
    ) -> FsResult<bool> {
        let (inode, home, other) = match side {
            Side::Gone => (&both.old, &homes.old, &pair.newer),
            Side::Come => (&both.new, &homes.new, older),
        };
        let Some(inode) = inode else { return Ok(true) };
        if !inode.flags.has(InodeFlags::LINKS) {
            return match home {
                Some(home) if !self.has_link(other, home, both.object)? => visit(home.clone()),
                _ => Ok(true),
            };
        }
        if !both.may_differ(Kind::Link) {
            return Ok(true);
        }
        self.differing(pair, both, (Kind::Link, &[]), &mut |sub, old, new| {
            let item = match side {
                Side::Gone => old,
                Side::Come => new,
            };
            let Some(item) = item else { return Ok(true) };
            let dir = Ino(LinkAt::decode(sub)?.dir);
            let link = Link { dir, name: link_name(item.record()?)?.to_vec() };
            // It may have been taken away and given again.
            if self.has_link(other, &link, both.object)? {
                return Ok(true);
            }
            visit(link)
        })
    }
}
