//! Traces as text: one line for each access, for other programs to read and write as well. Specified
//! in `tiering/FORMAT.md`, "Trace".
//!
//! Reading and writing stream: memory is one line, whatever the file. What is not exactly a trace is
//! refused with the number of its line. Ids in a trace that leaves the machine are [`Pseudonyms`].

use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};

use super::{Op, Request};
use crate::error::{Error, Result};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;

/// The first word of the first line.
const NAME: &str = "firn-trace";

/// For people; a reader ignores it.
const COLUMNS: &str = "# at_ms\top\titem\tbytes\tsize\tclient\tgroup\towner\tkind";

const FIELDS: usize = 9;

/// Bytes of the longest line: nine numbers of twenty digits and some room for comments.
const MAX_LINE: usize = 256;

/// Writes a trace, line by line.
#[derive(Debug)]
pub struct TraceWriter<W: Write> {
    out: W,
    line: String,
}

impl<W: Write> TraceWriter<W> {
    /// Begins a trace.
    pub fn new(mut out: W) -> Result<Self> {
        writeln!(out, "{NAME} {VERSION}\n{COLUMNS}").map_err(Error::io("write trace"))?;
        Ok(Self { out, line: String::with_capacity(MAX_LINE) })
    }

    /// Adds a request.
    pub fn write(&mut self, request: &Request) -> Result<()> {
        let Request { at_ms, item, op, bytes, size, client, group, owner, kind } = request;
        let op = match op {
            Op::Read => 'R',
            Op::Write => 'W',
            Op::Delete => 'D',
        };
        self.line.clear();
        writeln!(
            self.line,
            "{at_ms}\t{op}\t{item}\t{bytes}\t{size}\t{client}\t{group}\t{owner}\t{kind}"
        )
        .expect("writing to a string does not fail");
        self.out.write_all(self.line.as_bytes()).map_err(Error::io("write trace"))
    }

    /// Ends the trace: everything written has reached `W`.
    pub fn finish(mut self) -> Result<W> {
        self.out.flush().map_err(Error::io("write trace"))?;
        Ok(self.out)
    }
}

/// Reads a trace, line by line; ends after the first error.
#[derive(Debug)]
pub struct TraceReader<R: BufRead> {
    input: R,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads the header. [`Error::TooNew`] for a version above [`VERSION`].
    pub fn new(input: R) -> Result<Self> {
        let mut reader =
            Self { input, line: Vec::with_capacity(MAX_LINE), number: 0, ended: false };
        if !reader.next_line()? {
            return Err(reader.damaged("it has no header"));
        }
        let version = std::str::from_utf8(&reader.line)
            .ok()
            .and_then(|line| line.strip_prefix(NAME)?.strip_prefix(' '))
            .and_then(|version| number::<u32>(version.as_bytes()))
            .filter(|&version| version > 0);
        match version {
            None => Err(reader.damaged("it is not the header of a trace")),
            Some(found) if found > VERSION => {
                Err(Error::TooNew { what: "trace", found, known: VERSION })
            }
            Some(_) => Ok(reader),
        }
    }

    /// The line that was read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.number
    }

    /// Reads a line without its end; false at the end of the input.
    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        let most = MAX_LINE as u64 + 1;
        self.input
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line)
            .map_err(Error::io("read trace"))?;
        if self.line.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        match self.line.pop() {
            Some(b'\n') => Ok(true),
            _ if self.line.len() >= MAX_LINE => Err(self.damaged("it is too long")),
            _ => Err(self.damaged("it is cut short")),
        }
    }

    fn request(&mut self) -> Result<Option<Request>> {
        while self.next_line()? {
            if !self.line.starts_with(b"#") {
                return parse(&self.line).map(Some).map_err(|reason| self.damaged(&reason));
            }
        }
        Ok(None)
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Damaged { what: "trace", reason: format!("line {}: {reason}", self.number.max(1)) }
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<Request>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.request().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads a trace of at most `most` requests into memory.
pub fn read_trace(input: impl BufRead, most: usize) -> Result<Vec<Request>> {
    let mut reader = TraceReader::new(input)?;
    let mut requests = Vec::new();
    while let Some(request) = reader.next() {
        let request = request?;
        if requests.len() == most {
            return Err(reader.damaged(&format!("there are more than {most} requests")));
        }
        requests.push(request);
    }
    Ok(requests)
}

fn parse(line: &[u8]) -> Result<Request, String> {
    let mut fields = [&b""[..]; FIELDS];
    let mut count = 0;
    for field in line.split(|&byte| byte == b'\t') {
        if let Some(place) = fields.get_mut(count) {
            *place = field;
        }
        count += 1;
    }
    if count != FIELDS {
        return Err(format!("{count} fields instead of {FIELDS}"));
    }
    let [at_ms, op, item, bytes, size, client, group, owner, kind] = fields;
    let long = |field, name: &str| {
        number::<u64>(field).ok_or_else(|| format!("{name} is not a number of 64 bits"))
    };
    let short = |field, name: &str| {
        number::<u32>(field).ok_or_else(|| format!("{name} is not a number of 32 bits"))
    };
    Ok(Request {
        at_ms: long(at_ms, "at_ms")?,
        op: match op {
            b"R" => Op::Read,
            b"W" => Op::Write,
            b"D" => Op::Delete,
            _ => return Err("op is none of R, W, D".to_owned()),
        },
        item: long(item, "item")?,
        bytes: long(bytes, "bytes")?,
        size: long(size, "size")?,
        client: long(client, "client")?,
        group: long(group, "group")?,
        owner: short(owner, "owner")?,
        kind: short(kind, "kind")?,
    })
}

/// Decimal digits and nothing else.
fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

/// Replaces ids, so that a trace says how items were used but not which ones they were. The same key
/// gives the same names, so that traces of one volume can be joined; without it nobody gets back.
/// Owner and kind have 32 bits: among 10,000 of them two share a name with a chance of 1 %.
#[derive(Clone)]
pub struct Pseudonyms {
    key: [u8; 32],
}

impl Pseudonyms {
    /// Names under a key, which should be random and stay secret.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The request with all ids replaced; times, sizes and what was done stay.
    pub fn hide(&self, request: &Request) -> Request {
        Request {
            item: self.name(b'i', request.item),
            client: self.name(b'c', request.client),
            group: self.name(b'g', request.group),
            owner: self.name(b'o', u64::from(request.owner)) as u32,
            kind: self.name(b'k', u64::from(request.kind)) as u32,
            ..*request
        }
    }

    fn name(&self, space: u8, id: u64) -> u64 {
        let mut input = [space; 9];
        input[1..].copy_from_slice(&id.to_le_bytes());
        let mut name = [0; 8];
        name.copy_from_slice(&blake3::keyed_hash(&self.key, &input).as_bytes()[..8]);
        u64::from_le_bytes(name)
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms")
    }
}

#[cfg(test)]
pub(super) mod tests;
