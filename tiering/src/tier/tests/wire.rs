//! What servers do on bad days, byte by byte: a scripted server on loopback that resets, cuts
//! short, throttles, and lists what dead processes left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::thread::JoinHandle;

use super::*;

/// Answers connections with prepared bytes, one request each, and notes the request lines.
pub(super) struct Script {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Script {
    pub(super) fn of(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap().to_owned();
                notes.lock().unwrap().push(line);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { address, seen, thread }
    }

    fn tier(&self) -> Arc<dyn Tier> {
        let variables = firn_tests::variables(self.address);
        open_tier_with("s3://ice/v", Patience::READ, variables).unwrap()
    }

    /// The request lines, once every answer was given.
    pub(super) fn seen(self) -> Vec<String> {
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    )
}

pub(super) const META: &str = "ETag: \"e\"\r\nLast-Modified: Fri, 20 Nov 2026 16:00:00 GMT\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn throttling_resets_and_short_bodies_pass() {
    let good = answer("200 OK", META, "0123456789");
    let busy =
        answer("503 Slow Down", "Retry-After: 1\r\n", "<Error><Code>SlowDown</Code></Error>");
    for (what, bad) in [
        ("busy", busy),
        ("gone", String::new()),
        ("half an answer", "HTTP/1.1 200 OK\r\nContent-Le".to_owned()),
        ("server error", answer("500 Internal Server Error", "", "")),
        ("gateway", answer("504 Gateway Timeout", "", "")),
    ] {
        let script = Script::of(vec![bad.clone(), bad.clone(), bad.clone(), bad, good.clone()]);
        let got = script.tier().get("k").await;
        assert_eq!(got.unwrap(), Bytes::from_static(b"0123456789"), "{what}");
        assert_eq!(script.seen().len(), 5, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_does_not_parse_is_asked_for_again() {
    let listing = "<ListBucketResult><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>\
                   <Contents><Key>v/k</Key><LastModified>2026-11-20T16:00:00.000Z</LastModified>\
                   <Size>3</Size><ETag>&quot;e&quot;</ETag></Contents></ListBucketResult>";
    let wrong = listing.replace("</KeyCount>", "</KeyC5unt>");
    let answers = vec![answer("200 OK", "", &wrong), answer("200 OK", "", listing)];
    let script = Script::of(answers);
    let listed = script.tier().list("", None, 9).await.unwrap();
    assert_eq!((listed.len(), listed[0].key.as_str()), (1, "k"));
    assert_eq!(script.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_never_taken_for_the_whole() {
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n".to_owned()
        + META
        + "\r\n01234";
    let script = Script::of(vec![short; 40]);
    let patience = Patience { attempts: 2, deadline: std::time::Duration::from_secs(5) };
    let tier =
        open_tier_with("s3://ice/v", patience, firn_tests::variables(script.address)).unwrap();
    assert!(tier.get("k").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_the_dead_are_aborted_and_others_are_not() {
    let upload = |key: &str, id: &str, at: &str| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>"
        )
    };
    let listing = [
        "<ListMultipartUploadsResult>".to_owned(),
        upload("v/segments/1.seg", "old", "2001-01-01T00:00:00.000Z"),
        upload("v/segments/2.seg", "new", "2999-01-01T00:00:00.000Z"),
        upload("other/segments/1.seg", "foreign", "2001-01-01T00:00:00.000Z"),
        "</ListMultipartUploadsResult>".to_owned(),
    ]
    .concat();
    let answers = vec![answer("200 OK", "", &listing), answer("204 No Content", "", "")];
    let script = Script::of(answers);
    assert_eq!(script.tier().clean().await.unwrap(), 1);
    let seen = script.seen();
    assert!(seen[0].starts_with("GET /ice"), "{seen:?}");
    assert!(seen[0].contains("uploads=") && seen[0].contains("prefix=v%2F"), "{seen:?}");
    assert!(seen[0].contains("X-Amz-Signature="), "{seen:?}");
    assert!(seen[1].starts_with("DELETE /ice/v/segments/1.seg?uploadId=old"), "{seen:?}");
    assert_eq!(seen.len(), 2);
}
