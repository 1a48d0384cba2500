//! The snapshot verbs, apart from destroying and comparing.

use anyhow::{Context, anyhow};
use firn_mount::namespace::{Dataset, Snapshot, TreeError};

use super::naming::{Naming, check_dataset_name, when};
use super::{TreeAnswers, while_saying};
use crate::control::server::Outbox;
use crate::control::tree::{DatasetName, NewName, SnapshotAct, SnapshotName};
use crate::failure::Explain;
use crate::report::snapshots::{HoldLine, RolledBack, SnapshotLine, Taken};

impl TreeAnswers<'_> {
    /// Answers a verb about snapshots.
    pub fn snapshot(&self, act: SnapshotAct, out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            SnapshotAct::Create { of, message, recursive } => {
                let taken = self.take(&of, &message, recursive, out)?;
                Ok(out.item(&taken)?)
            }
            SnapshotAct::List { of, recursive, quick } => {
                self.list(of.as_ref(), recursive, quick, out)
            }
            SnapshotAct::Destroy { dataset, which, deferred, recursive, dry_run } => {
                let how = super::destroy::How { deferred, recursive, dry_run };
                let destroyed = self.destroy_snapshots(&dataset, &which, how, out)?;
                Ok(out.item(&destroyed)?)
            }
            SnapshotAct::Rename { of, to, recursive } => self.rename(&of, &to, recursive),
            SnapshotAct::Hold { of, tag } => {
                self.edit(&of, |dataset, name| self.parts.volume.hold_snapshot(dataset, name, &tag))
            }
            SnapshotAct::Release { of, tag } => self.release(&of, &tag),
            SnapshotAct::Holds { of } => self.holds(&of, out),
            SnapshotAct::Rollback { to, destroy_newer } => {
                let done = self.roll_back(&to, destroy_newer, out)?;
                Ok(out.item(&done)?)
            }
            SnapshotAct::Clone { of, at } => self.clone_snapshot(&of, &at, out),
            SnapshotAct::Send { dataset, what, dry_run } => {
                self.send(&dataset, &what, dry_run, out)
            }
            SnapshotAct::Receive { into, snapshot, resumable, force } => {
                let how = super::receive::How { snapshot, resumable, force };
                self.receive(&into, how, out)
            }
            SnapshotAct::Abandon { into } => self.abandon(&into),
            SnapshotAct::Verify { of, data } => {
                let proof = self.verify(&of, data, out)?;
                Ok(out.item(&proof)?)
            }
            SnapshotAct::Diff { from, to } => self.diff(&from, to.as_deref(), out),
        }
    }

    fn take(
        &self,
        of: &SnapshotName,
        message: &str,
        recursive: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<Taken> {
        let naming = self.naming();
        let datasets = naming.with_below(naming.find(&of.dataset)?, recursive);
        // A name that is refused should not have cost a drain.
        for &dataset in &datasets {
            naming.check_free(dataset, &of.snapshot)?;
        }
        let drained = self.drain(out)?;
        let volume = &self.parts.volume;
        let taken = while_saying(out, "taking the snapshot", || {
            volume.snapshot(&datasets, &of.snapshot, message)
        })?;
        let taken = taken.map_err(|error| naming.explain(error))?;
        self.forget(&taken.forget)?;
        let name = |snapshot: &Snapshot| naming.snapshot(snapshot.dataset, &snapshot.name);
        Ok(Taken {
            snapshots: taken.snapshots.iter().map(name).collect(),
            drain_ms: drained.as_secs_f64() * 1e3,
            snapshot_ms: taken.held.as_secs_f64() * 1e3,
        })
    }

    fn list(
        &self,
        of: Option<&DatasetName>,
        recursive: bool,
        quick: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let datasets = naming.asked(of, recursive)?;
        for dataset in datasets {
            let lines = while_saying(out, "counting what snapshots hold", || {
                let mut lines: Vec<SnapshotLine> = Vec::new();
                let listed = naming.for_each_snapshot(&[dataset], quick, &mut |line| {
                    lines.push(line);
                    Ok(())
                });
                listed.map(|()| lines)
            })?;
            for line in lines? {
                out.item(&line)?;
            }
        }
        Ok(())
    }

    /// Does something to one snapshot.
    fn edit<T>(
        &self,
        of: &SnapshotName,
        edit: impl FnOnce(Dataset, &str) -> Result<T, TreeError>,
    ) -> anyhow::Result<T> {
        let naming = self.naming();
        let dataset = naming.find(&of.dataset)?;
        edit(dataset, &of.snapshot).map_err(|error| naming.explain(error))
    }

    fn rename(&self, of: &SnapshotName, to: &str, recursive: bool) -> anyhow::Result<()> {
        let naming = self.naming();
        let top = naming.find(&of.dataset)?;
        let mut datasets = Vec::new();
        for dataset in naming.with_below(top, recursive) {
            match naming.names.find_snapshot(dataset, &of.snapshot) {
                Ok(_) if of.snapshot != to => naming.check_free(dataset, to)?,
                Ok(_) => {}
                Err(TreeError::NoSnapshot(_)) if dataset != top => continue,
                Err(error) => return Err(naming.explain(error)),
            }
            datasets.push(dataset);
        }
        let renamed = self.parts.volume.rename_snapshots(&datasets, &of.snapshot, to);
        self.forget(&renamed.map_err(|error| naming.explain(error))?)
    }

    fn release(&self, of: &SnapshotName, tag: &str) -> anyhow::Result<()> {
        let volume = &self.parts.volume;
        let forget = self.edit(of, |dataset, name| volume.release_snapshot(dataset, name, tag))?;
        self.forget(&forget)
    }

    fn holds(&self, of: &SnapshotName, out: &mut Outbox) -> anyhow::Result<()> {
        let naming = self.naming();
        let dataset = naming.find(&of.dataset)?;
        let found = naming.names.find_snapshot(dataset, &of.snapshot);
        let snapshot = found.map_err(|error| naming.explain(error))?;
        for hold in &snapshot.holds {
            out.item(&HoldLine {
                snapshot: naming.snapshot(dataset, &snapshot.name),
                tag: hold.tag.clone(),
                created: when(hold.created),
            })?;
        }
        Ok(())
    }

    fn roll_back(
        &self,
        to: &SnapshotName,
        destroy_newer: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<RolledBack> {
        let naming = self.naming();
        let dataset = naming.find(&to.dataset)?;
        let explain = |error| naming.explain(error);
        let target = naming.names.find_snapshot(dataset, &to.snapshot).map_err(explain)?;
        let snapshots = naming.names.snapshots(dataset).map_err(explain)?;
        let newer: Vec<Snapshot> =
            snapshots.into_iter().filter(|snapshot| snapshot.node > target.node).collect();
        let destroyed: Vec<String> =
            newer.iter().map(|snapshot| naming.snapshot(dataset, &snapshot.name)).collect();
        if !newer.is_empty() && !destroy_newer {
            return Err(anyhow!("newer snapshots are in the way: {}", destroyed.join(", ")))
                .hint("destroy them with it: add -r");
        }
        newer.iter().try_for_each(|snapshot| naming.check_unused(snapshot))?;
        self.drain(out)?;
        let volume = &self.parts.volume;
        let rolled = while_saying(out, "rolling back", || {
            volume.rollback(dataset, &to.snapshot, destroy_newer)
        })?;
        self.forget(&rolled.map_err(explain)?)?;
        Ok(RolledBack { snapshot: naming.snapshot(dataset, &to.snapshot), destroyed })
    }

    fn clone_snapshot(&self, of: &SnapshotName, at: &NewName, out: &Outbox) -> anyhow::Result<()> {
        check_dataset_name(at)?;
        let (volume, caller) = (&self.parts.volume, Self::caller(out)?);
        let parent = firn_mount::types::Ino(at.dir);
        let made = self.edit(of, |dataset, name| {
            volume.clone_snapshot(&caller, (dataset, name), parent, at.file.as_bytes())
        });
        let (_, forget) = made.with_context(|| at.name.clone())?;
        self.forget(&forget)
    }
}

impl Naming<'_> {
    /// Fails when a snapshot of this name is there already.
    fn check_free(&self, dataset: Dataset, name: &str) -> anyhow::Result<()> {
        match self.names.find_snapshot(dataset, name) {
            Ok(_) => Err(anyhow!("{} exists already", self.snapshot(dataset, name)))
                .hint("choose another name"),
            Err(TreeError::NoSnapshot(_)) => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Fails while holds or clones need a snapshot.
    pub(super) fn check_unused(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let tags = snapshot.holds.iter().map(|hold| hold.tag.clone());
        let needed = match (snapshot.holds.is_empty(), snapshot.clones.is_empty()) {
            (true, true) => return Ok(()),
            (false, _) => TreeError::Held(tags.collect()),
            (true, false) => TreeError::Cloned(snapshot.clones.clone()),
        };
        let name = self.snapshot(snapshot.dataset, &snapshot.name);
        Err(self.explain(needed).context(name))
    }
}
