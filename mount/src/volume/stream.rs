//! Sending and receiving snapshots of a volume in use.
//!
//! *Send* reads a snapshot, which never changes, and holds nothing up. *Receive* writes where
//! nobody looks, and changes what programs see at two moments only, each as short as a snapshot:
//! when an existing dataset begins to show the base alone, and when what was received takes its
//! place. *Failure*: what was received is undone or, if it is resumable, kept for a stream that
//! goes on; where undoing fails, the next open does it. *Crash*: as the namespace says.

mod compare;

use std::collections::HashSet;
use std::io::{Read, Write};

use parking_lot::Mutex;

use super::Volume;
use super::datasets::entry_changed;
use crate::error::{FsError, FsResult};
use crate::file::chain;
use crate::namespace::{
    Beginning, Dataset, Incoming, Quota, Receiving, Snapshot, Start, TreeError, TreeResult, Undone,
};
use crate::stream::{
    Agreement, Header, Interrupted, Progress, ReceiveError, ReceiveOptions, ReceiveTarget,
    ReceiveWatch, Received, Receiver, ResumeToken, SendError, SendPlan, Sender, Sent, apply_error,
    begin,
};
use crate::types::{Caller, Forget};

/// Datasets into which somebody is receiving right now.
pub(super) type Busy = Mutex<HashSet<Dataset>>;

/// One of them, until it is dropped.
struct Claim<'a> {
    busy: &'a Busy,
    dataset: Dataset,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.dataset);
    }
}

impl Volume {
    /// Writes a snapshot, or its differences from an older one, to `out`. Neither can be
    /// destroyed meanwhile. `watch` is told of each record, and ends it by returning `false`.
    pub fn send(
        &self,
        plan: &SendPlan,
        out: &mut dyn Write,
        watch: &mut dyn FnMut(&Progress) -> bool,
    ) -> Result<Sent, SendError> {
        let (source, resumed) = match plan {
            SendPlan::Snapshot { dataset, name, from } => {
                let from = from.as_ref().map(|(dataset, name)| (*dataset, &name[..]));
                (self.names.begin_send((*dataset, name), from), None)
            }
            SendPlan::Rest(token) => {
                let missing = || TreeError::NoSnapshot(token.to.to_string());
                let again = self.names.begin_send_again(token.to, token.from);
                (again.and_then(|source| source.ok_or_else(missing)), Some(token.position))
            }
        };
        let source = source.map_err(|error| match (error, plan) {
            (TreeError::Unrelated, _) => SendError::NotABase,
            (TreeError::NoSnapshot(_), SendPlan::Rest(token)) => SendError::NoSnapshot(*token),
            (other, _) => other.into(),
        })?;
        let root = || self.names.seal_of(source.snapshot.node).map(|seal| seal.root);
        let sent = Sender::new(&self.files, &source, resumed).send(&root, out, watch);
        let ended: Vec<_> = source.base.iter().chain([&source.snapshot]).cloned().collect();
        drop(source);
        // Destroying them may have been put off meanwhile.
        for snapshot in &ended {
            if self.tree_changed(self.names.end_if_deferred(snapshot))? {
                self.sweeper.wake();
            }
        }
        sent
    }

    /// Makes a snapshot of what `input` brings. `caller` gets the directory of a new dataset. An
    /// existing one shows its newest snapshot and cannot be changed from the beginning, which
    /// comes after the stream's header, to the end, and handles of its files are stale at both.
    pub fn receive(
        &self,
        caller: &Caller,
        target: &ReceiveTarget,
        options: &ReceiveOptions,
        input: &mut dyn Read,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<Received, ReceiveError> {
        self.check_writable()?;
        let (chain, header) = begin(input)?;
        let (claim, mut receiving) = match header.resumed {
            Some(_) => self.resume_receive(target, &header)?,
            None => self.start_receive(target, options, &header, watch)?,
        };
        let admit = |receiving: &Receiving| self.admit_received(receiving);
        let mut receiver = Receiver::new(&self.names, &self.files, (chain, &header), &admit);
        let received = receiver
            .receive(&mut receiving, watch)
            .and_then(|()| self.finish_receive(caller, &receiving, &receiver, watch));
        let result = match received {
            Ok((snapshot, agreement)) => Ok(Received {
                dataset: receiving.dataset,
                snapshot: snapshot.name,
                guid: snapshot.guid,
                sent_root: receiver.sent_root,
                agreement,
                progress: receiver.progress,
            }),
            Err(error) => Err(self.cut_short(receiving, receiver, error, watch)),
        };
        drop(claim);
        if let Err(error) = self.files.free_unreferenced() {
            // They are asked about again by the next sweep.
            tracing::warn!(error = crate::file::chain(&error), "freeing what was not used");
        }
        result
    }

    /// Goes on with a receive that was interrupted at exactly this place.
    fn resume_receive(
        &self,
        target: &ReceiveTarget,
        header: &Header,
    ) -> Result<(Claim<'_>, Receiving), ReceiveError> {
        let dataset = match target {
            ReceiveTarget::New { parent, name } => self.names.receive_at(*parent, name),
            ReceiveTarget::Existing(dataset) => Some(*dataset),
        };
        let pending = dataset.filter(|dataset| self.names.receives().contains(dataset));
        let dataset = pending.ok_or(ReceiveError::NotPending)?;
        let claim = self.claim(dataset)?;
        let receiving = self.names.receiving(dataset)?;
        let record = receiving.record();
        let is_same = record.to == header.to
            && record.base.map(|base| base.guid) == header.from.as_ref().map(|from| from.guid)
            && receiving.root == header.root
            && Some(receiving.position) == header.resumed;
        if !is_same {
            return Err(ReceiveError::NotPending);
        }
        // It may have got its digest only after the receive was begun.
        if let (Some(base), Some(from)) = (record.base, &header.from)
            && let (Some(sent), Some(seal)) = (from.root, self.names.seal_of(base.at.node))
            && sent != seal.root
        {
            let name = from.name.clone();
            return Err(ReceiveError::BaseDiffers { name, here: seal.root, sent });
        }
        Ok((claim, receiving))
    }

    fn start_receive(
        &self,
        target: &ReceiveTarget,
        options: &ReceiveOptions,
        header: &Header,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<(Claim<'_>, Receiving), ReceiveError> {
        let incoming = Incoming {
            to: header.to,
            created: header.created,
            name: options.snapshot_name.clone().unwrap_or_else(|| header.name.clone()),
            message: header.message.clone(),
            root: header.root,
            base_root: header.from.as_ref().and_then(|from| from.root),
        };
        let missing = || match &header.from {
            Some(from) => ReceiveError::BaseMissing { guid: from.guid, name: from.name.clone() },
            None => ReceiveError::TargetExists,
        };
        let mut may_roll_back = options.force_rollback;
        loop {
            let start = match (target, &header.from) {
                (ReceiveTarget::New { parent, name }, from) => {
                    if from.as_ref().is_some_and(|from| !from.is_origin) {
                        return Err(missing());
                    }
                    self.check_entry(*parent, name)?;
                    self.names.check_changeable(*parent)?;
                    let base = from.as_ref().map(|from| from.guid);
                    let to = Beginning::New { parent: *parent, name, base };
                    self.begin_new(&incoming, &to, options.resumable)?
                }
                (ReceiveTarget::Existing(_), None) => return Err(ReceiveError::TargetExists),
                (ReceiveTarget::Existing(dataset), Some(from)) => {
                    // Only now: the sender may have taken any time for the header, and what was
                    // written meanwhile is not to be lost.
                    watch.drain()?;
                    let to = Beginning::Existing { dataset: *dataset, base: from.guid };
                    self.begin_existing(&incoming, (&to, *dataset), options.resumable, watch)?
                }
            };
            match (start, target) {
                (Start::Begun(receiving), _) => {
                    let dataset = receiving.dataset;
                    return Ok((self.claim(dataset)?, receiving));
                }
                (Start::NoBase, _) => return Err(missing()),
                (Start::BaseDiffers(name, here), _) => {
                    let sent = incoming.base_root.unwrap_or(here);
                    return Err(ReceiveError::BaseDiffers { name, here, sent });
                }
                (Start::Newer(names), _) => return Err(ReceiveError::NewerSnapshots(names)),
                (Start::Modified(base), ReceiveTarget::Existing(dataset)) if may_roll_back => {
                    watch.forget(self.rollback(*dataset, &base, false)?);
                    may_roll_back = false;
                }
                (Start::Modified(base), _) => return Err(ReceiveError::BaseModified { base }),
                (Start::Pending(dataset), _) => {
                    let token = token_of(&self.names.receiving(dataset)?);
                    return Err(ReceiveError::Pending(Box::new(token)));
                }
            }
        }
    }

    fn begin_new(
        &self,
        incoming: &Incoming,
        to: &Beginning<'_>,
        resumable: bool,
    ) -> Result<Start, ReceiveError> {
        match self.tree_changed(self.names.begin_receive(incoming, to, resumable)) {
            Err(TreeError::Exists(_)) => Err(ReceiveError::TargetExists),
            begun => Ok(begun?),
        }
    }

    fn begin_existing(
        &self,
        incoming: &Incoming,
        (to, dataset): (&Beginning<'_>, Dataset),
        resumable: bool,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<Start, ReceiveError> {
        let mut forget = Forget::default();
        let (start, _) = self.frozen(|| {
            let names = self.names_of_root(dataset)?;
            let start = self.tree_changed(self.names.begin_receive(incoming, to, resumable))?;
            if matches!(start, Start::Begun(_)) {
                forget = names;
                forget.inodes.extend(self.drop_gone());
            }
            Ok(start)
        })?;
        if matches!(start, Start::Begun(_)) {
            self.root_changed(dataset, &mut forget);
            watch.forget(forget);
        }
        Ok(start)
    }

    /// Shows what was received.
    fn finish_receive(
        &self,
        caller: &Caller,
        receiving: &Receiving,
        receiver: &Receiver<'_>,
        watch: &mut dyn ReceiveWatch,
    ) -> Result<(Snapshot, Agreement), ReceiveError> {
        let progress = receiver.progress;
        let verified = self.names.verify_received(receiving, &mut || watch.progress(&progress));
        match verified.map_err(|error| apply_error(error, progress.bytes))? {
            true => {}
            false => return Err(ReceiveError::Stopped),
        }
        let (content, agreement) =
            self.compare_received(receiving, receiver.sent_root, &progress, watch)?;
        let dataset = receiving.dataset;
        let place = self.names.place_of_receive(receiving);
        let shut = self.shut()?;
        let mut forget = match place {
            Some((parent, name)) => entry_changed(parent, &name),
            None => self.names_of_root(dataset)?,
        };
        let still = self.sweeper.still();
        let snapshot = self.tree_changed(self.names.finish_receive(caller, receiving, &content))?;
        forget.inodes.extend(self.drop_gone());
        drop((shut, still));
        forget.add(self.snapdir_changed(dataset, &[&snapshot.name]));
        self.root_changed(dataset, &mut forget);
        self.clear_orphans();
        // The end of the base may have been put off until now.
        self.sweeper.wake();
        watch.forget(forget);
        if content.lanes.is_some() {
            self.seal_received(&snapshot);
        }
        Ok((snapshot, agreement))
    }

    /// Fails when a quota does not allow what was received so far.
    fn admit_received(&self, receiving: &Receiving) -> FsResult<()> {
        let at = match self.names.place_of_receive(receiving) {
            Some((parent, _)) => parent,
            None => self.names.live_root(receiving.dataset)?,
        };
        let exceeds = |quota: &Quota| self.names.space_used(quota.dataset) > quota.bytes;
        match self.names.quotas_of(at)?.iter().any(exceeds) {
            true => Err(FsError::QuotaExceeded),
            false => Ok(()),
        }
    }

    /// Keeps what was received, or undoes it; says which, and why.
    fn cut_short(
        &self,
        mut receiving: Receiving,
        mut receiver: Receiver<'_>,
        error: ReceiveError,
        watch: &mut dyn ReceiveWatch,
    ) -> ReceiveError {
        // What makes no sense, or is not what was sent, does not by going on.
        let is_senseless = matches!(
            error,
            ReceiveError::Invalid { .. }
                | ReceiveError::MoreFollows { .. }
                | ReceiveError::ContentDiffers { .. }
        );
        if receiving.is_resumable() && !is_senseless {
            if let Err(error) = receiver.keep(&mut receiving) {
                tracing::warn!(error = chain(&error), "the last records were not kept");
            }
            // A cut must not cost what was received, should power fail next.
            if let Err(error) = self.changed(self.names.sync()) {
                tracing::error!(error = chain(&error), "what was received is not durable");
            }
            let token = Box::new(token_of(&receiving));
            return ReceiveError::Interrupted { token, source: Box::new(error) };
        }
        drop(receiver);
        match self.undo_receive(receiving.dataset) {
            Ok(forget) => watch.forget(forget),
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "undoing a receive is left to the next open"
                );
            }
        }
        error
    }

    /// Gives up what an interrupted receive has brought.
    pub fn abandon_receive(&self, dataset: Dataset) -> TreeResult<Forget> {
        self.check_writable()?;
        if !self.names.receives().contains(&dataset) {
            return Err(TreeError::NoDataset);
        }
        let _claim = self.claim(dataset)?;
        self.undo_receive(dataset)
    }

    fn undo_receive(&self, dataset: Dataset) -> TreeResult<Forget> {
        let shut = self.shut()?;
        let mut forget = self.names_of_root(dataset)?;
        let still = self.sweeper.still();
        let undone = self.tree_changed(self.names.undo_receive(dataset))?;
        forget.inodes.extend(self.drop_gone());
        drop((shut, still));
        match undone {
            Undone::RollBack => self.end_rollback(dataset, forget),
            Undone::Gone => {
                self.sweeper.wake();
                Ok(Forget::default())
            }
        }
    }

    /// Receives that were interrupted and wait to be continued or abandoned.
    pub fn interrupted_receives(&self) -> TreeResult<Vec<Interrupted>> {
        let mut found = Vec::new();
        for dataset in self.names.receives() {
            if self.receiving.lock().contains(&dataset) {
                continue;
            }
            // It may end meanwhile.
            let Ok(receiving) = self.names.receiving(dataset) else { continue };
            found.push(Interrupted {
                dataset,
                place: self.names.place_of_receive(&receiving),
                snapshot: receiving.record().name.clone(),
                token: token_of(&receiving),
            });
        }
        Ok(found)
    }

    fn claim(&self, dataset: Dataset) -> TreeResult<Claim<'_>> {
        match self.receiving.lock().insert(dataset) {
            true => Ok(Claim { busy: &self.receiving, dataset }),
            false => Err(TreeError::Receiving(dataset)),
        }
    }
}

fn token_of(receiving: &Receiving) -> ResumeToken {
    let record = receiving.record();
    let from = record.base.map(|base| base.guid);
    ResumeToken { to: record.to, from, position: receiving.position }
}
