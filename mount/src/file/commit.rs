//! Brings what files hold uncommitted into blocks and the namespace.
//!
//! A commit of some files: take a snapshot of each, with size and times; hand bytes that no block
//! holds to the encoders, packing small runs together; wait for the blocks; one sync; one
//! namespace batch; drop from the overlays what was in the snapshots.
//!
//! *Crash* before the batch: the files are as they were before. After it: as in the snapshots.
//! *Failure* of an append, or of reading a record that the commit changes: the file keeps its data
//! uncommitted, is told, and is tried again.
//! *Failure* of the sync or of the namespace's commit: the volume takes no more writes; data stays
//! readable.
//! *Deadline*: once an append of a commit has waited for room in vain, its others wait no more, so
//! that a tier that is full and hangs is waited for once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use firn_tiering::encode::EncodeMemory;
use parking_lot::Mutex;

use super::extents::{FileCommit, Form};
use super::job::{EncodeJob, Work};
use super::node::{FileNode, FileState, PendingTimes};
use super::overlay::{Fill, Span};
use super::piece::{self, Content, Patch, Piece};
use super::{Files, MAX_FILE_LEN, SLOT_LEN};
use crate::error::{FsError, FsResult};

/// An `fsync` of up to this many bytes puts them into the namespace's log.
const INLINE_LIMIT: u64 = 64 << 10;

/// A run of at least this length gets a block of its own.
const OWN_BLOCK: u64 = 256 << 10;

/// Runs in a pack begin at multiples of this, where the elements of arrays do: filters and matches
/// find nothing in arrays that are shifted against each other.
const PACK_ALIGN: u64 = 8;

/// Files in one namespace batch; more would hold the locks of their inodes for long.
const BATCH_FILES: usize = 128;

/// Slots of preallocation written in one batch.
const UNWRITTEN_SLOTS: u64 = 4096;

/// A slot with more pieces is worth settling.
pub(super) const MANY_PIECES: usize = 32;

/// Who asks for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The flusher: everything becomes blocks.
    Group,
    /// A caller that waits: little data goes inline.
    Small,
}

/// A file at one instant.
struct Taken {
    node: Arc<FileNode>,
    spans: Vec<(u64, Span)>,
    seq: u64,
    size: u64,
    times: PendingTimes,
    attr_seq: u64,
    inline: bool,
    form: Form,
}

impl Files {
    /// Commits everything that these files hold now. On failure the first error; each file that
    /// failed is told as well.
    pub(crate) fn commit(&self, nodes: &[Arc<FileNode>], mode: Mode) -> FsResult<()> {
        let mut nodes: Vec<&Arc<FileNode>> = nodes.iter().collect();
        nodes.sort_by_key(|node| node.ino);
        nodes.dedup_by_key(|node| node.ino);
        // In inode order, so that two commits never wait for each other.
        let _guards: Vec<_> = nodes.iter().map(|node| node.commit.lock()).collect();
        let mut taken = Vec::new();
        let mut first_error = None;
        for node in nodes {
            match self.take(node, mode) {
                Ok(Some(file)) => taken.push(file),
                Ok(None) => {}
                Err(FsError::Stale) => node.drop_content(),
                Err(error) => {
                    node.note_failure(&error);
                    first_error.get_or_insert(error);
                }
            }
        }
        if taken.is_empty() {
            return first_error.map_or(Ok(()), Err);
        }
        self.health.check()?;
        self.encode(&mut taken);
        taken.retain_mut(|file| match file.resolve() {
            Ok(()) => true,
            Err(error) => {
                if let FsError::ReadOnly(reason) = &error {
                    self.health.fail(reason.clone());
                }
                file.node.note_failure(&error);
                first_error.get_or_insert(error);
                false
            }
        });
        let permanent = self.make_permanent(&taken);
        first_error.map_or(permanent, Err)
    }

    /// Commits `node` now if that needs neither an encoder nor a sync; `false` when it does, or
    /// when another commit of it runs.
    pub(crate) fn commit_inline(&self, node: &Arc<FileNode>) -> FsResult<bool> {
        let Some(_guard) = node.commit.try_lock() else { return Ok(false) };
        let file = {
            let mut state = node.state.write();
            if !state.is_dirty() {
                return Ok(true);
            }
            self.health.check()?;
            let spans = state.overlay.snapshot();
            if !self.fits_inline(node, &spans)? {
                return Ok(false);
            }
            // Nothing of it becomes a block.
            Taken::of(node, &state, spans, true, Form::default())
        };
        self.make_permanent(std::slice::from_ref(&file)).map(|()| true)
    }

    /// Takes a snapshot; `None` when there is nothing to commit.
    fn take(&self, node: &Arc<FileNode>, mode: Mode) -> FsResult<Option<Taken>> {
        let mut state = node.state.write();
        if !state.is_dirty() {
            return Ok(None);
        }
        let mut spans = state.overlay.snapshot();
        let inline = mode == Mode::Small && self.fits_inline(node, &spans)?;
        if !inline && self.lift_inline(node, &mut state.overlay, &spans)? {
            spans = state.overlay.snapshot();
        }
        let form = self.names.form(node.ino, state.size);
        Ok(Some(Taken::of(node, &state, spans, inline, form)))
    }

    /// Whether the namespace's log takes all of it, without a sync of segments.
    fn fits_inline(&self, node: &FileNode, spans: &[(u64, Span)]) -> FsResult<bool> {
        let mut fresh = 0;
        for (_, span) in spans {
            match &span.fill {
                Fill::Buffered(_) => fresh += span.len,
                Fill::Stored { block, .. } if self.durability.is_durable(block.ticket) => {}
                Fill::Hole | Fill::Unwritten => {}
                Fill::Stored { .. } | Fill::Encoding { .. } | Fill::Active { .. } => {
                    return Ok(false);
                }
            }
        }
        if fresh > INLINE_LIMIT {
            return Ok(false);
        }
        for slot in buffered_slots(spans) {
            if piece::inline_len(&self.slot(node, slot)?) + fresh > INLINE_LIMIT {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes committed inline pieces of the slots that change uncommitted bytes again, so that
    /// they become part of a block. Says whether there were any.
    fn lift_inline(
        &self,
        node: &FileNode,
        overlay: &mut super::overlay::Overlay,
        spans: &[(u64, Span)],
    ) -> FsResult<bool> {
        let mut lifted = false;
        for slot in buffered_slots(spans) {
            for piece in self.slot(node, slot)?.iter() {
                if let Content::Inline(bytes) = &piece.content {
                    let start = slot * SLOT_LEN + u64::from(piece.start);
                    overlay.fill_gaps(start, bytes);
                    lifted = true;
                }
            }
        }
        Ok(lifted)
    }

    /// Hands all bytes that are not inline to the encoders.
    fn encode(&self, taken: &mut [Taken]) {
        let given_up = Arc::default();
        // Files that are stored differently do not share a block.
        let mut packs: BTreeMap<Form, Pack> = BTreeMap::new();
        for file in 0..taken.len() {
            if taken[file].inline {
                continue;
            }
            for run in runs(&taken[file].spans) {
                let len: u64 = taken[file].spans[run.clone()].iter().map(|(_, s)| s.len).sum();
                if len >= OWN_BLOCK {
                    let memory = Arc::clone(&taken[file].node.encode_memory);
                    let mut own = Pack::default();
                    own.add(file, run);
                    self.seal(own, memory, taken, &given_up);
                    continue;
                }
                let form = taken[file].form;
                let pack = packs.entry(form).or_default();
                if pack.len.next_multiple_of(PACK_ALIGN) + len > SLOT_LEN {
                    let full = std::mem::take(pack);
                    self.seal(full, self.pack_memory(form), taken, &given_up);
                }
                pack.len = pack.len.next_multiple_of(PACK_ALIGN) + len;
                pack.add(file, run);
            }
        }
        for (form, pack) in packs {
            self.seal(pack, self.pack_memory(form), taken, &given_up);
        }
    }

    fn pack_memory(&self, form: Form) -> Arc<Mutex<EncodeMemory>> {
        Arc::clone(self.pack_memory.lock().entry(form).or_default())
    }

    /// Makes a pack a job, points snapshots and overlays at it, and queues it.
    fn seal(
        &self,
        pack: Pack,
        memory: Arc<Mutex<EncodeMemory>>,
        taken: &mut [Taken],
        given_up: &Arc<AtomicBool>,
    ) {
        let Some(plain) = pack.bytes(taken) else { return };
        let Some(&(first, _)) = pack.members.first() else { return };
        let form = taken[first].form;
        let job = EncodeJob::new(plain);
        let mut at = 0_u32;
        let mut targets = Vec::new();
        for (file, spans) in pack.members {
            at = at.next_multiple_of(PACK_ALIGN as u32);
            let file = &mut taken[file];
            let mut state = file.node.state.write();
            let first = file.spans[spans.start].0;
            let mut end = first;
            for (start, span) in &mut file.spans[spans] {
                let fill = Fill::Encoding { job: Arc::clone(&job), at };
                state.overlay.replace(*start, span.len, span.seq, fill.clone());
                span.fill = fill;
                at += span.len as u32;
                end = *start + span.len;
            }
            drop(state);
            targets.push((Arc::downgrade(&file.node), first..end));
        }
        let patience = self.settings.write_deadline;
        let given_up = Arc::clone(given_up);
        self.encoders.submit(Work { job, targets, memory, form, patience, given_up });
    }

    /// Sync, then namespace, then the overlays. Tells each file that fails; when nobody knows any
    /// more what is durable, the volume takes no more writes.
    fn make_permanent(&self, taken: &[Taken]) -> FsResult<()> {
        let stored = taken.iter().flat_map(|file| &file.spans).filter_map(|(_, s)| match &s.fill {
            Fill::Stored { block, .. } => Some(block.ticket),
            _ => None,
        });
        if let Some(ticket) = stored.max()
            && let Err(error) = self.durability.ensure(ticket, &*self.blocks)
        {
            self.health.fail(format!("writing back: {}", super::chain(&error)));
            taken.iter().for_each(|file| file.node.note_failure(&error));
            return Err(error);
        }
        let mut outcome = Ok(());
        for some in taken.chunks(BATCH_FILES) {
            let done = self.commit_batch(some);
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Commits files together, or each alone when one of them cannot be: a damaged record must
    /// not keep others from being written.
    fn commit_batch(&self, files: &[Taken]) -> FsResult<()> {
        let Err(error) = self.try_batch(files) else { return Ok(()) };
        if let Some(reason) = self.names.refused() {
            self.health.fail(format!("writing back: {reason}"));
        } else if let [first, rest @ ..] = files
            && !rest.is_empty()
        {
            let first = self.commit_batch(std::slice::from_ref(first));
            return rest.iter().map(std::slice::from_ref).fold(first, |outcome, file| {
                let done = self.commit_batch(file);
                outcome.and(done)
            });
        }
        files.iter().for_each(|file| file.node.note_failure(&error));
        Err(error)
    }

    fn try_batch(&self, files: &[Taken]) -> FsResult<()> {
        let mut commits = Vec::with_capacity(files.len());
        for file in files {
            match self.prepare(file) {
                // Its dataset was destroyed or rolled back meanwhile.
                Err(FsError::Stale) => {}
                commit => commits.push(commit?),
            }
        }
        let lost = self.names.commit(commits)?;
        self.pins.report(lost);
        files.iter().try_for_each(|file| self.finish(file))
    }

    /// Merges a snapshot with what is committed.
    fn prepare(&self, file: &Taken) -> FsResult<FileCommit> {
        let mut patches: BTreeMap<u64, Vec<Patch>> = BTreeMap::new();
        let mut cleared = Vec::new();
        for (start, span) in &file.spans {
            let end = start + span.len;
            let whole = start.div_ceil(SLOT_LEN)..end / SLOT_LEN;
            if span.fill.is_data() || whole.is_empty() {
                add_patches(&mut patches, *start..end, &span.fill)?;
                continue;
            }
            add_patches(&mut patches, *start..whole.start * SLOT_LEN, &span.fill)?;
            add_patches(&mut patches, whole.end * SLOT_LEN..end, &span.fill)?;
            match span.fill {
                Fill::Unwritten => self.preallocate(file, whole)?,
                _ => cleared.push(whole),
            }
        }
        let mut slots = Vec::with_capacity(patches.len());
        for (slot, patches) in patches {
            let old = self.names.slot(file.node.ino, slot)?;
            let new = piece::merge(&old, &patches);
            if new.len() > MANY_PIECES || piece::inline_len(&new) > 0 {
                self.settle.add(&file.node, slot);
            }
            slots.push((slot, new));
        }
        Ok(FileCommit {
            ino: file.node.ino,
            size: file.size,
            atime: file.times.atime,
            mtime: file.times.mtime,
            ctime: file.times.ctime,
            cleared,
            slots,
        })
    }

    /// Commits whole slots of zeros ahead of the rest, in bounded batches: before and after, the
    /// range reads as what it was or as zeros.
    fn preallocate(&self, file: &Taken, slots: Range<u64>) -> FsResult<()> {
        let size = file.node.state.read().committed_size;
        let mut from = slots.start;
        while from < slots.end {
            self.health.check()?;
            let to = slots.end.min(from + UNWRITTEN_SLOTS);
            let piece = Piece { start: 0, len: SLOT_LEN as u32, content: Content::Unwritten };
            let slots = (from..to).map(|slot| (slot, vec![piece.clone()])).collect();
            let (ino, cleared) = (file.node.ino, Vec::new());
            let times = PendingTimes::default();
            let (atime, mtime, ctime) = (times.atime, times.mtime, times.ctime);
            let lost = self.names.commit(vec![FileCommit {
                ino,
                size,
                atime,
                mtime,
                ctime,
                cleared,
                slots,
            }])?;
            self.pins.report(lost);
            from = to;
        }
        Ok(())
    }

    /// Drops from the overlay what the namespace has now.
    fn finish(&self, file: &Taken) -> FsResult<()> {
        let node = &file.node;
        let mut state = node.state.write();
        node.forget_slots();
        state.overlay.drop_committed(file.seq);
        let times = &mut state.times;
        for (now, then) in [
            (&mut times.atime, file.times.atime),
            (&mut times.mtime, file.times.mtime),
            (&mut times.ctime, file.times.ctime),
        ] {
            if *now == then {
                *now = None;
            }
        }
        state.attr_committed = file.attr_seq;
        match self.names.attr(node.ino) {
            Ok(attr) => {
                state.committed_size = attr.size;
                state.committed_allocated = attr.blocks * 512;
            }
            Err(FsError::Stale) => {}
            Err(error) => return Err(error),
        }
        state.release_charge();
        Ok(())
    }
}

impl Taken {
    fn of(
        node: &Arc<FileNode>,
        state: &FileState,
        spans: Vec<(u64, Span)>,
        inline: bool,
        form: Form,
    ) -> Self {
        Self {
            node: Arc::clone(node),
            spans,
            seq: state.overlay.seq(),
            size: state.size,
            times: state.times,
            attr_seq: state.attr_seq,
            inline,
            form,
        }
    }

    /// Waits for the encoders and points the snapshot at their blocks.
    fn resolve(&mut self) -> FsResult<()> {
        for (_, span) in &mut self.spans {
            if let Fill::Encoding { job, at } = &span.fill {
                let block = job.wait().map_err(|error| super::append_error(&error))?;
                span.fill = Fill::Stored { block, at: *at };
            }
        }
        Ok(())
    }
}

/// Slots that spans with new bytes touch.
fn buffered_slots(spans: &[(u64, Span)]) -> BTreeSet<u64> {
    spans
        .iter()
        .filter(|(_, span)| matches!(span.fill, Fill::Buffered(_)))
        .map(|(start, _)| start / SLOT_LEN)
        .collect()
}

/// Neighbouring buffered spans that continue each other within a slot.
fn runs(spans: &[(u64, Span)]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut next = 0;
    for (n, (start, span)) in spans.iter().enumerate() {
        if !matches!(span.fill, Fill::Buffered(_)) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == n && next == *start && start % SLOT_LEN != 0 => run.end = n + 1,
            _ => runs.push(n..n + 1),
        }
        next = start + span.len;
    }
    runs
}

/// Spans that become one block.
#[derive(Default)]
struct Pack {
    members: Vec<(usize, Range<usize>)>,
    len: u64,
}

impl Pack {
    fn add(&mut self, file: usize, spans: Range<usize>) {
        self.members.push((file, spans));
    }

    /// All bytes, copied unless there is just one span.
    fn bytes(&self, taken: &[Taken]) -> Option<bytes::Bytes> {
        if let [(file, spans)] = self.members.as_slice()
            && let [(_, Span { fill: Fill::Buffered(only), .. })] =
                &taken[*file].spans[spans.clone()]
        {
            return Some(only.clone());
        }
        let mut joined = BytesMut::with_capacity(self.len.max(OWN_BLOCK) as usize);
        for (file, spans) in &self.members {
            joined.resize(joined.len().next_multiple_of(PACK_ALIGN as usize), 0);
            for (_, span) in &taken[*file].spans[spans.clone()] {
                if let Fill::Buffered(bytes) = &span.fill {
                    joined.extend_from_slice(bytes);
                }
            }
        }
        (!joined.is_empty()).then(|| joined.freeze())
    }
}

/// Patches for the slots of a range that changes to `fill`; at most two where it is not data.
fn add_patches(
    patches: &mut BTreeMap<u64, Vec<Patch>>,
    range: Range<u64>,
    fill: &Fill,
) -> FsResult<()> {
    if range.is_empty() || range.start >= MAX_FILE_LEN {
        return Ok(());
    }
    let content = match fill {
        Fill::Hole => None,
        Fill::Unwritten => Some(Content::Unwritten),
        Fill::Buffered(bytes) => Some(Content::Inline(bytes.clone())),
        Fill::Stored { block, at } => Some(Content::Block { block: block.block, offset: *at }),
        Fill::Active { .. } | Fill::Encoding { .. } => {
            return Err(FsError::io("writing back", "bytes that no block holds"));
        }
    };
    let mut start = range.start;
    while start < range.end {
        let slot = start / SLOT_LEN;
        let end = range.end.min((slot + 1) * SLOT_LEN);
        let base = slot * SLOT_LEN;
        let range = (start - base) as u32..(end - base) as u32;
        patches.entry(slot).or_default().push(Patch { range, content: content.clone() });
        start = end;
    }
    Ok(())
}
