//! The dataset verbs.

use anyhow::{Context, anyhow};
use firn_mount::namespace::{Dataset, Snapshot};
use firn_mount::types::Ino;

use super::TreeAnswers;
use super::naming::{Naming, check_dataset_name};
use super::properties::parse_all;
use crate::control::server::Outbox;
use crate::control::tree::{Assignment, DatasetAct, DatasetName, NewName};
use crate::failure::{self, Explain};
use crate::report::snapshots::Destroyed;

/// Permission bits of a new dataset's root directory.
const PERM: u16 = 0o755;

impl TreeAnswers<'_> {
    /// Answers a verb about datasets.
    pub fn dataset(&self, act: DatasetAct, out: &mut Outbox) -> anyhow::Result<()> {
        match act {
            DatasetAct::Create { at, settings } => self.create(&at, &settings, out),
            DatasetAct::List { of, recursive } => self.list_datasets(of.as_ref(), recursive, out),
            DatasetAct::Get { of, recursive, properties } => {
                self.get(of.as_ref(), recursive, &properties, out)
            }
            DatasetAct::Set { dataset, settings } => self.set(&dataset, &settings, out),
            DatasetAct::Inherit { dataset, property, recursive } => {
                self.inherit(&dataset, &property, recursive, out)
            }
            DatasetAct::Destroy { dataset, recursive, dry_run } => {
                let destroyed = self.destroy_dataset(&dataset, recursive, dry_run)?;
                Ok(out.item(&destroyed)?)
            }
            DatasetAct::Rename { dataset, to } => self.rename_dataset(&dataset, &to),
            DatasetAct::Promote { dataset } => self.promote(&dataset),
        }
    }

    fn create(&self, at: &NewName, settings: &[Assignment], out: &Outbox) -> anyhow::Result<()> {
        check_dataset_name(at)?;
        let settings = parse_all(settings)?;
        let caller = Self::caller(out)?;
        let name = at.file.as_bytes();
        let made = self.parts.volume.create_dataset(&caller, Ino(at.dir), name, PERM, &settings);
        let (_, forget) = made.map_err(|error| self.naming().explain(error))?;
        self.forget(&forget)
    }

    fn list_datasets(
        &self,
        of: Option<&DatasetName>,
        recursive: bool,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let datasets = naming.asked(of, recursive)?;
        naming.for_each_dataset(&datasets, &mut |line| Ok(out.item(&line)?))
    }

    fn destroy_dataset(
        &self,
        dataset: &DatasetName,
        recursive: bool,
        dry_run: bool,
    ) -> anyhow::Result<Destroyed> {
        let naming = self.naming();
        let top = naming.find(dataset)?;
        if naming.info(top).is_some_and(|info| info.parent.is_none()) {
            return Err(anyhow!("it is the root of the volume"))
                .hint("unmount the volume and remove its directory to get rid of all of it");
        }
        let going = naming.going(top, recursive)?;
        let mut destroyed = Destroyed { dry_run, ..Destroyed::default() };
        for (dataset, snapshots) in &going {
            destroyed.datasets.push(naming.name(*dataset));
            let names = snapshots.iter().map(|found| naming.snapshot(*dataset, &found.name));
            destroyed.snapshots.extend(names);
        }
        if dry_run {
            return Ok(destroyed);
        }
        let going: Vec<Dataset> = going.into_iter().map(|(dataset, _)| dataset).collect();
        let gone = self.parts.volume.destroy_datasets(&going, recursive);
        self.forget(&gone.map_err(|error| naming.explain(error))?)?;
        Ok(destroyed)
    }

    fn rename_dataset(&self, dataset: &DatasetName, to: &NewName) -> anyhow::Result<()> {
        check_dataset_name(to)?;
        let naming = self.naming();
        let dataset = naming.find(dataset)?;
        let (volume, name) = (&self.parts.volume, to.file.as_bytes());
        let moved = volume.rename_dataset(dataset, Ino(to.dir), name);
        let forget = moved.map_err(|error| naming.explain(error)).with_context(|| to.name.clone());
        self.forget(&forget?)
    }

    fn promote(&self, dataset: &DatasetName) -> anyhow::Result<()> {
        let naming = self.naming();
        let dataset = naming.find(dataset)?;
        let promoted = self.parts.volume.promote(dataset);
        self.forget(&promoted.map_err(|error| naming.explain(error))?)
    }
}

impl Naming<'_> {
    /// A dataset that is to be destroyed and, if `recursive`, all below, in an order in which each
    /// can go, with their snapshots. Fails when something is in the way of one of them.
    fn going(
        &self,
        top: Dataset,
        recursive: bool,
    ) -> anyhow::Result<Vec<(Dataset, Vec<Snapshot>)>> {
        let children = self.with_below(top, true);
        if !recursive && children.len() > 1 {
            return Err(self.explain_children(&children[1..]));
        }
        let mut left = Vec::new();
        for dataset in children {
            let snapshots = self.names.snapshots(dataset).map_err(|error| self.explain(error))?;
            if !recursive && !snapshots.is_empty() {
                let names: Vec<String> =
                    snapshots.iter().map(|found| self.snapshot(dataset, &found.name)).collect();
                return Err(anyhow!("has snapshots: {}", names.join(", ")))
                    .hint("destroy them with it: add -r");
            }
            left.push((dataset, snapshots));
        }
        let mut going: Vec<(Dataset, Vec<Snapshot>)> = Vec::new();
        while !left.is_empty() {
            let is_gone = |dataset: &Dataset| going.iter().any(|(gone, _)| gone == dataset);
            // What lies below goes first, and clones before what they were made from.
            let next = left.iter().rposition(|(dataset, snapshots)| {
                let below = self.with_below(*dataset, true);
                let clones = snapshots.iter().flat_map(|snapshot| &snapshot.clones);
                below[1..].iter().chain(clones).all(is_gone)
                    && snapshots.iter().all(|snapshot| snapshot.holds.is_empty())
            });
            match next {
                Some(next) => going.push(left.remove(next)),
                None => return Err(self.obstacle(&left, &going)),
            }
        }
        Ok(going)
    }

    /// What stands against destroying what is left.
    fn obstacle(
        &self,
        left: &[(Dataset, Vec<Snapshot>)],
        going: &[(Dataset, Vec<Snapshot>)],
    ) -> anyhow::Error {
        let is_inside =
            |clone: &Dataset| left.iter().chain(going).any(|(dataset, _)| dataset == clone);
        for snapshot in left.iter().flat_map(|(_, snapshots)| snapshots) {
            let mut outside = snapshot.clone();
            outside.clones.retain(|clone| !is_inside(clone));
            if let Err(error) = self.check_unused(&outside) {
                return error;
            }
        }
        let error = anyhow!("a dataset below is what another one is a clone of");
        failure::hinted(error, "turn that round with `firn dataset promote`, then destroy again")
    }
}
