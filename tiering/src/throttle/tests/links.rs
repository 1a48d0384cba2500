//! On simulated links: how much of what is free is used, and how much delay is added.

use std::collections::BTreeMap;

use super::sim::{Clients, Link, Run, run};
use crate::throttle::{Kind, Priority, ThrottleConfig, Timetable};

const MIB: f64 = 1_048_576.0;

fn uploads(count: usize) -> Clients {
    Clients { count, priority: Priority::WriteBack, kind: Kind::Write, bytes: 8 << 20 }
}

fn blocks(count: usize) -> Clients {
    Clients { count, priority: Priority::Stage, kind: Kind::Read, bytes: 1 << 20 }
}

fn small_reads(count: usize) -> Clients {
    Clients { count, priority: Priority::UserRead, kind: Kind::Read, bytes: 4 << 10 }
}

fn nobody(_: f64) -> f64 {
    0.0
}

/// The target for added delay: as much again as a request takes alone when least is free, on
/// average, and twice that for all but a few.
#[track_caller]
fn holds(what: &str, run: &Run, link: &Link, least_free: f64, longest: u64) {
    let target = link.base + longest as f64 / (least_free * MIB);
    eprintln!(
        "{what}: used {:.1} %, mean delay {:.0} ms, p95 {:.0} ms, target {:.0} ms",
        run.used() * 100.0,
        run.mean_delay() * 1e3,
        run.p95_delay() * 1e3,
        target * 1e3
    );
    assert!(run.used() >= 0.8, "{what}: {:.3} of what is free", run.used());
    assert!(run.mean_delay() <= target, "{what}: {:.3} s on average", run.mean_delay());
    assert!(run.p95_delay() <= 2.0 * target, "{what}: {:.3} s", run.p95_delay());
}

#[test]
fn a_fixed_link_is_used_and_not_filled_with_queues() {
    for (rate, base) in [(12.0_f64, 0.02), (120.0, 0.02), (120.0, 0.1), (1000.0, 0.05)] {
        let rates: BTreeMap<u64, fn(f64) -> f64> = BTreeMap::from([
            (12, (|_| 12.0 * MIB) as fn(f64) -> f64),
            (120, |_| 120.0 * MIB),
            (1000, |_| 1000.0 * MIB),
        ]);
        let link = Link { rate: rates[&(rate as u64)], others: nobody, base, noise: 1.0 };
        for clients in [uploads(40), blocks(300)] {
            let run = run(&link, ThrottleConfig::default(), &[clients], 80.0, 20.0);
            let what = format!("{rate} MiB/s, {base} s, {} KiB", clients.bytes >> 10);
            holds(&what, &run, &link, rate, clients.bytes);
        }
    }
}

#[test]
fn a_noisy_store_is_not_taken_for_a_busy_one() {
    let link = Link { rate: |_| 120.0 * MIB, others: nobody, base: 0.03, noise: 4.0 };
    let run = run(&link, ThrottleConfig::default(), &[blocks(300)], 120.0, 20.0);
    eprintln!("noisy: used {:.3}, mean delay {:.3} s", run.used(), run.mean_delay());
    assert!(run.used() >= 0.8, "{:.3}", run.used());
    assert!(run.mean_delay() < 0.12, "{:.3}", run.mean_delay());
}

#[test]
fn a_link_that_halves_and_comes_back_is_followed() {
    fn rate(at: f64) -> f64 {
        if (40.0..80.0).contains(&at) { 60.0 * MIB } else { 120.0 * MIB }
    }
    let link = Link { rate, others: nobody, base: 0.04, noise: 1.2 };
    for clients in [uploads(40), blocks(300)] {
        let run = run(&link, ThrottleConfig::default(), &[clients], 120.0, 10.0);
        holds(&format!("halving, {} KiB", clients.bytes >> 10), &run, &link, 60.0, clients.bytes);
    }
}

#[test]
fn bursts_of_others_are_made_room_for_and_their_pauses_used() {
    fn others(at: f64) -> f64 {
        if at % 6.0 < 2.5 { 70.0 * MIB } else { 0.0 }
    }
    let link = Link { rate: |_| 120.0 * MIB, others, base: 0.03, noise: 1.2 };
    for clients in [uploads(40), blocks(300)] {
        let run = run(&link, ThrottleConfig::default(), &[clients], 90.0, 12.0);
        holds(&format!("bursts, {} KiB", clients.bytes >> 10), &run, &link, 50.0, clients.bytes);
    }
}

#[test]
fn small_reads_among_uploads_are_quick() {
    let link = Link { rate: |_| 120.0 * MIB, others: nobody, base: 0.02, noise: 1.2 };
    let run = run(&link, ThrottleConfig::default(), &[uploads(40), small_reads(4)], 60.0, 10.0);
    holds("mixed", &run, &link, 120.0, 8 << 20);
    assert!(run.bytes[&Priority::UserRead] >= 1500 * 4096, "{:?}", run.bytes);
}

#[test]
fn a_latency_target_lets_queues_grow_as_far_as_it_says() {
    let link = Link { rate: |_| 120.0 * MIB, others: nobody, base: 0.02, noise: 1.2 };
    let latency_target = Some(std::time::Duration::from_millis(200));
    let config = ThrottleConfig { latency_target, ..ThrottleConfig::default() };
    let run = run(&link, config, &[blocks(300)], 60.0, 10.0);
    eprintln!("target 200 ms: used {:.3}, mean delay {:.3} s", run.used(), run.mean_delay());
    assert!(run.used() > 0.95 && (0.12..0.28).contains(&run.mean_delay()), "{}", run.mean_delay());
}

/// Most and least bytes in any span of ten seconds, as shares of the cap.
fn spans(run: &Run, cap: f64, seconds: f64) -> (f64, f64) {
    let in_span = |start: f64| {
        let inside = run.answers.iter().filter(|(at, _)| *at >= start && *at < start + 10.0);
        inside.map(|(_, bytes)| *bytes).sum::<u64>() as f64 / (cap * 10.0)
    };
    let starts = (0..).map(|step| 10.0 + f64::from(step) / 4.0);
    let spans: Vec<f64> = starts.take_while(|start| start + 10.0 <= seconds).map(in_span).collect();
    (spans.iter().copied().fold(f64::INFINITY, f64::min), spans.iter().copied().fold(0.0, f64::max))
}

#[test]
fn a_cap_is_met_within_five_percent_over_ten_seconds() {
    let link = Link { rate: |_| 1000.0 * MIB, others: nobody, base: 0.03, noise: 1.5 };
    for cap in [20, 50, 200_u64] {
        let timetable = Timetable::always(cap << 20).unwrap();
        let config = ThrottleConfig { timetable, ..ThrottleConfig::default() };
        let readers = Clients { bytes: 300 << 10, ..small_reads(3) };
        for clients in [vec![uploads(8)], vec![blocks(64)], vec![uploads(4), readers]] {
            let run = run(&link, config.clone(), &clients, 60.0, 5.0);
            let (least, most) = spans(&run, cap as f64 * MIB, 60.0);
            eprintln!("cap {cap} MiB/s, {} groups: {least:.3} to {most:.3}", clients.len());
            assert!((0.95..=1.05).contains(&least) && (0.95..=1.05).contains(&most));
        }
    }
}

#[test]
fn a_timetable_changes_the_cap_at_its_time() {
    let link = Link { rate: |_| 400.0 * MIB, others: nobody, base: 0.02, noise: 1.2 };
    let timetable =
        Timetable::new([(0, Some(20 << 20)), (30, None), (60, Some(40 << 20))]).unwrap();
    let config = ThrottleConfig { timetable, ..ThrottleConfig::default() };
    let run = run(&link, config, &[blocks(64)], 90.0, 5.0);
    let between = |start: f64, end: f64| {
        let inside = run.answers.iter().filter(|(at, _)| *at >= start && *at < end);
        inside.map(|(_, bytes)| *bytes as f64 / MIB).sum::<f64>() / (end - start)
    };
    assert!((19.0..21.0).contains(&between(10.0, 30.0)), "{}", between(10.0, 30.0));
    assert!(between(40.0, 60.0) > 320.0, "{}", between(40.0, 60.0));
    assert!((38.0..42.0).contains(&between(65.0, 85.0)), "{}", between(65.0, 85.0));
}

#[test]
fn every_class_gets_its_small_share_and_the_urgent_ones_the_rest() {
    let link = Link { rate: |_| 100.0 * MIB, others: nobody, base: 0.02, noise: 1.2 };
    let class = |priority| Clients { priority, ..blocks(60) };
    let clients: Vec<Clients> = Priority::ALL.into_iter().map(class).collect();
    let run = run(&link, ThrottleConfig::default(), &clients, 60.0, 10.0);
    let all = run.bytes.values().sum::<u64>() as f64;
    let share = |priority| run.bytes.get(&priority).copied().unwrap_or(0) as f64 / all;
    eprintln!("{:?}", Priority::ALL.map(share));
    assert!(share(Priority::UserRead) > 0.7, "{:?}", run.bytes);
    for priority in &Priority::ALL[1..] {
        assert!((0.01..0.1).contains(&share(*priority)), "{priority:?}: {}", share(*priority));
    }
}
