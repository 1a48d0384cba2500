//! What datasets and snapshots are called: the path of the root directory from the mountpoint, or
//! from `<volume-dir>:` where the volume is not mounted.

use anyhow::anyhow;
use firn_mount::FsError;
use firn_mount::namespace::{
    Dataset, DatasetInfo, Namespace, Snapshot, Timestamp, TreeError, TreeResult,
};
use firn_mount::stream::Interrupted;
use firn_mount::types::Ino;
use firn_mount::volume::{Core as _, Volume};

use crate::control::tree::{DatasetName, NewName};
use crate::failure::{self, Explain};
use crate::report::datasets::DatasetLine;
use crate::report::names;
use crate::report::snapshots::SnapshotLine;
use crate::report::status::InterruptedReceive;
use crate::utc;

/// What no dataset can be called: it shows the snapshots of the dataset above.
const CONTROL_NAME: &str = ".firn";

/// The datasets as they are now, with their names.
pub struct Naming<'a> {
    /// Where they are.
    pub(super) names: &'a Namespace,
    prefix: String,
    known: Vec<DatasetInfo>,
    volume: Option<&'a Volume>,
}

impl<'a> Naming<'a> {
    /// `prefix` is the mountpoint, or `<volume-dir>:`.
    pub fn new(names: &'a Namespace, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { names, prefix, known: names.datasets(), volume: None }
    }

    /// Says also what can still be written.
    pub(super) fn in_use(self, volume: &'a Volume) -> Self {
        Self { volume: Some(volume), ..self }
    }

    /// Bytes that can still be written in a dataset, if that is known.
    pub(super) fn available(&self, info: &DatasetInfo) -> Option<u64> {
        match (self.volume, info.root) {
            (Some(volume), Some(root)) => Some(volume.statfs(root).ok()?.free_bytes),
            _ => None,
        }
    }

    /// What goes on with an interrupted receive into a dataset.
    pub(super) fn resume_token(&self, dataset: Dataset) -> Option<String> {
        let waiting = self.volume?.interrupted_receives().ok()?;
        let found = waiting.iter().find(|found| found.dataset == dataset)?;
        Some(found.token.to_string())
    }

    /// Receives that were interrupted, as `firn status` shows them.
    pub fn interrupted(&self, waiting: &[Interrupted]) -> Vec<InterruptedReceive> {
        let state = |found: &Interrupted| InterruptedReceive {
            dataset: self.name(found.dataset),
            snapshot: found.snapshot.clone(),
            token: found.token.to_string(),
        };
        waiting.iter().map(state).collect()
    }

    /// Whether the volume is mounted.
    pub(super) fn is_mounted(&self) -> bool {
        !self.prefix.ends_with(':')
    }

    /// A path from the root of the mount, as people write it.
    pub(super) fn path(&self, path: &[u8]) -> String {
        let path = names::text(path);
        match (path.as_str(), self.prefix.ends_with(':')) {
            ("/", false) if !self.prefix.is_empty() => self.prefix.clone(),
            (path, _) => format!("{}{path}", self.prefix),
        }
    }

    /// What a dataset is called.
    pub(super) fn name(&self, dataset: Dataset) -> String {
        match self.info(dataset) {
            Some(info) => self.path(&info.path),
            None => match self.names.awaited_path(dataset) {
                Some(path) => self.path(&path),
                None => format!("dataset {}", dataset.0),
            },
        }
    }

    /// What a snapshot is called.
    pub fn snapshot(&self, dataset: Dataset, name: &str) -> String {
        format!("{}@{name}", self.name(dataset))
    }

    pub(super) fn info(&self, dataset: Dataset) -> Option<&DatasetInfo> {
        self.known.iter().find(|info| info.dataset == dataset)
    }

    /// All datasets, each behind the one that it lies in.
    pub(super) fn all(&self) -> Vec<Dataset> {
        self.known.iter().map(|info| info.dataset).collect()
    }

    /// The dataset whose root directory was found on the mount.
    pub(super) fn find(&self, of: &DatasetName) -> anyhow::Result<Dataset> {
        let ino = Ino(of.ino);
        if let Some(info) = self.known.iter().find(|info| info.root == Some(ino)) {
            return Ok(info.dataset);
        }
        let around = self.names.dataset_of(ino).map(|dataset| self.name(dataset));
        let hint = match around {
            Ok(name) => format!("it is in dataset {name}; `firn dataset list` lists all"),
            Err(_) => "`firn dataset list` lists all datasets".to_owned(),
        };
        Err(anyhow!("{} is not the root directory of a dataset", of.name)).hint(hint)
    }

    /// The dataset whose root directory is at a path from the root of the mount.
    pub(super) fn at(&self, path: &[u8]) -> anyhow::Result<Dataset> {
        let trimmed = path.strip_suffix(b"/").filter(|path| !path.is_empty()).unwrap_or(path);
        let found = self.known.iter().find(|info| info.path == trimmed);
        found
            .map(|info| info.dataset)
            .ok_or_else(|| anyhow!("{} is no dataset", self.path(path)))
            .hint("`firn dataset list <volume-dir>` lists all datasets")
    }

    /// The root directory of the dataset at a path, in a volume that is not mounted.
    pub fn root_at(&self, path: &[u8]) -> anyhow::Result<Ino> {
        let root = self.info(self.at(path)?).and_then(|info| info.root);
        root.ok_or_else(|| anyhow!("{} is being rolled back", self.path(path)))
            .hint("mount the volume, or roll back again, to bring that to its end")
    }

    /// The dataset that is asked about and, if `recursive`, all below it; otherwise all there are.
    pub(super) fn asked(
        &self,
        of: Option<&DatasetName>,
        recursive: bool,
    ) -> anyhow::Result<Vec<Dataset>> {
        match of {
            Some(of) => Ok(self.with_below(self.find(of)?, recursive)),
            None => Ok(self.all()),
        }
    }

    /// A dataset and, if `recursive`, all below it; each behind the one that it lies in.
    pub(super) fn with_below(&self, dataset: Dataset, recursive: bool) -> Vec<Dataset> {
        let mut found = vec![dataset];
        let mut next = 0;
        while recursive && next < found.len() {
            let parent = Some(found[next]);
            let children = self.known.iter().filter(|info| info.parent == parent);
            found.extend(children.map(|info| info.dataset));
            next += 1;
        }
        found
    }

    /// A line for each snapshot of these datasets, oldest first; `quick` without what has to be
    /// counted.
    pub(super) fn for_each_snapshot(
        &self,
        datasets: &[Dataset],
        quick: bool,
        visit: &mut dyn FnMut(SnapshotLine) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for &dataset in datasets {
            let snapshots = self.names.snapshots(dataset).map_err(|error| self.explain(error))?;
            for snapshot in snapshots {
                visit(self.snapshot_line(&snapshot, quick).map_err(|error| self.explain(error))?)?;
            }
        }
        Ok(())
    }

    fn snapshot_line(&self, snapshot: &Snapshot, quick: bool) -> TreeResult<SnapshotLine> {
        let (dataset, name) = (snapshot.dataset, &snapshot.name);
        // Counted once and kept, where that is possible.
        let referenced = match self.names.read_only() {
            None if !quick => Some(self.names.referenced(dataset, name)?),
            _ => snapshot.referenced,
        };
        let used = match quick {
            true => None,
            false => Some(self.names.used(dataset, name)?),
        };
        Ok(SnapshotLine {
            snapshot: self.snapshot(dataset, name),
            dataset: self.name(dataset),
            name: name.clone(),
            created: when(snapshot.created),
            message: snapshot.message.clone(),
            used_bytes: used,
            referenced_bytes: referenced.map(|referenced| referenced.bytes),
            written_bytes: Some(self.names.written(snapshot.root)?),
            holds: snapshot.holds.iter().map(|hold| hold.tag.clone()).collect(),
            clones: snapshot.clones.iter().map(|clone| self.name(*clone)).collect(),
            deferred: snapshot.deferred,
            root: snapshot.seal.map(|seal| seal.root.to_string()),
            digest: snapshot.seal.map(|seal| seal.digest.to_string()),
            sent_root: snapshot.sent_root.map(|root| root.to_string()),
            as_sent: self.names.is_as_sent(snapshot.node),
        })
    }

    /// A line for each of these datasets.
    pub(super) fn for_each_dataset(
        &self,
        datasets: &[Dataset],
        visit: &mut dyn FnMut(DatasetLine) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for &dataset in datasets {
            let Some(info) = self.info(dataset) else { continue };
            let explain = |error| self.explain(error);
            let snapshots = self.names.snapshots(dataset).map_err(explain)?;
            let space = self.names.dataset_space(dataset).map_err(explain)?;
            // What it shows is being replaced while it is rolled back.
            let shown = |bytes: u64| info.root.map(|_| bytes);
            let made = info.created != Timestamp::default();
            visit(DatasetLine {
                dataset: self.path(&info.path),
                created: made.then(|| when(info.created)),
                origin: info.origin.as_ref().map(|(of, name)| self.snapshot(*of, name)),
                snapshots: snapshots.len() as u64,
                written_bytes: shown(space.written),
                used_bytes: Some(space.used),
                referenced_bytes: shown(space.referenced.bytes),
                available_bytes: self.available(info),
                quota_bytes: self.names.quota_of(dataset),
            })?;
        }
        Ok(())
    }

    /// Lines for the snapshots of the dataset at a path, in a volume that is not mounted.
    pub fn snapshot_lines(
        &self,
        path: &[u8],
        recursive: bool,
        quick: bool,
    ) -> anyhow::Result<Vec<SnapshotLine>> {
        let mut lines = Vec::new();
        let datasets = self.with_below(self.at(path)?, recursive);
        self.for_each_snapshot(&datasets, quick, &mut |line| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    /// Lines for the dataset at a path, in a volume that is not mounted.
    pub fn dataset_lines(&self, path: &[u8], recursive: bool) -> anyhow::Result<Vec<DatasetLine>> {
        let mut lines = Vec::new();
        let datasets = self.with_below(self.at(path)?, recursive);
        self.for_each_dataset(&datasets, &mut |line| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    /// Why something cannot be done, with names and with what to do about it.
    pub(super) fn explain(&self, error: TreeError) -> anyhow::Error {
        let advice = match &error {
            TreeError::Cloned(clones) => return self.explain_clones(clones),
            TreeError::Children(children) => return self.explain_children(children),
            TreeError::Receiving(dataset) => return self.explain_receiving(*dataset),
            other => advice(other),
        };
        let is_usage = matches!(error, TreeError::InvalidName(_));
        let explained = match advice {
            Some(advice) => failure::hinted(error, advice),
            None => anyhow::Error::new(error),
        };
        if is_usage { failure::wrong_usage(explained) } else { explained }
    }

    fn explain_clones(&self, clones: &[Dataset]) -> anyhow::Error {
        let names: Vec<String> = clones.iter().map(|clone| self.name(*clone)).collect();
        let hint = "promote a clone with `firn dataset promote`, or destroy the clones first";
        failure::hinted(anyhow!("has clones: {}", names.join(", ")), hint)
    }

    fn explain_receiving(&self, dataset: Dataset) -> anyhow::Error {
        let name = self.name(dataset);
        let hint = format!(
            "wait for its end; one that was interrupted goes on with the token that `firn status`              shows, or is given up with `firn snapshot receive -A {name}`"
        );
        failure::hinted(anyhow!("a stream is being received into {name}"), hint)
    }

    pub(super) fn explain_children(&self, children: &[Dataset]) -> anyhow::Error {
        let names: Vec<String> = children.iter().map(|child| self.name(*child)).collect();
        let hint = "destroy or move them first; `firn dataset destroy -r` destroys all of them";
        failure::hinted(anyhow!("datasets below are in the way: {}", names.join(", ")), hint)
    }
}

/// Fails when a dataset cannot have a name.
pub(super) fn check_dataset_name(at: &NewName) -> anyhow::Result<()> {
    if at.file != CONTROL_NAME {
        return Ok(());
    }
    Err(anyhow!("{CONTROL_NAME} is the way to the snapshots of each dataset"))
        .hint("choose another name")
        .wrong_usage()
}

/// What to do about a refusal.
fn advice(error: &TreeError) -> Option<&'static str> {
    Some(match error {
        TreeError::NoDataset => "`firn dataset list` lists all datasets",
        TreeError::NoSnapshot(_) => "`firn snapshot list <dataset>` lists a dataset's snapshots",
        TreeError::NoHold(_) => "`firn snapshot holds <snapshot>` lists its holds",
        TreeError::Exists(_) | TreeError::Fs(FsError::Exists) => "choose another name",
        TreeError::InvalidName(_) => "choose a name that follows this rule",
        TreeError::Held(_) => {
            "take the holds back with `firn snapshot release <tag> <snapshot>`, or let it go with \
             the last of them: `firn snapshot destroy -d`"
        }
        TreeError::InTheWay(_) => "destroy them with it: add -r",
        TreeError::NotAClone => "only a clone can be promoted; `firn dataset list` shows origins",
        TreeError::Unrelated => "name two snapshots of one dataset, the older one first",
        TreeError::Busy | TreeError::Sending(_) => "try again when that is over",
        TreeError::Fs(FsError::Receiving) => {
            "wait for its end; one that was interrupted must be continued or abandoned"
        }
        TreeError::UnreadableDigest(_) => {
            "unmount the volume, and mend it with `firn check --repair`"
        }
        TreeError::TooMany => "destroy snapshots that nobody needs",
        TreeError::Fs(FsError::Busy) => "end what uses it, and try again",
        TreeError::Fs(FsError::CrossesDatasets) => {
            "a dataset stays in the one that it lies in; clone a snapshot of it elsewhere"
        }
        TreeError::Fs(FsError::ReadOnly(_)) => "mount the volume writable; a snapshot never is",
        TreeError::Fs(FsError::ReadOnlyDataset) => {
            "let it be changed with `firn dataset set readonly=off <dataset>`"
        }
        TreeError::Fs(FsError::InSnapshot | FsError::Stale) => {
            "name a path in a live dataset; `firn dataset list` lists all"
        }
        TreeError::QuotaBelowUse { .. } => {
            "set a larger one, or remove files and the snapshots that hold them first"
        }
        TreeError::InvalidSetting(_) => "`firn dataset set --help` lists properties and values",
        TreeError::Cloned(_)
        | TreeError::Children(_)
        | TreeError::Receiving(_)
        | TreeError::Fs(_) => return None,
    })
}

/// A time of the namespace.
pub(super) fn when(time: Timestamp) -> String {
    utc::rfc3339(time.secs)
}
