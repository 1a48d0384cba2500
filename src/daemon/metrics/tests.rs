#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

struct Scene {
    runtime: tokio::runtime::Runtime,
    metrics: Option<Metrics>,
    address: String,
}

fn serve_at(address: &str) -> Scene {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bound = Bound::bind(&address.parse().unwrap()).unwrap();
    let address = bound.address().to_owned();
    let look: Look = Arc::new(|| Status { uuid: "u".to_owned(), ..Status::default() });
    let metrics = bound.serve(look, runtime.handle()).unwrap();
    Scene { runtime, metrics: Some(metrics), address }
}

fn ask(stream: &mut (impl Read + Write), method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: firn\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_and_nothing_else() {
    let scene = serve_at("127.0.0.1:0");
    let ask = |method: &str, path: &str| {
        ask(&mut TcpStream::connect(&scene.address).unwrap(), method, path)
    };
    let answer = ask("GET", "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.contains("firn_tier_used_bytes{volume=\"u\",tier=\"hot\"} 0.0"), "{answer}");
    assert!(ask("POST", "/metrics").starts_with("HTTP/1.1 405"));
    for path in ["/", "/metrics/", "/status", "/metrics/../firn.toml"] {
        assert!(ask("GET", path).starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[test]
fn an_address_in_use_is_an_error_and_one_that_ends_is_free_again() {
    let mut scene = serve_at("127.0.0.1:0");
    let address: MetricsAddress = scene.address.parse().unwrap();
    assert!(Bound::bind(&address).is_err());
    drop(scene.metrics.take());
    // The task lets go of its socket as soon as it runs again.
    let free = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Bound::bind(&address).is_ok()
    });
    assert!(free);
    drop(scene.runtime);
}

#[test]
fn a_unix_socket_is_private_replaced_when_dead_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    // What a daemon leaves that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let mut scene = serve_at(path.to_str().unwrap());
    let answer = ask(&mut UnixStream::connect(&path).unwrap(), "GET", "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let address: MetricsAddress = path.to_str().unwrap().parse().unwrap();
    let refused = Bound::bind(&address).err().map(|error| format!("{error:#}")).unwrap();
    assert!(refused.contains("somebody else answers there"), "{refused}");
    drop(scene.metrics.take());
    assert!(!path.exists());
    // A file of somebody's is not a socket to replace.
    fs::write(&path, b"precious").unwrap();
    assert!(Bound::bind(&address).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_client_that_says_nothing_does_not_stay() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = {
        let _inside = runtime.enter();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(socket).unwrap()
    };
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/metrics", get(|| async { "numbers" }));
    let life = Duration::from_millis(100);
    runtime.spawn(async move { serve(Bounded::new(listener, 1, life), router).await });
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(b"GET /met").unwrap();
    // Only one is served at once: the second has its turn when the first was shown out.
    let answer = ask(&mut TcpStream::connect(address).unwrap(), "GET", "/metrics");
    assert!(answer.contains("numbers"), "{answer}");
}
