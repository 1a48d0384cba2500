//! The order in which a stream has to say things, so that a place in it means something.

use bytes::Bytes;

use crate::namespace::{Position, Stage, Step};

/// What may come of one inode, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Object,
    Target,
    Xattrs,
    Slots,
}

/// Checks the order of steps.
#[derive(Debug)]
pub(super) struct Order {
    stage: Stage,
    /// The last inode or directory, and the first that may come after a resumption.
    object: u64,
    part: Option<Part>,
    last_xattr: Bytes,
    next_slot: u64,
    objects_end: u64,
}

impl Order {
    /// A stream that goes on at `position`, with inodes below `objects_end`.
    pub(super) fn new(position: Position, objects_end: u64) -> Self {
        let Position { stage, object, .. } = position;
        Self { stage, object, part: None, last_xattr: Bytes::new(), next_slot: 0, objects_end }
    }

    /// Takes the next step; returns where the stream goes on behind it.
    pub(super) fn next(&mut self, step: &Step) -> Result<Position, &'static str> {
        let at = step.position();
        if at.stage < self.stage {
            return Err("records out of order");
        }
        if at.stage > self.stage {
            (self.stage, self.object, self.part) = (at.stage, 0, None);
        }
        if at.object == 0 || at.object >= self.objects_end {
            return Err("inode number out of range");
        }
        match step {
            Step::Object(_) | Step::Remove { .. } => {
                let is_first = self.part.is_none();
                if at.object < self.object || at.object == self.object && !is_first {
                    return Err("inodes out of order");
                }
                (self.object, self.part) = (at.object, Some(Part::Object));
                (self.last_xattr, self.next_slot) = (Bytes::new(), 0);
            }
            Step::Target { .. } => self.enter(at.object, Part::Target, false)?,
            Step::Xattr { name, .. } => {
                self.enter(at.object, Part::Xattrs, true)?;
                if *name <= self.last_xattr {
                    return Err("attributes out of order");
                }
                self.last_xattr = name.clone();
            }
            Step::Slot { slot, .. } => {
                self.enter(at.object, Part::Slots, true)?;
                if *slot < self.next_slot {
                    return Err("slots out of order");
                }
                self.next_slot = slot.checked_add(1).ok_or("slot out of range")?;
            }
            Step::Unlink { .. } | Step::Link { .. } => {
                if at.object < self.object {
                    return Err("directories out of order");
                }
                self.object = at.object;
            }
        }
        let sub = if at.stage == Stage::Objects { self.next_slot } else { 0 };
        Ok(Position { sub, ..at })
    }

    /// Another part of the inode that came last.
    fn enter(&mut self, object: u64, part: Part, again: bool) -> Result<(), &'static str> {
        let fits = |before: Part| before < part || again && before == part;
        if object != self.object || !self.part.is_some_and(fits) {
            return Err("a part of no inode");
        }
        self.part = Some(part);
        Ok(())
    }
}
