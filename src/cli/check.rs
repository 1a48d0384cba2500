//! `firn check`: is everything there, and is it what it was? Works offline, on a volume that
//! nobody has open: the block store looks at segments in every tier, the namespace at its records,
//! and here both are brought together, so that damage gets the names of files.

mod digests;
pub(super) mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use firn_mount::FsError;
use firn_mount::backup;
use firn_mount::namespace::{CheckOptions as NamespaceOptions, Namespace, SLOT_LEN};
use firn_mount::types::Ino;
use firn_tiering::store::{
    CheckOptions, CheckReport, DamageReport, Mended, PieceFinding, Residence,
};
use firn_tiering::throttle::Priority;
use firn_tiering::tier::Care;
use firn_tiering::tier::spread::Belonging;
use firn_tiering::{BlockId, BlockStore, Budget, Clock, SystemClock, Wait};
use tokio::runtime::Handle;

use crate::cold::{self, ColdTier, Terms};
use crate::control::protocol::Progress;
use crate::daemon::assemble::{self, OpenNamespace};
use crate::failure::{EXIT_DAMAGE, EXIT_DONE};
use crate::mounts;
use crate::report;
use crate::report::check::{Damage, Report};
use crate::report::names;
use crate::report::progress::Follower;
use crate::volume_dir::lock::{Owner, VolumeLock};
use crate::volume_dir::{self, VolumeDir, create};

use repair::Aside;

/// How long the catalog may take to be rebuilt.
const REBUILD_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Blocks looked up together.
const LOOKUP: usize = 4096;

/// Files named per damaged block, and damaged parts named in all.
const MAX_FILES: usize = 16;
const MAX_DAMAGE: usize = 10_000;

/// Ranges of bytes named per file.
const MAX_RANGES: usize = 16;

/// Check a volume that is not mounted, and name what is damaged
///
/// Looks at every segment's structure, index and checksums, at every record of the namespace, and
/// whether every block that a file needs is there; with --data, also whether the content of every
/// file that has a user.firn.blake3, now or in a snapshot, is what that says, and whether the newest
/// backup of the namespace is whole. Exit status 3 says that something is damaged.
/// With --repair, records of the namespace are counted, derived or put where they belong anew; what
/// has no name is in lost+found in the root of its dataset; content that is lost reads as an error, never as
/// zeros; and every record that goes is kept in the volume directory, in lost+found-<time>. No block is
/// given up before that is removed and --repair runs again.
/// With --json, one object with the fields volume, clean, segments, blocks, read_bytes, inodes,
/// entries, block_references, digests, catalog_rebuilt, kinds, repaired, lost_found, dropped, kept and
/// damage; each damage has part, place, what, paths and repairable; kinds has for each kind of damage
/// to the namespace found, repaired, lost_found, dropped and remaining.
#[derive(Debug, Args)]
pub(super) struct CheckVerb {
    /// The volume directory
    volume: PathBuf,
    /// Read every byte of every tier, and compare files with their digests
    #[arg(long)]
    data: bool,
    /// Make the catalog again from the segments first
    #[arg(long)]
    rebuild_catalog: bool,
    /// First repair the namespace, with what has no place put in lost+found, and make damaged
    /// segments whole, from another copy or by parity; with --data also objects in the cold tier of
    /// which only the content is damaged
    #[arg(long)]
    repair: bool,
    /// Of a cold tier of several stores, fill this one again, by its number: an empty one has taken the
    /// place of one that was lost. Can be given several times; without it nothing is stored in an
    /// empty place, whose filesystem may not be mounted
    #[arg(long, value_name = "STORE", requires = "repair")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    refill: Vec<u8>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Stores that do not serve are no news, and may be why the volume was recovered
    #[arg(skip)]
    is_recovery: bool,
}

impl CheckVerb {
    /// Looks whether everything is there that a volume needs that has nothing but its namespace and
    /// its cold tier.
    pub(super) fn after_recovery(volume: &VolumeDir) -> anyhow::Result<Report> {
        let verb = Self {
            volume: volume.root().to_owned(),
            data: false,
            rebuild_catalog: true,
            repair: false,
            refill: Vec::new(),
            json: false,
            is_recovery: true,
        };
        verb.check(volume)
    }

    pub(super) fn run(self) -> anyhow::Result<u8> {
        let target = volume_dir::resolve(&self.volume).context("checking")?;
        let what = || format!("checking {}", mounts::shown(target.volume.root()));
        let report = self.check(&target.volume).with_context(what)?;
        if self.json {
            report::print_json(&report)?;
        } else {
            report::print(&report.text())?;
        }
        Ok(if report.clean { EXIT_DONE } else { EXIT_DAMAGE })
    }

    fn check(&self, volume: &VolumeDir) -> anyhow::Result<Report> {
        let config = volume.config()?;
        let _lock = VolumeLock::acquire(volume, Owner::this("check", None), Duration::ZERO)?;
        let writes = self.rebuild_catalog || self.repair;
        create::check_hot(&config, volume, !writes)?;
        let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
        let refills = self.refill.iter().map(|store| usize::from(*store) - 1).collect();
        let terms = Terms { refills, ..Terms::of(volume, &config, self.repair)? };
        let tier = cold::open(&config, &terms, &runtime)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let budget = Budget::new(config.memory.0, Arc::clone(&clock));
        let OpenNamespace { namespace, .. } = match self.repair {
            true => assemble::open_namespace_to_repair(volume, &budget, &clock)?,
            false => assemble::open_namespace(volume, &budget, &clock, !writes)?,
        };
        let mut aside = Aside::new(volume, clock.as_ref())?;
        let mut settings = assemble::store_config(volume, &config, &namespace, &budget, &clock);
        settings.cold = tier.as_ref().map(|cold| Arc::clone(cold.at(Priority::Scrub)));
        settings.copy_ahead = false;
        settings.recompress_age = Duration::ZERO;
        settings.read_only = !writes;
        if self.rebuild_catalog {
            BlockStore::wipe_catalog(&settings).context("removing the old catalog")?;
        }
        let store = BlockStore::open(settings).context("opening the block store")?;
        let mut checker = Checker {
            namespace: &namespace,
            store: &store,
            cold: tier.as_ref(),
            runtime: runtime.handle(),
            follower: Follower::new(),
            report: Report {
                volume: mounts::shown(volume.root()),
                catalog_rebuilt: self.rebuild_catalog,
                ..Report::default()
            },
        };
        checker.catch_up(clock.as_ref())?;
        if self.repair {
            checker.repair_namespace(&mut aside)?;
            checker.repair(self.data, clock.as_ref())?;
        }
        if !self.is_recovery {
            checker.stores();
        }
        checker.all(self.data, clock.as_ref())?;
        let mut report = checker.report;
        store.close().context("closing the block store")?;
        namespace.close().context("closing the namespace")?;
        report.finish();
        aside.finish(&report)?;
        Ok(report)
    }
}

/// An object in cold that lacks something.
fn damage_of_object(object: &PieceFinding) -> Damage {
    Damage {
        part: "cold object".to_owned(),
        place: object.key.clone(),
        what: object.what.clone(),
        paths: Vec::new(),
        repairable: true,
    }
}

struct Checker<'a> {
    namespace: &'a Namespace,
    store: &'a BlockStore,
    cold: Option<&'a ColdTier>,
    runtime: &'a Handle,
    follower: Follower,
    report: Report,
}

impl Checker<'_> {
    fn catch_up(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        self.doing("reading the segments' indexes", 0, 0);
        self.store
            .wait_caught_up(Wait::Until(clock.instant() + REBUILD_DEADLINE))
            .context("rebuilding the catalog")
    }

    /// Makes damaged segments whole, as far as there is something to make them of.
    fn repair(&mut self, data: bool, clock: &dyn Clock) -> anyhow::Result<()> {
        let listing = self.store.cold_listing().context("listing the cold tier")?;
        let segments = self.store.segments_after(None);
        let mut replaced = Vec::new();
        for (done, id) in segments.iter().enumerate() {
            self.doing(&format!("repairing segments ({done} of {})", segments.len()), 0, 0);
            let found = self
                .store
                .scrub_segment(*id, listing.as_ref(), data)
                .with_context(|| format!("repairing segment {id}"))?;
            for found in found.into_iter().flat_map(|found| found.damage) {
                // What is lost is found again by the check that follows.
                if found.mended == Mended::Whole {
                    replaced.extend(found.in_cold.then_some(found.segment));
                    let damage = self.damage_of(&found);
                    self.report.repaired.push(damage);
                }
            }
        }
        let care = Care { content: data, repair: true };
        for object in self.store.mend_objects(care).context("looking for lacking shards")?.found {
            if object.renewed {
                self.report.repaired.push(damage_of_object(&object));
            }
        }
        self.doing("copying segments to the cold tier", 0, 0);
        self.store
            .wait_copied(&replaced, Wait::Until(clock.instant() + REBUILD_DEADLINE))
            .context("replacing damaged objects in the cold tier")?;
        self.store.clean_cold();
        Ok(())
    }

    fn damage_of(&self, found: &DamageReport) -> Damage {
        let tier = if found.in_cold { "cold" } else { "hot" };
        Damage {
            part: format!("{tier} segment"),
            place: found.segment.to_string(),
            what: found.what.clone(),
            paths: self.files_of(found.blocks.iter().copied()),
            repairable: true,
        }
    }

    /// Whether each store of a cold tier that is several serves.
    fn stores(&mut self) {
        let Some(spread) = self.cold.and_then(ColdTier::spread) else { return };
        let survey = self.runtime.block_on(spread.survey());
        for (number, (store, belonging)) in (1..).zip(spread.stores().iter().zip(survey)) {
            let what = match belonging {
                Belonging::Member => continue,
                Belonging::Blank => format!(
                    "is empty: mount its filesystem, or, when it was lost, fill it again with \
                     --repair --refill {number}"
                ),
                Belonging::Foreign(why) | Belonging::Away(why) => why,
            };
            let (part, place) = ("cold store".to_owned(), store.place.clone());
            self.note(Damage { part, place, what, paths: Vec::new(), repairable: true });
        }
    }

    /// Objects in cold that are no segments, and lack something.
    fn objects(&mut self, data: bool) -> anyhow::Result<()> {
        let care = Care { content: data, repair: false };
        let found = self.store.mend_objects(care).context("looking for lacking shards")?;
        found.found.iter().for_each(|object| self.note(damage_of_object(object)));
        Ok(())
    }

    fn all(&mut self, data: bool, clock: &dyn Clock) -> anyhow::Result<()> {
        self.doing("checking the namespace", 0, 0);
        self.namespace_records()?;
        let found = self.segments(data)?;
        self.objects(data)?;
        self.doing("looking for every block", 0, 0);
        self.references(&found)?;
        if data {
            self.digests(clock)?;
            self.backup()?;
        }
        Ok(())
    }

    /// Whether the newest backup could be restored.
    fn backup(&mut self) -> anyhow::Result<()> {
        let Some(cold) = self.cold else { return Ok(()) };
        let tier = cold.at(Priority::Scrub);
        self.doing("reading the newest backup of the namespace", 0, 0);
        let damage = |place: String, what: String| Damage {
            part: "backup".to_owned(),
            place,
            what,
            paths: Vec::new(),
            repairable: false,
        };
        match backup::verify_newest(tier, self.runtime) {
            Ok(verified) => {
                for object in verified.into_iter().flat_map(|verified| verified.damaged) {
                    self.note(damage(object.key, object.reason));
                }
                Ok(())
            }
            Err(error) if error.is_damage() => {
                self.note(damage("the newest".to_owned(), error.to_string()));
                Ok(())
            }
            Err(error) => Err(error).context("reading the newest backup of the namespace"),
        }
    }

    fn doing(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        let doing = what.to_owned();
        self.follower.show_quietly(&Progress { doing, done_bytes, total_bytes });
    }

    fn note(&mut self, damage: Damage) {
        self.report.found += 1;
        if self.report.damage.len() < MAX_DAMAGE {
            self.report.damage.push(damage);
        }
    }

    fn namespace_records(&mut self) -> anyhow::Result<()> {
        let found =
            self.namespace.check(NamespaceOptions::default()).context("reading the namespace")?;
        self.report.inodes = found.inodes;
        self.report.entries = found.entries;
        self.report.block_references = found.block_references;
        found.findings.iter().for_each(|finding| self.note(repair::damage_of(finding)));
        self.report.found += found.found.saturating_sub(found.findings.len() as u64);
        for (kind, count) in &found.kinds {
            let kind = self.report.kind(kind.name());
            kind.remaining += count;
            kind.found = kind.found.max(kind.remaining);
        }
        Ok(())
    }

    fn segments(&mut self, data: bool) -> anyhow::Result<CheckReport> {
        let options = CheckOptions { data, cold_data: data && self.cold.is_some() };
        let follower = &mut self.follower;
        let found = self
            .store
            .check(options, &mut |done, total| {
                let doing = format!("checking segments ({done} of {total})");
                follower.show_quietly(&Progress { doing, done_bytes: 0, total_bytes: 0 });
            })
            .context("reading the segments")?;
        self.report.segments = found.segments as u64;
        self.report.blocks = found.blocks;
        self.report.read_bytes = found.bytes;
        for finding in &found.findings {
            if self.nobody_needs(&finding.blocks) {
                self.report.unneeded += 1;
                continue;
            }
            let tier = if finding.in_cold { "cold" } else { "hot" };
            let paths = self.files_of(finding.blocks.iter().copied());
            self.note(Damage {
                part: format!("{tier} segment"),
                place: finding.segment.to_string(),
                what: finding.what.clone(),
                paths,
                repairable: finding.repairable,
            });
        }
        Ok(found)
    }

    /// Whether these are blocks that nothing refers to: what a power cut left of writes that nobody
    /// had synced, which compaction clears away. Without a clear answer they are needed.
    fn nobody_needs(&self, blocks: &[BlockId]) -> bool {
        !blocks.is_empty()
            && blocks.iter().all(|block| matches!(self.namespace.is_referenced(*block), Ok(false)))
    }

    /// Which files hold these blocks.
    fn files_of(&self, blocks: impl Iterator<Item = BlockId>) -> Vec<String> {
        let mut files = BTreeSet::new();
        for block in blocks {
            let owners = self.namespace.owners(block, MAX_FILES).unwrap_or_default();
            files.extend(owners.into_iter().map(|owner| owner.ino));
            if files.len() >= MAX_FILES {
                break;
            }
        }
        files.into_iter().take(MAX_FILES).map(|ino| self.path(ino)).collect()
    }

    fn path(&self, ino: Ino) -> String {
        names::text(&self.namespace.path(ino))
    }

    /// Whether every block that a file refers to is somewhere, undamaged as far as was looked.
    fn references(&mut self, found: &CheckReport) -> anyhow::Result<()> {
        let mut missing: BTreeMap<Ino, BTreeSet<BlockId>> = BTreeMap::new();
        let mut page: Vec<(Ino, BlockId)> = Vec::with_capacity(LOOKUP);
        let store = self.store;
        let mut look = |page: &mut Vec<(Ino, BlockId)>| {
            let blocks: Vec<BlockId> = page.iter().map(|(_, block)| *block).collect();
            for ((ino, block), residence) in page.drain(..).zip(store.residence(&blocks)) {
                if residence == Residence::Unknown || found.lost.contains(&block) {
                    missing.entry(ino).or_default().insert(block);
                }
            }
        };
        self.namespace
            .for_each_block(&mut |ino, _, block| {
                if page.last() != Some(&(ino, block.id)) {
                    page.push((ino, block.id));
                }
                if page.len() >= LOOKUP {
                    look(&mut page);
                }
                Ok(())
            })
            .context("reading extents")?;
        look(&mut page);
        for (ino, blocks) in missing {
            let names: Vec<String> =
                blocks.iter().take(MAX_FILES).map(ToString::to_string).collect();
            let path = self.path(ino);
            self.note(Damage {
                part: "file".to_owned(),
                place: format!("inode {}", ino.0),
                what: format!(
                    "{} blocks are lost: {}{}",
                    blocks.len(),
                    names.join(", "),
                    self.ranges(ino, &blocks)?
                ),
                paths: vec![path],
                repairable: false,
            });
        }
        Ok(())
    }

    /// Which bytes of a file lie in some blocks, for people.
    fn ranges(&self, ino: Ino, blocks: &BTreeSet<BlockId>) -> anyhow::Result<String> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let page = match self.namespace.slots(ino, from, u64::MAX, LOOKUP) {
                Ok(page) => page,
                // The number is that of a state that does not show.
                Err(FsError::Stale) => break,
                Err(error) => return Err(error).context("reading extents"),
            };
            for (slot, record) in page.slots {
                for piece in &record.pieces {
                    if !piece.block().is_some_and(|block| blocks.contains(&block.id)) {
                        continue;
                    }
                    let start = slot * u64::from(SLOT_LEN) + u64::from(piece.start);
                    let end = start + u64::from(piece.len);
                    match ranges.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => ranges.push(start..end),
                    }
                }
            }
            next = page.next.filter(|_| ranges.len() <= MAX_RANGES);
        }
        let shown = ranges.iter().take(MAX_RANGES);
        let shown: Vec<_> =
            shown.map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        let more = if ranges.len() > MAX_RANGES { " and more" } else { "" };
        match shown.is_empty() {
            true => Ok(String::new()),
            false => Ok(format!("; bytes {}{more}", shown.join(", "))),
        }
    }
}
