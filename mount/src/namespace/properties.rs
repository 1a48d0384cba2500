//! Properties of datasets: set where they are wanted, and inherited by all datasets below.
//!
//! The settings of a dataset are one record; what holds for it follows from its own and those of
//! the datasets that it lies in, and is worked out whenever the tree changes. Snapshots have no
//! properties of their own. *Crash*: settings change in one batch, all or none.

use std::sync::Arc;

use firn_tiering::encode::Compression;

use super::Namespace;
use super::key::{self, Dataset};
use super::record::{Property, Setting, Settings};
use super::store::Space;
use super::tree::{Change, Tree, TreeError, TreeResult};
use crate::error::{FsError, FsResult};
use crate::types::Ino;

/// What holds for a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// How blocks are compressed that are written from now on.
    pub compression: Compression,
    /// Most bytes that the dataset and all below may take; 1 or more.
    pub quota: Option<u64>,
    /// Programs can change nothing.
    pub read_only: bool,
    /// Listings of the root show `.firn`.
    pub lists_snapdir: bool,
    /// Reading changes access times.
    pub keeps_atime: bool,
    /// The class of the placement policy; `None` is the usual one.
    pub tier: Option<String>,
}

/// Where the value of a property comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody has set it.
    Default,
    /// It was set on the dataset itself.
    Local,
    /// It was set on a dataset above.
    Inherited(Dataset),
}

impl Properties {
    fn put(&mut self, setting: Setting) {
        match setting {
            Setting::Compression(compression) => self.compression = compression,
            Setting::Quota(quota) => self.quota = quota,
            Setting::ReadOnly(on) => self.read_only = on,
            Setting::Snapdir(listed) => self.lists_snapdir = listed,
            Setting::AccessTime(on) => self.keeps_atime = on,
            Setting::NoDedup => {}
            Setting::Tier(class) => self.tier = class,
        }
    }
}

impl Tree {
    /// The value of a property, and where it comes from.
    pub(super) fn setting(&self, dataset: Dataset, property: Property) -> (Setting, Source) {
        let levels = if property.is_inherited() { usize::MAX } else { 1 };
        for of in self.way_up(dataset).take(levels) {
            let found = self.settings.get(&of).and_then(|settings| settings.get(property));
            if let Some(setting) = found {
                let is_own = of == dataset;
                let source = if is_own { Source::Local } else { Source::Inherited(of) };
                return (setting.clone(), source);
            }
        }
        (property.default_setting(), Source::Default)
    }

    /// A dataset, and those that it lies in up to the root. Each lies in an older one, so this ends.
    pub(super) fn way_up(&self, dataset: Dataset) -> impl Iterator<Item = Dataset> {
        let above = |of: &Dataset| Some(self.datasets.get(of)?.place?.parent);
        std::iter::successors(Some(dataset), above)
    }

    /// Everything that holds for a dataset.
    pub(super) fn all_settings(&self, dataset: Dataset) -> Properties {
        let mut properties = Properties::default();
        for property in Property::ALL {
            properties.put(self.setting(dataset, property).0);
        }
        properties
    }
}

impl Namespace {
    /// What holds for a dataset.
    pub fn properties(&self, dataset: Dataset) -> TreeResult<Arc<Properties>> {
        self.tree.read().properties(dataset).ok_or(TreeError::NoDataset)
    }

    /// Fails where programs can change nothing: in a snapshot and in a read-only dataset. What the
    /// namespace does of its own accord, such as clearing away removed files, goes on there.
    pub fn check_changeable(&self, ino: Ino) -> FsResult<()> {
        match self.writable(ino)?.is_read_only {
            true => Err(FsError::ReadOnlyDataset),
            false => Ok(()),
        }
    }

    /// What holds where an inode is: in a snapshot, for its dataset as it is now.
    pub fn properties_of(&self, ino: Ino) -> FsResult<Arc<Properties>> {
        let view = self.view(ino)?;
        Ok(self.tree.read().properties(view.dataset).unwrap_or_default())
    }

    /// The value of a property of a dataset, and where it comes from.
    pub fn setting(&self, dataset: Dataset, property: Property) -> TreeResult<(Setting, Source)> {
        let tree = self.tree.read();
        match tree.datasets.contains_key(&dataset) {
            true => Ok(tree.setting(dataset, property)),
            false => Err(TreeError::NoDataset),
        }
    }

    /// The root directories of some datasets and of all below them.
    pub fn roots_below(&self, datasets: &[Dataset]) -> Vec<Ino> {
        let tree = self.tree.read();
        let is_below = |&dataset: &Dataset| tree.way_up(dataset).any(|of| datasets.contains(&of));
        let below = tree.datasets.keys().copied().filter(is_below);
        below.filter_map(|dataset| Some(tree.live_view(dataset)?.root())).collect()
    }

    /// Sets properties of a dataset, all of them or none, durably. A quota is not less than what
    /// is used.
    pub fn set(&self, dataset: Dataset, settings: &[Setting]) -> TreeResult<()> {
        self.edit_settings(&[dataset], |own| {
            own.add(settings)?;
            let used = self.space_used(dataset);
            let is_below =
                |setting: &Setting| matches!(setting, Setting::Quota(Some(most)) if *most < used);
            match settings.iter().any(is_below) {
                true => Err(TreeError::QuotaBelowUse { used }),
                false => Ok(()),
            }
        })
    }

    /// Leaves a property of some datasets to what they inherit, durably.
    pub fn inherit(&self, datasets: &[Dataset], property: Property) -> TreeResult<()> {
        self.edit_settings(datasets, |own| {
            own.remove(property);
            Ok(())
        })
    }

    fn edit_settings(
        &self,
        datasets: &[Dataset],
        edit: impl Fn(&mut Settings) -> TreeResult<()>,
    ) -> TreeResult<()> {
        let (alone, mut change) = self.change_tree()?;
        for &dataset in datasets {
            change.check_shown(dataset)?;
            let own = change.tree.settings.get(&dataset);
            let mut own = own.map(|settings| Settings::clone(settings)).unwrap_or_default();
            edit(&mut own)?;
            change.put_settings(dataset, own);
        }
        self.commit_tree(&alone, change)?;
        drop(alone);
        Ok(self.gate.sync()?)
    }
}

impl Settings {
    /// Sets properties after looking at them.
    pub(super) fn add(&mut self, settings: &[Setting]) -> TreeResult<()> {
        for setting in settings {
            if !setting.is_valid() {
                return Err(TreeError::InvalidSetting(setting.property()));
            }
            self.put(setting.clone());
        }
        Ok(())
    }
}

impl Change {
    /// Stores the settings of a dataset; none leave no record.
    pub(super) fn put_settings(&mut self, dataset: Dataset, settings: Settings) {
        let key = key::meta_number(key::PROPERTIES, dataset.0);
        if settings.is_empty() {
            if self.tree.settings.remove(&dataset).is_some() {
                self.batch.delete(Space::Meta, &key);
            }
            return;
        }
        self.batch.put(Space::Meta, &key, settings.encode());
        self.tree.settings.insert(dataset, Arc::new(settings));
    }
}
