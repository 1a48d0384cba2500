//! `firn-s3-client <url> <in flight> <bytes a request> <bytes in all> [random]`: a plain client of
//! ranged reads, to hold reads through a mount against. Reads the segments below the URL one behind
//! the other, or at places spread over them, checks nothing, keeps nothing, and prints seconds,
//! bytes and requests, separated by spaces.

use std::sync::Arc;

use firn_tests::StartError;
use firn_tiering::tier::{ObjectMeta, Patience, Tier, open_tier};
use firn_tiering::{Clock, SystemClock};
use futures::StreamExt;

/// Objects asked for at once when listing.
const PAGE: usize = 1000;

/// A ranged read to be made.
struct Piece {
    key: String,
    start: u64,
    end: u64,
}

fn main() -> Result<(), StartError> {
    const USAGE: &str =
        "usage: firn-s3-client <url> <in flight> <bytes a request> <bytes in all> [random]";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, in_flight, request, total, how @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let (in_flight, request): (usize, u64) = (in_flight.parse()?, request.parse()?);
    let total: u64 = total.parse()?;
    let is_random = match how {
        [] => false,
        [word] if word == "random" => true,
        _ => return Err(USAGE.into()),
    };
    if in_flight == 0 || request == 0 {
        return Err("there must be at least one request of at least one byte".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tier = open_tier(url, Patience::READ)?;
        let objects = tier.list("segments/", None, PAGE).await?;
        let pieces = if is_random {
            spread(&objects, request, total)
        } else {
            in_order(&objects, request, total)
        };
        let start = SystemClock.instant();
        let count = pieces.len();
        let bytes = fetch(&tier, pieces, in_flight).await?;
        let seconds = SystemClock.instant().duration_since(start).as_secs_f64();
        println(&format!("{seconds:.6} {bytes} {count}"))
    })
}

fn in_order(objects: &[ObjectMeta], request: u64, total: u64) -> Vec<Piece> {
    let mut left = total;
    let mut pieces = Vec::new();
    for object in objects {
        let mut start = 0;
        while start < object.len && left > 0 {
            let end = object.len.min(start + request.min(left));
            left -= end - start;
            pieces.push(Piece { key: object.key.clone(), start, end });
            start = end;
        }
    }
    pieces
}

/// Pieces at places that are the same every time and near no other in a row.
fn spread(objects: &[ObjectMeta], request: u64, total: u64) -> Vec<Piece> {
    let fitting: Vec<_> = objects.iter().filter(|object| object.len > request).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = if fitting.is_empty() { 0 } else { total / request };
    (0..count)
        .map(|_| {
            let object = fitting[(next() % fitting.len() as u64) as usize];
            let start = next() % (object.len - request);
            Piece { key: object.key.clone(), start, end: start + request }
        })
        .collect()
}

async fn fetch(
    tier: &Arc<dyn Tier>,
    pieces: Vec<Piece>,
    in_flight: usize,
) -> firn_tiering::Result<u64> {
    let mut reads = futures::stream::iter(pieces)
        .map(|piece| {
            let tier = Arc::clone(tier);
            // A task of its own each, so that all threads take part.
            tokio::spawn(async move { tier.get_range(&piece.key, piece.start..piece.end).await })
        })
        .buffered(in_flight);
    let mut bytes = 0;
    while let Some(read) = reads.next().await {
        let read = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        bytes += read?.len() as u64;
    }
    Ok(bytes)
}

fn println(line: &str) -> Result<(), StartError> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
