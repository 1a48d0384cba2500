//! Snapshots from one volume to another: what arrives, what a cut, a change or a crash on the way
//! leaves, and what is refused.

mod beside;
mod cut;
mod hostile;
mod links;
mod refused;
mod roots;
mod shown;
mod trip;

use super::super::Volume;
use super::fake::{ROOT, World, quiet};
use crate::error::FsResult;
use crate::namespace::Dataset;
use crate::stream::{
    Progress, ReceiveError, ReceiveOptions, ReceiveTarget, ReceiveWatch, Received, ResumeToken,
    SendError, SendPlan,
};
use crate::types::{Forget, Ino};
use shown::Grower;

/// Follows a receive to its end.
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

const PLAIN: ReceiveOptions =
    ReceiveOptions { resumable: false, force_rollback: false, snapshot_name: None };
const RESUMABLE: ReceiveOptions =
    ReceiveOptions { resumable: true, force_rollback: false, snapshot_name: None };

/// A volume to send from and one to receive in.
fn pair() -> (World, World) {
    (World::seeded(1 << 30, quiet(), 1), World::seeded(1 << 30, quiet(), 2))
}

impl World {
    fn take(&self, dataset: Dataset, name: &str) {
        drop(self.volume().snapshot(&[dataset], name, &format!("about {name}")).unwrap());
    }

    /// The stream of a snapshot, or of its differences from another.
    fn stream(&self, dataset: Dataset, name: &str, from: Option<&str>) -> Vec<u8> {
        let from = from.map(|from| (dataset, from.to_owned()));
        self.send(&SendPlan::Snapshot { dataset, name: name.to_owned(), from })
    }

    fn send(&self, plan: &SendPlan) -> Vec<u8> {
        let mut out = Vec::new();
        self.volume().send(plan, &mut out, &mut |_| true).unwrap();
        out
    }

    fn receive(
        &self,
        target: &ReceiveTarget,
        options: &ReceiveOptions,
        mut stream: &[u8],
    ) -> Result<Received, ReceiveError> {
        self.volume().receive(&ROOT, target, options, &mut stream, &mut Quiet)
    }

    fn receive_new(&self, name: &str, stream: &[u8]) -> Dataset {
        self.receive(&new(name), &PLAIN, stream).unwrap().dataset
    }

    /// Everything that shows, what is listed, and how many blocks there are.
    fn state(&self) -> (shown::Tree, Vec<String>) {
        let volume: &Volume = self.volume();
        let mut listed = Vec::new();
        for info in volume.names().datasets() {
            listed.push(String::from_utf8(info.path.clone()).unwrap());
            let snapshots = volume.names().snapshots(info.dataset).unwrap();
            listed.extend(snapshots.iter().map(|snapshot| format!("@{}", snapshot.name)));
        }
        (self.shown(Ino::ROOT), listed)
    }
}

fn new(name: &str) -> ReceiveTarget {
    ReceiveTarget::New { parent: Ino::ROOT, name: name.as_bytes().to_vec() }
}

/// The token of an interrupted receive.
fn token(error: ReceiveError) -> ResumeToken {
    match error {
        ReceiveError::Interrupted { token, .. } => *token,
        other => panic!("{other}"),
    }
}

/// Where the header and each record of a stream end.
fn boundaries(stream: &[u8]) -> Vec<usize> {
    let len = |at: usize| u32::from_le_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
    let mut ends = vec![16 + len(12) + 16];
    while let Some(&at) = ends.last().filter(|at| **at < stream.len()) {
        ends.push(at + 5 + len(at + 1) + 16);
    }
    ends
}
