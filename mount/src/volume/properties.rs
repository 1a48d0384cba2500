//! Changing the properties of datasets in use.
//!
//! What matters to writers changes while all changes are held and everything is committed: what
//! was written before is in, and is encoded as was asked then; what comes later meets the new
//! value. The caller has had the kernel write out its dirty pages.

use super::Volume;
use crate::namespace::{Dataset, Property, Setting, TreeResult};
use crate::types::Forget;

impl Volume {
    /// Sets properties of a dataset, all of them or none.
    pub fn set_properties(&self, dataset: Dataset, settings: &[Setting]) -> TreeResult<Forget> {
        let properties: Vec<Property> = settings.iter().map(Setting::property).collect();
        self.change_properties(&[dataset], &properties, || self.names.set(dataset, settings))
    }

    /// Leaves a property of some datasets to what they inherit.
    pub fn inherit_property(&self, datasets: &[Dataset], property: Property) -> TreeResult<Forget> {
        self.change_properties(datasets, &[property], || self.names.inherit(datasets, property))
    }

    fn change_properties(
        &self,
        datasets: &[Dataset],
        properties: &[Property],
        change: impl FnOnce() -> TreeResult<()>,
    ) -> TreeResult<Forget> {
        self.check_writable()?;
        let change = || self.tree_changed(change());
        match properties.iter().any(|property| property.concerns_writers()) {
            true => self.frozen(change)?.0,
            false => change()?,
        }
        let mut forget = Forget::default();
        if properties.contains(&Property::Snapdir) {
            forget.inodes = self.names.roots_below(datasets);
        }
        Ok(forget)
    }
}
