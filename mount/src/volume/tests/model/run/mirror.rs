//! Sending snapshots to another volume, cut on the way or not: there they show what they show here.

use super::super::super::fake::assert_sound;
use super::super::observe::observe_below;
use super::snapshots::object;
use super::{Runner, Subject, Volume};
use crate::error::FsResult;
use crate::namespace::Dataset;
use crate::stream::{
    Progress, ReceiveError, ReceiveOptions, ReceiveTarget, ReceiveWatch, SendPlan,
};
use crate::types::{Forget, Ino};

/// Another volume, with the snapshot that it has as its newest.
pub(super) struct Mirror<S> {
    subject: S,
    newest: Option<(Dataset, String)>,
    made: usize,
}

struct Quiet;

impl ReceiveWatch for Quiet {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn drain(&mut self) -> FsResult<()> {
        Ok(())
    }

    fn forget(&mut self, _: Forget) {}
}

impl<S: Subject> Runner<'_, S> {
    /// Sends a snapshot: what is different from the one that the mirror has, or all of it. `cut`
    /// says after how many of 16 parts the stream ends, and then the mirror crashes.
    pub(super) fn mirror(&mut self, which: usize, cut: u8) {
        if self.saved.is_empty() {
            return;
        }
        let which = which % self.saved.len();
        let mut mirror = self.mirror.take().unwrap_or_else(|| Mirror {
            subject: S::another(),
            newest: None,
            made: 0,
        });
        let position = |name: &str| self.saved.iter().position(|saved| saved.name == name);
        let base =
            mirror.newest.clone().filter(|(_, name)| position(name).is_some_and(|at| at < which));
        let name = self.saved[which].name.clone();
        let from = base.as_ref().map(|(_, name)| (Dataset::ROOT, name.clone()));
        let plan = SendPlan::Snapshot { dataset: Dataset::ROOT, name: name.clone(), from };
        let target = match &base {
            Some((dataset, _)) => ReceiveTarget::Existing(*dataset),
            None => {
                if let Some((old, _)) = mirror.newest.take() {
                    drop(mirror.subject.volume().destroy_datasets(&[old], true).unwrap());
                }
                mirror.made += 1;
                let name = format!("m{}", mirror.made).into_bytes();
                ReceiveTarget::New { parent: Ino::ROOT, name }
            }
        };
        let dataset = self.send_to(&mut mirror, &plan, &target, cut);
        mirror.newest = Some((dataset, name));
        self.check_mirror(&mirror, which);
        self.mirror = Some(mirror);
    }

    fn send_to(
        &self,
        mirror: &mut Mirror<S>,
        plan: &SendPlan,
        target: &ReceiveTarget,
        cut: u8,
    ) -> Dataset {
        let send = |plan: &SendPlan| {
            let mut stream = Vec::new();
            self.volume().send(plan, &mut stream, &mut |_| true).unwrap();
            stream
        };
        let mut stream = send(plan);
        let options =
            ReceiveOptions { resumable: cut.is_multiple_of(2), ..ReceiveOptions::default() };
        let end = stream.len() * usize::from(cut) / 16;
        if end < stream.len() {
            let volume = mirror.subject.volume();
            let cut =
                volume.receive(&super::ROOT, target, &options, &mut &stream[..end], &mut Quiet);
            match cut.map(drop).unwrap_err() {
                ReceiveError::Interrupted { token, .. } => stream = send(&SendPlan::Rest(*token)),
                ReceiveError::Torn { .. } => {}
                other => panic!("{other}"),
            }
            mirror.subject.crash();
        }
        let volume = mirror.subject.volume();
        let received = volume.receive(&super::ROOT, target, &options, &mut &stream[..], &mut Quiet);
        received.unwrap_or_else(|error| panic!("{error}: {plan:?}")).dataset
    }

    fn check_mirror(&self, mirror: &Mirror<S>, which: usize) {
        let (dataset, name) = mirror.newest.as_ref().unwrap();
        let volume = mirror.subject.volume();
        let saved = &self.saved[which];
        let root = volume.names().snapshot_root(*dataset, name).unwrap();
        for volume in [volume, self.volume()] {
            volume.digester.seal_snapshots().unwrap();
        }
        let root_here = |volume: &Volume, of| {
            let seal = volume.names().find_snapshot(of, name).unwrap().seal;
            seal.map(|seal| seal.root)
        };
        let (sent, arrived) =
            (root_here(self.volume(), Dataset::ROOT), root_here(volume, *dataset));
        assert!(!S::IS_HOT || sent.is_some() && arrived.is_some(), "{name} has no digest");
        if let (Some(sent), Some(arrived)) = (sent, arrived) {
            assert_eq!(sent, arrived, "{name}");
        }
        let view = observe_below(volume, root, self.wait());
        assert_eq!(super::snapshots::objects(view.listing), saved.tree.listing(), "{name}");
        for (ino, seen) in &view.files {
            let state = &saved.files[&object(*ino)];
            assert!(seen.is(state), "{ino:?} of {name} shows not {state:#?}");
            assert_eq!(seen.blocks(), state.allocated().div_ceil(512), "{ino:?}: {state:#?}");
        }
        assert_sound(volume);
    }
}
