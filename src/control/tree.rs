//! What the dataset and snapshot verbs ask. A dataset is named by the inode number of its root
//! directory, which the asker has found on the mount, and by what its user called it.

use serde::{Deserialize, Serialize};

/// A dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetName {
    /// Inode number of its root directory.
    pub ino: u64,
    /// What the user called it.
    pub name: String,
}

/// A snapshot of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotName {
    /// Whose it is.
    pub dataset: DatasetName,
    /// Its name, without the dataset's.
    pub snapshot: String,
}

/// A name that does not exist yet, in a directory that does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewName {
    /// Inode number of the directory.
    pub dir: u64,
    /// The name in it.
    pub file: String,
    /// What the user called it.
    pub name: String,
}

/// A property and its new value, as typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The property.
    pub property: String,
    /// The value.
    pub value: String,
}

/// One snapshot or a range of them, in the order in which they were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The one of this name.
    One(String),
    /// From the first to the last, both included; without one, from the oldest or to the newest.
    Range(Option<String>, Option<String>),
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sending {
    /// A snapshot of the dataset.
    Snapshot {
        /// Its name.
        snapshot: String,
        /// Only what is different from this one.
        from: Option<SnapshotName>,
    },
    /// What a cut stream did not bring: the receiver's token.
    Rest(String),
}

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Receiving {
    /// Into a dataset that is there.
    Existing(DatasetName),
    /// Into one that is to be made.
    New(NewName),
}

/// What is asked about snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum SnapshotAct {
    /// Take one: an item that says which and how long it took.
    Create {
        /// Of what, under which name.
        of: SnapshotName,
        /// What the user says about it.
        message: String,
        /// Of all datasets below, too, at the same instant.
        recursive: bool,
    },
    /// List them: an item each.
    List {
        /// Of one dataset; otherwise of all.
        of: Option<DatasetName>,
        /// Of all datasets below, too.
        recursive: bool,
        /// Leave out what has to be counted.
        quick: bool,
    },
    /// Destroy some: an item that says which and what becomes free.
    Destroy {
        /// Of what.
        dataset: DatasetName,
        /// Which.
        which: Vec<Which>,
        /// Those in use go when their last hold and clone does.
        deferred: bool,
        /// Those of the same names of all datasets below, too.
        recursive: bool,
        /// Say only what would happen.
        dry_run: bool,
    },
    /// Give one another name.
    Rename {
        /// Which.
        of: SnapshotName,
        /// The new name.
        to: String,
        /// Those of the same name of all datasets below, too.
        recursive: bool,
    },
    /// Keep one from being destroyed.
    Hold {
        /// Which.
        of: SnapshotName,
        /// What the hold is called.
        tag: String,
    },
    /// Take a hold back.
    Release {
        /// Which.
        of: SnapshotName,
        /// What the hold is called.
        tag: String,
    },
    /// List the holds: an item each.
    Holds {
        /// Of which.
        of: SnapshotName,
    },
    /// Bring the dataset back to one: an item that says what was destroyed for it.
    Rollback {
        /// To which.
        to: SnapshotName,
        /// Destroy newer snapshots, which are in the way otherwise.
        destroy_newer: bool,
    },
    /// Make a dataset that begins as one: an item.
    Clone {
        /// From which.
        of: SnapshotName,
        /// Where.
        at: NewName,
    },
    /// Send one into the stream that comes along: progress, then an item.
    Send {
        /// Which; with a token only its dataset counts, to say which volume is meant.
        dataset: DatasetName,
        /// What of it.
        what: Sending,
        /// Only say how much it would be.
        dry_run: bool,
    },
    /// Receive one from the stream that comes along: progress, then an item.
    Receive {
        /// The dataset that it goes into.
        into: Receiving,
        /// The snapshot's name; otherwise as it was sent.
        snapshot: Option<String>,
        /// Keep what was received when the stream is cut.
        resumable: bool,
        /// Give up what changed since the base.
        force: bool,
    },
    /// Throw away what was received of a stream that was cut.
    Abandon {
        /// The dataset that it went into.
        into: Receiving,
    },
    /// Compare one with its digest: progress, then an item.
    Verify {
        /// Which.
        of: SnapshotName,
        /// Every byte of its files too.
        data: bool,
    },
    /// What changed: an item each.
    Diff {
        /// Since when.
        from: SnapshotName,
        /// Until when; otherwise until now.
        to: Option<String>,
    },
}

/// What is asked about datasets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum DatasetAct {
    /// Make one: an item.
    Create {
        /// Where.
        at: NewName,
        /// Properties that it has from the start.
        #[serde(default)]
        settings: Vec<Assignment>,
    },
    /// List them: an item each.
    List {
        /// Only this one; otherwise all.
        of: Option<DatasetName>,
        /// Those below it, too.
        recursive: bool,
    },
    /// Say what properties some have, and where each comes from: an item each.
    Get {
        /// Only of this one; otherwise of all.
        of: Option<DatasetName>,
        /// Of those below it, too.
        recursive: bool,
        /// Which properties, by name; without any, all.
        properties: Vec<String>,
    },
    /// Set properties of one, all of them or none.
    Set {
        /// Which.
        dataset: DatasetName,
        /// What.
        settings: Vec<Assignment>,
    },
    /// Leave a property to what is inherited.
    Inherit {
        /// Which.
        dataset: DatasetName,
        /// What, by name.
        property: String,
        /// Of all datasets below, too.
        recursive: bool,
    },
    /// Destroy one: an item that says what goes and what becomes free.
    Destroy {
        /// Which.
        dataset: DatasetName,
        /// With its snapshots and all datasets below.
        recursive: bool,
        /// Say only what would happen.
        dry_run: bool,
    },
    /// Move one to another name.
    Rename {
        /// Which.
        dataset: DatasetName,
        /// Where to.
        to: NewName,
    },
    /// Let a clone take over the snapshots that it came from.
    Promote {
        /// Which.
        dataset: DatasetName,
    },
}
