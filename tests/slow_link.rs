//! The throttle against a real server behind a slow link with a long queue: a token bucket on a pair
//! of interfaces, one of them in a network namespace with the server. What it uses and what delay it
//! adds is held against the same load without a throttle, in the same run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use firn_tiering::SystemClock;
use firn_tiering::throttle::{Inputs, Priority, Throttle, ThrottleConfig};
use firn_tiering::tier::{Opened, Throttled, Tier, open_once_with};

use crate::cold_down::Store;
use crate::harness::now;

/// Bits per second of the link, and bytes of its queue: half a second.
const RATE: &str = "64mbit";
const QUEUE: &str = "4mb";

/// Uploads at a time, and bytes of each.
const CLIENTS: u64 = 24;
const LEN: usize = 512 << 10;

/// A namespace at the other end of a slow link; gone when dropped.
struct Link {
    namespace: String,
    address: String,
}

fn done(program: &str, args: &str) -> bool {
    let output = Command::new(program).args(args.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

impl Link {
    /// `None` where that is not permitted.
    fn new() -> Option<Self> {
        let id = std::process::id();
        let (namespace, here, there) = (format!("firn-{id}"), format!("fh{id}"), format!("ft{id}"));
        // A part of the range for benchmarks (RFC 2544).
        let net = format!("198.18.{}", id % 250);
        if !done("ip", &format!("netns add {namespace}")) {
            return None;
        }
        let link = Self { address: format!("{net}.2"), namespace };
        let inside = format!("-n {}", link.namespace);
        let shaped = format!("root tbf rate {RATE} burst 64kb limit {QUEUE}");
        let steps = [
            ("ip", format!("link add {here} type veth peer name {there}")),
            ("ip", format!("link set {there} netns {}", link.namespace)),
            ("ip", format!("addr add {net}.1/30 dev {here}")),
            ("ip", format!("link set {here} up")),
            ("ip", format!("{inside} addr add {net}.2/30 dev {there}")),
            ("ip", format!("{inside} link set {there} up")),
            ("tc", format!("qdisc add dev {here} {shaped}")),
            ("tc", format!("{inside} qdisc add dev {there} {shaped}")),
        ];
        // The pair goes with the namespace.
        steps.iter().all(|(program, args)| done(program, args)).then_some(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        done("ip", &format!("netns del {}", self.namespace));
    }
}

/// What a phase came to.
#[derive(Debug)]
struct Phase {
    bytes_per_s: f64,
    /// Mean latency of a small request beside the load, in seconds.
    small_s: f64,
}

async fn small_request(tier: &dyn Tier) -> f64 {
    let start = now();
    tier.list("none/", None, 1).await.unwrap();
    start.elapsed().as_secs_f64()
}

/// Uploads to `tier` at full speed and asks small things of `aside`; what happens before `warm_up` is
/// over does not count.
async fn load(
    tier: &Arc<dyn Tier>,
    aside: &Arc<dyn Tier>,
    name: &'static str,
    warm_up: Duration,
    time: Duration,
) -> Phase {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (tier, stop, sent) = (Arc::clone(tier), Arc::clone(&stop), Arc::clone(&sent));
        clients.push(tokio::spawn(async move {
            let mut round = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut body = vec![client as u8; LEN];
                body[..8].copy_from_slice(&round.to_le_bytes());
                tier.put(&format!("{name}/{client}-{round}"), Bytes::from(body)).await.unwrap();
                sent.fetch_add(LEN as u64, Ordering::Relaxed);
                round += 1;
            }
        }));
    }
    tokio::time::sleep(warm_up).await;
    let (start, before) = (now(), sent.load(Ordering::Relaxed));
    let mut small = Vec::new();
    while start.elapsed() < time {
        small.push(small_request(&**aside).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bytes = sent.load(Ordering::Relaxed) - before;
    let bytes_per_s = bytes as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    Phase { bytes_per_s, small_s: small.iter().sum::<f64>() / small.len() as f64 }
}

#[test]
fn a_slow_link_with_a_long_queue_is_used_without_filling_the_queue() {
    let Some(link) = Link::new() else {
        eprintln!("NOTE: no network namespaces or token buckets here: no slow link is tested");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let address = format!("{}:9000", link.address).parse().unwrap();
    let inside = ["ip", "netns", "exec", &link.namespace];
    let _store = Store::start_with(&inside, dir.path(), address);
    let open = || open_once_with("s3://ice/v", firn_tests::variables(address)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (Opened { tier: plain, .. }, Opened { tier: aside, .. }) = (open(), open());
        let mut idle = f64::INFINITY;
        for _ in 0..10 {
            idle = idle.min(small_request(&*aside).await);
        }
        let (warm_up, time) = (Duration::from_secs(2), Duration::from_secs(4));
        let without = load(&plain, &aside, "without", warm_up, time).await;
        let Opened { tier, pauses } = open();
        let inputs = Inputs::of_clock(Arc::new(SystemClock));
        let throttle = Throttle::new(ThrottleConfig::default(), inputs, pauses).unwrap();
        let throttle = Arc::new(throttle);
        let throttled = Throttled::new(tier, Arc::clone(&throttle));
        let tier = throttled.for_priority(Priority::WriteBack);
        let (warm_up, time) = (Duration::from_secs(4), Duration::from_secs(8));
        let with = load(&tier, &aside, "with", warm_up, time).await;
        let status = throttle.status();
        eprintln!("idle {idle:.4} s, without {without:?}, with {with:?}, {status:?}");
        assert!(with.bytes_per_s >= 0.8 * without.bytes_per_s, "{with:?} against {without:?}");
        let added = |phase: &Phase| (phase.small_s - idle).max(0.0);
        assert!(added(&with) <= 0.5 * added(&without), "{with:?} against {without:?}");
    });
}
