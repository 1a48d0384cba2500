//! How long work is shown while it lasts: on a terminal a bar with rate and time left, elsewhere
//! one line when something new begins. Always on standard error.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::protocol::Progress;

/// Shows progress that comes from a daemon or from a long check.
#[derive(Debug)]
pub struct Follower {
    bar: Option<ProgressBar>,
    said: String,
}

impl Follower {
    /// A follower on this process's standard error.
    pub fn new() -> Self {
        Self { bar: io::stderr().is_terminal().then(new_bar), said: String::new() }
    }

    /// Shows how far the work is.
    pub fn show(&mut self, progress: &Progress) {
        if progress.doing.is_empty() {
            return;
        }
        let begins = progress.doing != self.said;
        match &self.bar {
            Some(bar) => {
                if begins {
                    bar.reset();
                    bar.set_style(style(progress.total_bytes > 0));
                    bar.enable_steady_tick(Duration::from_millis(120));
                } else if bar.length().unwrap_or(0) == 0 && progress.total_bytes > 0 {
                    bar.set_style(style(true));
                }
                bar.set_message(super::escape::visible(&progress.doing));
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.done_bytes);
            }
            None if begins => super::note(&format!("firn: {}", progress.doing)),
            None => {}
        }
        progress.doing.clone_into(&mut self.said);
    }

    /// As [`Follower::show`], but silent where there is no terminal: for verbs that answer.
    pub fn show_quietly(&mut self, progress: &Progress) {
        if self.bar.is_some() {
            self.show(progress);
        }
    }

    /// Whether a bar is shown, which wants to know how much there is to do.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Runs what prints to a terminal, with the bar out of its way.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a line above the bar.
    pub fn note(&self, text: &str) {
        self.aside(|| super::note(text));
    }
}

impl Default for Follower {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    bar.set_style(style(false));
    bar
}

fn style(bounded: bool) -> ProgressStyle {
    let template = if bounded {
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{spinner} {msg} {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
