//! Claims: every order in which several may be made, what the guard lets pass, and real stores.
#![allow(clippy::unwrap_used, reason = "tests")]

mod interleaved;

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::tier::{Fault, Faulty, Memory, Op, Opened, Patience, Retry, open_once, open_once_with};

/// Counts up, so that runs can be repeated.
fn ids() -> NewId {
    let next = AtomicU64::new(1);
    Arc::new(move || format!("{:032x}", next.fetch_add(1, Ordering::SeqCst)))
}

fn mount(instance: &str, clock: &Arc<ManualClock>, ids: &NewId) -> Ownership {
    let claimant = Claimant { instance: instance.to_owned(), host: "node1".to_owned(), pid: 7 };
    Ownership::new(claimant, Arc::clone(clock) as Arc<dyn Clock>, Arc::clone(ids))
}

struct Scene {
    memory: Arc<Memory>,
    faulty: Arc<Faulty>,
    clock: Arc<ManualClock>,
    ids: NewId,
}

impl Scene {
    fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
        Self { memory, faulty, clock: Arc::new(ManualClock::new()), ids: ids() }
    }

    fn mount(&self, instance: &str) -> (Arc<Ownership>, Owned) {
        let ownership = Arc::new(mount(instance, &self.clock, &self.ids));
        let tier = Arc::clone(&self.faulty) as Arc<dyn Tier>;
        (Arc::clone(&ownership), Owned::new(tier, ownership))
    }
}

fn kind(error: &Error) -> FailureKind {
    TierFailure::of(error).unwrap_or_else(|| panic!("{error:?}")).kind
}

#[tokio::test]
async fn an_owned_tier_conforms() {
    let memory: Arc<dyn Tier> = Arc::new(Memory::new());
    // The suite wants an empty tier: claims lie elsewhere.
    let ownership = Arc::new(mount("a", &Arc::new(ManualClock::new()), &ids()));
    ownership.claim(&Memory::new(), false).await.unwrap();
    crate::tier::tests::conforms(&Owned::new(memory, ownership)).await;
}

#[tokio::test]
async fn before_the_claim_and_for_readers_nothing_is_changed() {
    let scene = Scene::new();
    let (ownership, tier) = scene.mount("a");
    scene.memory.put("k", Bytes::new()).await.unwrap();
    let reader = Arc::new(Ownership::reader(
        ownership.claimant.clone(),
        Arc::clone(&scene.clock) as Arc<dyn Clock>,
    ));
    let reading = Owned::new(Arc::clone(&scene.faulty) as Arc<dyn Tier>, Arc::clone(&reader));
    for tier in [&tier, &reading] {
        let errors = [
            tier.put("n", Bytes::new()).await.unwrap_err(),
            tier.put_file("n", std::path::Path::new("/etc/hostname")).await.unwrap_err(),
            tier.delete("k").await.unwrap_err(),
            tier.clean().await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| kind(error) == FailureKind::NotOurs), "{errors:?}");
        tier.get("k").await.unwrap();
    }
    assert_eq!(scene.memory.keys(), ["k"]);
    assert_eq!((ownership.standing(), reader.standing()), (Standing::Unknown, Standing::Reader));
    ownership.claim(&*scene.faulty, false).await.unwrap();
    assert_eq!(ownership.standing(), Standing::Ours);
    tier.delete("k").await.unwrap();
}

#[tokio::test]
async fn the_same_instance_mounts_again_after_a_crash() {
    let scene = Scene::new();
    for epoch in 1..4 {
        let (ownership, tier) = scene.mount("a");
        let claim = ownership.claim(&*scene.faulty, false).await.unwrap();
        assert_eq!(claim.epoch, epoch);
        assert_eq!(scene.memory.keys().len(), 1, "older claims are removed");
        tier.put("x", Bytes::new()).await.unwrap();
        tier.delete("x").await.unwrap();
    }
}

#[tokio::test]
async fn another_instance_is_refused_and_told_who_is_there() {
    let scene = Scene::new();
    let (first, _) = scene.mount("a");
    first.claim(&*scene.faulty, false).await.unwrap();
    let before = scene.memory.keys();
    let (second, tier) = scene.mount("b");
    let error = second.claim(&*scene.faulty, false).await.unwrap_err();
    assert!(error.to_string().contains("process 7 on node1, instance a"), "{error}");
    assert!(error.hint().unwrap().contains("-o takeover"));
    assert_eq!(scene.memory.keys(), before, "nothing was written");
    assert_eq!(kind(&tier.put("n", Bytes::new()).await.unwrap_err()), FailureKind::NotOurs);
}

#[tokio::test(start_paused = true)]
async fn the_old_owner_wakes_up_and_may_delete_nothing() {
    let scene = Scene::new();
    let (old, old_tier) = scene.mount("a");
    old.claim(&*scene.faulty, false).await.unwrap();
    old_tier.put("segments/1", Bytes::new()).await.unwrap();
    let (new, new_tier) = scene.mount("recovered");
    let start = tokio::time::Instant::now();
    let claim = new.claim(&*scene.faulty, true).await.unwrap();
    assert_eq!(claim.epoch, 2);
    assert!(start.elapsed() >= DELETE_LEAVE + DELETE_TIME, "the old one's leave has run out");
    scene.clock.advance(start.elapsed());
    let error = old_tier.delete("segments/1").await.unwrap_err();
    assert_eq!(kind(&error), FailureKind::NotOurs);
    assert!(matches!(old.standing(), Standing::Lost(why) if why.contains("recovered")));
    // Also when nobody is there to be seen any more.
    scene.faulty.cut_off();
    assert_eq!(kind(&old_tier.put("n", Bytes::new()).await.unwrap_err()), FailureKind::NotOurs);
    scene.faulty.reconnect();
    new_tier.delete("segments/1").await.unwrap();
    // The old directory is not the owner's any more, until somebody says so.
    let (again, _) = scene.mount("a");
    assert!(matches!(again.claim(&*scene.faulty, false).await, Err(Error::Unusable { .. })));
    assert_eq!(again.claim(&*scene.faulty, true).await.unwrap().epoch, 3);
}

#[tokio::test]
async fn a_copy_of_the_whole_machine_takes_over_from_the_original() {
    let scene = Scene::new();
    let (original, tier) = scene.mount("a");
    original.claim(&*scene.faulty, false).await.unwrap();
    let (copy, _) = scene.mount("a");
    copy.claim(&*scene.faulty, false).await.unwrap();
    scene.clock.advance(DELETE_LEAVE);
    assert_eq!(kind(&tier.delete("x").await.unwrap_err()), FailureKind::NotOurs);
}

#[tokio::test]
async fn a_look_is_leave_for_a_while_by_either_clock() {
    let scene = Scene::new();
    let (ownership, tier) = scene.mount("a");
    ownership.claim(&*scene.faulty, false).await.unwrap();
    let lists = || scene.faulty.calls(Op::List);
    let before = lists();
    for _ in 0..10 {
        tier.delete("x").await.unwrap();
    }
    assert_eq!(lists(), before);
    scene.clock.advance(DELETE_LEAVE);
    tier.put("y", Bytes::new()).await.unwrap();
    assert_eq!(lists(), before, "storing has longer leave");
    tier.delete("y").await.unwrap();
    tier.delete("z").await.unwrap();
    assert_eq!(lists(), before + 1);
    scene.clock.advance(PUT_LEAVE);
    tier.put("y", Bytes::new()).await.unwrap();
    assert_eq!(lists(), before + 2);

    // A machine that slept: only the wall clock went on.
    let claim = Arc::new(mount("a", &scene.clock, &scene.ids));
    claim.claim(&*scene.faulty, false).await.unwrap();
    let State::Ours { seen: (instant, wall), .. } = claim.state.lock().clone() else { panic!() };
    assert!(claim.is_fresh((instant, wall), DELETE_LEAVE));
    for other in [wall - Duration::from_secs(3600), wall + Duration::from_secs(3600)] {
        assert!(!claim.is_fresh((instant, other), DELETE_LEAVE));
    }
}

#[tokio::test]
async fn a_listing_that_fails_is_a_refusal_that_may_pass() {
    let scene = Scene::new();
    let (ownership, tier) = scene.mount("a");
    scene.faulty.fail_next(Some(Op::List), "", Fault::Error(FailureKind::Unavailable));
    ownership.claim(&*scene.faulty, false).await.unwrap_err();
    assert_eq!(ownership.standing(), Standing::Unknown);
    assert!(scene.memory.keys().is_empty());
    for op in [Op::Put, Op::List] {
        // The second listing: a claim stays that nobody won.
        let nth = if op == Op::List { 2 } else { 1 };
        (1..nth).for_each(|_| scene.faulty.fail_next(Some(op), "", Fault::Delay(Duration::ZERO)));
        scene.faulty.fail_next(Some(op), "", Fault::TimeOutAfter);
        ownership.claim(&*scene.faulty, false).await.unwrap_err();
        assert_eq!(ownership.standing(), Standing::Unknown);
    }
    ownership.claim(&*scene.faulty, false).await.unwrap();
    assert_eq!(scene.memory.keys().len(), 1);
    scene.clock.advance(PUT_LEAVE);
    scene.faulty.cut_off();
    assert_eq!(kind(&tier.delete("x").await.unwrap_err()), FailureKind::Unavailable);
    assert_eq!(scene.faulty.calls(Op::Delete), 2, "only old claims were deleted");
    assert_eq!(kind(&tier.put("x", Bytes::new()).await.unwrap_err()), FailureKind::Unavailable);
    assert_eq!(ownership.standing(), Standing::Ours, "not known otherwise");
    scene.faulty.reconnect();
    tier.delete("x").await.unwrap();
}

#[tokio::test]
async fn a_claim_that_was_removed_or_damaged_is_nobodys() {
    let scene = Scene::new();
    let (ownership, tier) = scene.mount("a");
    let claim = ownership.claim(&*scene.faulty, false).await.unwrap();
    scene.memory.lose(&claim.key());
    scene.clock.advance(DELETE_LEAVE);
    assert_eq!(kind(&tier.delete("x").await.unwrap_err()), FailureKind::NotOurs);
    for damaged in [&b""[..], b"{", b"{\"version\":2}", &[b' '; 5000]] {
        let scene = Scene::new();
        let (ownership, _) = scene.mount("a");
        let claim = ownership.claim(&*scene.faulty, false).await.unwrap();
        scene.memory.overwrite(&claim.key(), damaged.to_vec());
        let error = scene.mount("a").0.claim(&*scene.faulty, false).await.unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
    // What is no claim is in nobody's way.
    let scene = Scene::new();
    for key in ["owner/readme", "owner/1-2", "owner/000000000000000g-00"] {
        scene.memory.put(key, Bytes::new()).await.unwrap();
    }
    scene.mount("a").0.claim(&*scene.faulty, false).await.unwrap();
    assert_eq!(scene.memory.keys().len(), 4);
}

#[tokio::test]
async fn the_last_epoch_is_an_error() {
    let scene = Scene::new();
    let claim = mount("a", &scene.clock, &scene.ids).new_claim(u64::MAX);
    scene.memory.put(&claim.key(), Bytes::from(claim.to_bytes())).await.unwrap();
    let error = scene.mount("a").0.claim(&*scene.faulty, false).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// The bytes that FORMAT.md specifies.
#[test]
fn claims_are_stored_as_specified() {
    let claim = Claim {
        version: 1,
        epoch: 0x1f,
        id: "00112233445566778899aabbccddeeff".to_owned(),
        instance: "8d7f1e5c9f3a4b56b0a1c2d3e4f50617".to_owned(),
        host: "node1".to_owned(),
        pid: 4242,
        time_s: 1_795_190_400,
    };
    let golden = r#"{"version":1,"epoch":31,"id":"00112233445566778899aabbccddeeff","instance":"8d7f1e5c9f3a4b56b0a1c2d3e4f50617","host":"node1","pid":4242,"time_s":1795190400}"#;
    assert_eq!(String::from_utf8(claim.to_bytes()).unwrap(), golden);
    assert_eq!(claim.key(), "owner/000000000000001f-00112233445566778899aabbccddeeff");
    assert_eq!(claim::parse_key(&claim.key()), Some((0x1f, claim.id.clone())));
    assert_eq!(Claim::parse(golden.as_bytes()).unwrap(), claim);
    let newer = golden.replace("\"version\":1", "\"version\":2,\"more\":true");
    assert!(matches!(Claim::parse(newer.as_bytes()), Err(Error::TooNew { found: 2, .. })));
}

/// Several mounts of different directories, at once: one has it.
async fn one_of_many(open: impl Fn() -> Opened) {
    let unique = || -> NewId {
        Arc::new(|| {
            let mut chance = crate::tier::Jitter::from_process();
            format!("{:016x}{:016x}", chance.next_u64(), chance.next_u64())
        })
    };
    let claims = (0..5).map(|n| {
        let Opened { tier, pauses } = open();
        let tier = Retry::new(tier, Patience::READ).heeding(pauses);
        let claimant = Claimant { instance: format!("i{n}"), host: "node1".to_owned(), pid: n };
        let ownership = Ownership::new(claimant, Arc::new(SystemClock), unique());
        tokio::spawn(async move { ownership.claim(&tier, false).await })
    });
    let claims = futures::future::join_all(claims).await;
    let won: Vec<_> = claims.into_iter().filter_map(|claim| claim.unwrap().ok()).collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let found = open().tier.list("", None, 100).await.unwrap();
    assert!(found.iter().any(|meta| meta.key == won[0].key()), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_has_a_directory_and_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    one_of_many(|| open_once(&url).unwrap()).await;
    let server = firn_tests::Server::start(&dir.path().join("s3")).unwrap();
    let url = format!("s3://{}/volume", firn_tests::BUCKET);
    one_of_many(|| open_once_with(&url, server.variables()).unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_tried_again_after_a_takeover_is_not_made() {
    let scene = Scene::new();
    let (old, old_tier) = scene.mount("a");
    old.claim(&*scene.faulty, false).await.unwrap();
    old_tier.put("segments/1", Bytes::new()).await.unwrap();
    let patient = Retry::new(Arc::new(old_tier), Patience::BACKGROUND);
    // Fails once; before the next attempt somebody else is the owner.
    let failure = Fault::Error(FailureKind::Unavailable);
    scene.faulty.fail_next(Some(Op::Delete), "segments/1", failure);
    let (new, _) = scene.mount("recovered");
    let deleting = tokio::spawn(async move { patient.delete("segments/1").await });
    while scene.faulty.calls(Op::Delete) == 0 {
        tokio::task::yield_now().await;
    }
    // The claim as it is written, before the wait that is for those who do not look.
    while new.claim_once(&*scene.faulty, true).await.unwrap() == Verdict::Contended {}
    scene.clock.advance(DELETE_LEAVE);
    let error = deleting.await.unwrap().unwrap_err();
    assert_eq!(kind(&error), FailureKind::NotOurs);
    assert!(scene.memory.keys().contains(&"segments/1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_to_delete_outlasts_what_a_takeover_waits() {
    let scene = Scene::new();
    let (old, old_tier) = scene.mount("a");
    old.claim(&*scene.faulty, false).await.unwrap();
    let start = tokio::time::Instant::now();
    scene.faulty.fail_next(Some(Op::Delete), "x", Fault::Hang);
    assert!(matches!(old_tier.delete("x").await, Err(Error::TimedOut(_))));
    let (new, _) = scene.mount("b");
    let took = start.elapsed();
    let start = tokio::time::Instant::now();
    new.claim(&*scene.faulty, true).await.unwrap();
    assert!(DELETE_LEAVE + took <= start.elapsed());
}

/// One that lost by the same epoch and died before it took its claim away.
async fn leave_a_tie(scene: &Scene, instance: &str, winner: &Claim) {
    // Both higher and lower ids than the winner's.
    for id in ["0", "f"] {
        let id = id.repeat(32);
        let tie = Claim { id: id.clone(), instance: instance.to_owned(), ..winner.clone() };
        scene.memory.put(&tie.key(), Bytes::from(tie.to_bytes())).await.unwrap();
    }
}

#[tokio::test]
async fn who_lost_a_tie_and_died_takes_nothing_when_it_mounts_again() {
    let scene = Scene::new();
    let (first, _) = scene.mount("a");
    let claim = first.claim(&*scene.faulty, false).await.unwrap();
    leave_a_tie(&scene, "b", &claim).await;
    let (second, _) = scene.mount("b");
    let refused = second.claim(&*scene.faulty, false).await;
    assert!(matches!(refused, Err(Error::Unusable { .. })), "{refused:?}");
    first.look(&*scene.faulty, Duration::ZERO).await.unwrap();
    assert_eq!(scene.memory.keys(), [claim.key()], "the owner clears them away when it looks");
    // So that they do not stand in its own way.
    let (again, _) = scene.mount("a");
    again.claim(&*scene.faulty, false).await.unwrap();
}
