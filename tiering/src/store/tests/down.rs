//! A cold tier that is away, or another mount's: what is hot goes on, what is cold waits or fails as
//! it was told, nothing is destroyed, and all resumes by itself.

use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockId, BlockRef};
use crate::blocks::Blocks;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::store::testing::{Volume, eventually, noise, soon};
use crate::store::{BackupProof, Residence};
use crate::throttle::{Inputs, Limit, Priority, Throttle, ThrottleConfig};
use crate::tier::owner::{Claimant, Standing};
use crate::tier::{
    Fault, Faulty, Handles, Memory, Op, Owned, Ownership, Patience, Retry, Throttled, Tier,
};

struct Scene {
    volume: Volume,
    faulty: Arc<Faulty>,
    memory: Arc<Memory>,
    throttle: Arc<Throttle>,
    ownership: Arc<Ownership>,
}

fn mount(instance: &str) -> Ownership {
    let claimant = Claimant { instance: instance.to_owned(), host: "node".to_owned(), pid: 1 };
    let ids = || {
        let mut chance = crate::tier::Jitter::from_process();
        format!("{:016x}{:016x}", chance.next_u64(), chance.next_u64())
    };
    Ownership::new(claimant, Arc::new(SystemClock), Arc::new(ids))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

impl Scene {
    /// With all that stands before a store in a mount.
    fn new(fail_fast: bool, read_deadline: Duration) -> Self {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
        let config = ThrottleConfig { fail_fast, ..ThrottleConfig::default() };
        let inputs = Inputs::of_clock(Arc::new(SystemClock));
        let throttle = Arc::new(Throttle::new(config, inputs, Arc::default()).unwrap());
        let ownership = Arc::new(mount("here"));
        let owned = Owned::new(Arc::clone(&faulty) as Arc<dyn Tier>, Arc::clone(&ownership));
        let throttled = Throttled::new(Arc::new(owned), Arc::clone(&throttle));
        let handles = Handles::new(|priority| {
            Arc::new(Retry::new(throttled.for_priority(priority), Patience::BACKGROUND))
        });
        let volume = Volume::with(|config| {
            config.cold = Some(Arc::clone(handles.at(Priority::UserRead)));
            config.cold_handles = Some(handles.clone());
            config.copy_ahead = false;
            config.cold_read_deadline = read_deadline;
        });
        let scene = Self { volume, faulty, memory, throttle, ownership };
        block_on(scene.ownership.claim(&*scene.faulty, false)).unwrap();
        scene
    }

    fn archive(&self, blocks: &[BlockId]) -> Result<()> {
        self.volume.store().archive(blocks, soon(), &mut |_, _| ()).map(drop)
    }

    /// Appends a block that ends up in cold only, and in no cache.
    fn cold_block(&mut self, seed: u64) -> BlockRef {
        let block = self.volume.append(&noise(seed, 50_000));
        self.archive(&[block.id]).unwrap();
        let proof = BackupProof::of_blocks([block.id]);
        self.volume.store().release(&[block.id], &proof, soon()).unwrap();
        assert_eq!(self.volume.store().residence(&[block.id]), [Residence::Cold]);
        block
    }

    /// A read, and how long it took.
    fn timed(&self, block: &BlockRef) -> (Result<bytes::Bytes>, Duration) {
        let start = SystemClock.instant();
        let read = self.volume.read(block);
        (read, SystemClock.instant() - start)
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Cold { .. } | Error::TimedOut(_))
}

#[test]
fn hot_goes_on_and_cold_fails_at_its_deadline_and_all_resumes() {
    let deadline = Duration::from_millis(1500);
    let mut scene = Scene::new(false, deadline);
    let cold = scene.cold_block(1);
    scene.faulty.cut_off();
    let hot = scene.volume.append(&noise(2, 50_000));
    scene.volume.store().sync().unwrap();
    scene.volume.seal();
    assert_eq!(scene.volume.read(&hot).unwrap(), noise(2, 50_000));
    let (read, took) = scene.timed(&cold);
    assert!(is_passing(&read.unwrap_err()));
    assert!(took >= deadline && took < deadline * 4, "{took:?}");
    // Everything that says how things stand answers without the store.
    let start = SystemClock.instant();
    scene.volume.store().health();
    scene.volume.store().usage();
    scene.throttle.status();
    assert!(SystemClock.instant() - start < Duration::from_secs(1));
    scene.faulty.reconnect();
    eventually("reads from cold go on", || scene.volume.read(&cold).is_ok());
    scene.archive(&[hot.id]).unwrap();
    assert!(!scene.throttle.is_down());
}

#[test]
fn where_reads_are_to_fail_they_do_so_at_once_while_the_store_is_away() {
    let mut scene = Scene::new(true, Duration::from_secs(30));
    let cold = scene.cold_block(1);
    scene.faulty.cut_off();
    eventually("the store counts as away", || {
        scene.volume.read(&cold).unwrap_err();
        scene.throttle.is_down()
    });
    assert_eq!(scene.throttle.status().limited_by, Limit::Failing);
    for _ in 0..3 {
        let (read, took) = scene.timed(&cold);
        assert!(is_passing(&read.unwrap_err()));
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    scene.faulty.reconnect();
    // Somebody must ask: an upload does, and then reads work again.
    let hot = scene.volume.append(&noise(3, 50_000));
    scene.archive(&[hot.id]).unwrap();
    assert_eq!(scene.volume.read(&cold).unwrap(), noise(1, 50_000));
}

#[test]
fn each_kind_of_work_asks_under_its_own_priority() {
    let scene = Scene::new(false, Duration::from_secs(20));
    let waiting = |priority: Priority| {
        let status = scene.throttle.status();
        status.waiting[priority as usize] > 0
    };
    let block = scene.volume.append(&noise(1, 50_000));
    // Nothing passes: whoever asks is seen waiting.
    scene.throttle.pauses().ask(SystemClock.instant(), Duration::from_secs(2));
    std::thread::scope(|scope| {
        scope.spawn(|| scene.archive(&[block.id]).unwrap());
        eventually("an upload waits", || waiting(Priority::WriteBack));
    });
    let proof = BackupProof::of_blocks([block.id]);
    scene.volume.store().release(&[block.id], &proof, soon()).unwrap();
    scene.throttle.pauses().ask(SystemClock.instant(), Duration::from_secs(2));
    std::thread::scope(|scope| {
        scope.spawn(|| scene.volume.store().stage(&[block.id], soon(), &mut |_, _| ()).unwrap());
        eventually("a stage waits", || waiting(Priority::Stage));
        assert!(!waiting(Priority::UserRead) && !waiting(Priority::WriteBack));
    });
}

#[test]
fn whoever_lost_the_place_copies_and_deletes_nothing_and_reads_on() {
    let mut scene = Scene::new(false, Duration::from_secs(20));
    let cold = scene.cold_block(1);
    let other = mount("recovered elsewhere");
    block_on(other.claim(&*scene.faulty, true)).unwrap();
    scene.volume.namespace.dead.lock().insert(cold.id);
    scene.volume.store().free(&[cold.id]);
    let before = scene.memory.keys();
    scene.volume.store().sweep().unwrap();
    assert_eq!(scene.memory.keys(), before, "a dead segment stays where it is");
    let hot = scene.volume.append(&noise(2, 50_000));
    let error = scene.archive(&[hot.id]).unwrap_err();
    let said = crate::store::read::chain(&error);
    assert!(said.contains("recovered elsewhere"), "{said}");
    assert_eq!(scene.memory.keys(), before);
    assert!(matches!(scene.ownership.standing(), Standing::Lost(_)));
    assert_eq!(scene.volume.read(&cold).unwrap(), noise(1, 50_000));
}

#[test]
fn a_dead_segment_is_not_deleted_before_it_is_known_whose_the_place_is() {
    let mut scene = Scene::new(false, Duration::from_secs(20));
    let cold = scene.cold_block(1);
    // What was seen at the claim is no leave any more.
    std::thread::sleep(crate::tier::owner::DELETE_LEAVE);
    // The look at the claims fails for good, nothing else does.
    (0..50).for_each(|_| {
        let fault = Fault::Error(crate::tier::FailureKind::Refused);
        scene.faulty.fail_next(Some(Op::List), "owner/", fault);
    });
    scene.volume.namespace.dead.lock().insert(cold.id);
    scene.volume.store().free(&[cold.id]);
    scene.volume.store().sweep().unwrap();
    let is_there = |scene: &Scene| scene.memory.keys().iter().any(|k| k.starts_with("segments/"));
    assert!(is_there(&scene));
    scene.faulty.reconnect();
    scene.volume.store().sweep().unwrap();
    eventually("it goes", || !is_there(&scene));
}
