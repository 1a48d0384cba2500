//! Destroying snapshots: which are meant, what stands against it, and what becomes free.

use anyhow::anyhow;
use firn_mount::namespace::{Dataset, Snapshot};

use super::naming::Naming;
use super::{TreeAnswers, while_saying};
use crate::control::server::Outbox;
use crate::control::tree::{DatasetName, Which};
use crate::failure::Explain;
use crate::report::snapshots::Destroyed;

/// How snapshots are to be destroyed.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Those in use go when their last hold and clone does.
    pub(super) deferred: bool,
    /// Those of the same names of all datasets below, too.
    pub(super) recursive: bool,
    /// Say only what would happen.
    pub(super) dry_run: bool,
}

impl TreeAnswers<'_> {
    pub(super) fn destroy_snapshots(
        &self,
        dataset: &DatasetName,
        which: &[Which],
        how: How,
        out: &mut Outbox,
    ) -> anyhow::Result<Destroyed> {
        let naming = self.naming();
        let chosen = naming.choose(naming.find(dataset)?, which, how.recursive)?;
        let mut destroyed = Destroyed { dry_run: how.dry_run, ..Destroyed::default() };
        let all = || chosen.iter().flat_map(|(_, snapshots)| snapshots);
        for snapshot in all() {
            let name = naming.snapshot(snapshot.dataset, &snapshot.name);
            match naming.check_unused(snapshot) {
                Ok(()) => destroyed.snapshots.push(name),
                Err(_) if how.deferred => destroyed.deferred.push(name),
                Err(error) => return Err(error),
            }
        }
        let freed = while_saying(out, "counting what becomes free", || {
            all().filter(|snapshot| is_unused(snapshot)).try_fold(0, |sum, snapshot| {
                Ok(sum + naming.names.used(snapshot.dataset, &snapshot.name)?)
            })
        })?;
        destroyed.freed_bytes = Some(freed.map_err(|error| naming.explain(error))?);
        if !how.dry_run {
            let names: Vec<(Dataset, &str)> =
                all().map(|snapshot| (snapshot.dataset, snapshot.name.as_str())).collect();
            let gone = self.parts.volume.destroy_snapshots(&names, how.deferred);
            self.forget(&gone.map_err(|error| naming.explain(error))?)?;
        }
        Ok(destroyed)
    }
}

fn is_unused(snapshot: &Snapshot) -> bool {
    snapshot.holds.is_empty() && snapshot.clones.is_empty()
}

impl Naming<'_> {
    /// The snapshots that are meant, by dataset. Below the dataset itself, names count that are
    /// there.
    fn choose(
        &self,
        top: Dataset,
        which: &[Which],
        recursive: bool,
    ) -> anyhow::Result<Vec<(Dataset, Vec<Snapshot>)>> {
        let snapshots =
            |dataset| self.names.snapshots(dataset).map_err(|error| self.explain(error));
        let own = snapshots(top)?;
        let mut names: Vec<String> = Vec::new();
        for which in which {
            let found = self.select(top, &own, which)?;
            names.extend(found.iter().map(|snapshot| snapshot.name.clone()));
        }
        let mut chosen = Vec::new();
        for dataset in self.with_below(top, recursive) {
            let mut found = snapshots(dataset)?;
            found.retain(|snapshot| names.contains(&snapshot.name));
            if !found.is_empty() {
                chosen.push((dataset, found));
            }
        }
        Ok(chosen)
    }

    /// One snapshot or a range out of those of a dataset, oldest first.
    fn select<'s>(
        &self,
        dataset: Dataset,
        all: &'s [Snapshot],
        which: &Which,
    ) -> anyhow::Result<&'s [Snapshot]> {
        let at = |name: &str| {
            let found = all.iter().position(|snapshot| snapshot.name == name);
            found
                .ok_or_else(|| anyhow!("no such snapshot: {}", self.snapshot(dataset, name)))
                .hint("`firn snapshot list <dataset>` lists the snapshots of a dataset")
        };
        let (first, last) = match which {
            Which::One(name) => (at(name)?, at(name)?),
            Which::Range(first, last) => (
                first.as_deref().map_or(Ok(0), at)?,
                last.as_deref().map_or(Ok(all.len().saturating_sub(1)), at)?,
            ),
        };
        if all.is_empty() {
            return Err(anyhow!("{} has no snapshots", self.name(dataset)))
                .hint("`firn snapshot list -r` lists those of the datasets below, too");
        }
        if first > last {
            let (first, last) = (&all[first].name, &all[last].name);
            return Err(anyhow!("{first} is newer than {last}"))
                .hint("write the older snapshot first: <dataset>@<older>%<newer>")
                .wrong_usage();
        }
        Ok(&all[first..=last])
    }
}
