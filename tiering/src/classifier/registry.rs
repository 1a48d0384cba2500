//! Which model is in use, which one was before, and whether any may be used.
//!
//! *Crash*: the file is written aside, flushed and renamed over the old one, so that after a crash at
//! any step the old or the new one is there as a whole; a file that was left aside is overwritten by
//! the next save. *Damage*: a damaged file is an error; the caller goes on without a model and with
//! the age rule, and the next save replaces it. Bytes are specified in `tiering/FORMAT.md`, "Model".

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::bytes::{Reader, damaged, put_text, take_text};
use super::model::{MAX_MODEL_LEN, Model};
use super::train::{Report, Trained};
use crate::envelope::{self, Kind};
use crate::error::{Error, Result};

/// The name of the file in the directory it is saved to.
pub const MODEL_FILE: &str = "model";

/// The name while it is being written.
const ASIDE: &str = "model.new";

const KIND: Kind = Kind { tag: *b"clrg", name: "models", version: 1, max_plain_len: MAX_LEN };

const MAX_LEN: usize = 2 * MAX_MODEL_LEN + (64 << 10);

/// Bytes of the longest report.
const MAX_REPORT_LEN: usize = 16 << 10;

/// Whether models may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// They may.
    #[default]
    On,
    /// They may not: the age rule decides everything.
    Off {
        /// Why: somebody said so, or the guardrail did.
        reason: String,
        /// Since when, in ms since 1970.
        since_ms: u64,
    },
}

/// A model with how good it was when it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Counts up with each model of this volume, from 1.
    pub number: u32,
    /// The model.
    pub model: Model,
    /// How good it was on later time than it was learned from.
    pub report: Report,
}

/// The models of a volume: the current and the previous one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    current: Option<Version>,
    previous: Option<Version>,
    state: State,
    last_number: u32,
}

impl Registry {
    /// The model to use: the current one, unless all are off.
    pub fn usable(&self) -> Option<&Model> {
        match self.state {
            State::On => self.current.as_ref().map(|version| &version.model),
            State::Off { .. } => None,
        }
    }

    /// The current one, used or not.
    pub fn current(&self) -> Option<&Version> {
        self.current.as_ref()
    }

    /// The one before it.
    pub fn previous(&self) -> Option<&Version> {
        self.previous.as_ref()
    }

    /// Whether models may be used.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes a new model the current one. Whether models may be used stays as it is. Returns its
    /// number.
    pub fn adopt(&mut self, trained: Trained) -> u32 {
        self.last_number = self.last_number.saturating_add(1);
        let Trained { model, report } = trained;
        self.previous = self.current.take();
        self.current = Some(Version { number: self.last_number, model, report });
        self.last_number
    }

    /// Exchanges the current and the previous model; false when there is no previous one.
    pub fn rollback(&mut self) -> bool {
        if self.previous.is_none() {
            return false;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        true
    }

    /// No model may be used from now on.
    pub fn off(&mut self, reason: &str, now_ms: u64) {
        self.state = State::Off { reason: reason.to_owned(), since_ms: now_ms };
    }

    /// Models may be used again.
    pub fn on(&mut self) {
        self.state = State::On;
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.last_number.to_le_bytes());
        let (off, since_ms, reason) = match &self.state {
            State::On => (0, 0, ""),
            State::Off { reason, since_ms } => (1, *since_ms, reason.as_str()),
        };
        out.push(off);
        out.extend_from_slice(&since_ms.to_le_bytes());
        put_text(&mut out, reason);
        for version in [&self.current, &self.previous] {
            put_version(&mut out, version.as_ref())?;
        }
        Ok(envelope::seal(KIND, &out)?.0.to_vec())
    }

    /// What [`Self::encode`] wrote. `Error::Damaged` or `Error::TooNew` for anything else.
    pub fn decode(sealed: &[u8]) -> Result<Self> {
        let (plain, _, _) = envelope::open(KIND, sealed)?;
        let mut input = Reader::new(&plain);
        let last_number = input.u32()?;
        let off = input.u8()?;
        let since_ms = input.u64()?;
        let reason = take_text(&mut input)?;
        let state = match off {
            0 => State::On,
            1 => State::Off { reason, since_ms },
            other => return Err(damaged(format!("the state {other}"))),
        };
        let current = take_version(&mut input)?;
        let previous = take_version(&mut input)?;
        input.end()?;
        Ok(Self { current, previous, state, last_number })
    }

    /// Writes it to a directory: as a whole or not at all.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let bytes = self.encode()?;
        let (aside, path) = (dir.join(ASIDE), dir.join(MODEL_FILE));
        let written = || -> io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(dir)?.sync_all()
        };
        written().map_err(Error::io(format!("write {}", path.display())))
    }

    /// Reads it from a directory; empty where none was saved.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(MODEL_FILE);
        let failed = Error::io(format!("read {}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_LEN as u64 + 4096).read_to_end(&mut bytes).map_err(failed)?;
        Self::decode(&bytes)
    }
}

fn put_version(out: &mut Vec<u8>, version: Option<&Version>) -> Result<()> {
    let Some(version) = version else {
        out.push(0);
        return Ok(());
    };
    out.push(1);
    out.extend_from_slice(&version.number.to_le_bytes());
    let report = serde_json::to_vec(&version.report)
        .map_err(|error| Error::Config(format!("report of a model: {error}")))?;
    let model = version.model.encode()?;
    for part in [report, model] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(&part);
    }
    Ok(())
}

fn take_version(input: &mut Reader<'_>) -> Result<Option<Version>> {
    match input.u8()? {
        0 => return Ok(None),
        1 => {}
        other => return Err(damaged(format!("the flag {other}"))),
    }
    let number = input.u32()?;
    let mut part = |most: usize| {
        let len = input.u32()? as usize;
        if len > most {
            return Err(damaged(format!("{len} bytes are too many")));
        }
        input.take(len)
    };
    let report = serde_json::from_slice(part(MAX_REPORT_LEN)?)
        .map_err(|error| damaged(format!("report: {error}")))?;
    let model = Model::decode(part(MAX_MODEL_LEN)?)?;
    Ok(Some(Version { number, model, report }))
}
