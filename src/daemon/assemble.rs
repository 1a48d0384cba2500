//! Puts a volume together from its directory: namespace, block store and the filesystem over
//! both, sharing one clock and one memory budget. Also what a command uses that works on an
//! unmounted volume. The caller holds the volume's lock as long as the parts are open.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow};
use firn_mount::FsResult;
use firn_mount::backup::{Backup, BackupOptions, Tracked};
use firn_mount::fuse::KernelCache;
use firn_mount::namespace::{
    LocalStore, Namespace, NamespaceOptions, NamespaceStore, NewRoot, StoreOptions,
};
use firn_mount::thaw::{ThawCounts, ThawMode, ThawSettings};
use firn_mount::volume::{FileSettings, LateLiveness, Observer, Volume, VolumeParts};
use firn_tiering::segment::VolumeId;
use firn_tiering::throttle::Priority;
use firn_tiering::tier::owner::Standing;
use firn_tiering::{
    BackupProof, BlockId, BlockStore, Blocks, Budget, Clock, Permit, StoreConfig, SystemClock,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::automatic::Automatic;
use super::damage::Damage;
use super::gate::Gate;
use super::placement::{Answering, Memory, Placement, Watcher};
use super::schedule::Schedule;
use super::scrub::Scrub;
use super::storage::{BlockStorage, Frontier, disk_bytes};
use super::thawing;
use super::timed::Timed;
use super::transfers::Transfers;
use crate::cold::contact::Contact;
use crate::cold::{ColdTier, Terms};
use crate::config::Config;
use crate::failure::{self, Explain};
use crate::volume_dir::{VolumeDir, instance};

/// Share of the memory budget that the namespace's database gets, and its bounds.
const NAMESPACE_SHARE: u64 = 8;
const NAMESPACE_BYTES: std::ops::RangeInclusive<u64> = 12 << 20..=64 << 20;

/// Share of the memory budget for what is remembered of how files are used.
const USES_SHARE: u64 = 16;

/// Variables of the environment that only `scripts/bench.sh` sets.
const UNWATCHED: &str = "FIRN_BENCH_UNWATCHED";
const UNPROTECTED: &str = "FIRN_BENCH_UNPROTECTED";

/// How long closing the block store may take after a mount that failed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// Inodes kept decoded per MiB of the budget: a tenth of it, at 250 bytes each.
const INODES_PER_MIB: u64 = 400;

/// The parts of an open volume.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Where it lies.
    pub dir: VolumeDir,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Memory shared by all parts.
    pub budget: Budget,
    /// Inodes, directories, extents.
    pub namespace: Arc<Namespace>,
    /// Blocks in segments in tiers.
    pub store: Arc<BlockStore>,
    /// The filesystem over both.
    pub volume: Arc<Volume>,
    /// The cold tier, if there is one.
    pub cold: Option<Arc<ColdTier>>,
    /// Copies the namespace there.
    pub backup: Option<Arc<Backup>>,
    /// Opened without the right to change anything.
    pub read_only: bool,
    contact: Mutex<Option<Contact>>,
    gate: Option<Arc<Gate>>,
    tracked: Arc<Tracked>,
    frontier: Frontier,
    schedule: Schedule,
    /// Takes the snapshots that come with time.
    pub(super) automatic: Automatic,
    /// Snapshots on their way.
    pub transfers: Transfers,
    /// Decides where files lie.
    pub(super) placement: Arc<Placement>,
    /// What was damaged.
    pub(super) damage: Arc<Damage>,
    /// Looks for damage.
    pub(super) scrub: Arc<Scrub>,
    /// Files that lie in hot as plain copies as well; absent where none is thawed.
    pub(super) thawed: Option<Arc<ThawCounts>>,
    /// What the namespace's database takes of the budget for good.
    _database: Option<Permit>,
    /// What is remembered of how files are used.
    _uses: Option<Permit>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Makes the databases of a new volume in `dir`.
pub fn create(dir: &VolumeDir) -> anyhow::Result<()> {
    let open = || LocalStore::open(&dir.namespace_dir(), StoreOptions::default());
    let store = open().context("making the namespace")?;
    let root = NewRoot {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        perm: 0o755,
    };
    // Two version 4 UUIDs: 244 random bits, and no further dependency for randomness.
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    seed[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    Namespace::create(&store, &SystemClock, root, seed).context("making the namespace")?;
    store.rest().context("making the namespace")
}

/// How the namespace's database shares the memory budget.
fn namespace_memory(budget: u64) -> StoreOptions {
    let share = (budget / NAMESPACE_SHARE).clamp(*NAMESPACE_BYTES.start(), *NAMESPACE_BYTES.end());
    StoreOptions {
        cache_bytes: share / 2,
        write_buffer_bytes: share / 4,
        ..StoreOptions::default()
    }
}

/// The settings of a volume's block store.
pub fn store_config(
    dir: &VolumeDir,
    config: &Config,
    namespace: &Namespace,
    budget: &Budget,
    clock: &Arc<dyn Clock>,
) -> StoreConfig {
    let mut settings = StoreConfig::new(
        VolumeId(*config.uuid.as_bytes()),
        config.hot_dir(dir.root()),
        dir.catalog_dir(),
        budget.clone(),
        Arc::clone(clock),
        Arc::clone(namespace.ids()) as _,
    );
    settings.hot_capacity = Some(config.hot_capacity.0);
    settings.cold_spread = config.spread();
    settings.cold_capacity = config.cold_capacity.map(|capacity| capacity.0);
    settings.copy_ahead = config.copy_ahead;
    settings.recompress_age = config.recompress_age.0;
    settings.recompress_idle = config.recompress_idle.0;
    settings.cold_read_deadline = config.read_deadline.0;
    settings.write_deadline = config.write_deadline.0;
    let databases = [dir.namespace_dir(), dir.catalog_dir()];
    settings.other_bytes = Some(Arc::new(move || databases.iter().map(|d| disk_bytes(d)).sum()));
    settings
}

/// A volume's namespace, and the store below it that notes what a backup must copy.
pub struct OpenNamespace {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Its store.
    pub tracked: Arc<Tracked>,
    /// What it takes of the budget for good.
    pub permit: Option<Permit>,
}

/// Opens the namespace of `dir`.
pub fn open_namespace(
    dir: &VolumeDir,
    budget: &Budget,
    clock: &Arc<dyn Clock>,
    read_only: bool,
) -> anyhow::Result<OpenNamespace> {
    open_namespace_by(Namespace::open, dir, budget, clock, read_only)
}

/// Opens the namespace of `dir`, whatever is damaged in it, for a repair.
pub fn open_namespace_to_repair(
    dir: &VolumeDir,
    budget: &Budget,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<OpenNamespace> {
    open_namespace_by(Namespace::open_to_repair, dir, budget, clock, false)
}

/// How a namespace is opened.
type Opening = fn(Arc<dyn NamespaceStore>, Arc<dyn Clock>, NamespaceOptions) -> FsResult<Namespace>;

fn open_namespace_by(
    opening: Opening,
    dir: &VolumeDir,
    budget: &Budget,
    clock: &Arc<dyn Clock>,
    read_only: bool,
) -> anyhow::Result<OpenNamespace> {
    let options = namespace_memory(budget.total_bytes());
    let permit = budget.try_acquire(options.cache_bytes + 2 * options.write_buffer_bytes);
    let path = dir.namespace_dir();
    if !path.is_dir() {
        return Err(anyhow!("{} is missing", path.display())).hint(
            "restore the volume directory, or make it again from the cold tier with `firn recover`",
        );
    }
    let store = LocalStore::open_existing(&path, options)
        .context("opening the namespace")
        .hint("if the database is damaged, `firn recover` makes it again from the cold tier")?;
    let tracked = Arc::new(Tracked::open(Arc::new(store)).context("opening the namespace")?);
    let options = NamespaceOptions {
        cached_inodes: (budget.total_bytes() >> 20).saturating_mul(INODES_PER_MIB) as usize,
        read_only,
    };
    let namespace = opening(Arc::clone(&tracked) as _, Arc::clone(clock), options)
        .context("opening the namespace")
        .hint(
            "where its first records are damaged, `firn recover` makes the volume again from the \
             cold tier; what a repair can mend, `firn check --repair` does",
        )?;
    Ok(OpenNamespace { namespace: Arc::new(namespace), tracked, permit })
}

/// Opens the parts of `dir`. Files are thawed as `thaw` says. Work that waits for the cold tier runs on
/// `runtime`.
pub fn open(
    dir: &VolumeDir,
    config: Config,
    cold: Option<Arc<ColdTier>>,
    read_only: bool,
    thaw: ThawMode,
    runtime: &Handle,
) -> anyhow::Result<Parts> {
    if std::env::var_os(UNPROTECTED).is_some() {
        tracing::warn!("{UNPROTECTED} is set: segments get no parity, and reads are not verified");
        firn_tiering::segment::leave_unprotected();
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let budget = Budget::new(config.memory.0, Arc::clone(&clock));
    let OpenNamespace { namespace, tracked, permit } =
        open_namespace(dir, &budget, &clock, read_only)?;
    let backup = match &cold {
        Some(cold) if !read_only => {
            let tier = Arc::clone(cold.at(Priority::WriteBack));
            let runtime = runtime.clone();
            let (volume, options) = (*config.uuid.as_bytes(), BackupOptions::default());
            let backup = Backup::new(
                Arc::clone(&tracked),
                tier,
                runtime,
                Arc::clone(&clock),
                volume,
                options,
            )
            .context("preparing backups")?;
            Some(Arc::new(backup))
        }
        _ => None,
    };
    let gate = backup.as_ref().map(|backup| Arc::new(Gate::new(&namespace, &tracked, backup)));
    let use_bytes = budget.total_bytes() / USES_SHARE;
    let uses_memory = budget.try_acquire(use_bytes);
    let is_spread = config.spread().is_some();
    let hot_capacity_bytes = config.hot_capacity.0;
    let memory = Memory { use_bytes, hot_capacity_bytes, is_spread };
    let placement = Placement::open(dir.root(), &namespace, &clock, memory, read_only);
    let placement = Arc::new(placement);
    let liveness = Arc::new(LateLiveness::default());
    let mut settings = store_config(dir, &config, &namespace, &budget, &clock);
    settings.cold = cold.as_ref().map(|cold| Arc::clone(cold.at(Priority::UserRead)));
    settings.cold_handles = cold.as_ref().map(|cold| cold.handles().clone());
    settings.read_only = read_only;
    let thawed = thawing::count_in(&mut settings, thaw);
    settings.liveness = Some(Arc::clone(&liveness) as _);
    settings.backup = gate.clone().map(|gate| gate as _);
    settings.steward = Some(Arc::new(Answering(Arc::clone(&placement))) as _);
    let damage = Arc::new(Damage::new(&namespace, &clock));
    settings.damage = Some(Arc::clone(&damage) as _);
    let store = Arc::new(BlockStore::open(settings).context("opening the block store")?);
    let scrub = Arc::new(Scrub::open(dir.root(), clock.now()));
    let frontier = Frontier::load(dir.backup_frontier());
    let storage = BlockStorage::new(Arc::clone(&store), frontier.clone());
    let blocks = Timed::over(&store, cold.as_deref(), &clock);
    let thaw = thawing::settings(config.hot_dir(dir.root()), thaw, read_only, &store, &thawed);
    let volume =
        open_volume(&config, &namespace, blocks, storage, &placement, &budget, &clock, thaw)?;
    if !read_only {
        let first = store.next_block_id().context("opening the block store")?;
        liveness.bind(&volume, first);
    }
    Ok(Parts {
        config,
        dir: dir.clone(),
        clock,
        budget,
        namespace,
        store,
        volume,
        cold,
        backup,
        read_only,
        contact: Mutex::default(),
        gate,
        tracked,
        frontier,
        schedule: Schedule::default(),
        automatic: Automatic::default(),
        transfers: Transfers::default(),
        placement,
        damage,
        scrub,
        thawed,
        _database: permit,
        _uses: uses_memory,
    })
}

/// Notes how files are used, but for a benchmark that is to show what noting costs.
fn observer_of(placement: &Arc<Placement>) -> Option<Arc<dyn Observer>> {
    if std::env::var_os(UNWATCHED).is_some() {
        tracing::warn!("{UNWATCHED} is set: uses are not noted, and cold reads have no turns");
        return None;
    }
    Some(Arc::new(Watcher(Arc::clone(placement))))
}

fn open_volume(
    config: &Config,
    namespace: &Arc<Namespace>,
    blocks: Arc<dyn Blocks>,
    storage: BlockStorage,
    placement: &Arc<Placement>,
    budget: &Budget,
    clock: &Arc<dyn Clock>,
    thaw: Option<ThawSettings>,
) -> anyhow::Result<Arc<Volume>> {
    let settings = FileSettings {
        flush_interval: config.flush_interval.0,
        write_deadline: config.write_deadline.0,
        ..FileSettings::default()
    };
    let parts = VolumeParts {
        names: Arc::clone(namespace),
        blocks,
        storage: Arc::new(storage),
        clock: Arc::clone(clock),
        budget: budget.clone(),
        settings,
        observer: observer_of(placement),
        parity: Some(Arc::clone(placement) as _),
        thaw,
    };
    Ok(Arc::new(Volume::open(parts).context("opening the volume")?))
}

impl Parts {
    /// Whether there is a cold tier to bring things to.
    pub fn has_writable_cold(&self) -> bool {
        self.backup.is_some()
    }

    /// Where blocks lie, as far as they are safe there.
    pub(super) fn storage(&self) -> BlockStorage {
        BlockStorage::new(Arc::clone(&self.store), self.frontier.clone())
    }

    /// Writes back what is in memory, and makes a verified backup of the namespace.
    pub fn back_up(&self) -> anyhow::Result<()> {
        if self.backup.is_none() {
            return Ok(());
        }
        let end = self.store.next_block_id().context("block ids")?;
        self.volume.sync().context("writing back")?;
        self.back_up_namespace(end)
    }

    /// Makes a verified backup of the namespace, to which all blocks with a lower id than `end`
    /// are committed.
    fn back_up_namespace(&self, end: BlockId) -> anyhow::Result<()> {
        if let Some(backup) = &self.backup {
            let report = backup.run()?;
            self.frontier.advance(end);
            tracing::info!(
                sequence = report.sequence,
                bytes = report.uploaded_bytes,
                "the namespace is backed up"
            );
        }
        Ok(())
    }

    /// Makes the last backup of a mount, after the volume was closed.
    pub fn back_up_finally(&self) -> anyhow::Result<()> {
        self.back_up_namespace(self.store.next_block_id().context("block ids")?)
    }

    /// Whether the last backup holds everything that the namespace does.
    pub fn is_backed_up(&self) -> bool {
        let mark = self.tracked.mark();
        self.backup.as_ref().is_some_and(|backup| backup.status().covers(mark))
    }

    /// A proof that a verified backup names those of `blocks` that the namespace refers to.
    pub fn backup_proof(&self, blocks: &[BlockId]) -> anyhow::Result<BackupProof> {
        use firn_tiering::BackupGate;
        let gate = self.gate.as_ref().ok_or_else(|| anyhow!("there are no backups"))?;
        Ok(gate.ensure_backed_up(blocks)?)
    }

    /// Goes on asking for a cold tier that was away at the mount, and remembers one that was there.
    pub fn keep_contact(&self, terms: &Terms) {
        let (Some(cold), Some(url)) = (&self.cold, &self.config.cold) else { return };
        if cold.is_away() {
            let (dir, url) = (self.dir.clone(), url.clone());
            let contact = Contact::begin(cold, &self.config, terms, move || {
                instance::note_used(&dir, &url);
            });
            *self.contact.lock() = Some(contact);
        } else if terms.may_claim {
            instance::note_used(&self.dir, url);
        }
    }

    /// Why the cold tier is not this mount's, if that is so.
    pub fn cold_refusal(&self) -> Option<String> {
        match self.cold.as_ref()?.ownership().standing() {
            Standing::Ours | Standing::Reader => None,
            Standing::Lost(why) => {
                Some(format!("the cold tier is not this mount's any more: {why}"))
            }
            Standing::Unknown => {
                let refusal = self.contact.lock().as_ref().and_then(Contact::refusal);
                Some(refusal.unwrap_or_else(|| {
                    "the cold tier has not answered since the mount; it is asked again".to_owned()
                }))
            }
        }
    }

    /// Begins the backups that come with time.
    pub fn start_schedule(self: &Arc<Self>) {
        if self.has_writable_cold() {
            self.schedule.start(self);
        }
    }

    /// Begins the snapshots that come with time.
    pub fn start_snapshots(self: &Arc<Self>, kernel: KernelCache) {
        if !self.read_only {
            self.automatic.start(self, kernel);
        }
    }

    /// Begins to plan where files lie, and to move them; where nothing may be moved, the policy holds
    /// for reads alone.
    pub fn start_placement(self: &Arc<Self>) {
        match self.read_only {
            false => self.placement.start(self),
            true => self.placement.apply(self),
        }
    }

    /// Begins to look for damage, when the policy or somebody wants it.
    pub fn start_scrub(self: &Arc<Self>) {
        if !self.read_only {
            self.scrub.start(self);
        }
    }

    /// Lets no more of all that begin, and asks for no cold tier any more. A snapshot that is being
    /// taken is waited for, as is a move.
    pub fn end_schedule(&self) {
        // The next mount may begin as soon as this one has ended: nothing is claimed any more.
        *self.contact.lock() = None;
        self.schedule.end();
        self.automatic.stop();
        self.placement.stop();
        self.scrub.end();
    }

    /// Ends the backups that come with time; one that runs is waited for.
    pub fn stop_schedule(&self) {
        self.schedule.stop();
    }

    /// Ends all backups; one that runs is cut short, as by a crash.
    pub fn end_backups(&self) {
        if let Some(backup) = &self.backup {
            backup.end();
        }
        self.schedule.stop();
    }

    /// Writes back what is in memory, as well as that is possible now.
    pub fn write_back(&self) {
        if let Err(error) = self.volume.sync() {
            tracing::error!("writing back: {error}");
        }
    }

    /// Closes the block store and the namespace. The volume is closed before. A block store that
    /// still waits for the cold tier after `patience` is left behind: what it holds is durable, and
    /// the next mount catches up.
    pub fn close_databases(&self, patience: Duration) -> anyhow::Result<()> {
        let store = Arc::clone(&self.store);
        let (closed, waiting) = mpsc::channel();
        let closing = std::thread::Builder::new().name("firn-close".into()).spawn(move || {
            let _ = closed.send(store.close());
        });
        closing.context("starting a thread")?;
        let store = match waiting.recv_timeout(patience) {
            Ok(result) => result.context("closing the block store"),
            Err(_) => {
                tracing::warn!("the block store still waits for the cold tier; left behind");
                Ok(())
            }
        };
        let namespace = self.namespace.close().context("closing the namespace");
        store.and(namespace)
    }

    /// Closes what was opened without a mount: everything is durable afterwards. Copies to cold and
    /// backups are the next mount's.
    pub fn close(&self) -> anyhow::Result<()> {
        let volume = self.volume.close().context("writing back");
        volume.and(self.close_databases(CLOSE_PATIENCE))
    }

    /// Closes what was opened for a mount that failed.
    pub fn close_quietly(&self) {
        if let Err(error) = self.close() {
            tracing::warn!("closing the volume: {}", failure::line(&error));
        }
    }
}
