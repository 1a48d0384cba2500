//! Calls on the content of files.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use firn_tiering::Wait;

use super::handles::OpenFile;
use super::observer::Touch;
use super::table::Last;
use super::{Volume, must_wait};
use crate::error::{FsError, FsResult};
use crate::file::commit::Mode;
use crate::file::node::FileNode;
use crate::file::read::Manner;
use crate::file::write::Place;
use crate::namespace::{Durability, Inode, cleared_privileges, in_group};
use crate::types::{Caller, Fallocate, FileKind, Handle, Ino, OpenMode, Seek};

/// How long free space that is plenty need not be asked for again.
const FREE_KNOWN_FOR: Duration = Duration::from_secs(1);

/// More than can be written in that time.
const PLENTY: u64 = 8 << 30;

/// One write, as the kernel describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write<'a> {
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
    pub(super) from_cache: bool,
    pub(super) kill_privileges: bool,
}

impl Volume {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The state of a regular file that need not be open.
    pub(super) fn file(&self, ino: Ino) -> FsResult<Arc<FileNode>> {
        self.table.file(ino, || self.regular(ino))
    }

    fn regular(&self, ino: Ino) -> FsResult<crate::types::Attr> {
        let attr = self.names.getattr(ino)?;
        match attr.kind {
            FileKind::File => Ok(attr),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid("not a regular file")),
        }
    }

    pub(super) fn open_file(
        &self,
        caller: &Caller,
        ino: Ino,
        mode: OpenMode,
        wait: Wait,
    ) -> FsResult<Handle> {
        if self.snapdir(ino)?.is_some() {
            return Err(FsError::IsDirectory);
        }
        if mode.write || mode.truncate {
            self.check_writable()?;
            self.names.check_changeable(ino)?;
        }
        let _pass = if mode.truncate { Some(self.change_as(ino, wait)?) } else { None };
        let node = self.table.open(ino, || self.regular(ino))?;
        if mode.truncate
            && let Err(error) = self.resize(caller, &node, 0)
        {
            self.after_close(ino);
            return Err(error);
        }
        if mode.read
            && let Err(error) = self.note_access(&node)
        {
            self.after_close(ino);
            return Err(error);
        }
        Ok(self.add_handle(node, mode, caller))
    }

    /// A handle of a file that was just made.
    pub(super) fn open_new(
        &self,
        caller: &Caller,
        inode: &Inode,
        mode: OpenMode,
    ) -> FsResult<Handle> {
        let node = self.table.open(inode.ino, || Ok(inode.attr()))?;
        Ok(self.add_handle(node, mode, caller))
    }

    fn add_handle(&self, node: Arc<FileNode>, mode: OpenMode, caller: &Caller) -> Handle {
        let observer = self.observer.as_ref().filter(|_| self.names.is_live(node.ino));
        if let Some(observer) = observer {
            let size = node.state.read().size;
            observer.opened(node.ino, caller, mode, size);
        }
        let is_watched =
            !mode.write && self.thawer.as_ref().is_some_and(|thawer| thawer.is_watched(node.ino));
        self.handles.add(node, mode, *caller, observer.is_some(), is_watched)
    }

    pub(super) fn close_file(&self, ino: Ino, handle: Handle) {
        let Some(open) = self.handles.remove(handle) else { return };
        if let Err(error) = open.untold_failure() {
            // Nobody is left to be told; the data stays uncommitted or the volume read-only.
            let error = crate::file::chain(&error);
            tracing::error!(path = self.path(ino), error, "closed with a write error untold");
        }
        drop(open);
        self.after_close(ino);
    }

    fn after_close(&self, ino: Ino) {
        if self.table.close(ino) == Last::Purge {
            self.purger.purge(ino);
        }
    }

    pub(super) fn read_file(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        len: u32,
        wait: Wait,
    ) -> FsResult<Bytes> {
        let open = self.handles.get(ino, handle)?;
        let touch = open.touch(offset, u64::from(len));
        let observed = touch.zip(self.observer.as_ref());
        let may_look_ahead =
            || observed.is_none_or(|(touch, observer)| observer.may_look_ahead(&touch.caller));
        let (stream, is_upkeep) = (Some(&open.stream), false);
        let manner = Manner { stream, is_upkeep, may_look_ahead: &may_look_ahead };
        let waits = !matches!(wait, Wait::No);
        let _admitted = match observed {
            Some((touch, observer)) if waits => observer.admit(&touch, wait)?,
            _ => None,
        };
        let outcome = self.logged(ino, self.files.read(&open.node, manner, offset, len, wait))?;
        if let Some(thawer) = self.thawer.as_ref().filter(|_| open.is_watched)
            && open.jumps(offset, outcome.bytes.len() as u64)
        {
            thawer.note_random_read(ino);
        }
        if let Some((touch, observer)) = observed {
            let touch = Touch { len: outcome.bytes.len() as u64, ..touch };
            open.touched(&touch);
            observer.read(&touch, outcome.from_cold);
        }
        Ok(outcome.bytes)
    }

    pub(super) fn write_file(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Handle,
        write: Write<'_>,
        wait: Wait,
    ) -> FsResult<u32> {
        let open = self.handles.get(ino, handle)?;
        if !open.mode.write {
            return Err(FsError::BadHandle);
        }
        if open.mode.sync {
            must_wait(wait)?;
        }
        let Some(admitted) = self.admit_write(&open, &write, wait)? else {
            return Ok(write.data.len() as u32);
        };
        // The kernel's page cache has placed appended bytes itself.
        let place = match open.mode.append && !write.from_cache {
            true => Place::End,
            false => Place::At(write.offset),
        };
        let keeps_times = write.from_cache && !open.mode.stamps_cached;
        let stamp = (!keeps_times).then(|| self.now());
        let (written, pass) = self.files.write(&open.node, place, write.data, stamp, wait)?;
        drop(admitted);
        self.drop_privileges(caller, &open.node, write.kill_privileges)?;
        drop(pass);
        if let (Some(touch), Some(observer)) =
            (open.touch(write.offset, u64::from(written)), self.observer.as_ref())
        {
            open.touched(&touch);
            observer.written(&touch);
        }
        if open.mode.sync {
            self.sync_file(&open)?;
        }
        Ok(written)
    }

    /// Clears what a change of content must clear: file capabilities always, setuid and setgid
    /// where `and_bits` says so.
    fn drop_privileges(&self, caller: &Caller, node: &FileNode, and_bits: bool) -> FsResult<()> {
        if !and_bits && node.state.read().no_capability {
            return Ok(());
        }
        let guard = self.names.lock(&[node.ino]);
        let stored = match self.names.inode(node.ino) {
            Err(FsError::Stale) => return Ok(()),
            found => found?,
        };
        let mut inode = Inode::clone(&stored);
        if and_bits {
            inode.perm = cleared_privileges(inode.perm, || in_group(caller, inode.gid));
        }
        let mut txn = self.names.begin();
        self.names.drop_capability(&mut txn, &mut inode)?;
        if inode != *stored {
            inode.ctime = self.names.now();
            txn.put_inode(inode)?;
            self.changed(txn.commit(Durability::Buffered))?;
        }
        // Under the lock: who sets one meanwhile must have the last word.
        node.state.write().no_capability = true;
        drop(guard);
        Ok(())
    }

    /// Sets a file's length, as `truncate(2)`. The caller has passed the gate.
    pub(super) fn resize(&self, caller: &Caller, node: &Arc<FileNode>, size: u64) -> FsResult<()> {
        self.files.set_size(node, size, self.now())?;
        self.drop_privileges(caller, node, caller.uid != 0)
    }

    /// The last chance to tell a writer that there is no room: what it wrote is written back
    /// now when it is doubtful that there is.
    pub(super) fn flush_file(&self, ino: Ino, handle: Handle, wait: Wait) -> FsResult<()> {
        let open = self.handles.get(ino, handle)?;
        // What was written and not committed went with the file's dataset.
        if open.mode.write {
            open.node.live_state().map(drop)?;
        }
        open.untold_failure()?;
        if !open.mode.write || !open.node.state.read().is_dirty() || self.has_room()? {
            return Ok(());
        }
        must_wait(wait)?;
        let done = self.files.commit(std::slice::from_ref(&open.node), Mode::Small);
        if done.is_err() {
            open.told();
        }
        self.logged(ino, done)
    }

    /// Whether everything that is buffered will find room.
    fn has_room(&self) -> FsResult<bool> {
        if self.files.flush_found_no_space() {
            return Ok(false);
        }
        let need = 2 * self.files.buffered_bytes();
        let now = self.clock.instant();
        let mut known = self.known_free.lock();
        let lately = known.is_some_and(|(at, free)| {
            now.saturating_duration_since(at) < FREE_KNOWN_FOR && free > need + PLENTY
        });
        if !lately {
            *known = Some((now, self.storage.space()?.free_bytes));
        }
        Ok(known.is_some_and(|(_, free)| free > need))
    }

    pub(super) fn fsync_file(&self, ino: Ino, handle: Handle, wait: Wait) -> FsResult<()> {
        let open = self.handles.get(ino, handle)?;
        let small = matches!(wait, Wait::No);
        // One at a time, so that no more than one of the threads that serve calls is held up.
        let turn = if small { self.small_sync.try_lock() } else { None };
        if small && turn.is_none() {
            return Err(FsError::WouldWait);
        }
        open.node.live_state().map(drop)?;
        open.untold_failure()?;
        let done = if small { self.sync_small(&open) } else { self.sync_file(&open) };
        self.logged(ino, done)
    }

    /// Syncs what the namespace's log takes; `WouldWait` where that is not all. Going to another
    /// thread and back would take longer than the sync.
    fn sync_small(&self, open: &OpenFile) -> FsResult<()> {
        let done = match self.files.commit_inline(&open.node) {
            Ok(true) => self.changed(self.names.sync()),
            Ok(false) => return Err(FsError::WouldWait),
            Err(error) => Err(error),
        };
        if done.is_err() {
            open.told();
        }
        done
    }

    fn sync_file(&self, open: &OpenFile) -> FsResult<()> {
        let done = self
            .files
            .commit(std::slice::from_ref(&open.node), Mode::Small)
            .and_then(|()| self.changed(self.names.sync()));
        if done.is_err() {
            open.told();
        }
        done
    }

    /// Commits a file's data before it takes the place of another; `WouldWait` where that needs
    /// more than the namespace's log.
    pub(super) fn commit_before_rename(&self, ino: Ino, wait: Wait) -> FsResult<()> {
        let Some(node) = self.table.loaded(ino) else { return Ok(()) };
        let dirty = node.state.read().is_dirty();
        if !dirty || self.files.commit_inline(&node)? {
            return Ok(());
        }
        must_wait(wait)?;
        self.files.commit(std::slice::from_ref(&node), Mode::Small)
    }

    pub(super) fn allocate_file(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Handle,
        range: (u64, u64),
        what: Fallocate,
        wait: Wait,
    ) -> FsResult<()> {
        let open = self.handles.get(ino, handle)?;
        let (offset, len) = range;
        if matches!(what, Fallocate::Allocate { .. })
            && self.files.unallocated(&open.node, offset, len)? > self.storage.space()?.free_bytes
        {
            return Err(FsError::NoSpace);
        }
        let _admitted = match what {
            Fallocate::PunchHole => None,
            Fallocate::Allocate { .. } | Fallocate::ZeroRange { .. } => {
                let bytes = self.files.unallocated(&open.node, offset, len)?;
                Some(self.admit(ino, bytes, wait)?)
            }
        };
        let _pass = self.change_as(ino, wait)?;
        self.files.fallocate(&open.node, offset, len, what, self.now())?;
        self.drop_privileges(caller, &open.node, caller.uid != 0)
    }

    pub(super) fn seek_file(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        what: Seek,
    ) -> FsResult<u64> {
        let open = self.handles.get(ino, handle)?;
        self.logged(ino, self.files.seek(&open.node, offset, what))
    }

    pub(super) fn copy_file(
        &self,
        caller: &Caller,
        from: (Ino, Handle, u64),
        to: (Ino, Handle, u64),
        len: u64,
        wait: Wait,
    ) -> FsResult<u64> {
        let source = self.handles.get(from.0, from.1)?;
        let target = self.handles.get(to.0, to.1)?;
        if target.mode.append {
            return Err(FsError::BadHandle);
        }
        if target.mode.sync {
            must_wait(wait)?;
        }
        let size = source.node.live_state()?.size;
        let admitted = self.admit(to.0, len.min(size.saturating_sub(from.2)), wait)?;
        let (copied, pass) = self.files.copy_range(
            (&source.node, from.2),
            (&target.node, to.2),
            len,
            self.now(),
            wait,
        )?;
        drop(admitted);
        self.drop_privileges(caller, &target.node, caller.uid != 0)?;
        drop(pass);
        if target.mode.sync {
            self.sync_file(&target)?;
        }
        Ok(copied)
    }
}
