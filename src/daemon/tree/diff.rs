//! What changed between two states of a dataset, with the paths under which people know it.
//! Changes are passed on as they are found: an asker who is slow makes the search slow, and one
//! who is gone ends it.

use std::io;

use anyhow::Context;
use firn_mount::namespace::{ChangeKind, Difference};

use super::naming::Naming;
use super::{TreeAnswers, while_saying};
use crate::control::server::Outbox;
use crate::control::tree::SnapshotName;
use crate::daemon::inspect::kind_name;
use crate::report::diff::{Change, What};
use crate::report::names;

impl TreeAnswers<'_> {
    pub(super) fn diff(
        &self,
        from: &SnapshotName,
        to: Option<&str>,
        out: &mut Outbox,
    ) -> anyhow::Result<()> {
        let naming = self.naming();
        let dataset = naming.find(&from.dataset)?;
        let root_of = |name: &str| {
            let root = naming.names.snapshot_root(dataset, name);
            root.map_err(|error| naming.explain(error))
        };
        let older = root_of(&from.snapshot)?;
        let newer = match to {
            Some(name) => root_of(name)?,
            None => {
                // What is still in memory is part of how things are now.
                self.drain(out)?;
                let volume = &self.parts.volume;
                while_saying(out, "writing back", || volume.sync())?.context("writing back")?;
                let root = naming.info(dataset).and_then(|info| info.root);
                root.context("the dataset is being rolled back")?
            }
        };
        let top = naming.name(dataset);
        let mut sent: io::Result<()> = Ok(());
        let compared = naming.names.diff(older, newer, &mut |difference| {
            sent = out.item(&naming.change(&top, difference));
            sent.is_ok()
        });
        compared.map_err(|error| naming.explain(error))?;
        Ok(sent?)
    }
}

impl Naming<'_> {
    fn change(&self, top: &str, difference: &Difference) -> Change {
        let path = |known: &Option<Vec<u8>>| match known {
            Some(path) => format!("{}{}", top.trim_end_matches('/'), names::text(path)),
            None => format!("{top}: inode {}, which lies too deep to tell", difference.ino.0),
        };
        let (change, at, new) = match difference.change {
            ChangeKind::Added => (What::Added, &difference.after, None),
            ChangeKind::Removed => (What::Removed, &difference.before, None),
            ChangeKind::Modified => (What::Modified, &difference.after, None),
            ChangeKind::Renamed => (What::Renamed, &difference.before, Some(&difference.after)),
        };
        Change {
            change,
            kind: kind_name(difference.kind).to_owned(),
            path: path(at),
            new_path: new.map(path),
        }
    }
}
