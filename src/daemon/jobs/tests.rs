#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::{Clock, ManualClock};
use proptest::prelude::*;

use super::job::{Job, JobId, MAX_FILES, Part, Work};
use super::journal::Journal;
use super::queue::{MOST_JOBS, MOST_PARTS, MOST_PARTS_OF_POLICY, Queue, Refused, State};
use super::{FILE_NAME, JobError, Jobs};

fn job(work: Work, inos: &[u64]) -> Job {
    let parts = inos.iter().map(|ino| Part::whole(*ino)).collect();
    Job::new(work, parts, "some files", "a test", 100)
}

fn everything(_: Work) -> bool {
    true
}

#[test]
fn the_most_urgent_goes_first_and_of_those_the_oldest() {
    let clock = ManualClock::new();
    let mut queue = Queue::default();
    let mut push = |work, ino| queue.push(job(work, &[ino])).unwrap().id;
    let demote = push(Work::Demote, 1);
    let stage = push(Work::Stage, 2);
    let later = push(Work::Stage, 3);
    let promote = push(Work::Promote, 4);
    let next = |queue: &mut Queue| queue.next(clock.instant(), everything).map(|job| job.id);
    let away = queue.next(clock.instant(), |work| !work.recalls()).unwrap();
    assert_eq!(away.id, demote);
    for expected in [stage, later, promote] {
        assert_eq!(next(&mut queue), Some(expected));
    }
    assert_eq!(next(&mut queue), None);
}

#[test]
fn what_waits_already_is_not_queued_twice() {
    let mut queue = Queue::default();
    queue.push(job(Work::Promote, &[1, 2])).unwrap();
    assert_eq!(queue.push(job(Work::Promote, &[2, 1])), Err(Refused::Merged));
    let rest = queue.push(job(Work::Promote, &[2, 3])).unwrap();
    assert_eq!(rest.parts, [Part::whole(3)]);
    // Who asks by hand does not stand behind what the policy wants; the other way round it does.
    let staged = queue.push(job(Work::Stage, &[1])).unwrap();
    assert_eq!(staged.parts, [Part::whole(1)]);
    queue.push(job(Work::Stage, &[9])).unwrap();
    assert_eq!(queue.push(job(Work::Promote, &[9])), Err(Refused::Merged));
    // A part of a file of which all waits.
    let mut part = job(Work::Promote, &[3]);
    part.parts[0].range = Some((0, 10));
    assert_eq!(queue.push(part), Err(Refused::Merged));
    // Another direction is another matter.
    queue.push(job(Work::Demote, &[1])).unwrap();
}

#[test]
fn what_ended_may_be_asked_for_again() {
    let clock = ManualClock::new();
    let mut queue = Queue::default();
    let first = queue.push(job(Work::Stage, &[1])).unwrap();
    assert_eq!(queue.next(clock.instant(), everything).unwrap(), first);
    queue.done(first.id);
    assert_eq!(queue.get(first.id).unwrap().state, State::Done);
    let second = queue.push(job(Work::Stage, &[1])).unwrap();
    assert!(second.id > first.id);
}

#[test]
fn a_failed_job_waits_longer_each_time_and_is_given_up_at_last() {
    let clock = ManualClock::new();
    let mut queue = Queue::default();
    let id = queue.push(job(Work::Demote, &[1])).unwrap().id;
    let mut pauses = Vec::new();
    loop {
        assert_eq!(queue.next(clock.instant(), everything).unwrap().id, id);
        if !queue.failed(id, "cold is full", clock.instant()) {
            break;
        }
        assert_eq!(queue.get(id).unwrap().state.reason(), Some("cold is full"));
        // Parked: nothing loops.
        assert_eq!(queue.next(clock.instant(), everything), None);
        let due = queue.next_due().unwrap();
        pauses.push(due.duration_since(clock.instant()).as_secs());
        clock.advance(due.duration_since(clock.instant()));
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    let failed = State::Failed { reason: "cold is full".to_owned() };
    assert_eq!(queue.get(id).unwrap().state, failed);
    // It may be planned again.
    queue.push(job(Work::Demote, &[1])).unwrap();
}

#[test]
fn a_parked_job_is_tried_at_once_when_its_cause_is_over_and_counts_its_failures_all_the_same() {
    let clock = ManualClock::new();
    let mut queue = Queue::default();
    let id = queue.push(job(Work::Demote, &[1])).unwrap().id;
    let running = queue.push(job(Work::Stage, &[2])).unwrap().id;
    for _ in 0..2 {
        assert_eq!(queue.next(clock.instant(), |work| work == Work::Demote).unwrap().id, id);
        assert!(queue.failed(id, "no answer", clock.instant()));
        queue.next(clock.instant(), |work| work == Work::Stage);
        queue.unpark();
        assert_eq!(queue.get(running).unwrap().state, State::Running);
    }
    queue.next(clock.instant(), everything).unwrap();
    assert!(queue.failed(id, "no answer", clock.instant()));
    let pause = queue.next_due().unwrap().duration_since(clock.instant());
    assert_eq!(pause.as_secs(), 40);
}

#[test]
fn parked_jobs_are_tried_again_when_the_cold_tier_is_back_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new());
    let jobs = Jobs::open(dir.path(), Arc::clone(&clock) as Arc<dyn Clock>, false);
    let id = jobs.push(job(Work::Stage, &[1])).unwrap();
    let parks = || {
        let mut state = jobs.shared.state.lock();
        state.queue.next(clock.instant(), everything).unwrap();
        assert!(state.queue.failed(id, "no answer", clock.instant()));
    };
    let is_parked = |is_away| {
        jobs.look_at_cold(is_away);
        matches!(jobs.list()[0].state, State::Parked { .. })
    };
    parks();
    assert!(is_parked(false), "it failed for another reason: its pause holds");
    assert!(is_parked(true) && is_parked(true));
    assert!(!is_parked(false));
    parks();
    assert!(is_parked(false), "once for each time that it comes back");
}

#[test]
fn what_runs_is_not_cancelled() {
    let clock = ManualClock::new();
    let mut queue = Queue::default();
    let running = queue.push(job(Work::Stage, &[1])).unwrap().id;
    let waiting = queue.push(job(Work::Stage, &[2])).unwrap().id;
    queue.next(clock.instant(), everything).unwrap();
    assert_eq!(queue.cancel(running), None);
    assert_eq!(queue.cancel(waiting).unwrap().id, waiting);
    assert_eq!(queue.cancel(waiting), None);
    assert_eq!(queue.get(waiting).unwrap().state, State::Cancelled);
    queue.push(job(Work::Stage, &[2])).unwrap();
}

#[test]
fn the_queue_is_bounded() {
    let mut queue = Queue::default();
    for ino in 0..MOST_JOBS as u64 {
        queue.push(job(Work::Demote, &[ino])).unwrap();
    }
    let refused = queue.push(job(Work::Demote, &[1 << 40]));
    assert_eq!(refused, Err(Refused::Full));
}

#[test]
fn the_files_of_all_jobs_are_bounded_and_those_of_ended_ones_forgotten() {
    let mut queue = Queue::default();
    let of = |first: usize| -> Vec<u64> { (first..first + MAX_FILES).map(|n| n as u64).collect() };
    let mut ids = Vec::new();
    for first in (0..MOST_PARTS_OF_POLICY).step_by(MAX_FILES) {
        ids.push(queue.push(job(Work::Promote, &of(first))).unwrap().id);
    }
    assert_eq!(queue.push(job(Work::Promote, &[1 << 40])), Err(Refused::Full));
    assert!(queue.is_coming(7) && !queue.is_coming(1 << 40));
    assert_eq!(queue.cancel(ids[0]).unwrap().parts.len(), MAX_FILES);
    assert!(!queue.is_coming(7));
    assert_eq!(queue.get(ids[0]).unwrap().job.parts, []);
    assert!(queue.entries().all(|entry| entry.shown().job.parts.is_empty()));
    queue.push(job(Work::Promote, &[1 << 40])).unwrap();
    // What people ask for finds room beside it, and has a bound, too.
    for first in (1 << 30..(1 << 30) + MOST_PARTS - MOST_PARTS_OF_POLICY - 1).step_by(MAX_FILES) {
        let room = queue.push(job(Work::Stage, &of(first)));
        assert!(room.is_ok() || first > MOST_PARTS - MOST_PARTS_OF_POLICY - MAX_FILES);
    }
    assert_eq!(queue.push(job(Work::Stage, &of(1 << 35))), Err(Refused::Full));
}

#[test]
fn jobs_survive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let open = || Jobs::open(dir.path(), Arc::clone(&clock), false);
    let jobs = open();
    let first = jobs.push(job(Work::Stage, &[1, 2])).unwrap();
    let second = jobs.push(job(Work::Demote, &[3])).unwrap();
    assert_eq!(jobs.cancel(Some(first)).len(), 1);
    drop(jobs);
    let jobs = open();
    let ids: Vec<JobId> = jobs.list().iter().map(|entry| entry.job.id).collect();
    assert_eq!(ids, [second]);
    assert_eq!(jobs.list()[0].state, State::Queued);
    // Numbers are not used again, also where nothing waits.
    assert_eq!(jobs.cancel(None).len(), 1);
    drop(jobs);
    assert!(open().push(job(Work::Stage, &[1])).unwrap() > second);
}

#[test]
fn a_volume_that_may_not_be_written_takes_no_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(dir.path(), Arc::new(ManualClock::new()), true);
    assert!(matches!(jobs.push(job(Work::Stage, &[1])), Err(JobError::Closed)));
    assert!(!dir.path().join(FILE_NAME).exists());
}

#[test]
fn without_a_journal_that_can_be_written_no_jobs_are_taken_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Jobs::open(dir.path(), Arc::new(ManualClock::new()), false);
    let first = open().push(job(Work::Stage, &[1])).unwrap();
    let in_the_way = dir.path().join(FILE_NAME).with_extension("new");
    std::fs::create_dir(&in_the_way).unwrap();
    let jobs = open();
    assert!(matches!(jobs.push(job(Work::Stage, &[2])), Err(JobError::Journal(_))));
    assert!(jobs.list().is_empty());
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(jobs.push(job(Work::Stage, &[2])).unwrap() > first);
    assert_eq!(jobs.list().len(), 2, "with what was there before");
}

#[test]
fn a_cut_line_loses_itself_and_a_damaged_one_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let (mut journal, _) = Journal::open(&path).unwrap();
    for id in 1..=3 {
        journal.add(&Job { id, ..job(Work::Stage, &[id]) }).unwrap();
    }
    drop(journal);
    let text = std::fs::read_to_string(&path).unwrap();
    let ids = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        (found.jobs.keys().copied().collect::<Vec<_>>(), found.damage.is_some())
    };
    assert_eq!(ids(&text), (vec![1, 2, 3], false));
    assert_eq!(ids(&text[..text.len() - 1]), (vec![1, 2], false));
    assert_eq!(ids(&format!("{text}end 3")), (vec![1, 2, 3], false), "it might be the end of 31");
    // Nor does it swallow what comes behind it.
    assert_eq!(ids(&text[..text.len() - 9]), (vec![1, 2], false));
    let (mut journal, _) = Journal::open(&path).unwrap();
    journal.add(&Job { id: 4, ..job(Work::Stage, &[4]) }).unwrap();
    drop(journal);
    assert_eq!(ids(&std::fs::read_to_string(&path).unwrap()), (vec![1, 2, 4], false));
    assert_eq!(ids(&text.replace("add {\"id\":2", "odd {\"id\":2")), (vec![1], true));
    assert_eq!(ids("firn-jobs 2\n"), (vec![], true));
    assert_eq!(ids(&format!("firn-jobs 1\nadd {}\n", "x".repeat(1 << 20))), (vec![], true));
    assert_eq!(ids(""), (vec![], false));
}

#[test]
fn a_journal_does_not_grow_with_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let (mut journal, _) = Journal::open(&path).unwrap();
    let stays = Job { id: 1, ..job(Work::Demote, &[1]) };
    journal.add(&stays).unwrap();
    for id in 2..3000 {
        journal.add(&Job { id, ..job(Work::Demote, &[id]) }).unwrap();
        journal.end(id, id, std::iter::once(&stays)).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap().lines().count() < 1200);
    let (_, found) = Journal::open(&path).unwrap();
    assert_eq!((found.jobs.len(), found.last, found.damage), (1, 2999, None));
}

#[test]
fn long_lists_become_several_jobs_and_long_names_are_cut() {
    let parts: Vec<Part> = (0..MAX_FILES as u64 + 1).map(Part::whole).collect();
    let lens: Vec<usize> = super::split(parts).map(|parts| parts.len()).collect();
    assert_eq!(lens, [MAX_FILES, 1]);
    let name = Job::new(Work::Stage, vec![Part::whole(1)], &"ü".repeat(600), "", 0).name;
    assert!(name.len() <= 512 && name.chars().all(|c| c == 'ü'), "{name}");
}

proptest! {
    #[test]
    fn no_text_breaks_the_journal(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, text).unwrap();
        Journal::open(&path).unwrap();
    }

    #[test]
    fn every_pushed_part_is_done_once(
        works in proptest::collection::vec((0..4_usize, proptest::collection::vec(0..20_u64, 1..6)), 1..30)
    ) {
        let clock = ManualClock::new();
        let mut queue = Queue::default();
        let all = [Work::Stage, Work::Promote, Work::CopyAhead, Work::Demote];
        let mut expected = std::collections::HashSet::new();
        for (work, inos) in works {
            let work = all[work];
            if let Ok(job) = queue.push(job(work, &inos)) {
                for part in job.parts {
                    prop_assert!(expected.insert((work, part)), "twice");
                }
            }
        }
        while let Some(job) = queue.next(clock.instant(), everything) {
            for part in &job.parts {
                prop_assert!(expected.remove(&(job.work, *part)));
            }
            queue.done(job.id);
        }
        prop_assert!(expected.is_empty());
    }
}

#[test]
fn waiting_for_a_job_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = Jobs::open(dir.path(), Arc::new(ManualClock::new()), false);
    let id = jobs.push(job(Work::Stage, &[1])).unwrap();
    assert_eq!(jobs.wait(id, Duration::from_millis(1)).unwrap().state, State::Queued);
    assert!(jobs.is_coming(1) && !jobs.is_coming(2));
}
