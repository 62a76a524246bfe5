//! How a build looks: one live line a step on a terminal, plain numbered lines in a pipe.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kiln_types::api::BuildStatus;
use kiln_types::event::{BuildEvent, BuildEventKind};

/// Shows the events of one build.
pub(crate) struct BuildProgress {
    live: Option<ProgressBar>,
    out: Box<dyn io::Write>,
    title: String,
    partial: String,
}

impl BuildProgress {
    /// On standard error, in the form that suits what it is.
    pub(crate) fn new() -> Self {
        let live = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .expect("the template is well-formed"),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { live, out: Box::new(io::stderr()), title: String::new(), partial: String::new() }
    }

    /// Plain lines on standard output.
    pub(crate) fn plain() -> Self {
        let (title, partial) = (String::new(), String::new());
        Self { live: None, out: Box::new(io::stdout()), title, partial }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &BuildEvent) {
        match &event.kind {
            BuildEventKind::Info { message } => self.print(message),
            BuildEventKind::StepStarted { step, total, title, cached } => {
                let title = crate::output::visible(title);
                self.title = format!("[{step}/{total}] {title}");
                if *cached {
                    self.print(&format!("{} CACHED", self.title));
                } else if let Some(live) = &self.live {
                    live.set_message(self.title.clone());
                } else {
                    self.print(&self.title.clone());
                }
            }
            BuildEventKind::Output { step, text, .. } => self.output(*step, text),
            BuildEventKind::StepFinished { step, duration_ms, layer_size } => {
                self.flush(*step);
                let seconds = crate::output::seconds(*duration_ms);
                let size = crate::output::size(*layer_size);
                let title =
                    if self.live.is_some() { self.title.clone() } else { format!("#{step}") };
                self.print(&format!("{title} DONE {seconds}s, {size}"));
            }
            BuildEventKind::Finished { status, failure, .. } => {
                if let Some(live) = self.live.take() {
                    live.finish_and_clear();
                }
                if let (BuildStatus::Failed, Some(failure)) = (status, failure) {
                    for line in &failure.last_lines {
                        self.print(&format!("  | {line}"));
                    }
                }
            }
        }
    }

    fn output(&mut self, step: u32, text: &str) {
        self.partial.push_str(text);
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            self.line(step, &line);
        }
    }

    fn flush(&mut self, step: u32) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(step, &line);
        }
    }

    fn line(&mut self, step: u32, line: &str) {
        // A program that redraws its line sends carriage returns; what was drawn last counts.
        let line = line.trim_end_matches(['\n', '\r']);
        let line = line.rsplit('\r').next().unwrap_or(line);
        match &self.live {
            Some(live) => {
                let title = &self.title;
                live.set_message(format!("{title} · {}", crate::output::visible(line)));
            }
            None => self.print(&format!("#{step} {line}")),
        }
    }

    fn print(&mut self, text: &str) {
        let text = &*crate::output::visible(text);
        match &self.live {
            Some(live) => live.println(text),
            None => {
                let _ = writeln!(self.out, "{text}");
            }
        }
    }
}
