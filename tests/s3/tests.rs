#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::*;

/// A server that answers everybody, with an object of 200,000 bytes.
struct Scene {
    server: Server,
    object: Vec<u8>,
    dir: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
    said: usize,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Server::serve(dir.path(), (Ipv4Addr::LOCALHOST, 0).into(), Access::Open).unwrap();
        let object: Vec<u8> =
            (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(dir.path().join(BUCKET).join("object"), &object).unwrap();
        Self { server, object, dir }
    }

    fn plan(&self, plan: Plan) {
        self.server.faults().set(plan);
    }

    /// What was seen, once nothing is under way any more.
    fn seen_at_rest(&self) -> Seen {
        let end = now() + Duration::from_secs(60);
        loop {
            let seen = self.server.faults().seen();
            if seen.concurrent == 0 {
                return seen;
            }
            assert!(now() < end, "{seen:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `None`: the connection ended without an answer.
    fn get(&self) -> Option<Got> {
        self.ask("GET", &[])
    }

    fn ask(&self, method: &str, body: &[u8]) -> Option<Got> {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let len = body.len();
        let head = format!(
            "{method} /{BUCKET}/{} HTTP/1.1\r\nHost: s3\r\nConnection: close\r\n\
             Content-Length: {len}\r\n\r\n",
            if method == "GET" { "object" } else { "new" }
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).ok()?;
        let mut bytes = Vec::new();
        // A reset in the middle leaves what came before it.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head[9..12].parse().unwrap();
        let said = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let said = said.map_or(0, |len| len.parse().unwrap());
        Some(Got { status, head, body: bytes[end + 4..].to_vec(), said })
    }
}

#[allow(clippy::disallowed_methods, reason = "a server in real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn without_a_plan_nothing_goes_wrong_and_all_is_seen() {
    let scene = Scene::new();
    let got = scene.get().unwrap();
    assert_eq!((got.status, &got.body), (200, &scene.object), "{}", got.head);
    assert_eq!(scene.ask("PUT", &scene.object).unwrap().status, 200);
    assert_eq!(std::fs::read(scene.dir.path().join(BUCKET).join("new")).unwrap(), scene.object);
    let seen = scene.seen_at_rest();
    assert_eq!((seen.methods["GET"], seen.methods["PUT"], seen.requests()), (1, 1, 2));
    assert_eq!((seen.received_bytes, seen.sent_bytes), (200_000, 200_000));
    // A client may have its answer before the server is done with the request.
    assert_eq!((seen.faults, (1..=2).contains(&seen.concurrent_max)), (0, true));
    let log = scene.server.faults().log();
    assert_eq!(log[0].target, "/ice/object");
    assert_eq!((log[1].method.as_str(), log[1].status), ("PUT", 200));
    scene.server.faults().forget();
    assert_eq!(scene.server.faults().seen(), Seen::default());
    assert!(scene.server.faults().log().is_empty());
}

#[test]
fn slow_down_with_and_without_retry_after() {
    let scene = Scene::new();
    scene.plan(Plan { slow_down: 1.0, retry_after_s: Some(7), ..Plan::default() });
    let got = scene.get().unwrap();
    assert_eq!(got.status, 503);
    assert!(got.head.contains("retry-after: 7"), "{}", got.head);
    assert!(String::from_utf8_lossy(&got.body).contains("<Code>SlowDown</Code>"));
    scene.plan(Plan { slow_down: 1.0, ..Plan::default() });
    // Also after a body that nobody wants.
    let got = scene.ask("PUT", &vec![1; 5 << 20]).unwrap();
    assert_eq!(got.status, 503);
    assert!(!got.head.contains("retry-after"), "{}", got.head);
    assert!(!scene.dir.path().join(BUCKET).join("new").exists());
    scene.server.faults().clear();
    assert_eq!(scene.get().unwrap().status, 200);
}

#[test]
fn a_share_is_met_and_the_same_seed_meets_the_same_requests() {
    let plan = Plan { slow_down: 0.2, seed: 5, ..Plan::default() };
    let hit = |plan: &Plan| -> Vec<u64> {
        (0..10_000).filter(|number| plan.fate(*number, true) == Fate::SlowDown).collect()
    };
    let count = hit(&plan).len();
    assert!((1_850..2_150).contains(&count), "{count}");
    assert_eq!(hit(&plan), hit(&plan));
    assert_ne!(hit(&plan), hit(&Plan { seed: 6, ..plan.clone() }));
}

#[test]
fn a_short_body_says_more_than_it_holds() {
    let scene = Scene::new();
    scene.plan(Plan { truncate: 1.0, ..Plan::default() });
    let got = scene.get().unwrap();
    assert_eq!((got.status, got.said), (200, 200_000));
    assert!(got.body.len() < 200_000);
    assert_eq!(got.body, scene.object[..got.body.len()]);
}

#[test]
fn one_byte_is_wrong() {
    let scene = Scene::new();
    scene.plan(Plan { corrupt: 1.0, ..Plan::default() });
    let got = scene.get().unwrap();
    assert_eq!(got.body.len(), 200_000);
    assert_eq!(got.body.iter().zip(&scene.object).filter(|(one, other)| one != other).count(), 1);
}

#[test]
fn a_reset_comes_before_or_after_the_act() {
    let scene = Scene::new();
    let plan = |seed| Plan { reset: 1.0, seed, ..Plan::default() };
    let fates = |fate| move |seed: &u64| plan(*seed).fate(0, false) == fate;
    let before = (0..).find(fates(Fate::ResetBefore)).unwrap();
    let after = (0..).find(|seed| plan(*seed).fate(1, false) == Fate::ResetAfter).unwrap();
    let file = scene.dir.path().join(BUCKET).join("new");
    scene.plan(plan(before));
    assert!(scene.ask("PUT", b"bytes").is_none());
    assert!(!file.exists());
    scene.plan(plan(after));
    assert!(scene.ask("PUT", b"bytes").is_none());
    assert_eq!(std::fs::read(file).unwrap(), b"bytes");
}

#[test]
fn latency_and_a_rate_take_their_time() {
    let scene = Scene::new();
    scene.plan(Plan { latency_ms: 150, ..Plan::default() });
    let start = now();
    assert_eq!(scene.get().unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(150));
    scene.plan(Plan { bytes_per_second: Some(400_000), ..Plan::default() });
    let start = now();
    assert_eq!(scene.get().unwrap().body, scene.object);
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_stops_answering_goes_on_when_it_may() {
    let scene = Scene::new();
    scene.plan(Plan { stalled: true, ..Plan::default() });
    let faults = scene.server.faults().clone();
    let lifted = std::thread::spawn(move || {
        while faults.seen().concurrent == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        faults.clear();
    });
    let start = now();
    assert_eq!(scene.get().unwrap().body, scene.object);
    assert!(start.elapsed() >= Duration::from_millis(100));
    lifted.join().unwrap();
}

#[test]
fn a_plan_is_text_and_a_typo_is_refused() {
    let plan = Plan::parse("slow_down = 0.2\nretry_after_s = 1\nseed = 9\n").unwrap();
    let wanted = Plan { slow_down: 0.2, retry_after_s: Some(1), seed: 9, ..Plan::default() };
    assert_eq!(plan, wanted);
    assert!(Plan::parse("slowdown = 0.2").is_err());
}
