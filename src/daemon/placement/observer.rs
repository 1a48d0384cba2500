//! What happens to files, as the volume tells it: uses are noted, reads of cold data get their turn
//! and may bring back what they read. All of it from memory.

use std::sync::Arc;

use firn_mount::types::{Caller, Ino, OpenMode};
use firn_mount::volume::{Admission, Observer, Told, Touch};
use firn_mount::{FsError, FsResult};
use firn_tiering::Wait;
use firn_tiering::recall::ColdRead;

use super::Placement;
use super::uses::Touched;

/// A placement that observes.
pub(in crate::daemon) struct Watcher(pub(in crate::daemon) Arc<Placement>);

impl Watcher {
    /// A file that stays open is not opened again where it is used again.
    fn note_visit(&self, ino: Ino, touched: Touched) {
        if let Touched::Visit { at_ms } = touched {
            self.0.foresight.visited(ino, at_ms);
        }
    }
}

impl Observer for Watcher {
    fn opened(&self, ino: Ino, caller: &Caller, mode: OpenMode, size: u64) {
        let opened = self.0.uses.opened(&self.0.names, ino, caller, mode, size);
        if let Some((request, counts)) = opened {
            self.0.foresight.opened(request, counts);
        }
    }

    fn read(&self, touch: &Touch, from_cold: bool) {
        let touched = self.0.uses.read(&self.0.names, touch);
        self.note_visit(touch.ino, touched);
        if !from_cold || touch.len == 0 {
            return;
        }
        let file_size = self.0.names.inode(touch.ino).map_or(0, |inode| inode.size);
        let read = ColdRead {
            user: touch.caller.uid,
            item: touch.ino.0,
            range: touch.offset..touch.offset.saturating_add(touch.len),
            file_size,
            is_scan: touched == Touched::Scan,
        };
        if let Some(what) = self.0.recall.served(&read, || !self.0.stays_in_cold(touch.ino)) {
            self.0.want_back(touch.ino, what);
        }
    }

    fn may_look_ahead(&self, caller: &Caller) -> bool {
        self.0.recall.may_read_ahead(caller.uid)
    }

    fn written(&self, touch: &Touch) {
        let touched = self.0.uses.written(&self.0.names, touch);
        self.note_visit(touch.ino, touched);
    }

    fn admit(&self, touch: &Touch, wait: Wait) -> FsResult<Admission> {
        let admitted = self.0.recall.admit(touch.caller.uid, wait).map_err(FsError::from)?;
        Ok(Some(Box::new(admitted)))
    }

    fn removed(&self, ino: Ino) {
        self.0.uses.removed(ino);
        self.0.foresight.removed(ino);
        self.0.recall.forget(ino.0);
        self.0.pins.note(ino, None);
    }

    fn pin_changed(&self, ino: Ino) {
        let value = self.0.names.getxattr(ino, super::pins::NAME);
        let pin = value.ok().and_then(|value| firn_mount::types::Pin::parse(&value));
        self.0.pins.note(ino, pin);
    }

    fn is_coming(&self, ino: Ino) -> bool {
        self.0.jobs.is_coming(ino.0)
    }

    fn tell(&self, ino: Ino, what: Told) -> Option<String> {
        self.0.tell(ino, what)
    }
}
